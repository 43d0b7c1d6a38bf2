"""`consumer.archive.card`: one card whoever pushed in which order, and every file that it lists loads as it was."""

import html
import json
import math
import random
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumer.archive import card, columns, listing
from consumer.report import metrics as figures
from schemas.metrics import MetricRow
from tests.archive.loading import load
from tests.archive.repository import card_of, figures_of, run_of, sizes_of, write

GOLDEN = Path(__file__).parent / "golden" / "card.md"


def front(content):
    return yaml.safe_load(content.decode().split("\n---\n")[0].removeprefix("---\n"))


def configs(content):
    """Configuration to split to paths."""
    return {
        config["config_name"]: {entry["split"]: entry["path"] for entry in config["data_files"]}
        for config in front(content).get("configs", [])
    }


def body(content):
    return content.decode().split("\n---\n", 1)[1]


def two_models():
    rows = [{"doc_id": 0, "target": "a", "acc": 1.0}, {"doc_id": 1, "target": "b", "acc": 0}]
    common = {"git_hash": "0a1b2c3", "lmms_eval_version": "0.7"}
    return {
        **run_of("r1", tasks={"mme": rows, "café/vqa": rows[:1]}, **common),
        **run_of("r2", date="20260102_000000", status="incomplete", tasks={"mme": rows}, **common),
        **run_of(
            "r3",
            model="org/other",
            harness="lm-eval",
            date="2026-01-03T00-00-00.5",
            tasks={
                "gsm8k": [{"doc_id": 0, "resps": [["1"]], "metrics": ["exact_match"], "filter": "strict"}]
            },
            results={"gsm8k": {"exact_match,strict": 1.0, "exact_match_stderr,strict": 0.01234567}},
            higher_is_better={"gsm8k": {"exact_match": True}},
        ),
        "org__m/20250101_000000_results.json": b"{}",
        "org__m/20250101_000000_samples_mme.jsonl": b'{"doc_id": 0, "acc": [1, 2]}\n',
        "org__m/20250102_000000_samples_mme.jsonl": b"torn",
        "org__m/20250103_000000_samples_mme.jsonl": b"",
    }


def test_the_card_is_the_golden_one():
    assert GOLDEN.read_bytes() == card_of(two_models(), branch="drafts")


def test_a_configuration_is_a_task_of_a_model_with_a_split_for_each_run_and_the_latest_that_is_not_short():
    found = configs(card_of(two_models()))
    assert ["results", "org__m__café_vqa", "org__m__mme", "org__other__gsm8k"] == list(found)
    mme = found["org__m__mme"]
    [r1], [r2] = (
        [path for path in (f for files in mme.values() for f in files) if date in path][:1]
        for date in ("20260101_000000", "20260102_000000")
    )
    assert [r1] == mme["latest"]
    assert ["latest", *sorted(mme.keys() - {"latest"}, reverse=True)] == list(mme)
    assert [[r2], [r1], ["org__m/20250101_000000_samples_mme.jsonl"]] == list(mme.values())[1:]
    assert {"20250101_000000", "latest"} < set(mme)


def test_the_newest_is_the_latest_where_all_are_short():
    files = {
        **run_of("a", date="20260101_000000", status="failed", tasks={"t": [{"x": 1}]}),
        **run_of("b", date="20260102_000000", status="incomplete", tasks={"t": [{"x": 1}]}),
    }
    assert "20260102" in configs(card_of(files))["org__m__t"]["latest"][0]


def test_a_run_of_which_nobody_says_that_it_is_short_may_be_the_latest():
    files = run_of("a", date="20260101_000000", tasks={"t": [{"x": 1}]})
    files |= {"org__m/20260102_000000_results.json": b"{}"}
    files |= {"org__m/20260102_000000_samples_t.jsonl": b'{"x": 2}\n'}
    assert ["org__m/20260102_000000_samples_t.jsonl"] == configs(card_of(files))["org__m__t"]["latest"]


def test_figures_of_all_runs_are_one_configuration_and_the_default():
    content = card_of(two_models())
    results = configs(content)["results"]
    assert 3 == len(results["train"])
    # r2 is short, so that r1 is the latest for both of its tasks.
    assert [path for path in results["train"] if "20260102" not in path] == results["latest"]
    assert [True] == [one["default"] for one in front(content)["configs"] if "default" in one]
    [info] = [one for one in front(content)["dataset_info"] if one["config_name"] == "results"]
    assert list(MetricRow.__struct_fields__) == [feature["name"] for feature in info["features"]]
    kinds = {feature["name"]: feature["dtype"] for feature in info["features"]}
    assert ("string", "string", "float64", "bool", "int64", "bool") == tuple(
        kinds[name] for name in ("status", "harness", "value", "higher_is_better", "n_shot", "group")
    )


def test_files_that_cannot_be_loaded_are_left_out_and_named():
    content = card_of(two_models())
    assert "20250102" not in json.dumps(configs(content))
    assert "| org&#95;&#95;m" not in body(content)
    rows = [line for line in body(content).splitlines() if "samples_mme.jsonl |" in line]
    assert [("20250102_000000", "not JSON Lines"), ("20250103_000000", "no rows")] == [
        (re.search(r"\d{8}_\d{6}", row)[0], "not JSON Lines" if "JSON Lines" in row else "no rows")
        for row in rows
    ]
    assert {"unreadable", "empty", "files", "left_out"} == front(content)["evalsink"].keys()


def test_a_file_whose_columns_nobody_knows_waits_for_somebody_to_read_it():
    files = two_models()
    content = card_of(files, here=[])
    assert ["results"] == list(configs(content))
    assert "nobody has read its columns yet" in body(content)
    assert {} == card.remembered(content, sizes_of(files))


def test_a_configuration_of_too_many_columns_is_left_out_for_good():
    wide = [{f"c{number}": number for number in range(columns.COLUMNS_MAX - 1)}]
    files = run_of("a", tasks={"t": wide, "u": [{"x": 1}]})
    assert "org__m__t" in configs(card_of(files))
    files |= run_of("b", tasks={"t": [{"more": 1, "one": 1}]})
    content = card_of(files)
    assert ["results", "org__m__u"] == list(configs(content))
    assert "more than 1,000 columns" in body(content)
    before = sizes_of(files)
    files |= run_of("c", tasks={"t": [{"x": 1}]})
    [new] = [path for path in run_of("c", tasks={"t": [{"x": 1}]}) if "_samples_" in path]
    assert card_of(files) == card_of(files, known=card.remembered(content, before), here=[new])


def test_runs_whose_figures_are_missing_or_unreadable_are_listed_by_their_names():
    files = two_models()
    for path, content in [
        (path, content) for path, content in files.items() if path.endswith("_metrics.jsonl")
    ]:
        files[path] = content[:-30]
    found = configs(card_of(files))
    assert "results" not in found
    assert {"org__m__mme", "org__other__gsm8k"} < found.keys()
    assert "r1" not in body(card_of(files))
    for path in [path for path in files if path.endswith("_metrics.jsonl")]:
        del files[path]
    assert found == configs(card_of(files))


def test_an_empty_repository_has_a_card():
    content = card_of({})
    assert {} == configs(content)
    assert "# Evaluation runs: org/evals" in body(content)


# Names


def test_names_that_would_be_equal_differ_by_a_hash_and_say_the_same_in_any_company():
    tasks = {task: [{"x": task}] for task in ("a-b", "a_b", "a b", "c")}
    found = configs(card_of(run_of(tasks=tasks)))
    assert 5 == len(found)
    hashed = [name for name in found if re.fullmatch(r"org__m__a_b-[0-9a-f]{8}", name)]
    assert 3 == len(hashed)
    assert set(hashed) < set(configs(card_of(run_of(tasks={**tasks, "d": [{"x": 1}]}))))


def test_a_task_named_results_is_no_match_for_the_figures():
    found = configs(card_of(run_of(model="", tasks={"results": [{"x": 1}]})))
    assert 2 == len(found)
    assert all(name == "results" or re.fullmatch(r"results-[0-9a-f]{8}", name) for name in found)


def test_splits_that_would_be_equal_or_are_taken_differ_by_a_hash():
    names = ["2026-01-01T00-00-00.5", "2026_01_01T00_00_00.5", "latest", "all", "..", "a..b", "é"]
    files = {f"m/{stem}_results.json": b"{}" for stem in names}
    files |= {f"m/{stem}_samples_t.jsonl": b'{"x":1}\n' for stem in names}
    splits = configs(card_of(files))["m__t"]
    assert len(names) + 1 == len(splits)
    for split in splits:
        assert re.fullmatch(r"\w+(\.\w+)*", split, re.ASCII)
    assert {"latest", "a__b", "__"} <= splits.keys() | {"__"}
    assert not {"all"} & splits.keys()


def test_only_the_newest_runs_become_splits(monkeypatch):
    monkeypatch.setattr(card, "SPLITS_MAX", 3)
    files = {}
    for day in range(1, 7):
        files |= run_of(f"r{day}", date=f"2026010{day}_000000", tasks={"t": [{f"x{day}": 1}]})
    content = card_of(files)
    assert ["06", "05", "04"] == [split[6:8] for split in list(configs(content)["org__m__t"])[1:]]
    assert 6 == len(configs(content)["results"]["train"])
    assert 3 == len(card.samples_listed(listing.runs(files), figures_of(files)))
    [_, info] = front(content)["dataset_info"]
    assert ["x4", "x5", "x6"] == [feature["name"] for feature in info["features"]]


HOSTILE = [
    "a|b",
    "a`b`",
    "<script>alert(1)</script>",
    "a\u202eb",
    "[x](https://example.org)",
    "www.example.org",
    "*a* _b_ __c__ ~~d~~ a_b_c",
    "# h",
    "```",
    "---",
    "&lt;",
    "a: b",
    "'q' \"q\" \\",
    "日本 \U0001f600",
    "1e5",
    "0x1F",
    "on",
    "null",
    "2026-01-01",
    "",
    " ",
    "x" * 3000,
    "!!python/object:os.system",
    "*alias",
    "&anchor",
    "%TAG",
    "$(id)",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_producers_is_text(text):
    files = run_of(
        text or "r",
        tasks={text or "t": [{text: 1, "y": text}]},
        results={text: {f"{text},{text}": 0.5, "z,none": text}},
        git_hash=text,
    )
    content = card_of(files)
    shown = body(content)
    rows = [line.strip("|").split("|") for line in shown.splitlines() if line.startswith("| ")]
    assert {10, 7} == {len(cells) for cells in rows}
    for cell in (cell for cells in rows for cell in cells):
        plain = re.sub(r"&#\d+;", "", cell)
        assert not set("`<>[]()*\\~#!$&|:@\u202e'\"") & set(plain)
        assert not re.search(r"(?<![A-Za-z0-9_])_|_(?![A-Za-z0-9_])|www\.", plain)
    shown_text = text.strip().replace("\u202e", "\N{REPLACEMENT CHARACTER}")
    assert shown_text[:120] in {html.unescape(cell).strip()[:120] for cells in rows for cell in cells}
    assert content.decode().count("\n---\n") == 1
    assert content.split(b"\n---\n")[0].isascii()
    # What stands there is what was meant.
    [config] = [name for name in configs(content) if name != "results"]
    assert [[path] * 2 for path in sorted(files) if "_samples_" in path] == [
        [card._ESCAPED.sub(r"\1", path) for paths in configs(content)[config].values() for path in paths]
    ]
    [info] = [one for one in front(content)["dataset_info"] if one["config_name"] == config]
    assert {text, "y"} == {feature["name"] for feature in info["features"]}
    assert not set("<>:/\\|?*") & set(config)


def test_every_text_of_the_front_matter_is_quoted():
    content = card_of(two_models()).decode().split("\n---\n")[0]
    *lines, seal = content.splitlines()[1:]
    assert seal.startswith("# sha256 of the lines above")
    for line in lines:
        value = line.partition(": ")[2] if ": " in line else line.strip().removeprefix("- ")
        assert value[:1] == '"' or value == "true" or value.endswith(":"), line


# The card before


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"# Somebody's own\n",
        b"---\n---\n",
        b"---\nconfigs: [\n---\n",
        b"\xff---\n",
        b"---\n[1, 2]\n---\n",
        b"---\nconfigs: 5\ndataset_info: x\nevalsink: [1]\n---\n",
        b"---\nconfigs:\n- config_name: [a]\n  data_files: [{split: x, path: 5}, 7]\n- 3\n---\n",
        b"---\ndataset_info:\n- config_name: a\n  features: 5\n- 4\nevalsink: {wide: 5, empty: [1]}\n---\n",
        b"---\nconfigs: &a\n- *a\n---\n",
        b"---\n" + b"[" * 5000 + b"\n---\n",
    ],
    ids=range(11),
)
def test_a_card_that_is_not_ours_is_remembered_as_nothing(content):
    assert {} == dict(card.remembered(content, {}))


def test_of_an_edited_card_nothing_is_remembered():
    files = two_models()
    content = card_of(files)
    assert card.remembered(content, sizes_of(files))
    edited = content.replace(b'dtype: "float64"', b'dtype: "null"', 1)
    assert edited != content
    assert {} == card.remembered(edited, sizes_of(files))


def test_of_a_configuration_with_a_file_that_was_replaced_or_removed_nothing_is_remembered():
    files = two_models()
    content, sizes = card_of(files), sizes_of(files)
    before = card.remembered(content, sizes)
    path = min(before)
    for changed in ({**sizes, path: sizes[path] + 1}, {one: n for one, n in sizes.items() if one != path}):
        after = card.remembered(content, changed)
        assert path not in after
        assert after.items() < before.items()
        assert after


def test_a_card_made_again_from_the_one_before_is_the_same():
    files = two_models()
    content = card_of(files)
    assert content == card_of(files, here=[], known=card.remembered(content, sizes_of(files)))


cells = st.sampled_from(
    [None, True, 1, 2**53 + 1, 2**70, 0.5, "a", [], ["a"], [1], {}, {"k": 1}, {"k": "x"}, [{"k": None}]]
)
some_rows = st.lists(st.dictionaries(st.sampled_from(["x", "y", "日\u2028"]), cells, max_size=3), max_size=3)
some_lines = some_rows | st.sampled_from([[b"torn"], [b'{"x": 1e999}'], [b'{"x": NaN}']])
some_runs = st.lists(
    st.fixed_dictionaries(
        {
            "model": st.sampled_from(["org/m", "org/m[1]", "", "a__b/c"]),
            "date": st.sampled_from(["20260101_000000", "2026-01-01T00-00-00.5", "latest", "a:b*?"]),
            "harness": st.sampled_from(["lmms-eval", "lm-eval"]),
            "status": st.sampled_from(["complete", "incomplete", "failed"]),
            "tasks": st.dictionaries(
                st.sampled_from(["t", "u-v", "u_v", "a/b", "results"]), some_lines, max_size=2
            ),
        }
    ),
    min_size=1,
    max_size=6,
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(some_runs, st.randoms(use_true_random=False), st.sampled_from([2, 4, columns.COLUMNS_MAX]))
def test_any_order_of_pushes_gives_the_card_of_all_at_once(wanted, dice, most):
    before = columns.COLUMNS_MAX
    columns.COLUMNS_MAX = most
    try:
        runs = [run_of(f"r{number}", **more) for number, more in enumerate(wanted)]
        at_once = card_of({path: content for run in runs for path, content in run.items()})
        dice.shuffle(runs)
        there, content = {}, b""
        while runs:
            batch, runs = runs[: (size := dice.randint(1, len(runs)))], runs[size:]
            new = {path: one for run in batch for path, one in run.items()}
            known = card.remembered(content, sizes_of(there))
            there |= new
            content = card_of(there, known=known, here=new.keys())
        assert at_once == content
    finally:
        columns.COLUMNS_MAX = before


# Read back


def same(one, other):
    """Equal but for fields that are absent, which a table holds as null, and for what is not finite."""
    if isinstance(one, dict) and isinstance(other, dict):
        return all(same(one.get(name), other.get(name)) for name in one.keys() | other.keys())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, int | float) and not math.isfinite(one):
        return not math.isfinite(other)
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def assert_reads_back(files, folder, *, equal=same):
    """Every samples file that is listed, and every figure."""
    loaded = load(write(files, folder / "repository"), folder)
    content = (folder / "repository" / "README.md").read_bytes()
    listed = set()
    for config, splits in configs(content).items():
        assert splits.keys() == loaded[config].keys()
        for split, paths in splits.items():
            originals = [card._ESCAPED.sub(r"\1", path) for path in paths]
            listed |= set(originals)
            wanted = [
                json.loads(line) for path in originals for line in files[path].split(b"\n") if line.strip()
            ]
            found = loaded[config][split]
            assert len(wanted) == len(found)
            for row, original in zip(found, wanted, strict=True):
                assert equal(original, row), (config, split, original, row)
    return listed


DRIFT = {
    "columns and their types": [
        [{"doc_id": 0, "acc": 1, "only_here": "x", "nothing": None}],
        [{"acc": 0.123456789012345, "doc_id": 1}, {"doc_id": 2, "acc": None}],
        [{"doc_id": 3, "nothing": "now", "late": True}],
        [{}],
    ],
    "nested": [
        [{"doc": {"a": 1, "b": ["x"]}, "resps": [["1"]], "l": []}],
        [{"doc": {"b": [], "a": 0.123456789012345, "c": None}, "resps": [], "l": None}],
        [
            {
                "doc": {"c": {"d": "日\u2028\U0001f600"}},
                "resps": [["2", "3"], []],
                "l": [{"k": 1}, None, {"m": "x"}],
            }
        ],
        [{"doc": None}],
    ],
    "mixed kinds": [
        [{"x": "a", "y": 0.5}, {"x": ["a"], "y": 1}],
        [{"x": {"k": [1, None, "z"]}, "y": None}, {"x": None}, {"x": 0.25}, {"x": True}],
        [{"x": "日\u2028"}, {}],
    ],
    "mixed below": [
        [{"doc": {"a": "x", "n": 1}}, {"doc": {"a": 1, "n": 2}}],
        [{"doc": {"a": [1, "x"], "n": None}}, {"doc": {}}],
        [{"doc": {"l": [1]}}, {"doc": {"l": [{"k": "a"}, 5, None]}}],
    ],
    "large numbers": [
        [{"x": 2**63 - 1, "y": 2**53 + 1}],
        [{"x": -(2**63), "y": 5}],
        [{"z": 1e300}, {"z": 5e-324}, {"z": -0.0}],
    ],
    "odd names": [
        [
            {
                "": 1,
                " ": "a",
                "a.b": 0.5,
                "日本\u2028": [1],
                "\n": None,
                "list": {"dtype": "x"},
                "_type": "Value",
            }
        ],
        [
            {
                "\n": "x",
                "a/b": 1,
                "split": 2,
                "features": 3,
                'q"\\': 4,
                "on": True,
                "1e5": False,
                "null": "null",
            }
        ],
    ],
    "keys that are data": [
        [{"submission": {f"doc {number}": [number, "a"]}} for number in range(100)],
        [{"submission": {"other": {"x": None}}}],
    ],
    "numbers as text": [[{"x": "1"}, {"x": "[1]"}, {"x": "null"}, {"x": ""}], [{"x": "2026"}]],
    "not finite": [[b'{"x": NaN, "y": 1}'], [{"x": 0.123456789012345}]],
}


@pytest.mark.parametrize("drift", DRIFT.values(), ids=DRIFT)
def test_files_whose_columns_drift_load_as_they_were(tmp_path, drift):
    files = {}
    for number, rows in enumerate(drift):
        files |= run_of(f"r{number}", date=f"2026010{number + 1}_000000", tasks={"t": rows})
    listed = assert_reads_back(files, tmp_path)
    with_columns = [path for path, content in files.items() if "_samples_" in path and content != b"{}\n"]
    assert set(with_columns) <= listed


def test_numbers_too_large_for_a_double_or_a_table_load_as_what_comes_nearest(tmp_path):
    files = run_of(
        "a", tasks={"big": [{"x": 2**70}, {"x": 2**63}], "inf": [b'{"x": 1e999, "y": 1}', b'{"x": 1.5}']}
    )
    loaded = load(write(files, tmp_path / "repository"), tmp_path)
    assert [2.0**70, 2.0**63] == [row["x"] for row in loaded["org__m__big"]["latest"]]
    assert [(None, 1), (1.5, None)] == [(row["x"], row["y"]) for row in loaded["org__m__inf"]["latest"]]


def test_what_no_declaration_mends_is_as_the_documentation_says(tmp_path):
    files = run_of(
        "a",
        tasks={
            "dates": [{"x": "2026-01-01"}, {"x": "2026-01-02"}],
            "some dates": [{"x": "2026-01-01"}, {"x": "soon"}],
            "mixed": [{"x": "1", "y": 0.123456789012345}, {"x": ["1"], "y": 1 / 3}],
        },
    )
    loaded = load(write(files, tmp_path / "repository"), tmp_path)
    assert ["2026-01-01 00:00:00", "2026-01-02 00:00:00"] == [
        r["x"] for r in loaded["org__m__dates"]["latest"]
    ]
    assert ["2026-01-01", "soon"] == [row["x"] for row in loaded["org__m__some_dates"]["latest"]]
    assert [1, ["1"]] == [row["x"] for row in loaded["org__m__mixed"]["latest"]]
    assert [0.123456789, 0.3333333333] == [round(row["y"], 12) for row in loaded["org__m__mixed"]["latest"]]


def test_files_of_odd_names_load_and_no_other_instead_of_them(tmp_path):
    tasks = [
        "a[1]",
        "a1",
        "a*",
        "ab",
        "a?",
        "{a,b}",
        "a!b",
        "a b",
        "日本",
        "x" * 300,
        "a%20b",
        "a#b",
        "~",
        "a:b",
        "^(a)+",
    ]
    files = {}
    for number, model in enumerate(["org/m", "__m__", "", "m.n"]):
        files |= run_of(
            f"r{number}",
            model=model,
            date="d*[é]",
            tasks={task: [{"x": f"{model} {task}"}] for task in tasks},
        )
    files["odd [*] name/a?b_results.json"] = b"{}"
    files["odd [*] name/a?b_samples_t[0-9].jsonl"] = b'{"x": 1}\n'
    files["odd [*] name/a?b_samples_t1.jsonl"] = b'{"x": 2}\n'
    listed = assert_reads_back(files, tmp_path)
    assert {path for path in files if "samples_" in path} <= listed


def test_a_name_that_cannot_be_opened_is_left_out(tmp_path):
    files = run_of("a", tasks={"a::b": [{"x": 1}], "t": [{"x": 1}]})
    listed = assert_reads_back(files, tmp_path)
    assert not [path for path in listed if "::" in path]
    assert "cannot open a file of this name" in body(card_of(files))


def test_unreadable_empty_and_unnamed_files_do_not_keep_the_others_from_loading(tmp_path):
    assert_reads_back(two_models(), tmp_path)


def test_real_runs_read_back_row_by_row_and_figure_by_figure(tmp_path, realdata):
    files = {}
    for path in sorted(realdata.glob("l*eval/*/*/*.json*")):
        files[f"{path.parent.name}/{path.name}"] = path.read_bytes()
    for run in listing.runs(files):
        stem, content = run.stem, files[run.results]
        files[f"{run.folder}/{stem}_metrics.jsonl"] = figures.render(
            json.loads(content), run.results, "0" * 64, samples_files=run.samples
        )
    originals = [path for path in files if path.endswith(".jsonl")]
    # The one task whose rows hold an object with names of documents is read by way of ujson.
    listed = assert_reads_back(files, tmp_path, equal=nearly)
    assert set(originals) == listed
    names = list(configs((tmp_path / "repository" / "README.md").read_bytes()))
    assert "models__Qwen3-VL-4B-Instruct__maxm_zh" in names
    assert "Qwen__Qwen3-8B__negotiationtom_belief" in names


def nearly(one, other):
    """As `same`, fractions to 10 decimals, and text that is JSON as what it spells."""
    if isinstance(one, dict) and isinstance(other, dict):
        return all(nearly(one.get(name), other.get(name)) for name in one.keys() | other.keys())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(nearly, one, other))
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-10)
    if isinstance(one, str) and not isinstance(other, str):
        return json.loads(one) == other
    return one == other


def test_the_code_on_the_card_runs(tmp_path):
    files = two_models()
    folder = write(files, tmp_path / "repository")
    [code] = re.findall(r"```python\n(.*?)```", body(card_of(files, branch="b")), re.DOTALL)
    assert code.count('revision="b"') == 2
    [code] = re.findall(r"```python\n(.*?)```", body(card_of(files)), re.DOTALL)
    names = re.findall(r'load_dataset\("org/evals", "(.*?)", split="(.*?)"\)', code)
    assert [("results", "train"), ("org__other__gsm8k", "latest")] == names
    loaded = load(folder, tmp_path, [name for name, _ in names])
    assert all(loaded[name][split] for name, split in names)


def test_many_runs_make_a_card_in_seconds():
    files, dice = {}, random.Random(1)
    for number in range(60):
        tasks = {f"task{task}": [{"doc_id": 0, "acc": dice.random()}] for task in range(8)}
        files |= run_of(f"r{number}", date=f"20260101_{number:06d}", tasks=tasks)
    content = card_of(files)
    assert 9 == len(configs(content))
    assert 61 == len(configs(content)["org__m__task0"])
