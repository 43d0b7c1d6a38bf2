"""A log that loses records at either end, under a worker that reads it and between two of its starts."""

import shutil

import pytest
from kafka import TopicPartition as KafkaTopicPartition

from consumer import assembly
from consumer.errors import BrokerError
from consumer.kafka_client import admin, end_offsets
from consumer.vocabulary import TopicPartition
from schemas.events import RunEnded
from tests.cluster.conftest import tick_until, tick_until_it_ends
from tests.conftest import Broker
from tests.worker.conftest import Stage, cut_off
from tests.worker.evaluation import Evaluation, run_ids

pytestmark = pytest.mark.kafka


def lose_beginning(stage, partition, below):
    with admin(stage.broker.connect()) as client:
        client.delete_records({KafkaTopicPartition(stage.topics.samples, partition): below})


def last_offset(stage, places):
    return max(place.offset for place in places if place.topic == stage.topics.samples)


def has_read(worker, partition, topic, offset):
    return lambda: partition in worker._owned and worker._book.partitions[partition].positions[topic] > offset


def test_retention_that_overtakes_a_running_worker_ends_it_and_the_next_start_says_which_runs_may_be_short(
    real_stage,
):
    stage = real_stage
    ids = run_ids(1)
    closed, cut_short, after = (Evaluation(next(ids)) for _ in range(3))
    first = stage.send(closed.events())
    with assembly.worker(stage.settings()) as worker:
        tick_until(
            worker, has_read(worker, 1, stage.topics.samples, last_offset(stage, first)), "all of it read"
        )
        tick_until(worker, stage.receipts, "a run closed")
        # It stands still meanwhile; its client may fetch ahead what is lost then. With that in a checkpoint it would complete
        # the run, as the next test has it: there is no checkpoint any more.
        worker._saving.advance = lambda *_, **__: None
        gone = stage.send(event for event in cut_short.events() if not isinstance(event, RunEnded))
        gone += stage.send(cut_short.body())
        lose_beginning(stage, 1, last_offset(stage, gone))
        stage.send(cut_short.events())
        tick_until_it_ends(worker, BrokerError, match="reading failed")
        cut_off(worker)
    stage.work()
    stage.send(after.events())
    stage.work()
    told = {run_id: one["evalsink"]["status"] for run_id, one in stage.results().items()}
    assert {closed.run_id: "complete", cut_short.run_id: "incomplete", after.run_id: "complete"} == told
    [why] = stage.results()[cut_short.run_id]["evalsink"]["why"]
    assert why.startswith("tainted")


def test_a_worker_that_kept_its_state_completes_a_run_whose_beginning_the_log_has_lost(real_stage):
    stage = real_stage
    held = Evaluation(next(run_ids(1)))
    places = stage.send(held.body())
    stage.work()
    lose_beginning(stage, 1, last_offset(stage, places) + 1)
    stage.send([held.ended(1)])
    stage.work()
    [result] = stage.results().values()
    assert ("complete", []) == (result["evalsink"]["status"], result["evalsink"]["why"])


def lose_end(kafka, place, keep):
    """Cut the partition's log to a share of its bytes, as a disk does that was not synced; the broker is restarted."""
    kafka.kill()
    folder = kafka.folder / "data" / f"{place.topic}-{place.partition}"
    [log] = folder.glob("*.log")
    with log.open("r+b") as file:
        file.truncate(int(log.stat().st_size * keep))
    for stale in (*folder.glob("*index"), *folder.glob("*.snapshot")):
        stale.unlink()
    shutil.rmtree(folder.parent / ".kafka_cleanshutdown", ignore_errors=True)
    kafka.start()


@pytest.mark.parametrize(
    ("running", "keep"),
    [
        pytest.param(True, 0.7, id="under a running worker"),
        pytest.param(False, 0.7, id="between two starts, above the watermark"),
        pytest.param(False, 0.2, id="between two starts, below the watermark"),
    ],
)
def test_what_is_left_of_a_log_that_was_cut_back_below_what_was_read_is_read_again(
    own_kafka, tmp_path, undisturbed, running, keep
):
    broker = Broker(own_kafka.bootstrap, embedded=False)
    stage = Stage(broker, tmp_path, broker.topics())
    ids = run_ids(1)
    closed, open_still = (Evaluation(next(ids)) for _ in range(2))
    for event in (*closed.events(), *open_still.body()):
        places = stage.send([event])  # batches of their own: it is cut between two of them
    cut = TopicPartition(stage.topics.samples, 1)
    with assembly.worker(stage.settings()) as worker:
        tick_until(worker, has_read(worker, 1, cut.topic, last_offset(stage, places)), "all of it read")
        tick_until(worker, stage.receipts, "a run closed")
        if running:
            lose_end(own_kafka, cut, keep=keep)
            tick_until_it_ends(worker, BrokerError, match="LogTruncationError|OffsetOutOfRange", timeout_s=90)
            cut_off(worker)
        else:
            worker.run(exit_when_idle_s=0.1)
    if not running:
        lose_end(own_kafka, cut, keep=keep)
    left = end_offsets(broker.connect(), [cut])[cut]
    assert 0 < left <= last_offset(stage, places)
    # Again from the first record of the open run, as far as that is left; else all that is left, as a replay.
    counts = stage.work().counts
    assert 0 < counts.records
    if not running:  # one that was cut off may not have committed the watermark behind the closed run yet
        assert (counts.replayed > 0) == (keep < 0.5)
    assert [closed.run_id] == list(stage.results())
    stage.send(open_still.events())
    stage.work()
    assert {closed.run_id, open_still.run_id} == set(stage.results())
    assert {"complete"} == {one["evalsink"]["status"] for one in stage.results().values()}
    tree = stage.tree()
    if keep > 0.5:  # else of the closed run the log has lost records for ever
        assert tree == undisturbed(stage)
