"""What a producer packed a thousandfold is not unpacked; everything else is unpacked as kafka-python does it."""

import gzip
import io
import logging
import struct
import tracemalloc

import lz4.frame
import pytest
import snappy
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka import codec
from kafka.record import default_records, legacy_records

from consumer import assembly, kafka_unpacking
from consumer.kafka_client import connect
from consumer.kafka_unpacking import UNPACK, UnpackedTooLargeError
from tests.cluster.conftest import tick_until
from tests.observing import Sending, producer
from tests.worker.conftest import cut_off, real_stage  # noqa: F401 - a fixture, for this file too
from tests.worker.evaluation import Evaluation, run_ids

MIB = 1 << 20


def xerial(*pieces):
    blocks = [snappy.compress(piece) for piece in pieces]
    head = b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1)
    return head + b"".join(struct.pack(">i", len(block)) + block for block in blocks)


def zstd_stream(content):
    """Without its length in front, as stream writers leave it."""
    packed = io.BytesIO()
    with zstandard.ZstdCompressor().stream_writer(packed, closefd=False) as writer:
        writer.write(content)
    return packed.getvalue()


PACK = {
    "gzip": (1, gzip.compress, codec.gzip_decode),
    "snappy": (2, snappy.compress, codec.snappy_decode),
    "snappy of Java": (
        2,
        lambda content: xerial(content[: 1 << 15], content[1 << 15 :]),
        codec.snappy_decode,
    ),
    "lz4": (3, lz4.frame.compress, codec.lz4_decode),
    "zstd": (4, zstandard.ZstdCompressor().compress, codec.zstd_decode),
    "zstd stream": (4, zstd_stream, codec.zstd_decode),
}


@pytest.mark.parametrize("name", PACK)
@settings(deadline=None, max_examples=40)
@given(content=st.binary(max_size=200) | st.integers(1, 200_000).map(lambda size: b"ab" * size))
def test_a_batch_comes_out_as_kafka_python_has_it(name, content):
    number, pack, stock = PACK[name]
    packed = pack(content)
    assert content == UNPACK[number](packed) == bytes(stock(packed))


@pytest.mark.parametrize("name", PACK)
@settings(deadline=None, max_examples=40)
@given(cut=st.integers(1, 40), content=st.binary(min_size=50, max_size=500))
def test_what_is_torn_is_an_error_or_what_kafka_python_has_of_it(name, cut, content):
    number, pack, stock = PACK[name]
    packed = pack(content)[:-cut]
    try:
        expected = bytes(stock(packed))
    except Exception:  # noqa: BLE001 - whatever the codec raises
        with pytest.raises(Exception):  # noqa: B017, PT011 - likewise
            UNPACK[number](packed)
    else:
        assert expected == UNPACK[number](packed)


@pytest.mark.parametrize("name", PACK)
def test_a_batch_that_unpacks_to_too_much_is_refused_and_not_unpacked(name, monkeypatch):
    monkeypatch.setattr(kafka_unpacking, "UNPACKED_BYTES_MAX", MIB)
    number, pack, _ = PACK[name]
    packed = pack(bytes(64 * MIB))
    tracemalloc.start()
    try:
        with pytest.raises(UnpackedTooLargeError, match="more than 1 MiB unpacked"):
            UNPACK[number](packed)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < len(packed) * 2 + 8 * MIB
    assert bytes(MIB) == UNPACK[number](pack(bytes(MIB))), "as much as is allowed"


@pytest.mark.parametrize("size", [-1, 0, 1 << 30, -(1 << 31)])
def test_a_block_of_snappy_with_a_length_that_cannot_be_is_an_error(size):
    with pytest.raises(ValueError, match="a snappy block of"):
        kafka_unpacking.unpack_snappy(xerial(b"abc") + struct.pack(">i", size) + b"x")


def test_every_client_unpacks_like_that(embedded_broker):
    connect(embedded_broker.bootstrap)
    for module in (default_records, legacy_records):
        for name, number in (("gzip_decode", 1), ("snappy_decode", 2), ("lz4_decode", 3), ("zstd_decode", 4)):
            if hasattr(module, name):
                assert getattr(module, name) is UNPACK[number], (module, name)


@pytest.mark.kafka
@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_a_bomb_sets_its_partition_aside_and_the_others_go_on(real_stage, codec, monkeypatch, caplog):  # noqa: F811 - the fixture
    monkeypatch.setattr(kafka_unpacking, "UNPACKED_BYTES_MAX", MIB)
    stage = real_stage
    other = Evaluation(next(run_ids(2)))
    with producer(stage.broker, compression_type=codec, max_request_size=64 * MIB) as client:
        client.send(stage.topics.samples, key=b"k", value=bytes(16 * MIB), partition=1).get(60)
    stage.send(other.events())
    with assembly.worker(stage.settings()) as worker, caplog.at_level(logging.ERROR, "consumer"):
        tick_until(
            worker, lambda: stage.results().keys() == {other.run_id}, "the other partition's run closed"
        )
        tick_until(worker, lambda: "partition_set_aside" in caplog.text, "the partition set aside")
        [told] = [one for one in caplog.records if one.message == "partition_set_aside"]
        assert 1 == told.fields["partition"]
        assert "more than 1 MiB unpacked" in str(told.fields)
        cut_off(worker)


@pytest.mark.kafka
def test_what_is_packed_well_and_not_too_large_is_read(real_stage):  # noqa: F811 - the fixture
    stage = real_stage
    evaluation = Evaluation("r")
    with producer(stage.broker, compression_type="zstd", max_request_size=64 * MIB) as client:
        for event in evaluation.events():
            sending: Sending = stage.record(event)
            client.send(sending.topic, key=sending.key, value=sending.value + b" " * MIB).get(60)
    stage.work()
    assert {"r"} == set(stage.results())
