"""Dead letters read again, and sent back to where they came from; `consumer.intake.deadletters` writes them.

Invariants: what is there is what the topic held when reading began, and of each key the last record, whether
or not compaction has run; a record without a value takes the letter away. Memory holds what describes the
letters, never more than a few values. A letter is taken away only after the broker has acknowledged its
record in the topic it came from; a crash in between sends it twice, and the second counts as a duplicate.

A redriven record goes by its key through murmur2, as all that our producers send: into its old partition, as
long as nobody changed their number. It is a new record with an offset of its own, so what made it a dead
letter is looked at anew: one that came late is late again. Refuses letters whose topic is gone.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

from kafka import KafkaConsumer
from kafka import TopicPartition as KafkaTopicPartition
from msgspec import Struct

from consumer.errors import BrokerError
from consumer.intake.outbound import Outbound
from consumer.kafka_client import Connection, broker_errors, partition_counts

_POLL_MS = 500
# A fetch of so many bytes holds far more once it is unpacked, so the number of records bounds memory, too.
_FETCH_BYTES_MAX = 8 * 1024 * 1024
_POLL_RECORDS = 32
_PATIENCE_S = 60.0
_REQUEST_TIMEOUT_MS = 30_000
# Letters in flight during a redrive: enough to keep the broker busy, few enough to send again after a crash.
_WINDOW_LETTERS = 1000
_WINDOW_BYTES = 8 * 1024 * 1024


class Place(NamedTuple):
    """Where in the dead-letter topic a letter lies."""

    partition: int
    offset: int


class Letter(Struct, frozen=True, gc=False):
    """What describes a dead letter.

    Attributes:
        id: Its key, ``UUID or name of the topic/partition/offset``.
        topic: Where its record came from.
        partition: And its partition there.
        offset: And its offset.
        reason: Why it was not taken: a slug.
        run_id: The record's key; None if it had none or none in UTF-8.
        bytes: Size of the record's value.
        place: Where it lies now.
    """

    id: str
    topic: str
    partition: int
    offset: int
    reason: str
    run_id: str | None
    bytes: int
    place: Place


class Content(NamedTuple):
    """The rest of a dead letter.

    Attributes:
        headers: As `consumer.intake.deadletters` wrote them.
        key: The record's key.
        value: The record's value, None if it had none.
    """

    headers: Mapping[str, bytes]
    key: bytes | None
    value: bytes | None


class DeadLetterBox:
    """The dead letters of one topic; a context manager."""

    def __init__(self, connection: Connection, topic: str) -> None:
        """Look where the topic begins and ends.

        Raises:
            BrokerError: it is not there, or the broker is gone.
        """
        self._connection = connection
        self._topic = topic
        partitions = partition_counts(connection, [topic])[topic]
        if not partitions:
            raise BrokerError(
                f"no topic {topic} at {connection.brokers}: setting topics.dead_letters, or make it with "
                f"`evalsink topics --brokers {connection.brokers}`"
            )
        self._partitions = range(partitions)
        self.strangers = 0
        """Records seen by `letters` that are no dead letters of evalsink."""
        with broker_errors("opening the dead letters"):
            self._consumer: Any = KafkaConsumer(
                **connection.settings,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                allow_auto_create_topics=False,
                max_poll_records=_POLL_RECORDS,
                fetch_max_bytes=_FETCH_BYTES_MAX,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def letters(self, wanted: Callable[[Letter], bool] = lambda _: True) -> list[Letter]:
        """The letters there are, by place.

        Args:
            wanted: Says which; the others are forgotten as soon as they are read.

        Raises:
            BrokerError: the topic cannot be read.
        """
        self.strangers = 0
        places = [KafkaTopicPartition(self._topic, partition) for partition in self._partitions]
        with broker_errors("looking where the dead letters begin and end"):
            begin = self._consumer.beginning_offsets(places)
            end = self._consumer.end_offsets(places)
        found: dict[bytes | None, Letter] = {}
        for record in self._read({place.partition: (begin[place], end[place]) for place in places}):
            found.pop(record.key, None)
            if record.value is None:
                continue
            letter = _letter(record)
            if letter is None:
                self.strangers += 1
            elif wanted(letter):
                found[record.key] = letter
        return sorted(found.values(), key=lambda letter: letter.place)

    def contents(self, letters: Collection[Letter]) -> Iterator[tuple[Letter, Content]]:
        """Each letter with what it holds; one that is gone meanwhile is passed over.

        Raises:
            BrokerError: the topic cannot be read.
        """
        wanted = {letter.place: letter for letter in letters}
        spans: dict[int, tuple[int, int]] = {}
        for partition, offset in wanted:
            first, end = spans.get(partition, (offset, offset))
            spans[partition] = min(first, offset), max(end, offset + 1)
        for record in self._read(spans):
            letter = wanted.get(Place(record.partition, record.offset))
            if letter is not None:
                headers = {name: bytes(value) for name, value in record.headers}
                value = None if "null" in headers else bytes(record.value)
                yield letter, Content(headers, headers.get("key"), value)

    def redrive(self, letters: Collection[Letter], outbound: Outbound) -> Iterator[Letter]:
        """Send letters back to their topics and take them away; each is yielded once both are acknowledged.

        Raises:
            BrokerError: a topic is gone, or the broker did not take a record. What was not yielded is still a
                dead letter.
        """
        counts = partition_counts(self._connection, sorted({letter.topic for letter in letters}))
        if gone := [topic for topic, count in counts.items() if not count]:
            raise BrokerError(
                f"no topic {', '.join(gone)} at {self._connection.brokers} any more, where some of these "
                "came from; nothing was sent"
            )
        sent: list[Letter] = []
        waiting_bytes = 0
        for letter, content in self.contents(letters):
            outbound.send(letter.topic, key=content.key, value=content.value)
            sent.append(letter)
            waiting_bytes += letter.bytes
            if len(sent) >= _WINDOW_LETTERS or waiting_bytes >= _WINDOW_BYTES:
                yield from self._take_away(sent, outbound)
                sent, waiting_bytes = [], 0
        yield from self._take_away(sent, outbound)

    def _take_away(self, letters: list[Letter], outbound: Outbound) -> list[Letter]:
        outbound.flush(_PATIENCE_S)
        for letter in letters:
            # By place, not by key: whoever wrote the letter may have used another partitioner.
            outbound.send(self._topic, key=letter.id.encode(), value=None, partition=letter.place.partition)
        outbound.flush(_PATIENCE_S)
        return letters

    def _read(self, spans: Mapping[int, tuple[int, int]]) -> Iterator[Any]:
        """The records of each partition from the first offset to below the second, in order per partition."""
        ends = {
            KafkaTopicPartition(self._topic, partition): end
            for partition, (first, end) in spans.items()
            if first < end
        }
        with broker_errors("reading the dead letters"):
            self._consumer.assign(list(ends))
            self._consumer.resume(*ends)  # a partition that was assigned before has kept its pause
            for place in ends:
                self._consumer.seek(place, spans[place.partition][0])
            deadline = time.monotonic() + _PATIENCE_S
            while ends:
                batches = self._consumer.poll(timeout_ms=_POLL_MS)
                for place, records in batches.items():
                    end = spans[place.partition][1]
                    yield from (record for record in records if record.offset < end)
                for place, end in list(ends.items()):
                    if self._position(place, batches) >= end:
                        self._consumer.pause(place)
                        del ends[place]
                if batches:
                    deadline = time.monotonic() + _PATIENCE_S
                elif ends and time.monotonic() > deadline:
                    stuck = ", ".join(str(place.partition) for place in ends)
                    raise BrokerError(f"partition {stuck} of {self._topic} cannot be read to its end")

    def _position(self, place: Any, batches: Mapping[Any, Any]) -> int:
        """The next offset of a partition, as far as `batches` and, if they are empty, the client know."""
        if records := batches.get(place):
            return int(records[-1].offset) + 1
        if batches:  # the look below costs a hop to another thread, and would see gaps in the log alone
            return -1
        return int(self._consumer.position(place, timeout_ms=_REQUEST_TIMEOUT_MS))


def _letter(record: Any) -> Letter | None:
    """The letter that a record is; None if evalsink did not write it."""
    headers = dict(record.headers)
    try:
        return Letter(
            id=record.key.decode(),
            topic=headers["topic"].decode(),
            partition=int(headers["partition"]),
            offset=int(headers["offset"]),
            reason=headers["reason"].decode(),
            run_id=_text(headers.get("key")),
            bytes=len(record.value),
            place=Place(record.partition, record.offset),
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _text(key: bytes | None) -> str | None:
    if key is None:
        return None
    try:
        return key.decode()
    except UnicodeDecodeError:
        return None
