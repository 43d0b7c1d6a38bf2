"""The embedded broker: librdkafka's mock cluster, which speaks the real protocol on a port of its own.

For the demo and for smoke tests, never for a promise. It keeps everything in memory, and:

- every topic has 4 partitions and appears when a producer asks for it (`ensure_topics`);
- each partition keeps about 5 MiB and 100,000 batches, and drops what is older **without a word**;
- there are no topic ids, no admin calls, no retention or compaction, and no fencing of static members;
- transactions are not to be relied on: markers have wrong checksums, aborted records are returned;
- kafka-python must be told its protocol level (`consumer.kafka_client.connect` does that).

The broker runs on threads of librdkafka in this process and ends with it.
"""

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException, Producer

from consumer.errors import BrokerError

PARTITIONS = 4
"""Of every topic; librdkafka's default, which it offers no setting for."""

PARTITION_BYTES_MAX = 5 * 1024 * 1024
"""What a partition holds before its oldest records vanish."""

_TIMEOUT_S = 10.0


class EmbeddedBroker:
    """``with EmbeddedBroker() as broker: … broker.bootstrap …``."""

    def __init__(self) -> None:
        self._host: Producer | None = None
        self._bootstrap = ""

    @property
    def bootstrap(self) -> str:
        """Where it listens, ``127.0.0.1:PORT``; empty before it is started."""
        return self._bootstrap

    def start(self) -> Self:
        """Start it and return when it listens."""
        # The cluster is a by-product of a client with this setting, and lives as long as that client object.
        self._host = Producer({"test.mock.num.brokers": 1, "log_level": 0})
        found = self._host.list_topics(timeout=_TIMEOUT_S).brokers.values()
        self._bootstrap = ",".join(f"{broker.host}:{broker.port}" for broker in found)
        return self

    def stop(self) -> None:
        """End it; everything it held is gone."""
        self._host = None
        self._bootstrap = ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def ensure_topics(bootstrap: str, names: Iterable[str]) -> dict[str, int]:
    """Make topics appear on an embedded broker; those that are there stay as they are.

    A real broker is not to be asked like this: where it makes topics on demand, they are to its own taste.

    Args:
        bootstrap: Address of an embedded broker.
        names: Topics.

    Returns:
        Number of partitions per topic.

    Raises:
        BrokerError: the broker is gone, or refuses a name.
    """
    client = Producer({"bootstrap.servers": bootstrap, "log_level": 0})
    deadline = time.monotonic() + _TIMEOUT_S
    counts: dict[str, int] = {}
    for name in dict.fromkeys(names):
        refused: object = None
        while not counts.get(name):
            if time.monotonic() > deadline:
                raise BrokerError(f"the embedded broker at {bootstrap} did not make topic {name}: {refused}")
            # The request that makes a topic may be answered "unknown"; the next one has it.
            try:
                topic = client.list_topics(name, timeout=_TIMEOUT_S).topics[name]
            except KafkaException as error:
                refused = error
            else:
                counts[name], refused = len(topic.partitions), topic.error
    return counts
