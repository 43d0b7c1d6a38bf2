"""Real evaluations through real Kafka, by the command line alone: what comes out is what went in."""

import hashlib
import json
import math
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.acceptance.conftest import actions, evalsink, topic_settings

pytestmark = pytest.mark.kafka

FOLDERS = ("lmms-eval/maxm", "lmms-eval/mmmu", "lmms-eval/mme-newest-format", "lm-eval")
OPTIONS = ("--shards", "4", "--shuffle", "7", "--duplicate", "0.05")


class Original(NamedTuple):
    """One run as the harness wrote it."""

    results: Path
    samples: dict
    harness: str
    stamp: str


def originals(realdata):
    found = []
    for path in sorted(realdata.glob("lmms-eval/*/*/*_results.json")):
        stamp = path.name.removesuffix("_results.json")
        files = path.parent.glob(f"{stamp}_samples_*.jsonl")
        samples = {one.name.removeprefix(f"{stamp}_samples_").removesuffix(".jsonl"): one for one in files}
        found.append(Original(path, samples, "lmms-eval", stamp))
    for path in sorted(realdata.glob("lm-eval/*/*/results_*.json")):
        stamp = path.name.removeprefix("results_").removesuffix(".json")
        files = path.parent.glob(f"samples_*_{stamp}.jsonl")
        samples = {one.name.removeprefix("samples_").removesuffix(f"_{stamp}.jsonl"): one for one in files}
        found.append(Original(path, samples, "lm-eval", stamp))
    return found


class Published(NamedTuple):
    """All runs, published by one worker."""

    output: Path
    run_ids: dict
    said: str
    settings: dict
    brokers: str


@pytest.fixture(scope="module")
def published(cli_broker, realdata, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    settings = topic_settings(cli_broker.topics())
    brokers = cli_broker.bootstrap
    run_ids = {}
    for name in FOLDERS:
        done = evalsink("publish", realdata / name, "--brokers", brokers, *OPTIONS, **settings)
        run_ids[name] = done.stdout.splitlines()
    done = evalsink(
        *("worker", "--brokers", brokers, "--group", cli_broker.name("group"), "--exit-when-idle", "1"),
        *("--output", folder / "output", "--state", folder / "state"),
        **settings,
    )
    return Published(folder / "output", run_ids, done.stderr, settings, brokers)


def paired(published, realdata):
    """(original, its results JSON here, the JSON) of every run."""
    ours = {}
    for path in published.output.rglob("*.json"):
        results = json.loads(path.read_bytes())
        ours[results["evalsink"]["run_id"]] = (path, results)
    run_ids = [run_id for name in FOLDERS for run_id in published.run_ids[name]]
    assert set(run_ids) == set(ours)
    by_stamp = {}
    for original in originals(realdata):
        [run_id] = [
            one for one in run_ids if original.stamp in one and one.startswith(f"{original.harness}-")
        ]
        by_stamp[run_id] = original
    assert 7 == len(by_stamp)
    return [(by_stamp[run_id], *ours[run_id]) for run_id in run_ids]


def test_a_run_id_a_line_on_stdout_and_all_else_on_stderr(published):
    counts = {name: len(run_ids) for name, run_ids in published.run_ids.items()}
    assert {
        "lmms-eval/maxm": 1,
        "lmms-eval/mmmu": 1,
        "lmms-eval/mme-newest-format": 1,
        "lm-eval": 4,
    } == counts
    assert all(run_id and " " not in run_id for run_ids in published.run_ids.values() for run_id in run_ids)
    closed = [line for line in actions(published.said) if line["action"] == "run_closed"]
    assert ["complete"] * 7 == [line["status"] for line in closed]


def test_every_samples_file_holds_exactly_the_original_lines_in_doc_id_order(published, realdata):
    for original, path, results in paired(published, realdata):
        tasks = results["evalsink"]["tasks"]
        with_rows = {task: entry for task, entry in tasks.items() if entry["rows"]}
        assert set(original.samples) == set(with_rows)
        for task, source in original.samples.items():
            lines = sorted(
                source.read_bytes().splitlines(keepends=True), key=lambda line: json.loads(line)["doc_id"]
            )
            expected = b"".join(line if line.endswith(b"\n") else line + b"\n" for line in lines)
            assert expected == (path.parent / with_rows[task]["file"]).read_bytes()
            assert (len(lines), hashlib.sha256(expected).hexdigest()) == (
                with_rows[task]["rows"],
                with_rows[task]["sha256"],
            )


def test_files_are_named_by_the_originals_date_and_the_runs_hash_as_the_harness_names_its_own(
    published, realdata
):
    for original, path, results in paired(published, realdata):
        stem = f"{original.stamp}-{hashlib.sha256(results['evalsink']['run_id'].encode()).hexdigest()[:8]}"
        # The harness's rule; the folder that the original lies in here may be named by other means.
        assert results["model_name_sanitized"] == path.parent.name
        if original.harness == "lmms-eval":
            expected = {
                f"{stem}_results.json",
                *(f"{stem}_samples_{task}.jsonl" for task in original.samples),
            }
        else:
            expected = {
                f"results_{stem}.json",
                *(f"samples_{task}_{stem}.jsonl" for task in original.samples),
            }
        assert expected | {f"{stem}_results.md", f"{stem}_metrics.jsonl"} == {
            one.name for one in path.parent.iterdir() if stem in one.name
        }


def finite(value):
    """The value, numbers that strict JSON does not know as null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: finite(one) for name, one in value.items()}
    return [finite(one) for one in value] if isinstance(value, list) else value


def test_the_results_json_equals_the_original_but_for_our_own_key(published, realdata):
    for original, path, results in paired(published, realdata):
        content = path.read_bytes()
        assert finite(json.loads(original.results.read_bytes())) == {
            key: value for key, value in results.items() if key != "evalsink"
        }
        # Strict JSON, indented and unescaped as the harness's own.
        strict = json.loads(content, parse_constant=pytest.fail)
        assert json.dumps(strict, indent=2, ensure_ascii=False).encode() == content


BY_EVALUATION = {"n-samples", "task_hashes"}
"""Their tasks stand in the order in which the harness went through them, which no event tells; here in that of
`results`."""


def keys(text):
    """Every object's keys in their order, values left out."""

    def shape(value, name=""):
        if isinstance(value, list):
            return [shape(one) for one in value]
        if isinstance(value, dict):
            members = [(key, shape(one, key)) for key, one in value.items()]
            return sorted(members) if name in BY_EVALUATION else members
        return None

    return shape(json.loads(text))


def test_the_keys_stand_in_the_originals_order(published, realdata):
    for original, path, _ in paired(published, realdata):
        [*ours, (last, _)] = keys(path.read_bytes())
        assert "evalsink" == last
        assert keys(original.results.read_bytes()) == ours


def test_task_hashes_equal_the_originals(published, realdata):
    for original, _, results in paired(published, realdata):
        expected = json.loads(original.results.read_bytes())["task_hashes"]
        assert expected == results["task_hashes"]
        assert set(original.samples) == set(expected)


def test_a_twentieth_came_twice_and_is_counted(published, realdata):
    for _, _, results in paired(published, realdata):
        own = results["evalsink"]
        rows, duplicates = (
            sum(entry[name] for entry in own["tasks"].values()) for name in ("rows", "duplicates")
        )
        assert ("complete", 4, []) == (own["status"], own["shards"], own["why"])
        assert max(1, round(rows * 0.05)) == duplicates
        assert {0} == {
            entry[name]
            for entry in own["tasks"].values()
            for name in ("conflicts", "superseded", "rejected", "repaired", "scores_dropped")
        }


def test_verify_finds_everything_as_it_says(published):
    done = evalsink("verify", published.output)
    assert "verified: 7 runs" in done.stdout
    assert 8 == len(done.stdout.splitlines())


def test_the_table_is_that_of_the_original(published, realdata):
    # One of either harness: each is two processes.
    pairs = paired(published, realdata)
    for original, path, results in (pairs[0], pairs[-1]):
        mine, theirs = (evalsink("table", one).stdout for one in (path, original.results))
        assert theirs == mine
        assert all(task in mine for task in results["results"])


def test_datasets_reads_the_samples_files(published, realdata, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    import datasets

    datasets.disable_progress_bars()
    for original, path, results in paired(published, realdata):
        for task in original.samples:
            entry = results["evalsink"]["tasks"][task]
            loaded = datasets.load_dataset(
                "json",
                data_files=str(path.parent / entry["file"]),
                split="train",
                cache_dir=str(tmp_path / "cache"),
            )
            lines = (path.parent / entry["file"]).read_bytes().splitlines()
            assert [json.loads(line)["doc_id"] for line in lines] == loaded["doc_id"][:]


def test_sending_again_is_harmless(published, realdata):
    name = "lmms-eval/mme-newest-format"
    again = evalsink(
        "publish", realdata / name, "--brokers", published.brokers, "--shards", "2", **published.settings
    )
    assert published.run_ids[name] == again.stdout.splitlines()
