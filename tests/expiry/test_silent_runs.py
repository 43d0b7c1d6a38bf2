"""Runs that fall silent, on a real Kafka: shown, completed after all, given up, failed."""

import json
import time

import pytest
from msgspec.structs import replace

from consumer import assembly
from schemas.events import Aggregate, RunEnded
from tests.observing import until
from tests.worker.evaluation import Evaluation

pytestmark = pytest.mark.kafka

HOUR_MS = 3_600_000


def eight_shards():
    return Evaluation("r", tasks=[("mme", 48)], shards=8)


def all_but_shard_3(evaluation):
    """Of shard 3 only the first three documents come."""
    first = next(evaluation.batches(3))
    rest = (event for event in evaluation.events() if getattr(event, "shard", 0) != 3)
    return [first, *rest]


def send_long_ago(stage, events, hours):
    """As if the producers had been silent for so long: waiting is not for tests."""
    then = int(time.time() * 1000) - hours * HOUR_MS
    return stage.send([stage.record(event)._replace(timestamp_ms=then) for event in events])


def work_until(stage, condition, what):
    """A worker until `condition` holds of it and then until it is idle."""
    with assembly.worker(stage.settings()) as worker:
        until(lambda: worker.tick() is not None and condition(worker), what, every_s=0)
        worker.run(exit_when_idle_s=0.2)
        return worker.counts


def is_closed(worker):
    return worker.counts.closed == 1


def shown(stage):
    """Own part of the results JSON below ``partial/``, if it is there; its worker may be writing."""
    for path in (stage.folder / "output" / "partial").glob("*/*_results.json"):
        return json.loads(path.read_bytes())["evalsink"]
    return None


@pytest.mark.parametrize(
    ("duplicates", "superseded", "attempt", "state"),
    [(3, 0, 0, "empty"), (0, 3, 1, "state")],
    ids=["the same attempt, to an empty disk", "a new attempt, to the worker's old state"],
)
def test_a_run_whose_shard_3_of_8_never_ends_is_shown_and_completes_when_it_is_sent_again(
    real_stage, duplicates, superseded, attempt, state
):
    stage, evaluation = real_stage, eight_shards()
    send_long_ago(stage, all_but_shard_3(evaluation), hours=1)
    work_until(stage, lambda _: shown(stage), "the run shown")
    own = shown(stage)
    assert ("incomplete", ["shard 3: never ended"]) == (own["status"], own["why"])
    assert (45, [[27, 27], [35, 35], [43, 43]]) == (
        own["tasks"]["mme"]["rows"],
        own["tasks"]["mme"]["missing"],
    )
    assert all(name.startswith("partial/") for name in stage.tree())
    assert [] == stage.receipts()
    again = [*evaluation.batches(3), evaluation.ended(3)]
    stage.send([replace(event, attempt=attempt) for event in again])
    assert 1 == stage.work(state=state).counts.closed
    own = stage.results()["r"]["evalsink"]
    assert ("complete", [], 48) == (own["status"], own["why"], own["tasks"]["mme"]["rows"])
    assert (duplicates, superseded) == (
        own["tasks"]["mme"]["duplicates"],
        own["tasks"]["mme"]["superseded"],
    )
    assert not (stage.folder / "output" / "partial").exists()
    stage.work(group="-undisturbed", state="state-undisturbed", output="output-undisturbed")
    assert stage.tree("output-undisturbed") == stage.tree()
    assert [] == stage.letters()


def test_an_abandoned_run_is_incomplete_and_what_comes_after_is_late(real_stage):
    stage, evaluation = real_stage, eight_shards()
    send_long_ago(stage, all_but_shard_3(evaluation), hours=48)
    work_until(stage, is_closed, "the run closed")
    assert shown(stage) is None
    tree, own = stage.tree(), stage.results()["r"]["evalsink"]
    assert ("incomplete", ["shard 3: never ended"]) == (own["status"], own["why"])
    assert [[27, 27], [35, 35], [43, 43]] == own["tasks"]["mme"]["missing"]
    assert ["incomplete"] == [receipt.status for _, receipt in stage.receipts()]
    late = stage.send([*evaluation.batches(3), evaluation.ended(3), *evaluation.aggregates()])
    for state in ("state", "empty"):
        assert 0 == stage.work(state=state).counts.closed
        assert {(*place, "late") for place in late} == {letter[:4] for letter in stage.letters()}
    # Who reads the log later finds the decision in it, and needs no clock.
    counts = stage.work(
        group="-later", state="state-later", output="output-later", abandon_after_s=1e9
    ).counts
    assert (1, tree, tree) == (counts.closed, stage.tree("output-later"), stage.tree())
    assert {(*place, "late") for place in late} == {letter[:4] for letter in stage.letters()}


def test_a_run_given_up_for_its_aggregate_says_that_it_never_came(real_stage):
    stage, evaluation = real_stage, Evaluation("r")
    events = [event for event in evaluation.events() if not isinstance(event, Aggregate)]
    send_long_ago(stage, events, hours=48)
    work_until(stage, is_closed, "the run closed")
    own = stage.results()["r"]["evalsink"]
    assert ("incomplete", ["task mme: its aggregate by shard 0 never came"]) == (own["status"], own["why"])
    assert "missing" not in own["tasks"]["mme"]


def test_a_failed_shard_makes_the_run_failed_after_the_grace_time(real_stage):
    stage, evaluation = real_stage, eight_shards()
    events = [
        replace(event, status="failed") if isinstance(event, RunEnded) and event.shard == 3 else event
        for event in evaluation.events()
    ]
    send_long_ago(stage, events, hours=1)
    counts = work_until(stage, is_closed, "the run closed")
    own = stage.results()["r"]["evalsink"]
    assert (1, "failed", ["shard 3: failed"]) == (counts.closed, own["status"], own["why"])
    assert (48, "missing" in own["tasks"]["mme"]) == (own["tasks"]["mme"]["rows"], False)
    assert ["failed"] == [receipt.status for _, receipt in stage.receipts()]


def test_a_record_between_the_question_and_its_answer_keeps_the_run_open(real_stage):
    stage, evaluation = real_stage, eight_shards()
    send_long_ago(stage, all_but_shard_3(evaluation), hours=48)
    rest = [*list(evaluation.batches(3))[1:], evaluation.ended(3)]
    with assembly.worker(stage.settings()) as worker:
        ask = worker._outbound.send

        def overtaken(*arguments, **record):
            # A producer's record comes to lie before the worker's.
            stage.send(rest[:1])
            worker._outbound.send = ask
            return ask(*arguments, **record)

        worker._outbound.send = overtaken
        all_read = len(all_but_shard_3(evaluation)) + 2
        until(lambda: worker.tick() is not None and worker.counts.records == all_read, "both read", every_s=0)
        open_runs = [run for one in worker._book.partitions.values() for run in one.runs.values()]
        assert [None] == [run.samples_cut for run in open_runs]
        stage.send(rest[1:])
        worker.run(exit_when_idle_s=0.2)
    own = stage.results()["r"]["evalsink"]
    assert ("complete", 48) == (own["status"], own["tasks"]["mme"]["rows"])
