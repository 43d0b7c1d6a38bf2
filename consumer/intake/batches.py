"""Kafka's record batches, format v2, into `Record`s: kafka-python's reading, but for the loop over records.

kafka-python 3.0 makes four objects and some forty calls of each record. What it does with a whole batch
(checksum, decompression, aborted transactions, control batches) stays its own; the records of a batch are
taken apart here, in one loop, straight into what the worker takes. Batches of the older formats are left to
it altogether.

This leans on names that kafka-python does not document, so `faster` gives None for any other than the series
it was written for; its own parser is used then. What comes out is the same, record for record and error for
error (tests/intake/test_batches.py).

The ugliest corner: `_records` reads the same kind of number in five places, in place. A call for each would
cost more than all the rest of the loop.

Source: the record batch in Kafka's protocol guide, "Message sets and record batches".
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import kafka
from kafka.errors import CorruptRecordError

from consumer.kafka_unpacking import UNPACK
from consumer.vocabulary import Record

_SERIES: Final = "3.0."
_NEEDED: Final = (
    "_unpack_records",
    "_consume_aborted_transactions_up_to",
    "_contains_abort_marker",
    "_is_batch_aborted",
    "drain",
)
_V2: Final = 2
_LOW: Final = 0x7F  # a varint's byte beyond it has another one behind it
_BITS: Final = 64
_READ_COMMITTED: Final = 1

_new = tuple.__new__


def faster(stock: Any) -> Any | None:  # noqa: C901 - a class, and in it the loop
    """A parser of one partition's fetched records that gives `Record`s, over kafka-python's `stock` one.

    Returns:
        None where this is not the kafka-python that it was written for.
    """
    if not kafka.__version__.startswith(_SERIES) or not all(hasattr(stock, name) for name in _NEEDED):
        return None

    class Batches(stock):  # type: ignore[misc]  # kafka-python ships no types
        def _unpack_records(
            self, tp: Any, records: Any, key_deserializer: Any, value_deserializer: Any
        ) -> Iterator[Record]:
            assert key_deserializer is None, "records are handed on as bytes"
            assert value_deserializer is None, "records are handed on as bytes"
            last_batch = None
            while (batch := records.next_batch()) is not None:
                last_batch = batch
                if self.check_crcs and not batch.validate_crc():
                    raise CorruptRecordError(
                        f"Record batch for partition {tp} at offset {batch.base_offset} failed crc check"
                    )
                if batch.magic != _V2:
                    yield from self._older(tp, batch)
                elif self._is_for_us(batch):
                    self.leader_epoch = batch.leader_epoch
                    yield from self._records(tp, batch)
                else:
                    self.leader_epoch = batch.leader_epoch
                    self.next_fetch_offset = batch.next_offset
            if last_batch is not None and last_batch.magic == _V2:
                # Compaction may have taken a batch's last records: the next fetch begins behind it all the
                # same.
                self.next_fetch_offset = last_batch.next_offset
            self.drain()

        def _is_for_us(self, batch: Any) -> bool:
            """Neither control records nor those of an aborted transaction."""
            if self.isolation_level == _READ_COMMITTED and batch.has_producer_id():
                self._consume_aborted_transactions_up_to(batch.last_offset)
                if self._contains_abort_marker(batch):
                    self.aborted_producer_ids.discard(batch.producer_id)
                elif self._is_batch_aborted(batch):
                    return False
            return not batch.is_control_batch

        def _older(self, tp: Any, batch: Any) -> Iterator[Record]:
            for one in batch:
                if self.check_crcs and not one.validate_crc():
                    raise CorruptRecordError(
                        f"Record for partition {tp} at offset {one.offset} failed crc check"
                    )
                self._count(1, one.size_in_bytes)
                self.next_fetch_offset = one.offset + 1
                yield Record(
                    tp.topic, tp.partition, one.offset, one.timestamp, one.key, one.value, one.headers
                )

        def _records(  # noqa: C901, PLR0912, PLR0915 - see the module's docstring
            self, tp: Any, batch: Any
        ) -> Iterator[Record]:
            topic, partition = tp.topic, tp.partition
            base_offset, base_time = batch.base_offset, batch.first_timestamp
            append_time = batch.max_timestamp if batch.timestamp_type == batch.LOG_APPEND_TIME else None
            content = _content(batch)
            self._count(batch.records_count, len(content))
            place, low = 0, _LOW
            try:
                for _ in range(batch.records_count):
                    # Varints, most of one or two bytes.
                    number = content[place]
                    place += 1
                    if number > low:
                        more = content[place]
                        if more > low:
                            number, place = _long(content, place - 1)
                        else:
                            number, place = number + (more << 7) - 0x80, place + 1
                    end = place + ((number >> 1) ^ -(number & 1))
                    # Attributes: one byte, none of it used; kafka-python takes it for a varint.
                    place = place + 1 if content[place] <= low else _long(content, place)[1]
                    number = content[place]
                    place += 1
                    if number > low:
                        more = content[place]
                        if more > low:
                            number, place = _long(content, place - 1)
                        else:
                            number, place = number + (more << 7) - 0x80, place + 1
                    time = base_time + ((number >> 1) ^ -(number & 1))
                    number = content[place]
                    place += 1
                    if number > low:
                        more = content[place]
                        if more > low:
                            number, place = _long(content, place - 1)
                        else:
                            number, place = number + (more << 7) - 0x80, place + 1
                    offset = base_offset + ((number >> 1) ^ -(number & 1))
                    number = content[place]
                    place += 1
                    if number > low:
                        more = content[place]
                        if more > low:
                            number, place = _long(content, place - 1)
                        else:
                            number, place = number + (more << 7) - 0x80, place + 1
                    if number & 1:
                        key = None
                    else:
                        start, place = place, place + (number >> 1)
                        key = content[start:place]
                    number = content[place]
                    place += 1
                    if number > low:
                        more = content[place]
                        if more > low:
                            number, place = _long(content, place - 1)
                        else:
                            number, place = number + (more << 7) - 0x80, place + 1
                    if number & 1:
                        value = None
                    else:
                        start, place = place, place + (number >> 1)
                        value = content[start:place]
                    if content[place] == 0:
                        headers: Sequence[tuple[str, bytes | None]] = ()
                        place += 1
                    else:
                        headers, place = _headers(content, place)
                    if place != end:
                        raise CorruptRecordError(f"a record of {tp} does not end where it says")
                    self.next_fetch_offset = offset + 1
                    yield _new(
                        Record,
                        (
                            topic,
                            partition,
                            offset,
                            time if append_time is None else append_time,
                            key,
                            value,
                            headers,
                        ),
                    )
            except (ValueError, IndexError) as error:
                raise CorruptRecordError(f"a record of {tp} cannot be read: {error!r}") from error
            if place != len(content):
                raise CorruptRecordError(f"{len(content) - place} bytes are left after a batch of {tp}")

        def _count(self, records: int, size: int) -> None:
            # For the client's own sensors and its fairness between partitions; a batch at a time will do.
            self.records_read += records
            self.bytes_read += size

    return Batches


def _content(batch: Any) -> bytes:
    """The batch's records, decompressed."""
    codec = batch.compression_type
    packed = bytes(memoryview(batch._buffer)[batch._pos :])  # noqa: SLF001 - see the module's docstring
    if codec == batch.CODEC_NONE:
        return packed
    batch._assert_has_codec(codec)  # noqa: SLF001 - likewise
    return UNPACK[codec](packed)


def _long(content: bytes, place: int) -> tuple[int, int]:
    """A varint before its zigzag is undone, and the place behind it."""
    number = shift = 0
    while True:
        byte = content[place]
        place += 1
        number |= (byte & _LOW) << shift
        if byte <= _LOW:
            return number, place
        shift += 7
        if shift >= _BITS:
            raise ValueError("a varint of more than 64 bits")


def _signed(content: bytes, place: int) -> tuple[int, int]:
    number, place = _long(content, place)
    return (number >> 1) ^ -(number & 1), place


def _headers(content: bytes, place: int) -> tuple[list[tuple[str, bytes | None]], int]:
    count, place = _signed(content, place)
    if count < 0:
        raise CorruptRecordError(f"{count} headers")
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        length, place = _signed(content, place)
        if length < 0:
            raise CorruptRecordError(f"a header name of {length} bytes")
        name = content[place : place + length].decode()
        place += length
        length, place = _signed(content, place)
        if length < 0:
            headers.append((name, None))
        else:
            headers.append((name, content[place : place + length]))
            place += length
    return headers, place
