"""Transactions in the input: what was aborted is not there, and what is open holds back without being taken for loss."""

import pytest
from confluent_kafka import Producer as TransactionalProducer

from consumer import assembly
from tests.cluster.conftest import tick_until
from tests.observing import read_all
from tests.worker.evaluation import Evaluation, run_ids

pytestmark = pytest.mark.kafka


@pytest.fixture
def transactions(real):
    client = TransactionalProducer(
        {
            "bootstrap.servers": real.bootstrap,
            "transactional.id": real.name("tx"),
            "linger.ms": 0,
            "log_level": 0,
        }
    )
    client.init_transactions(30)
    return client


def produce_open(client, stage, events):
    client.begin_transaction()
    for one in map(stage.record, events):
        client.produce(one.topic, one.value, one.key, partition=1)
    client.flush()


def test_a_run_out_of_transactions_some_of_them_aborted_is_whole_and_its_watermark_passes_the_markers(
    real_stage, undisturbed, transactions
):
    stage = real_stage
    run = Evaluation(next(run_ids(1)))
    events = list(run.events())
    aborted = Evaluation(run.run_id, text="never said")
    for start in range(0, len(events), 3):
        produce_open(transactions, stage, list(aborted.events())[start : start + 3])
        transactions.abort_transaction(30)
        produce_open(transactions, stage, events[start : start + 3])
        transactions.commit_transaction(30)
    produce_open(transactions, stage, aborted.events())
    transactions.abort_transaction(30)
    stage.work()
    [result] = stage.results().values()
    assert ("complete", 0, 0) == (
        result["evalsink"]["status"],
        result["evalsink"]["tasks"]["mme"]["duplicates"],
        result["evalsink"]["tasks"]["mme"]["conflicts"],
    )
    assert not any(b"never said" in content for content in stage.tree().values())
    assert stage.tree() == undisturbed(stage)
    last = max(record.offset for record in read_all(stage.broker, stage.topics.samples))
    offset, metadata = stage.committed(1)[stage.topics.samples]
    # Behind the last record lie its marker, a whole aborted transaction, and the marker of that.
    assert (
        offset
        == metadata["w"]
        > last + len([one for one in events if stage.record(one).topic == stage.topics.samples])
    )


def test_an_open_transaction_holds_its_partition_and_no_run_is_given_up_behind_it(real_stage, transactions):
    stage = real_stage
    ids = run_ids(1)
    waiting, hanging = Evaluation(next(ids)), Evaluation(next(ids))
    stage.send(waiting.body())
    produce_open(transactions, stage, hanging.body())
    stage.send([waiting.ended(1)])
    with assembly.worker(stage.settings(grace_s=60.0)) as worker:
        tick_until(worker, lambda: worker._book.find(1, waiting.run_id) is not None, "the run open")
        turns = worker.turns
        tick_until(worker, lambda: worker.turns > turns + 10, "ten turns more")
        assert {} == stage.results()
        assert worker._book.find(1, hanging.run_id) is None
        transactions.commit_transaction(30)
        tick_until(worker, lambda: stage.results().keys() == {waiting.run_id}, "the end behind it read")
        tick_until(worker, lambda: worker._book.find(1, hanging.run_id) is not None, "the other run open")
        worker.run(exit_when_idle_s=0.1)
