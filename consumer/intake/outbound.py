"""What the worker itself writes to Kafka: dead letters and receipts, acknowledged in order.

Invariants: `acknowledged` never counts a record whose predecessor is not acknowledged; a refusal is raised,
never dropped.
"""

import time
from collections import deque
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError

from consumer.errors import BrokerError
from consumer.kafka_client import Connection, broker_errors

# The largest dead letter is the largest record that some producer could send: let the broker decide, not the
# client.
_REQUEST_BYTES_MAX = 256 * 1024 * 1024
_PENDING_BYTES_MAX = 64 * 1024 * 1024
_PENDING_MAX = 10_000


class Outbound:
    """One producer and the records it has not been thanked for yet. One thread."""

    def __init__(self, connection: Connection) -> None:
        options: dict[str, Any] = {} if connection.embedded else {"enable_idempotence": True}
        with broker_errors("starting a producer"):
            self._producer = KafkaProducer(
                **connection.settings,
                **options,
                acks="all",
                linger_ms=5,
                # The limit of a record is that of its compressed batch: what came in compressed must fit
                # again.
                compression_type="zstd",
                max_request_size=_REQUEST_BYTES_MAX,
            )
        self._pending: deque[tuple[str, int, Any]] = deque()
        self._pending_bytes = 0
        self._sent = 0
        self._acknowledged = 0

    @property
    def sent(self) -> int:
        """Records handed over so far: the ticket of the last one."""
        return self._sent

    @property
    def pending(self) -> int:
        """Records not yet acknowledged."""
        return len(self._pending)

    @property
    def is_full(self) -> bool:
        """So much is on its way that more should wait (`flush`): the client itself has no bound."""
        return self._pending_bytes > _PENDING_BYTES_MAX or len(self._pending) > _PENDING_MAX

    def send(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: list[tuple[str, bytes]] | None = None,
        partition: int | None = None,
    ) -> int:
        """Hand over one record.

        Returns:
            Its ticket: once `acknowledged` reaches it, the record is durable.

        Raises:
            BrokerError: the client refuses it.
        """
        with broker_errors(f"writing to {topic}"):
            future = self._producer.send(
                topic, key=key, value=value, headers=headers or [], partition=partition
            )
        self._pending.append((topic, len(value or b""), future))
        self._pending_bytes += len(value or b"")
        self._sent += 1
        return self._sent

    def acknowledged(self) -> int:
        """The highest ticket up to which everything is durable.

        Raises:
            BrokerError: the broker refused a record for good. Stop: nothing may pass what it stands for.
        """
        while self._pending and self._pending[0][2].is_done:
            topic, size, future = self._pending.popleft()
            self._pending_bytes -= size
            if future.failed():
                raise BrokerError(
                    f"Kafka did not take a record for {topic}: {future.exception}"
                ) from future.exception
            self._acknowledged += 1
        return self._acknowledged

    def flush(self, timeout_s: float) -> None:
        """Wait until everything sent was acknowledged or refused.

        Raises:
            BrokerError: it took too long.
        """
        # Not the producer's own flush: it fails whenever the client had to split a batch.
        deadline = time.monotonic() + timeout_s
        for topic, _, future in list(self._pending):
            try:
                future.get(timeout=max(0.0, deadline - time.monotonic()))
            except KafkaError as error:
                raise BrokerError(f"Kafka did not acknowledge a record for {topic}: {error}") from error
        self.acknowledged()

    def close(self) -> None:
        """End it; what is not acknowledged is not waited for long."""
        self._producer.close(timeout=5)
