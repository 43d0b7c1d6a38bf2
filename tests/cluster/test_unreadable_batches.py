"""A batch on the broker's disk whose bytes are damaged: its partition is set aside whole, and the others go on."""

import logging

import pytest

from consumer import assembly
from consumer.vocabulary import TopicPartition
from tests.cluster.conftest import tick_until
from tests.conftest import Broker
from tests.worker.conftest import Stage, cut_off
from tests.worker.evaluation import Evaluation, run_ids

pytestmark = pytest.mark.kafka

# In the head of a batch: base offset, length, epoch, magic, then the checksum.
_CHECKSUM_AT = 17


def flip(kafka, place):
    """Flip a bit in the checksum of the partition's last batch. The same again mends it."""
    kafka.stop()
    [log] = (kafka.folder / "data" / f"{place.topic}-{place.partition}").glob("*.log")
    content = bytearray(log.read_bytes())
    at = 0
    while (following := at + 12 + int.from_bytes(content[at + 8 : at + 12], "big")) < len(content):
        at = following
    content[at + _CHECKSUM_AT] ^= 1
    log.write_bytes(content)
    kafka.start()


def test_a_batch_with_a_bad_checksum_sets_its_partition_aside_and_is_read_once_it_is_mended(
    own_kafka, tmp_path, caplog
):
    broker = Broker(own_kafka.bootstrap, embedded=False)
    stage = Stage(broker, tmp_path, broker.topics())
    hurt, other, later = (
        Evaluation(next(run_ids(1))),
        Evaluation(next(run_ids(2))),
        Evaluation(next(run_ids(3))),
    )
    stage.send(hurt.body())
    stage.send([hurt.ended(1)])
    stage.send(other.events())
    place = TopicPartition(stage.topics.samples, 1)
    flip(own_kafka, place)
    with assembly.worker(stage.settings()) as worker, caplog.at_level(logging.ERROR, "consumer"):
        tick_until(
            worker, lambda: stage.results().keys() == {other.run_id}, "the other partition's run closed"
        )
        tick_until(worker, lambda: "partition_set_aside" in caplog.text, "the partition set aside")
        stage.send(later.events())
        tick_until(worker, lambda: stage.results().keys() == {other.run_id, later.run_id}, "work going on")
        [told] = [one for one in caplog.records if one.message == "partition_set_aside"]
        assert {"topic": place.topic, "partition": 1}.items() <= told.fields.items()
        assert worker._book.find(1, hurt.run_id).samples_cut is None
        cut_off(worker)
    assert [] == stage.letters()
    assert stage.committed(1)[place.topic] is None or 0 == stage.committed(1)[place.topic][1]["w"]
    flip(own_kafka, place)
    stage.work()
    assert {hurt.run_id, other.run_id, later.run_id} == set(stage.results())
    assert {"complete"} == {one["evalsink"]["status"] for one in stage.results().values()}
