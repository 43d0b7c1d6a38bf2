"""The log read again from its beginning to where it ends now, for one key: no group, no commits, no receipts.

Invariants: what is yielded is committed, in order per partition, and lies below the ends of the moment at
which the replay was opened, so that it ends even while producers go on. Nothing is written anywhere.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kafka import KafkaConsumer
from kafka import TopicPartition as KafkaTopicPartition
from kafka.errors import KafkaError, UnsupportedCodecError

from consumer.errors import BrokerError
from consumer.intake.resume import TopicEnds
from consumer.kafka_client import Connection, broker_errors, partition_counts
from consumer.vocabulary import Record, TopicPartition

_POLL_MS = 500
_REQUEST_TIMEOUT_MS = 30_000
_PATIENCE_S = 60.0

Advance = Callable[[int], None]
"""Told how many offsets were passed."""


class Replay:
    """The topics as they were when it was opened (`open_replay`).

    Attributes:
        ends: First readable offset and end of every topic-partition.
    """

    def __init__(self, consumer: Any, ends: dict[TopicPartition, TopicEnds]) -> None:
        self._consumer = consumer
        self.ends = ends

    @property
    def total(self) -> int:
        """Offsets to pass in all topics."""
        return sum(ends.end - ends.beginning for ends in self.ends.values())

    def records(self, topic: str, key: bytes, advance: Advance) -> Iterator[Record]:
        """Every record of `topic` under `key`.

        Raises:
            BrokerError: the log cannot be read to its end.
        """
        behind = {
            KafkaTopicPartition(*place): ends.beginning
            for place, ends in self.ends.items()
            if place.topic == topic and ends.beginning < ends.end
        }
        if not behind:
            return
        self._consumer.assign(list(behind))
        for place, offset in behind.items():
            self._consumer.seek(place, offset)
        moved_at = time.monotonic()
        while behind:
            batches = self._poll()
            for records in batches.values():
                for one in records:
                    if one.key == key and one.offset < self._end(one):
                        yield Record(
                            one.topic,
                            one.partition,
                            one.offset,
                            one.timestamp,
                            one.key,
                            one.value,
                            one.headers,
                        )
            if moved := self._move(behind, batches):
                moved_at = time.monotonic()
                advance(moved)
            elif time.monotonic() - moved_at > _PATIENCE_S:
                places = ", ".join(f"{place.partition} at offset {at}" for place, at in behind.items())
                raise BrokerError(f"{topic} gave nothing for {_PATIENCE_S:g} s; partitions: {places}")

    def _move(self, behind: dict[Any, int], batches: dict[Any, Any]) -> int:
        """Move the positions to where `batches` end; those at their ends go. Returns how far they moved."""
        moved = 0
        for place, before in list(behind.items()):
            # Only a look at the position tells of gaps, but it costs a hop: it is taken when nothing came.
            if records := batches.get(place):
                position = records[-1].offset + 1
            elif batches:
                continue
            else:
                with broker_errors("reading positions"):
                    position = self._consumer.position(place, timeout_ms=_REQUEST_TIMEOUT_MS)
            position = min(position, self._end(place))
            moved += position - before
            behind[place] = position
            if position == self._end(place):
                del behind[place]
                self._consumer.pause(place)
        return moved

    def _end(self, place: Any) -> int:
        return self.ends[TopicPartition(place.topic, place.partition)].end

    def _poll(self) -> dict[Any, Any]:
        try:
            batches: dict[Any, Any] = self._consumer.poll(timeout_ms=_POLL_MS)
        except UnsupportedCodecError as error:
            raise BrokerError(
                f"records are compressed with a codec that is not installed: {error}"
            ) from error
        except KafkaError as error:
            if error.retriable:
                return {}
            raise BrokerError(f"reading failed: {error}") from error
        return batches


@contextmanager
def open_replay(connection: Connection, topics: Sequence[str]) -> Iterator[Replay]:
    """A replay of `topics`, with their ends of this moment.

    Raises:
        BrokerError: a topic is missing, or the broker went away.
    """
    counts = partition_counts(connection, topics)
    if missing := [topic for topic, count in counts.items() if not count]:
        raise BrokerError(
            f"topics missing at {connection.brokers}: {', '.join(missing)}; settings (topics) name others"
        )
    places = [
        KafkaTopicPartition(topic, partition)
        for topic, count in counts.items()
        for partition in range(count or 0)
    ]
    with broker_errors("opening the log"):
        consumer: Any = KafkaConsumer(
            **connection.settings,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            allow_auto_create_topics=False,
            isolation_level="read_committed",
        )
    try:
        with broker_errors("reading the ends of the log"):
            beginnings = consumer.beginning_offsets(places)
            ends = consumer.end_offsets(places)
        yield Replay(
            consumer,
            {
                TopicPartition(place.topic, place.partition): TopicEnds(beginnings[place], ends[place])
                for place in places
            },
        )
    finally:
        consumer.close(autocommit=False)
