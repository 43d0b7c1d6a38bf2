"""From settled runs to published files: order as of one process, nothing that was accepted can stop it."""

import json

import pytest

from consumer.errors import DeterminismError, SpoolError
from consumer.runs.closeout import close_out
from schemas.digests import TaskHash
from tests.runs.logs import APART, Reader, assemble, read, tree
from tests.runs.oracle import compact

PLACE = {"shard": 0, "attempt": 0, "more_shards": 0}


def run_of(*events, ends=1, **end):
    """A log: these events, then the ends of all shards."""
    closing = [
        {
            "type": "run_ended",
            "status": "ok",
            "aggregates": [],
            "counts": "all",
            **PLACE,
            "shard": shard,
            "more_shards": ends - 1 - shard,
            **(end if shard == 0 else {}),
        }
        for shard in range(ends)
    ]
    return assemble([("r", {**PLACE, **one}) for one in [*events, *closing]], APART)


def batch(rows, *, filter_name="none", shard=0, task="t", of=1):
    elements = [{"doc_id": row["doc_id"], "row": row} for row in rows]
    return {
        "type": "samples",
        "task": task,
        "filter": filter_name,
        "samples": elements,
        "shard": shard,
        "more_shards": of - 1 - shard,
    }


def published(log, home):
    outcome = read(log, home)
    (closed,) = outcome.closed.values()
    return json.loads(outcome.tree[closed.results]), outcome.tree, closed


def samples_of(results, files, closed, task="t"):
    folder = closed.results.rpartition("/")[0]
    return files[f"{folder}/{results['evalsink']['tasks'][task]['file']}"]


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("keys", [["strict-match", "flexible-extract"], ["flexible-extract", "strict-match"]])
def test_two_filters_stand_as_one_process_would_have_written_them_however_many_ranks_there_were(
    tmp_path, ranks, keys
):
    documents = range(11)

    def row(name, doc_id):
        return {
            "doc_id": doc_id,
            "doc_hash": f"{doc_id:064x}",
            "filtered_resps": f"{name} {doc_id}",
            "exact": 1.0,
        }

    single = b"".join(compact(row(name, doc_id)) + b"\n" for name in keys for doc_id in documents)
    metrics = {"alias": "t", **{f"exact_match,{name}": 0.5 for name in keys}}
    metrics |= {f"exact_match_stderr,{name}": "N/A" for name in keys}
    events = []
    # Ranks send in their own order, document by document, filter by filter, the last rank first.
    for rank in reversed(range(ranks)):
        for doc_id in documents:
            if doc_id % ranks == rank:
                events += [
                    batch([row(name, doc_id)], filter_name=name, shard=rank, of=ranks)
                    for name in sorted(keys)
                ]
    events.append({"type": "aggregate", "task": "t", "results": metrics, "shard": 0, "attempt": 0})
    results, files, closed = published(run_of(*events, ends=ranks, aggregates=["t"]), tmp_path)
    assert "complete" == results["evalsink"]["status"]
    assert single == samples_of(results, files, closed)
    assert [(name, 11) for name in keys] == list(results["evalsink"]["tasks"]["t"]["filters"].items())
    of_one_process = TaskHash("lmms-eval")
    for line in single.splitlines():
        of_one_process.update(line)
    assert {"t": of_one_process.hexdigest()} == results["task_hashes"]
    assert metrics == results["results"]["t"]


def test_filters_that_the_aggregate_does_not_name_follow_by_their_bytes(tmp_path):
    events = [batch([{"doc_id": 1, "f": name}], filter_name=name) for name in ("z", "é", "named", "a")]
    events.append({"type": "aggregate", "task": "t", "results": {"acc,named": 1}, "shard": 0, "attempt": 0})
    results, files, closed = published(run_of(*events, aggregates=["t"]), tmp_path)
    lines = samples_of(results, files, closed).decode().splitlines()
    assert ["named", "a", "z", "é"] == [json.loads(line)["f"] for line in lines]


def test_integers_stand_before_texts_and_both_in_their_own_order(tmp_path):
    ids = [10, 9, -1, 2**63 - 1, -(2**63), "10", "9", "", "é", "z"]
    results, files, closed = published(run_of(batch([{"doc_id": doc_id} for doc_id in ids])), tmp_path)
    lines = samples_of(results, files, closed).decode().splitlines()
    wanted = [-(2**63), -1, 9, 10, 2**63 - 1, "", "10", "9", "z", "é"]
    assert wanted == [json.loads(line)["doc_id"] for line in lines]


def nested(depth):
    value = 1
    for number in range(depth):
        value = [value] if number % 2 else {"a": value}
    return value


@pytest.mark.parametrize(
    "report",
    [
        {"x": nested(120)},
        {"config": nested(120), "usage": [nested(100)]},
        {"start_time": 0.5, "end_time": 10**400},
        {"date": "../../x", "model_name": "../../../etc/passwd"},
        {"date": "a\nb\0", "model_name": "x" * 5000},
        {"model_name": "partial"},
        {"n-shot": 5, "groups": [], "versions": None, "configs": "x"},
        {"results": 1, "evalsink": {"status": "complete"}, "task_hashes": []},
        {"group_subtasks": {"g": ["\U0001f600", "\u2028"]}},
    ],
    ids=range(9),
)
def test_no_report_that_is_accepted_can_stop_a_run_from_closing(tmp_path, report):
    results, files, closed = published(run_of(batch([{"doc_id": 1}]), report=report), tmp_path)
    assert "complete" == results["evalsink"]["status"] == closed.status
    assert 4 == len(files)
    assert all(".." not in path.split("/") for path in files)
    assert set(files) == set(tree(tmp_path / "output"))


@pytest.mark.parametrize(
    "results",
    [{}, {"acc,none": 1e999}, {"acc,none": 10**400}, {"a": nested(100)}, {"acc,none": [], ",": {}, "": None}],
    ids=range(5),
)
def test_no_aggregate_that_is_accepted_can_stop_a_run_from_closing(tmp_path, results):
    events = [
        {**batch([{"doc_id": 1}]), "samples": [{"doc_id": 1, "row": {}, "scores": {"acc": 1}}]},
        {"type": "aggregate", "task": "t", "results": results, "shard": 0, "attempt": 0},
    ]
    found, _, _ = published(run_of(*events, aggregates=["t"]), tmp_path)
    assert "complete" == found["evalsink"]["status"]
    assert list(results) == list(found["results"]["t"])


def test_a_run_of_the_other_harness_has_that_harness_names_and_hash(tmp_path):
    events = [
        {"type": "run_started", "harness": "lm-eval", "model_name": "org/m", "date": "2026-01-01T00-00-00.5"},
        batch([{"doc_id": 0, "doc_hash": "d", "prompt_hash": "p", "target_hash": "t"}]),
    ]
    results, files, closed = published(run_of(*events), tmp_path)
    stem = closed.stem
    assert stem.startswith("2026-01-01T00-00-00.5-")
    wanted = {
        f"results_{stem}.json",
        f"samples_t_{stem}.jsonl",
        f"{stem}_metrics.jsonl",
        f"{stem}_results.md",
    }
    assert {f"org__m/{name}" for name in wanted} == set(files)
    of_one = TaskHash("lm-eval")
    of_one.update(b'{"doc_hash":"d","prompt_hash":"p","target_hash":"t"}')
    assert {"t": of_one.hexdigest()} == results["task_hashes"]


def test_an_empty_model_name_puts_the_files_into_the_output_folder(tmp_path):
    _, files, _ = published(
        run_of({"type": "run_started", "model_name": ""}, batch([{"doc_id": 1}])), tmp_path
    )
    assert all("/" not in path for path in files)


def test_a_task_without_rows_has_an_entry_and_no_file(tmp_path):
    events = [
        {"type": "run_started", "tasks": {"announced": 3}},
        {**batch([]), "samples": [{"doc_id": 1}], "task": "bad"},
    ]
    results, files, _ = published(run_of(*events, aggregates=[]), tmp_path)
    tasks = results["evalsink"]["tasks"]
    assert ["announced", "bad"] == list(tasks)
    assert [(None, 0, None)] * 2 == [(one["file"], one["rows"], one["sha256"]) for one in tasks.values()]
    assert [0, 1] == [one["rejected"] for one in tasks.values()]
    assert 3 == len(files)
    assert "incomplete" == results["evalsink"]["status"]


def test_secrets_reach_neither_the_results_nor_the_table(tmp_path):
    secret = "sk-do-not-write-me"
    log = run_of(
        {
            "type": "run_started",
            "config": {"model_args": f"pretrained=m,api_key={secret}", "hf_token": secret},
        },
        batch([{"doc_id": 1}]),
        report={"token": secret, "usage": {"password": secret}},
    )
    _, files, _ = published(log, tmp_path)
    assert all(secret.encode() not in content for content in files.values())


def test_a_run_from_a_log_whose_beginning_is_gone_is_incomplete_and_says_so(tmp_path):
    reader = Reader(tmp_path)
    log = run_of(batch([{"doc_id": 1}]))
    reader.take(log[0])
    reader.book.find(0, "r").tainted = True
    for one in log[1:]:
        reader.take(one)
    outcome = reader.finish()
    own = json.loads(outcome.tree[outcome.closed["r"].results])["evalsink"]
    assert "incomplete" == own["status"]
    assert ["tainted"] == [why.partition(":")[0] for why in own["why"]]


def test_rows_rejected_in_a_lower_attempt_do_not_count_against_the_run(tmp_path):
    lower = {**batch([]), "samples": [{"doc_id": 1}, {"doc_id": 2}]}
    higher = {**batch([{"doc_id": 1}]), "attempt": 1}
    results, _, _ = published(run_of(lower, higher, attempt=1), tmp_path)
    own = results["evalsink"]
    assert ("complete", [], 1) == (own["status"], own["why"], own["tasks"]["t"]["rejected"])


def settled(tmp_path, *events):
    reader = Reader(tmp_path)
    for one in run_of(*events):
        reader.take(one)
    return reader, reader.book.spooled(0, reader.book.find(0, "r"))


def test_a_name_taken_by_other_bytes_keeps_them_and_publishes_no_results(tmp_path):
    reader, spooled = settled(tmp_path, batch([{"doc_id": 1}]))
    closed = close_out(spooled, reader.tools())
    before = tree(reader.output)
    (samples,) = (path for path in before if path.endswith("_samples_t.jsonl"))
    (reader.output / closed.results).unlink()
    (reader.output / samples).write_bytes(b"other\n")
    with pytest.raises(DeterminismError, match="other bytes"):
        close_out(spooled, reader.tools())
    assert closed.results not in tree(reader.output)
    assert b"other\n" == tree(reader.output)[samples]
    reader.crash()


def test_a_damaged_spool_publishes_nothing(tmp_path):
    reader, spooled = settled(tmp_path, batch([{"doc_id": 1}]), batch([{"doc_id": 1}], task="u"))
    rows = spooled.tasks[1].rows
    rows.write_bytes(b"X" + rows.read_bytes()[1:])
    with pytest.raises(SpoolError):
        close_out(spooled, reader.tools())
    assert {} == tree(reader.output)
    reader.crash()


def test_a_close_out_that_failed_on_the_disk_can_be_done_again(tmp_path):
    reader, spooled = settled(tmp_path, batch([{"doc_id": 1}]))
    reader.output.write_bytes(b"in the way")
    with pytest.raises(OSError, match="directory"):
        close_out(spooled, reader.tools())
    reader.output.unlink()
    closed = close_out(spooled, reader.tools())
    assert closed.results in tree(reader.output)
    reader.crash()


def test_nothing_of_staging_is_left_in_the_output(tmp_path):
    outcome = read(run_of(batch([{"doc_id": 1}])), tmp_path)
    assert len(outcome.tree) == sum(path.is_file() for path in (tmp_path / "output").rglob("*"))
