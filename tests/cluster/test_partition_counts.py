"""Partitions that are added while runs are under way: their run_ids move to other partitions in the middle."""

import pytest

from consumer import assembly
from consumer.errors import BrokerError
from consumer.kafka_client import admin
from tests.cluster.conftest import hear_of_it, tick_until, tick_until_it_ends
from tests.worker.conftest import cut_off
from tests.worker.evaluation import Evaluation

pytestmark = pytest.mark.kafka


def grow(stage, *topics):
    with admin(stage.broker.connect()) as client:
        client.create_partitions(dict.fromkeys(topics, 6))


@pytest.mark.parametrize("which", ["samples", "aggregates"])
def test_an_input_that_grows_under_a_running_worker_ends_it_and_no_start_succeeds_until_counts_are_equal(
    real_stage, which
):
    stage = real_stage
    topic = getattr(stage.topics, which)
    stage.send(Evaluation("r").events())
    with assembly.worker(stage.settings()) as worker:
        tick_until(worker, stage.receipts, "a run closed")
        grow(stage, topic)
        hear_of_it(worker)
        tick_until_it_ends(worker, BrokerError, match=f"{topic} has 6 partitions now, not 4")
        cut_off(worker)
    with pytest.raises(BrokerError, match="equal counts"):
        stage.work()


def test_all_topics_that_grow_alike_end_a_running_worker_too_and_the_next_start_goes_on(
    real_stage, undisturbed
):
    stage = real_stage
    stage.send(Evaluation("before").events())
    with assembly.worker(stage.settings()) as worker:
        tick_until(worker, stage.receipts, "a run closed")
        grow(stage, *stage.topics.inputs, stage.topics.receipts)
        hear_of_it(worker)
        tick_until_it_ends(worker, BrokerError, match="6 partitions now, not 4")
        cut_off(worker)
    for number in range(8):
        stage.send(Evaluation(f"after-{number}").events())
    stage.work()
    assert 9 == len(stage.results())
    assert stage.tree() == undisturbed(stage)
