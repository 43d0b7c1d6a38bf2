"""The way to a broker: what answers there, and the settings from which all our Kafka clients start.

Owns: the addresses' grammar, the decision embedded or real, what kafka-python may say on our log, and the few
questions that are asked outside a consumer or producer (partition counts, topic ids, end offsets).

The embedded broker (`consumer.broker.embedded`) cannot negotiate versions with kafka-python, so its clients
carry ``api_version``; a client of a real cluster never does. They are told apart by what the broker says, not
by what it fails to say: the cluster id, which only librdkafka's mock begins with ``mockCluster``. So a real
broker that is slow or still starting is never taken for an embedded one. Only loopback addresses are asked in
that way.

Only this module, `consumer.kafka_security`, `consumer.intake` and `consumer.publish.producer` import kafka.
"""

import ipaddress
import logging
import re
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaAdminClient
from kafka import TopicPartition as KafkaTopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError, UnknownTopicOrPartitionError, for_code
from kafka.net import manager
from kafka.net.compat import KafkaNetClient
from kafka.record import default_records, legacy_records
from msgspec import Struct

from consumer.errors import BrokerAwayError, BrokerError, UsageError
from consumer.kafka_receiving import larger
from consumer.kafka_security import check_admission, client_settings
from consumer.kafka_unpacking import UNPACK
from consumer.settings import Security
from consumer.telemetry.logs import logger
from consumer.vocabulary import TopicPartition

log = logger(__name__)

EMBEDDED_API_VERSION = (2, 3)
"""The newest protocol level at which kafka-python and librdkafka's mock cluster understand each other."""

_EMBEDDED_CLUSTER_ID = "mockCluster"
_DEFAULT_PORT = 9092
_UNKNOWN_TOPIC = UnknownTopicOrPartitionError.errno

# A loopback broker that is up answers within milliseconds. The first wait is short, because the two ways of
# asking take turns; each further one is twice as long, for a machine under load.
_FIRST_ATTEMPT_S = 0.5

# After a restart of the broker a worker should be back in seconds; kafka-python's own cap is 30 s.
_RECONNECT_BACKOFF_MAX_MS = 5000

# kafka-python forgets a subscription that comes while a metadata answer is under way, until the next one is
# due: by default five minutes of silence. A pinned consumer subscribes during its bootstrap and so ran into
# that in 71 of 400 starts; its answers come every second. On a real cluster it takes a periodic refresh at
# that very moment.
_METADATA_AGE_MAX_MS = 30_000
_METADATA_AGE_EMBEDDED_MAX_MS = 1_000

# An outage makes kafka-python say some sixty lines in its first second; their substance reaches the caller as
# an exception. What is not about sockets is let through, each sentence once a minute.
_SILENCED = ("kafka.net", "kafka.protocol", "kafka.cluster")
_THINNED = (
    "kafka.coordinator",
    "kafka.coordinator.consumer",
    "kafka.coordinator.heartbeat",
    "kafka.consumer.fetcher",
    "kafka.consumer.group",
    "kafka.producer.kafka",
    "kafka.producer.sender",
)
_SAY_AGAIN_AFTER_S = 60.0


class Connection(Struct, frozen=True):
    """A broker that has answered. Holds no socket: it says how to make clients.

    Attributes:
        brokers: Bootstrap servers as they were asked for, ``host:port`` separated by commas.
        embedded: Whether it is the embedded broker (its limits: `consumer.broker.embedded`).
        settings: Keyword arguments for `KafkaConsumer`, `KafkaProducer` and `KafkaAdminClient` alike.
    """

    brokers: str
    embedded: bool
    settings: dict[str, Any]


def connect(brokers: str, security: Security | None = None, *, timeout_s: float = 10) -> Connection:
    """Ask until somebody answers.

    Args:
        brokers: ``host:port`` separated by commas; the port defaults to 9092.
        security: TLS and SASL; not given: neither.
        timeout_s: Give up after this many seconds.

    Raises:
        UsageError: `brokers` is not a list of addresses, or a file that `security` names cannot be used.
        BrokerError: nobody answered as Kafka does, or let us in. Nothing was done; call again.
    """
    servers = parse_servers(brokers)
    security = security or Security()
    _quieten()
    _bound_unpacking()
    manager.KafkaTCPTransport = larger(manager.KafkaTCPTransport)
    settings: dict[str, Any] = {
        "bootstrap_servers": [
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in servers
        ],
        "client_id": "evalsink",
        "bootstrap_timeout_ms": round(timeout_s * 1000),
        "reconnect_backoff_max_ms": _RECONNECT_BACKOFF_MAX_MS,
        "metadata_max_age_ms": _METADATA_AGE_MAX_MS,
        **client_settings(security),
    }
    pinned = {
        **settings,
        "api_version": EMBEDDED_API_VERSION,
        "metadata_max_age_ms": _METADATA_AGE_EMBEDDED_MAX_MS,
    }
    secured = security.tls or security.sasl
    loopback = all(_is_loopback(host) for host, _ in servers)
    deadline = time.monotonic() + timeout_s
    attempt_s = _FIRST_ATTEMPT_S if loopback else timeout_s
    while time.monotonic() < deadline:
        if secured:
            check_admission(settings, security, servers, attempt_s)
        elif loopback and _cluster_id(pinned, attempt_s, deadline).startswith(_EMBEDDED_CLUSTER_ID):
            log.info("embedded_broker_found", brokers=brokers, api_version=EMBEDDED_API_VERSION)
            return Connection(brokers, embedded=True, settings=pinned)
        if _cluster_id(settings, attempt_s, deadline):
            return Connection(brokers, embedded=False, settings=settings)
        attempt_s *= 2
    raise BrokerError(
        f"no Kafka answers at {brokers} within {timeout_s:g} s ({_diagnosis(servers, security)}); "
        "say where it is with --brokers or EVALSINK_BROKERS"
    )


@contextmanager
def broker_errors(doing: str) -> Iterator[None]:
    """Turn kafka-python's errors into a `BrokerError` that says what was being done.

    A `BrokerAwayError`, where asking again may help.

    Args:
        doing: Completes "Kafka refused or did not answer while …".
    """
    try:
        yield
    except KafkaError as error:
        kind = BrokerAwayError if error.retriable else BrokerError
        raise kind(f"Kafka refused or did not answer while {doing}: {error}") from error


@contextmanager
def admin(connection: Connection) -> Iterator[KafkaAdminClient]:
    """A client for questions about topics, closed at the end; raises kafka's own errors (`broker_errors`)."""
    client = _admin_client(connection.settings)
    try:
        yield client
    finally:
        client.close()


def partition_counts(connection: Connection, topics: Iterable[str]) -> dict[str, int | None]:
    """Number of partitions per topic, None for a topic that does not exist. Creates nothing.

    Raises:
        BrokerError: the broker went away, or will not tell about one of the topics.
    """
    return {
        name: None if topic is None else len(topic["partitions"])
        for name, topic in _describe(connection, topics).items()
    }


def topic_ids(connection: Connection, topics: Iterable[str]) -> dict[str, str]:
    """UUID of each topic that exists, as text; a topic made anew under its old name has another one.

    Empty on a broker that has none: the embedded one, and Kafka before 2.8.

    Raises:
        BrokerError: as `partition_counts`.
    """
    return {
        name: str(topic["topic_id"])
        for name, topic in _describe(connection, topics).items()
        if topic is not None and topic.get("topic_id")
    }


def end_offsets(connection: Connection, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
    """Offset after the last record of each partition, records of open transactions included.

    Raises:
        BrokerError: one of the partitions does not exist, or the broker went away.
    """
    wanted = {KafkaTopicPartition(*partition): OffsetSpec.LATEST for partition in partitions}
    with broker_errors("looking up end offsets"), admin(connection) as client:
        found = client.list_partition_offsets(wanted)
    return {
        TopicPartition(partition.topic, partition.partition): at.offset for partition, at in found.items()
    }


def _describe(connection: Connection, topics: Iterable[str]) -> dict[str, Any]:
    wanted = list(dict.fromkeys(topics))
    with broker_errors(f"describing the topics {', '.join(wanted)}"), admin(connection) as client:
        found = {topic["name"]: topic for topic in client.describe_topics(wanted)}
        for name, topic in found.items():
            if topic["error_code"] == _UNKNOWN_TOPIC:
                found[name] = None
            elif topic["error_code"]:
                raise for_code(topic["error_code"])(name)
    return {name: found.get(name) for name in wanted}


def _cluster_id(settings: dict[str, Any], timeout_s: float, deadline: float) -> str:
    """Who answers, empty if nobody does: every Kafka since 0.10.1 has a cluster id."""
    wait_s = max(0.0, min(timeout_s, deadline - time.monotonic()))
    try:
        client = _admin_client({**settings, "bootstrap_timeout_ms": round(wait_s * 1000)})
    except KafkaError:
        return ""
    try:
        return client.describe_cluster()["cluster_id"] or ""
    except KafkaError:
        return ""
    finally:
        client.close()


def _admin_client(settings: dict[str, Any]) -> KafkaAdminClient:
    """An admin client. A constructor that fails would leave its I/O thread behind; here it does not."""
    made: list[KafkaNetClient] = []

    def network(**config: Any) -> KafkaNetClient:
        made.append(KafkaNetClient(**config))
        return made[-1]

    try:
        return KafkaAdminClient(**settings, kafka_client=network)
    except BaseException:
        for client in made:
            client.close()
        raise


def parse_servers(brokers: str) -> list[tuple[str, int]]:
    """(host, port) of each bootstrap server; the port defaults to 9092.

    Raises:
        UsageError: `brokers` is not a list of addresses.
    """
    servers = []
    for part in filter(None, (part.strip() for part in brokers.split(","))):
        found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/\[\]@]+))(?::(\d{1,5}))?", part)
        port = int(found[3] or _DEFAULT_PORT) if found else 0
        if not found or not 0 < port < 1 << 16:
            raise UsageError(f"--brokers (EVALSINK_BROKERS): {part!r} is not HOST:PORT")
        servers.append((found[1] or found[2], port))
    if not servers:
        raise UsageError("--brokers (EVALSINK_BROKERS) names no broker")
    return servers


def _spelled(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _diagnosis(servers: list[tuple[str, int]], security: Security) -> str:
    """What a plain connection says: the clients' own errors only say "timed out"."""
    for host, port in servers:
        try:
            socket.create_connection((host, port), timeout=1).close()
        except OSError as error:
            why = f"{host}:{port}: {error.strerror or error}"
        else:
            return (
                f"{host}:{port} accepts connections but does not answer as a Kafka listener for "
                f"{security.protocol} does: is security.protocol right?"
            )
    return why


class _OnceAMinute(logging.Filter):
    """Lets each sentence (whatever its values) through once a minute."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        sentence, now = str(record.msg), time.monotonic()
        if now - self._said.get(sentence, -_SAY_AGAIN_AFTER_S) < _SAY_AGAIN_AFTER_S:
            return False
        self._said[sentence] = now
        return True


def _bound_unpacking() -> None:
    """Our decoders for the client's, wherever it has them: no batch unpacks to more than is taken."""
    names = {"gzip_decode": 1, "snappy_decode": 2, "lz4_decode": 3, "zstd_decode": 4}
    for module in (default_records, legacy_records):
        for name, number in names.items():
            if hasattr(module, name):
                setattr(module, name, UNPACK[number])


def _quieten() -> None:
    logging.getLogger("kafka").setLevel(logging.WARNING)
    for name in _SILENCED:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for name in _THINNED:
        logger = logging.getLogger(name)
        if not any(isinstance(known, _OnceAMinute) for known in logger.filters):
            logger.addFilter(_OnceAMinute())
