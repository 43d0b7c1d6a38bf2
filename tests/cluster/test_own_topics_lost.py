"""Receipts and dead letters that cannot be written because their topic was deleted under a running worker."""

import pytest
from kafka import KafkaProducer

from consumer import assembly
from consumer.errors import BrokerError
from tests.cluster.conftest import delete, make, tick_until, tick_until_it_ends
from tests.observing import Sending
from tests.worker.conftest import cut_off
from tests.worker.evaluation import Evaluation, run_ids

pytestmark = pytest.mark.kafka


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """The client gives a record up after two minutes, and its topic after one: here it is quicker."""
    for name, value_ms in {
        "delivery_timeout_ms": 6000,
        "request_timeout_ms": 5000,
        "max_block_ms": 4000,
    }.items():
        monkeypatch.setitem(KafkaProducer.DEFAULT_CONFIG, name, value_ms)


@pytest.mark.parametrize("lost", ["receipts", "dead_letters"])
def test_a_topic_of_our_own_that_is_deleted_ends_the_worker_before_anything_is_committed_that_needed_it(
    real_stage, undisturbed, lost
):
    stage = real_stage
    topic = getattr(stage.topics, lost)
    run = Evaluation(next(run_ids(1)))
    with assembly.worker(stage.settings()) as worker:
        tick_until(worker, lambda: worker._owned == {0, 1, 2, 3}, "partitions")
        delete(stage, topic)
        garbage = [Sending(stage.topics.samples, b"k", b"garbage", 1)] if lost == "dead_letters" else []
        stage.send([*run.events(), *garbage])
        tick_until_it_ends(worker, BrokerError, match=topic)
        cut_off(worker)
    found = stage.committed(1)[stage.topics.samples]
    assert found is None or found[1]["w"] == 0
    with pytest.raises(BrokerError, match=f"topics missing .*{topic}"):
        stage.work()
    make(stage, topic, policy="compact")
    stage.work()
    assert [run.run_id] == list(stage.results())
    assert len(garbage) == len(stage.letters())
    assert [run.run_id] == [receipt.run_id for _, receipt in stage.receipts()]
    assert stage.tree() == undisturbed(stage)


def test_receipts_that_were_lost_open_closed_runs_again_and_close_them_with_the_same_bytes(real_stage):
    stage = real_stage
    ids = run_ids(1)
    held, run = Evaluation(next(ids)), Evaluation(next(ids))
    stage.send([*held.body(), *run.events()])
    stage.work()
    tree = stage.tree()
    delete(stage, stage.topics.receipts)
    make(stage, stage.topics.receipts, policy="compact")
    # The run that is open still holds the watermark below the closed one, which a new worker therefore reads again.
    again = stage.work(state="empty")
    assert (1, tree) == (again.counts.closed, stage.tree())
    assert [run.run_id] == [receipt.run_id for _, receipt in stage.receipts()]
