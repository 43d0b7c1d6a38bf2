"""The consumer group over kafka-python: `consumer.intake.source.Source` for a real (or the embedded) broker.

What kafka-python 3.0 makes us do, and where it is done: rebalance listeners run on the client's I/O thread
and may not block, so the listener only parks what it was given (seek, pause) and notes it; eager assignment
keeps positions of partitions that stay, so every partition is sought explicitly, every time (`start`);
`poll(0)` costs thread hops, so the poll waits.
"""

import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata
from kafka import TopicPartition as KafkaTopicPartition
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import (
    CommitFailedError,
    FencedInstanceIdError,
    InvalidRequestError,
    KafkaError,
    RebalanceInProgressError,
)

from consumer.errors import BrokerAwayError, BrokerError
from consumer.intake import batches
from consumer.intake.fetching import ask_in_time
from consumer.intake.resume import Committed, TopicEnds
from consumer.intake.source import Assigned, Assignment, CommitRefused, Lost
from consumer.kafka_client import Connection, broker_errors
from consumer.settings import Settings
from consumer.telemetry.logs import logger
from consumer.vocabulary import Record, TopicPartition

_log = logger(__name__)

_REQUEST_TIMEOUT_MS = 30_000

_POLL_BYTES = 8 * 1024 * 1024
_FIRST_POLL_RECORDS = 100
_VALUE = itemgetter(Record._fields.index("value"))

# The mock cluster's group settles in 5 s with these and in 29 s with the defaults.
_EMBEDDED_SESSION = {"session_timeout_ms": 6000, "heartbeat_interval_ms": 500}


class _Parking(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python ships no types
    """Notes assignments and parks what was given. Runs on the client's I/O thread: nothing here may block."""

    def __init__(self) -> None:
        self.consumer: Any = None
        self.noted: deque[Assignment] = deque()

    def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        for partition in assigned:
            # Any position keeps poll() from looking for one (the reset policy is none); it is not read from.
            self.consumer.seek(partition, 0)
        if assigned:
            self.consumer.pause(*assigned)
        self.noted.append(Assigned(frozenset(partition.partition for partition in assigned)))

    def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        self.noted.append(Lost(frozenset(partition.partition for partition in revoked)))


def _guarded(stock: Any, faults: list[tuple[Any, Exception]]) -> Any:
    """kafka-python's parser of one partition's records, whose failure fails that partition alone.

    The stock one raises once and is then called for ever, since its generator is dead but not done (3.0.12).
    """

    class Guarded(stock):  # type: ignore[misc]  # kafka-python ships no types
        def take(self, n: int | None = None) -> list[Any]:
            try:
                records: list[Any] = super().take(n)
            except Exception as error:  # noqa: BLE001 - whatever a codec or parser raises
                faults.append((self.topic_partition, error))
                self.drain()
                return []
            return records

    return Guarded


def _recording(stock: Any) -> Any:
    """kafka-python's own parser, where `batches.faster` does not know it: its records become ours."""

    class Recording(stock):  # type: ignore[misc]  # kafka-python ships no types
        def take(self, n: int | None = None) -> list[Record]:
            return [
                Record(one.topic, one.partition, one.offset, one.timestamp, one.key, one.value, one.headers)
                for one in super().take(n)
            ]

    return Recording


class _Joining:
    """A join that lasts for longer than one poll: what came of it counts, also if it ended between two polls.

    kafka-python forgets such a one and joins again (3.0.12); of a leader, a static one too, that is a
    rebalance for the whole group.
    """

    is_done = False  # all that is asked for in deciding

    def __init__(self, task: Any) -> None:
        self._task = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def __await__(self) -> Any:
        return self._task.__await__()


class GroupSource:
    """A member of the group `settings.group` on the input topics."""

    def __init__(
        self, connection: Connection, settings: Settings, *, topic_ids: Mapping[str, str] | None = None
    ) -> None:
        """Join the group.

        Args:
            connection: The broker.
            settings: Group, topics, time-outs.
            topic_ids: Topic to the UUID it must keep; those of topics without one are not looked at.
        """
        session: dict[str, Any] = {
            "session_timeout_ms": settings.session_timeout_ms,
            "heartbeat_interval_ms": max(500, settings.session_timeout_ms // 15),
        }
        if connection.embedded:
            session = dict(_EMBEDDED_SESSION)
        if settings.group_instance_id:
            session["group_instance_id"] = settings.group_instance_id
        self._embedded = connection.embedded
        self._topics = settings.topics.inputs
        self._topic_ids = dict(topic_ids or {})
        self._counts: dict[str, int] = {}
        self._poll_timeout_ms = settings.poll_timeout_ms
        self._poll_records_max = settings.poll_records_max
        self._records_of_one_poll = min(_FIRST_POLL_RECORDS, settings.poll_records_max)
        with broker_errors(f"joining the group {settings.group}"):
            self._consumer: Any = KafkaConsumer(
                **connection.settings,
                **session,
                group_id=settings.group,
                enable_auto_commit=False,
                auto_offset_reset="none",
                allow_auto_create_topics=False,
                isolation_level="read_committed",
                # Range gives partition p of every topic to one member, as long as counts are equal.
                partition_assignment_strategy=[RangePartitionAssignor],
                max_poll_records=settings.poll_records_max,
            )
            # The option of that name does not reach what sends the requests (3.0.12).
            self._consumer._cluster.config["allow_auto_create_topics"] = False  # noqa: SLF001
            self._faults: list[tuple[Any, Exception]] = []
            fetcher = self._consumer._fetcher  # noqa: SLF001 - no other way to learn which partition failed
            stock = fetcher.PartitionRecords
            fetcher.PartitionRecords = _guarded(batches.faster(stock) or _recording(stock), self._faults)
            ask_in_time(fetcher)
            self._listener = _Parking()
            self._listener.consumer = self._consumer
            self._consumer.subscribe(topics=list(self._topics), listener=self._listener)
            for topic in self._topics:
                # A leader without metadata skips the topic silently, and what comes after the join counts as
                # changed: a rebalance later everything moves.
                self._counts[topic] = len(self._consumer.partitions_for_topic(topic) or ())

    def hold(self) -> None:
        """Stay a member for one poll's time, but take no record; the next `poll` goes on."""
        flowing = self._consumer.assignment() - self._consumer.paused()
        self._consumer.pause(*flowing)
        try:
            self.poll()
        finally:
            # A rebalance meanwhile parked everything anew: what it parked stays parked until `start`.
            if not self._listener.noted:
                self._consumer.resume(*flowing)

    def poll(self) -> Sequence[Record]:
        """Records of started partitions; waits at most `poll_timeout_ms`.

        Raises:
            BrokerError: what polling again does not mend: an offset is gone, rights are lacking, an input
                topic is another one than it was.
        """
        self._keep_join()
        try:
            fetched = self._consumer.poll(
                timeout_ms=self._poll_timeout_ms, max_records=self._records_of_one_poll
            )
        except KafkaError as error:
            # What the mock cluster says to a follower that syncs a moment after its leader; it lets it join
            # again.
            if error.retriable or (self._embedded and isinstance(error, InvalidRequestError)):
                # It may come at once, and again: no spinning while a broker is away.
                time.sleep(self._poll_timeout_ms / 1000)
                return ()
            raise BrokerError(f"reading failed: {error}") from error
        self._refuse_other_topics()
        self._set_faulty_aside()
        records: list[Record] = list(chain.from_iterable(fetched.values()))
        self._adapt(records)
        return records

    def _keep_join(self) -> None:
        coordinator = self._consumer._coordinator  # noqa: SLF001 - the join is nowhere else
        task = coordinator._join_task  # noqa: SLF001 - likewise
        if task is not None and not isinstance(task, _Joining):
            coordinator._join_task = _Joining(task)  # noqa: SLF001 - likewise

    def _refuse_other_topics(self) -> None:
        """Compare the topics with those we came to, as far as the client has heard: it says nothing itself.

        In a topic made anew it reads on at the old offset; partitions that were added it shares out, although
        the records of a run now come to two of them.
        """
        cluster = self._consumer._cluster  # noqa: SLF001 - no other way to hear what the client heard
        for topic in self._topics:
            topic_id, expected_id = cluster.topic_id(topic), self._topic_ids.get(topic)
            if topic_id is not None and expected_id and str(topic_id) != expected_id:
                raise BrokerError(
                    f"{topic} was made anew while it was read; start again: it is read from its beginning"
                )
            count = len(cluster.partitions_for_topic(topic) or ())
            expected = self._counts[topic] = self._counts[topic] or count
            if count not in {0, expected}:
                raise BrokerError(
                    f"{topic} has {count} partitions now, not {expected}: run_ids move to other partitions, "
                    "and a run under way never closes; name new topics in the settings (topics) instead"
                )

    def _adapt(self, records: Sequence[Record]) -> None:
        """The client bounds a poll by records alone; records are from 100 bytes to megabytes long."""
        if records:
            size = sum(map(len, filter(None, map(_VALUE, records)))) // len(records)
            fitting = max(1, _POLL_BYTES // max(1, size))
            self._records_of_one_poll = min(self._poll_records_max, fitting, 2 * self._records_of_one_poll)

    def _set_faulty_aside(self) -> None:
        """Stop reading partitions whose log cannot be parsed: they are not skipped, and the others go on."""
        while self._faults:
            place, error = self._faults.pop()
            self._consumer.pause(*(KafkaTopicPartition(topic, place.partition) for topic in self._topics))
            _log.error(
                "partition_set_aside",
                topic=place.topic,
                partition=place.partition,
                reason=f"{type(error).__name__}: {error}",
                hint="a missing codec, a bad checksum, or a header that is no text; mend it, then restart",
            )

    def assignments(self) -> Sequence[Assignment]:
        """What changed since the last call."""
        noted = []
        while self._listener.noted:
            noted.append(self._listener.noted.popleft())
        return noted

    def committed(self, partition: int) -> Mapping[str, Committed | None]:
        """What the group committed, per input topic."""
        found: dict[str, Committed | None] = {}
        with broker_errors("reading committed offsets"):
            for topic in self._topics:
                one = self._consumer.committed(
                    KafkaTopicPartition(topic, partition), metadata=True, timeout_ms=_REQUEST_TIMEOUT_MS
                )
                found[topic] = (
                    None if one is None or one.offset < 0 else Committed(one.offset, one.metadata or "")
                )
        return found

    def ends(self, partitions: Collection[int]) -> Mapping[TopicPartition, TopicEnds]:
        """First readable offset and end of each topic-partition."""
        wanted = [KafkaTopicPartition(topic, partition) for topic in self._topics for partition in partitions]
        if not wanted:
            return {}
        with broker_errors("reading the ends of the log"):
            beginnings = self._consumer.beginning_offsets(wanted, timeout_ms=_REQUEST_TIMEOUT_MS)
            ends = self._consumer.end_offsets(wanted, timeout_ms=_REQUEST_TIMEOUT_MS)
        return {
            TopicPartition(one.topic, one.partition): TopicEnds(beginnings[one], ends[one]) for one in wanted
        }

    def end_as_heard(self, place: TopicPartition) -> int | None:
        """The high watermark that came with the last fetch."""
        one = KafkaTopicPartition(*place)
        # The I/O thread may take it away at any moment; `highwater` would raise.
        state = self._consumer._subscription.assignment.get(one)  # noqa: SLF001 - see above
        return None if state is None else state.highwater

    def start(self, partition: int, offsets: Mapping[str, int]) -> None:
        """Seek and let flow."""
        for topic, offset in offsets.items():
            self._consumer.seek(KafkaTopicPartition(topic, partition), offset)
        self._consumer.resume(*(KafkaTopicPartition(topic, partition) for topic in offsets))

    def position(self, partition: int) -> Mapping[str, int]:
        """Next offsets.

        Raises:
            BrokerAwayError: a rebalance took the partition a moment ago.
        """
        positions = {}
        for topic in self._topics:
            # Not the client's own `position`: with a broker away it waits for its whole time-out, for each
            # partition in turn, to validate what `start` set. Reading validates it anyway.
            state = self._consumer._subscription.assignment.get(KafkaTopicPartition(topic, partition))  # noqa: SLF001 - see above
            if state is None or state.position is None:
                raise BrokerAwayError(f"partition {partition} of {topic} is not assigned any more")
            positions[topic] = state.position.offset
        return positions

    def commit(self, offsets: Mapping[TopicPartition, Committed]) -> None:
        """Commit all of `offsets` in one request.

        Raises:
            CommitRefused: the group did not take it.
            BrokerError: it never will: no rights, or a static member was replaced by another of its name
                (polling alone would not tell); or an input topic is another one than it was.
        """
        if not offsets:
            return
        self._refuse_other_topics()
        try:
            self._consumer.commit(
                {
                    KafkaTopicPartition(*partition): OffsetAndMetadata(one.offset, one.metadata, -1)
                    for partition, one in offsets.items()
                },
                timeout_ms=_REQUEST_TIMEOUT_MS,
            )
        except FencedInstanceIdError as error:
            raise BrokerError(
                "another worker has this worker's group_instance_id; give each its own"
            ) from error
        except (CommitFailedError, RebalanceInProgressError) as error:
            raise CommitRefused(str(error)) from error
        except KafkaError as error:
            if error.retriable:
                raise CommitRefused(str(error)) from error
            raise BrokerError(f"committing offsets failed: {error}") from error

    def close(self) -> None:
        """Leave the group."""
        with broker_errors("leaving the group"):
            self._consumer.close(autocommit=False)
