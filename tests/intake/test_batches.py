"""Our reading of Kafka's record batches against kafka-python's own: record for record, and error for error."""

import struct
from types import SimpleNamespace

import kafka
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.consumer.fetcher import Fetcher
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.record.legacy_records import LegacyRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords
from kafka.record.util import calc_crc32c
from kafka.structs import TopicPartition

from consumer.intake.batches import faster
from consumer.kafka_client import _bound_unpacking
from consumer.vocabulary import Record

# Every connection of ours does this: so kafka-python's own reading unpacks with the same decoders.
_bound_unpacking()

STOCK = Fetcher.PartitionRecords
OURS = faster(STOCK)
PLACE = TopicPartition("eval.samples", 3)

LOG_APPEND_TIME, CONTROL = 0x08, 0x20
COMMIT, ABORT = 1, 0

sizes = st.sampled_from([0, 1, 62, 63, 64, 65, 300, 8191, 8192, 20_000])
payloads = st.none() | st.binary(max_size=20) | st.builds(lambda size: b"v" * size, sizes)
headers = st.lists(st.tuples(st.text(max_size=4), st.none() | st.binary(max_size=4)), max_size=2)
records = st.tuples(
    st.integers(1, 300),  # how far behind the record before it
    st.integers(0, 2**41),
    payloads,
    payloads,
    st.just([]) | headers,
)


def sealed(buffer, *, base_offset, attributes=0, epoch=0):
    """A built batch as a broker would store it: its offset and epoch set, its checksum made anew."""
    struct.pack_into(">q", buffer, 0, base_offset)
    struct.pack_into(">i", buffer, 12, epoch)
    [own] = struct.unpack_from(">h", buffer, DefaultRecordBatch.ATTRIBUTES_OFFSET)
    struct.pack_into(">h", buffer, DefaultRecordBatch.ATTRIBUTES_OFFSET, own | attributes)
    checksum = calc_crc32c(memoryview(buffer)[DefaultRecordBatch.ATTRIBUTES_OFFSET :])
    struct.pack_into(">I", buffer, DefaultRecordBatch.CRC_OFFSET, checksum)
    return bytes(buffer)


def built(contents, *, base_offset, codec=0, producer=-1, attributes=0, epoch=0):
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=codec,
        is_transactional=producer != -1,
        producer_id=producer,
        producer_epoch=0 if producer != -1 else -1,
        base_sequence=0 if producer != -1 else -1,
        batch_size=1 << 24,
    )
    offset = -1
    for behind, timestamp, key, value, with_headers in contents:
        offset += behind
        builder.append(offset, timestamp, key, value, with_headers)
    data = sealed(builder.build(), base_offset=base_offset, attributes=attributes, epoch=epoch)
    return data, base_offset + offset + 1


def marker(kind, producer, base_offset):
    return built(
        [(1, 1, struct.pack(">hh", 0, kind), struct.pack(">hi", 0, 0), [])],
        base_offset=base_offset,
        producer=producer,
        attributes=CONTROL,
    )


@st.composite
def logs(draw):
    """(bytes of a fetch, offset asked for, aborted transactions)."""
    data, offset, aborted = b"", draw(st.integers(0, 2**40)), []
    first = offset
    for _ in range(draw(st.integers(1, 4))):
        offset += draw(st.integers(0, 5))
        producer = draw(st.sampled_from([-1, 7, 8]))
        start = offset
        more, offset = built(
            draw(st.lists(records, min_size=1, max_size=5)),
            base_offset=offset,
            codec=draw(st.integers(0, 4)),
            producer=producer,
            attributes=draw(st.sampled_from([0, LOG_APPEND_TIME])),
            epoch=draw(st.integers(0, 9)),
        )
        data += more
        if producer != -1:
            kind = draw(st.sampled_from([COMMIT, ABORT]))
            if kind == ABORT:
                aborted.append(SimpleNamespace(producer_id=producer, first_offset=start))
            more, offset = marker(kind, producer, offset)
            data += more
    return data, draw(st.integers(first, offset)), aborted


def reading(parser, data, *, asked, aborted=(), level=1, amounts=(1,)):
    """Everything there is to see of one parser at work: what it gives, where it stands, how it fails."""
    drained = []
    part = parser(
        asked,
        PLACE,
        MemoryRecords(data),
        isolation_level=level,
        aborted_transactions=list(aborted),
        on_drain=drained.append,
    )
    seen = []
    for _ in range(200):
        for amount in amounts:
            if not part:
                return [*seen, ("drained", len(drained))]
            try:
                taken = part.take(amount)
            except Exception as error:  # noqa: BLE001 - whatever kafka-python raises
                return [*seen, ("failed", type(error), part.next_fetch_offset)]
            seen.append(([plain(one) for one in taken], part.next_fetch_offset, part.leader_epoch))
    raise AssertionError("it never ends")


def plain(record):
    return (
        record.topic,
        record.partition,
        record.offset,
        record.timestamp,
        record.key,
        record.value,
        list(record.headers),
    )


@settings(deadline=None, max_examples=300)
@given(
    log=logs(),
    level=st.sampled_from([0, 1]),
    amounts=st.lists(st.integers(1, 7), min_size=1, max_size=3),
)
def test_every_log_is_read_as_kafka_python_reads_it(log, level, amounts):
    data, asked, aborted = log
    expected = reading(STOCK, data, asked=asked, aborted=aborted, level=level, amounts=amounts)
    assert reading(OURS, data, asked=asked, aborted=aborted, level=level, amounts=amounts) == expected


@settings(deadline=None, max_examples=300)
@given(log=logs(), place=st.floats(0, 1), byte=st.integers(0, 255), is_sealed=st.booleans())
def test_a_damaged_log_fails_where_kafka_pythons_reading_fails_and_gives_what_came_before(
    log, place, byte, is_sealed
):
    data, asked, aborted = log
    damaged = bytearray(data)
    # Not in a header: with a length, a magic or a codec changed the two may fail in different words.
    behind_header = DefaultRecordBatch.HEADER_STRUCT.size
    at = behind_header + int(place * (len(damaged) - behind_header - 1))
    damaged[at] = byte
    if is_sealed:
        # The first batch's checksum fits again: its records themselves must be found wrong.
        [length] = struct.unpack_from(">i", data, 8)
        end = 12 + length
        checksum = calc_crc32c(memoryview(damaged)[DefaultRecordBatch.ATTRIBUTES_OFFSET : end])
        struct.pack_into(">I", damaged, DefaultRecordBatch.CRC_OFFSET, checksum)
    expected = reading(STOCK, bytes(damaged), asked=asked, aborted=aborted)
    assert reading(OURS, bytes(damaged), asked=asked, aborted=aborted) == expected


@pytest.mark.parametrize("magic", [0, 1])
def test_batches_of_older_formats_are_read_too(magic):
    builder = LegacyRecordBatchBuilder(magic=magic, compression_type=0, batch_size=1 << 20)
    for offset in range(3):
        builder.append(offset, timestamp=1_700_000_000_000 + offset, key=b"k", value=b"v" * offset)
    data = bytes(builder.build())
    expected = reading(STOCK, data, asked=1, amounts=(2,))
    assert reading(OURS, data, asked=1, amounts=(2,)) == expected
    assert [offset for offset, *_ in (one[2:] for one in expected[0][0])] == [1, 2]


def test_what_comes_out_are_the_workers_own_records():
    data, _ = built([(1, 5, b"k", b"v", [])], base_offset=40)
    [record] = OURS(40, PLACE, MemoryRecords(data)).take(9)
    assert type(record) is Record
    assert record == Record("eval.samples", 3, 40, 5, b"k", b"v", ())


def test_another_series_of_kafka_python_is_left_to_its_own_parser(monkeypatch):
    monkeypatch.setattr(kafka, "__version__", "3.1.0")
    assert faster(STOCK) is None


def test_a_parser_that_lacks_what_ours_leans_on_is_left_alone():
    assert faster(SimpleNamespace()) is None
