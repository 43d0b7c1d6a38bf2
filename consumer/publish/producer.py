"""Sends publications to Kafka.

Owns: the Kafka producer, the guard against the embedded broker's small log, waiting for acknowledgements.
Invariants: a shard's end is sent only after everything before it was acknowledged, in both topics; at most
`WINDOW_BYTES` (and one record) wait for acknowledgement, for the client itself has no bound; no failed record
goes unnoticed. Key of every record: the UTF-8 run_id, partitioned by murmur2.

Refuses: topics that are not there (they are never created on the way), and on the embedded broker what would
not fit.
"""

import contextlib
from collections import Counter, deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError
from kafka.partitioner.default import murmur2

from consumer.errors import BrokerError, UsageError
from consumer.kafka_client import Connection, partition_counts
from consumer.publish.publication import Publication
from consumer.settings import Topics
from consumer.vocabulary import Role

WINDOW_BYTES = 16 << 20
MAX_RECORD_BYTES = 64 << 20
"""The client refuses larger records; below it the broker decides (``max.message.bytes`` of the topic, 1 MiB
by default)."""

EMBEDDED_PARTITION_BYTES = 4 << 20
"""What may go into one partition of the embedded broker, which drops silently beyond 5 MiB: a margin is
kept."""

_RECORD_OVERHEAD = 64
_CLOSE_S = 5.0
_DELIVERY_S = 130.0  # a little more than the client's own delivery_timeout_ms

Sent = Callable[[int], None]
"""Told how many rows more were handed to the client."""


class Sender:
    """A producer on the input topics; a context manager."""

    def __init__(self, connection: Connection, topics: Topics) -> None:
        """Connect.

        Raises:
            BrokerError: the broker or a topic cannot be reached.
        """
        self._connection = connection
        self._topics: dict[Role, str] = {"samples": topics.samples, "aggregates": topics.aggregates}
        if not connection.embedded:
            self._refuse_absent(topics)
        self._pending: deque[tuple[Any, int]] = deque()
        self._pending_bytes = 0
        try:
            self._producer = KafkaProducer(
                **connection.settings,
                acks="all",
                enable_idempotence=True,  # a retry inside the client neither doubles nor reorders
                compression_type="lz4",
                linger_ms=10,
                batch_size=256 * 1024,
                max_request_size=MAX_RECORD_BYTES,
                allow_auto_create_topics=connection.embedded,  # its topics come up no other way
            )
            self._partitions = {topic: len(self._producer.partitions_for(topic)) for topic in topics.inputs}
        except KafkaError as error:
            raise BrokerError(f"cannot send to {connection.brokers}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Without an error nothing is pending. After one the rest gets a moment, no more: the run is
        # unfinished anyway and can be sent again, and what closing says must not cover what went wrong.
        with contextlib.suppress(KafkaError):
            self._producer.close(timeout=_CLOSE_S)

    def check_room(self, publications: Sequence[Publication]) -> None:
        """Refuse what the embedded broker would drop; real brokers take anything.

        Raises:
            UsageError: the records of one partition are too large together.
        """
        if not self._connection.embedded:
            return
        planned: Counter[tuple[str, int]] = Counter()
        for publication in publications:
            for message in publication.messages():
                place = self._place(message.role, publication.key)
                planned[place] += len(message.value) + len(publication.key) + _RECORD_OVERHEAD
                if planned[place] > EMBEDDED_PARTITION_BYTES:
                    raise UsageError(
                        f"too much for the embedded broker with {publication.output.results}: beyond "
                        f"{EMBEDDED_PARTITION_BYTES >> 20} MiB a partition it drops records in silence; "
                        "send to a real broker (`make kafka`, then --brokers), or less at a time"
                    )

    def send(self, publication: Publication, sent: Sent = lambda _: None) -> None:
        """Send a run and wait until all of it is acknowledged.

        Raises:
            BrokerError: a record was not taken.
            EvalsinkError: a samples file cannot be read any more, or changed.
        """
        key = publication.key
        for message in publication.messages():
            if message.last_word:
                self._settle()
            self._send(self._topics[message.role], key, message.value)
            sent(message.rows)
        self._settle()
        self._check_kept(key)

    def _send(self, topic: str, key: bytes, value: bytes) -> None:
        try:
            future = self._producer.send(topic, key=key, value=value)
        except KafkaError as error:
            raise self._refused(error) from error
        self._pending.append((future, len(value)))
        self._pending_bytes += len(value)
        while self._pending and (self._pending_bytes > WINDOW_BYTES or self._pending[0][0].is_done):
            self._await_oldest()

    def _settle(self) -> None:
        """Wait until everything sent is acknowledged.

        Not by the client's `flush`: in 3.0.12 it fails ("Future not done") whenever a batch had to be split.
        """
        while self._pending:
            self._await_oldest()

    def _await_oldest(self) -> None:
        future, size = self._pending.popleft()
        self._pending_bytes -= size
        try:
            future.get(timeout=_DELIVERY_S)
        except KafkaError as error:
            raise self._refused(error) from error

    def _refused(self, error: KafkaError) -> BrokerError:
        advice = ""
        if isinstance(error, MessageSizeTooLargeError | RecordListTooLargeError):
            advice = f"; raise max.message.bytes of topic {self._topics['samples']}, or lower --batch-size"
        return BrokerError(
            f"{self._connection.brokers} did not take a record: {type(error).__name__}: {error}{advice}; "
            "the run is not whole there, sending it again with the same options completes it"
        )

    def _refuse_absent(self, topics: Topics) -> None:
        counts = partition_counts(self._connection, topics.inputs)
        absent = [topic for topic, count in counts.items() if not count]
        if absent:
            raise BrokerError(
                f"no topic {' and '.join(absent)} at {self._connection.brokers}: create them with "
                f"`evalsink topics --brokers {self._connection.brokers}`"
            )

    def _place(self, role: Role, key: bytes) -> tuple[str, int]:
        topic = self._topics[role]
        return topic, (murmur2(key) & 0x7FFFFFFF) % self._partitions[topic]

    def _check_kept(self, key: bytes) -> None:
        """What others left in the embedded broker cannot be counted, but that it dropped some can be seen."""
        if not self._connection.embedded:
            return
        places = {TopicPartition(*self._place(role, key)) for role in self._topics}
        consumer = KafkaConsumer(**self._connection.settings)
        try:
            starts = consumer.beginning_offsets(list(places))
        finally:
            consumer.close()
        if any(starts.values()):
            raise BrokerError(
                f"the embedded broker at {self._connection.brokers} was full and dropped records: start a "
                "new one, or send to a real broker (`make kafka`)"
            )
