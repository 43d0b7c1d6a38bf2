"""The runs stage against the oracle: any log, read in any order that keeps each topic's own.

Invariants tested: the cuts, the published rows to the byte, every counter, the status and its reasons, and which records
are refused are those of the oracle; two readers of one log publish the same bytes, interrupted or not.
"""

import json
import math
import random

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from consumer.errors import DeterminismError
from consumer.report import metrics
from tests.runs import oracle
from tests.runs.logs import APART, TOGETHER, Reader, homes, interleave, logs, read, spoil

EXAMPLES = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

seeds = st.integers(0, 2**32)


@pytest.mark.parametrize("topics", [APART, TOGETHER], ids=["two topics", "one topic"])
@EXAMPLES
@given(data=st.data())
def test_a_run_becomes_what_the_oracle_says_whatever_the_order_of_reading(topics, data):
    log = data.draw(logs(topics))
    order = interleave(log, topics, random.Random(data.draw(seeds)))
    run_ids = sorted({sent.event["run_id"] for sent in log})
    verdicts = {run_id: oracle.judge(run_id, log, topics) for run_id in run_ids}
    with homes() as home:
        outcome = read(order, home(), topics)

    opened = {run_id: verdict for run_id, verdict in verdicts.items() if verdict is not None}
    assert opened.keys() == outcome.runs.keys()
    assert {
        (run_id, *place): reason for run_id, one in opened.items() for place, reason in one.refused.items()
    } == outcome.refused
    files = set()
    for run_id, verdict in opened.items():
        event(verdict.status or "open")
        assert (verdict.samples_cut, verdict.aggregates_cut) == tuple(
            cut and oracle.Cut(cut.offset, cut.expired) for cut in outcome.runs[run_id]
        )
        assert (verdict.status is not None) == (run_id in outcome.closed)
        if verdict.status is not None:
            files |= check_published(run_id, verdict, outcome)
    assert files == outcome.tree.keys()


def check_published(run_id, verdict, outcome):
    """Compare the results JSON and the samples files; the names of all files of the run."""
    closed = outcome.closed[run_id]
    results = json.loads(outcome.tree[closed.results])
    own = results["evalsink"]
    assert (verdict.status, verdict.shards) == (own["status"], own["shards"])
    assert verdict.status == closed.status
    assert (verdict.aggregates_superseded, verdict.aggregates_duplicates) == (
        own["aggregates_superseded"],
        own["aggregates_duplicates"],
    )
    check_why(verdict.why, own["why"])
    named = list(verdict.results)
    assert named == list(results["results"])[: len(named)]
    for task, sent in verdict.results.items():
        assert json.loads(oracle.compact(oracle.mended(sent))) == results["results"][task]
    assert sorted(verdict.tasks) == list(own["tasks"])
    folder = closed.results.rpartition("/")[0]
    files = {
        closed.results.replace("_results.json", end)
        for end in ("_results.json", "_results.md", "_metrics.jsonl")
    }
    # From the file as it is read back: what was written is what a verification computes.
    figures = outcome.tree[closed.results.replace("_results.json", "_metrics.jsonl")]
    assert metrics.render(results, closed.results, closed.sha256) == figures
    hashes = {}
    for name, task in verdict.tasks.items():
        entry = own["tasks"][name]
        content = b"".join(line + b"\n" for line in task.lines)
        told = {
            "rows": len(task.lines),
            "bytes": len(content),
            "filters": task.filters,
            "missing": task.missing,
            **{key: getattr(task, key) for key in COUNTERS},
        }
        assert told == {"missing": None, **{key: entry[key] for key in told if key in entry}}
        assert list(task.filters) == list(entry["filters"])
        if not task.lines:
            assert (None, None) == (entry["file"], entry["sha256"])
            continue
        path = f"{folder}/{entry['file']}"
        assert content == outcome.tree[path]
        assert oracle.hashlib.sha256(content).hexdigest() == entry["sha256"]
        files.add(path)
        hashes[name] = task.task_hash
        check_scores(task.scores, own.get("scores", {}).get(name, {}))
    assert hashes == results["task_hashes"]
    return files


COUNTERS = ("duplicates", "conflicts", "superseded", "rejected", "repaired", "scores_dropped")


def check_why(facts, sentences):
    """Each fact is told by a sentence that holds its words, and no sentence tells anything else."""
    words = {
        "never ended": lambda shard: (f"shard {shard}:", "never ended"),
        "failed": lambda shard: (f"shard {shard}:", "failed"),
        "short": lambda shard, task, got, count: (f"shard {shard}:", f"task {task}:", f"{got} of {count}"),
        "rejected": lambda task, count: (f"task {task}:", f"{count} samples rejected"),
        "absent": lambda shard, task: (f"task {task}:", f"by shard {shard} never came"),
    }
    for (kind, *values), count in facts.items():
        wanted = words[kind](*values)
        assert count == sum(all(word in sentence for word in wanted) for sentence in sentences), (
            wanted,
            sentences,
        )
    assert facts.total() == len(sentences)


def check_scores(wanted, found):
    assert set(wanted) == {(name, metric) for name, metrics in found.items() for metric in metrics}
    for (name, metric), values in wanted.items():
        statistics = found[name][metric]
        assert len(values) == statistics["n"]
        assert math.isclose(sum(values) / len(values), statistics["mean"], rel_tol=1e-9, abs_tol=1e-12)


@pytest.mark.parametrize("topics", [APART, TOGETHER], ids=["two topics", "one topic"])
@EXAMPLES
@given(data=st.data())
def test_a_reader_that_is_interrupted_publishes_the_bytes_of_one_that_is_not(topics, data):
    log = data.draw(logs(topics))
    order = interleave(log, topics, random.Random(data.draw(seeds)))
    other = interleave(log, topics, random.Random(data.draw(seeds)))
    saved = data.draw(st.integers(0, len(order)))
    reached = data.draw(st.integers(saved, len(order)))
    flushed = data.draw(st.integers(saved, reached))
    junk = data.draw(st.sampled_from([b"", b"x", b"\0" * 500]))
    with homes() as home:
        undisturbed = read(other, home(), topics)
        place = home()
        reader = Reader(place, topics)
        for sent in order[:saved]:
            reader.take(sent)
        reader.save()
        # What comes after the checkpoint is partly on disk when the process dies.
        for number, sent in enumerate(order[saved:reached], saved):
            reader.take(sent)
            if number == flushed:
                reader.book.spool.flush()
        reader.crash()
        spoil(place, junk)
        reader.start()
        for sent in order[saved:]:
            reader.take(sent)
        outcome = reader.finish()
        assert undisturbed.tree == outcome.tree
        assert undisturbed.runs == outcome.runs
        assert undisturbed.refused == outcome.refused


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(log=logs(APART), seed=seeds)
def test_publishing_a_run_again_into_the_same_folder_changes_nothing(log, seed):
    with homes() as home:
        place = home()
        first = read(interleave(log, APART, random.Random(seed)), place)
        (place / "state").rename(place / "lost")
        try:
            second = read(interleave(log, APART, random.Random(seed + 1)), place)
        except DeterminismError as error:
            raise AssertionError("one log gave two contents") from error
        assert first.tree == second.tree
        assert first.closed == second.closed
