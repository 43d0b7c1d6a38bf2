"""`consumer.report.verify` and ``evalsink verify``: a good run verifies, every kind of damage is found and named."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published_run import ROWS, edit, publish, samples, set_rows, sign, write

from consumer.cli import main
from consumer.errors import VerificationError
from consumer.report.verify import find_results, read_run, verify_run

HARNESSES = ("lmms-eval", "lm-eval")


def verify(*paths, capsys):
    """Run the command; exit code, stdout, stderr."""
    try:
        main(["verify", *map(str, paths)])
    except SystemExit as exited:
        streams = capsys.readouterr()
        return exited.code, streams.out, streams.err
    raise AssertionError("the command did not exit")


@pytest.mark.parametrize("harness", HARNESSES)
def test_a_published_run_verifies_with_a_line_and_a_total(tmp_path, capsys, harness):
    path = publish(tmp_path, harness=harness)
    size = sum(file.stat().st_size for file in path.parent.glob("*samples_*.jsonl"))
    expected = f"{path}: complete, 4 tasks, 22 rows, {size} bytes\nverified: 1 run, 22 rows, {size} bytes\n"
    if size >= 1000:
        expected = expected.replace(f"{size} bytes", f"{size / 1000:.1f} kB")
    assert (0, expected, "") == verify(path, capsys=capsys)


def test_folders_are_searched_and_runs_given_twice_are_verified_once(tmp_path, capsys):
    for run_id in ("a", "b"):
        for harness in HARNESSES:
            publish(tmp_path / harness, harness=harness, run_id=run_id)
    path = publish(tmp_path / "partial", run_id="c", model="")
    code, out, err = verify(tmp_path, path, tmp_path / "lm-eval", capsys=capsys)
    assert (0, "") == (code, err)
    assert 6 == len(out.splitlines())
    assert "verified: 5 runs, 110 rows" in out


def test_runs_of_a_model_without_name_lie_in_the_output_folder_itself(tmp_path, capsys):
    path = publish(tmp_path, model="")
    assert tmp_path == path.parent
    assert verify(path, capsys=capsys)[0] == 0


@pytest.mark.parametrize("status", ["incomplete", "failed"])
def test_a_run_that_is_short_and_says_so_verifies(tmp_path, capsys, status):
    path = publish(tmp_path, status=status, why=["shard 3: never ended"])
    edit(path, "evalsink", "tasks", "mme", "missing", value=[[3, 5]])
    sign(path)
    code, out, _ = verify(path, capsys=capsys)
    assert code == 0
    assert f"{path}: {status}, 4 tasks" in out


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("20260101_000000_results.json", b'{"results": {}, "date": "x"}'),
        ("results_2026-01-01T00-00-00.json", b'{"acc": NaN}'),
        ("x_results.json", b"not json at all"),
        ("y_results.json", b"[" * 100_000),
        ("z_results.json", b"[]"),
    ],
)
def test_results_of_other_programs_are_skipped_and_named(tmp_path, capsys, name, content):
    publish(tmp_path)
    (tmp_path / name).write_bytes(content)
    code, out, err = verify(tmp_path, capsys=capsys)
    assert (0, f"{tmp_path / name}: not written by evalsink, skipped\n") == (code, err)
    assert "verified: 1 run," in out


def test_folders_named_like_results_are_searched_not_read(tmp_path, capsys):
    path = publish(tmp_path / "x_results.json")
    assert verify(tmp_path, capsys=capsys)[0] == 0
    assert [path] == find_results([tmp_path])


@pytest.mark.parametrize("make", ["nothing", "empty folder", "samples file", "foreign results"])
def test_nothing_to_verify_is_exit_code_2(tmp_path, capsys, make):
    path = tmp_path / "a"
    if make == "empty folder":
        path.mkdir()
    elif make == "samples file":
        path = tmp_path / "x_samples_y.jsonl"
        path.write_text("{}\n")
    elif make == "foreign results":
        path = tmp_path / "x_results.json"
        path.write_text("{}")
    code, out, err = verify(path, capsys=capsys)
    assert (2, "") == (code, out)
    assert str(path) in err


def lines_of(path, task="mme"):
    return samples(path, task).read_bytes().splitlines(keepends=True)


def flip_byte(path):
    file = samples(path)
    content = bytearray(file.read_bytes())
    content[17] ^= 1
    file.write_bytes(content)


def change_rows(change, *, signed=False):
    def mutate(path):
        lines = lines_of(path)
        set_rows(path, change(lines), signed=signed)

    return mutate


def change_json(*keys, value):
    return lambda path: edit(path, *keys, value=value)


def rename_all(path):
    """The whole run under another stem."""
    old = path.name.removesuffix("_results.json")
    new = old[:-1] + ("0" if old[-1] != "0" else "1")
    for file in sorted(path.parent.iterdir()):
        file.rename(file.with_name(file.name.replace(old, new)))
    renamed = path.with_name(path.name.replace(old, new))
    results = json.loads(renamed.read_bytes())
    for entry in results["evalsink"]["tasks"].values():
        entry["file"] = entry["file"] and entry["file"].replace(old, new)
    write(renamed, results)


def own_key_not_last(path):
    results = json.loads(path.read_bytes())
    write(path, {**results, "more": 1})


def entry_of(task, **fields):
    def mutate(path):
        for key, value in fields.items():
            edit(path, "evalsink", "tasks", task, key, value=value)

    return mutate


def drop_task_hash(path):
    results = json.loads(path.read_bytes())
    del results["task_hashes"]["mme"]
    write(path, results)


def extra_samples(name):
    return lambda path: path.with_name(name.format(stem=path.name.removesuffix("_results.json"))).write_bytes(
        b"{}\n"
    )


def change_lines_of_figures(change):
    def mutate(path):
        [figures] = path.parent.glob("*_metrics.jsonl")
        figures.write_bytes(b"".join(change(figures.read_bytes().splitlines(keepends=True))))

    return mutate


def change_figures(old, new):
    return change_lines_of_figures(lambda lines: [line.replace(old, new) for line in lines])


DAMAGE = {
    "a flipped byte": (flip_byte, "sha256"),
    "a removed row": (change_rows(lambda lines: lines[:4] + lines[5:]), "rows: expected 15, found 14"),
    "a doubled row": (change_rows(lambda lines: lines[:4] + lines[3:]), "rows: expected 15, found 16"),
    "swapped rows": (change_rows(lambda lines: [lines[1], lines[0], *lines[2:]]), "sha256"),
    "a cut file": (change_rows(lambda lines: [*lines[:-1], lines[-1][:-5]]), "last byte"),
    "an empty file": (change_rows(lambda lines: []), "last byte"),
    "an appended space": (change_rows(lambda lines: [*lines[:-1], lines[-1][:-1] + b" \n"]), "bytes"),
    "swapped rows, signed": (
        change_rows(lambda lines: [lines[1], lines[0], *lines[2:]], signed=True),
        "doc_id of row 2, filter 'strict': expected one above 1, found 0",
    ),
    "a row that takes another's place, signed": (
        change_rows(lambda lines: [*lines[:4], lines[3], *lines[5:]], signed=True),
        "doc_id of row 5, filter 'strict': expected one above 3, found 3",
    ),
    "a row replaced by another of a free doc_id, signed": (
        change_rows(lambda lines: [*lines[:-1], b'{"doc_id":301,"doc_hash":"other"}\n'], signed=True),
        "task hash",
    ),
    "a row that is no object, signed": (
        change_rows(lambda lines: [b"[1]\n", *lines[1:]], signed=True),
        "row 1",
    ),
    "an empty line, signed": (
        change_rows(lambda lines: [*lines[:2], b"\n", *lines[3:]], signed=True),
        "row 3",
    ),
    "a row with NaN, signed": (
        change_rows(lambda lines: [lines[0].replace(b"1.0", b"NaN"), *lines[1:]], signed=True),
        "row 1: expected a strict JSON object",
    ),
    "a row with bytes that are no UTF-8, signed": (
        change_rows(lambda lines: [b'{"doc_id":0,"x":"\xff"}\n', *lines[1:]], signed=True),
        "row 1: expected a strict JSON object",
    ),
    "an edited row count": (
        entry_of("mme", rows=16),
        "rows of all filters of task 'mme': expected 16, found 15",
    ),
    "an edited count of a filter": (
        entry_of("mme", filters={"strict": 10, "flexible": 4}),
        "expected 15, found 14",
    ),
    "rows moved between filters": (
        entry_of("mme", filters={"strict": 11, "flexible": 4}),
        "row 11, filter 'strict'",
    ),
    "a filter without rows": (entry_of("mme", filters={"strict": 16, "flexible": -1}), "['flexible']"),
    "an edited size": (entry_of("mme", bytes=1), "bytes: expected 1"),
    "an edited sha256": (entry_of("mme", sha256="0" * 64), "sha256: expected 000000"),
    "an edited task hash": (change_json("task_hashes", "mme", value="0" * 64), "task hash: expected 000000"),
    "a missing task hash": (drop_task_hash, "tasks with a task hash: expected ['mme'], found []"),
    "a surplus task hash": (change_json("task_hashes", "announced", value="0" * 64), "found ['announced']"),
    "another file name": (entry_of("mme", file="../mme.jsonl"), "file of task 'mme'"),
    "a file without rows": (
        entry_of("announced", file="x.jsonl"),
        "file, bytes and sha256 of task 'announced'",
    ),
    "a missing samples file": (
        lambda path: samples(path).unlink(),
        "samples files beside it: expected ['20260102",
    ),
    "a missing table": (lambda path: next(path.parent.glob("*_results.md")).unlink(), "table beside it"),
    "missing figures": (
        lambda path: next(path.parent.glob("*_metrics.jsonl")).unlink(),
        "_metrics.jsonl: file: expected",
    ),
    "an edited figure": (change_figures(b'"value":1.0', b'"value":0.9'), "_metrics.jsonl: line 1: expected"),
    "a figure too few": (change_lines_of_figures(lambda lines: lines[:-1]), "line 4: expected"),
    "a figure too many": (change_lines_of_figures(lambda lines: [*lines, lines[-1]]), "line 5: expected"),
    "figures without their last line end": (
        change_lines_of_figures(lambda lines: [*lines[:-1], lines[-1][:-1]]),
        "line 5: expected '', found none",
    ),
    "results of another sha256 than the figures say": (
        lambda path: path.write_bytes(path.read_bytes() + b"\n"),
        "_metrics.jsonl: line 1: expected",
    ),
    "an extra samples file": (extra_samples("{stem}_samples_more.jsonl"), "found ['20260102"),
    "an extra samples file in the other layout": (
        extra_samples("samples_x_{stem}.jsonl"),
        "found ['samples_x_2026",
    ),
    "a folder in a file's place": (
        lambda path: (samples(path).unlink(), samples(path).mkdir()),
        "file: expected 15 rows",
    ),
    "an edited run id": (
        change_json("evalsink", "run_id", value="run 2"),
        "end of the stem, from the run_id",
    ),
    "renamed files": (rename_all, "end of the stem, from the run_id"),
    "another model": (
        change_json("model_name", value="org/b"),
        "folder of the model: expected org__b, found",
    ),
    "another key at the end": (own_key_not_last, "last key: expected evalsink, found more"),
    "rows missing from a complete run": (entry_of("mme", missing=3), "missing rows of task 'mme'"),
    "reasons in a complete run": (change_json("evalsink", "why", value=["short"]), "reasons named in why"),
    "no reasons in an incomplete run": (
        change_json("evalsink", "status", value="incomplete"),
        "reasons named in why",
    ),
    "a status that is none": (change_json("evalsink", "status", value="done"), "key 'evalsink'"),
    "an entry that is no object": (change_json("evalsink", "tasks", "mme", value=3), "key 'evalsink'"),
    "a model that is no text": (change_json("model_name", value=None), "key 'model_name'"),
    "a later format": (
        change_json("evalsink", "format", value=2),
        "format of the key evalsink: expected 1, found 2",
    ),
    "results that are no JSON": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "strict JSON"),
    "results with NaN": (
        lambda path: path.write_bytes(path.read_bytes().replace(b"1.0", b"NaN")),
        "content: expected strict JSON",
    ),
    "results that are no object": (lambda path: path.write_bytes(b"[]"), "an object with the key 'evalsink'"),
    "results without our key": (
        lambda path: path.write_bytes(path.read_bytes().replace(b'"evalsink"', b'"evalsunk"')),
        "an object with the key 'evalsink'",
    ),
}


@pytest.mark.parametrize(("damage", "named"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named_and_exit_code_1(tmp_path, capsys, damage, named):
    damage(publish(tmp_path))
    code, out, err = verify(tmp_path, capsys=capsys)
    assert (1, "") == (code, out)
    assert 1 == len(err.splitlines())
    assert err.startswith(f"evalsink: {tmp_path}")
    assert named in err
    assert "found" in err


@pytest.mark.parametrize("harness", HARNESSES)
@pytest.mark.parametrize("task", [task for task, filters in ROWS.items() if filters])
def test_every_samples_file_is_read(tmp_path, harness, task):
    path = publish(tmp_path, harness=harness)
    file = samples(path, task)
    file.write_bytes(file.read_bytes().replace(b"doc_hash", b"doc_bash", 1))
    with pytest.raises(VerificationError, match="sha256"):
        verify_run(read_run(path))


def test_runs_before_the_first_difference_have_their_lines(tmp_path, capsys):
    first = publish(tmp_path / "a")
    flip_byte(publish(tmp_path / "b"))
    code, out, _ = verify(tmp_path, capsys=capsys)
    assert code == 1
    assert [str(first)] == [line.split(": ")[0] for line in out.splitlines()]


def test_the_bytes_read_are_reported_while_reading(tmp_path):
    run = read_run(publish(tmp_path))
    steps = []
    verify_run(run, steps.append)
    assert run.size == sum(steps)


@pytest.fixture(scope="module")
def pristine():
    with tempfile.TemporaryDirectory() as folder:
        publish(Path(folder))
        yield Path(folder)


def damaged_copy(pristine, name_pattern, place, bit):
    """A copy with one bit of one file flipped; its results JSON."""
    folder = Path(tempfile.mkdtemp(dir=pristine.parent))
    shutil.copytree(pristine, folder, dirs_exist_ok=True)
    files = sorted(folder.rglob(name_pattern))
    file = files[place % len(files)]
    content = bytearray(file.read_bytes())
    content[place % len(content)] ^= 1 << bit
    file.write_bytes(content)
    return folder, next(folder.rglob("*_results.json"))


flips = given(place=st.integers(0, 10**6), bit=st.integers(0, 7))


@settings(deadline=None, max_examples=60)
@flips
def test_any_flipped_bit_of_a_samples_file_or_of_the_figures_is_found(pristine, place, bit):
    folder, path = damaged_copy(pristine, "*.jsonl", place, bit)
    try:
        with pytest.raises(VerificationError):
            verify_run(read_run(path))
    finally:
        shutil.rmtree(folder)


@settings(deadline=None, max_examples=200)
@flips
def test_any_flipped_bit_of_the_results_is_found(pristine, place, bit):
    folder, path = damaged_copy(pristine, "*_results.json", place, bit)
    try:
        with pytest.raises(VerificationError):
            verify_run(read_run(path))
    finally:
        shutil.rmtree(folder)
