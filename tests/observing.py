"""What tests do to a broker from outside: send, read everything, ask what a group committed, wait for a condition."""

import resource
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from kafka import KafkaConsumer, KafkaProducer
from kafka import TopicPartition as KafkaTopicPartition

from consumer.vocabulary import TopicPartition

T = TypeVar("T")


def until(condition: Callable[[], T], what: str, *, timeout_s: float = 60, every_s: float = 0.02) -> T:
    """Ask `condition` again and again; its first true value. Fails, naming `what`, when time is up."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(every_s)
    return found


class Sending(NamedTuple):
    """One record to send. `partition` None: by murmur2 of the key."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None = None
    headers: Sequence[tuple[str, bytes]] = ()
    timestamp_ms: int | None = None


class Place(NamedTuple):
    """Where a record came to lie."""

    topic: str
    partition: int
    offset: int


@contextmanager
def producer(broker: Any, **options: Any) -> Iterator[KafkaProducer]:
    """A producer as evaluators use one."""
    client = KafkaProducer(
        **broker.connect().settings,
        acks="all",
        linger_ms=5,
        enable_idempotence=not broker.embedded,
        **options,
    )
    try:
        yield client
    finally:
        client.close()


def produce(broker: Any, records: Iterable[Sending], **options: Any) -> list[Place]:
    """Send and wait for every acknowledgement."""
    with producer(broker, **options) as client:
        futures = [
            client.send(
                one.topic,
                key=one.key,
                value=one.value,
                partition=one.partition,
                headers=list(one.headers),
                timestamp_ms=one.timestamp_ms,
            )
            for one in records
        ]
        sent = [future.get(timeout=30) for future in futures]
    return [Place(one.topic, one.partition, one.offset) for one in sent]


def read_all(broker: Any, *topics: str) -> list[Any]:
    """Every committed record of the topics, by topic, partition and offset."""
    client = KafkaConsumer(
        **broker.connect().settings,
        auto_offset_reset="earliest",
        allow_auto_create_topics=False,
        isolation_level="read_committed",
    )
    try:
        places = [
            KafkaTopicPartition(topic, number)
            for topic in topics
            for number in sorted(client.partitions_for_topic(topic) or ())
        ]
        client.assign(places)
        ends = client.end_offsets(places)
        found: dict[Any, list[Any]] = {place: [] for place in places}

        def step() -> bool:
            for place, batch in client.poll(100).items():
                found[place] += batch
            return all(client.position(place) >= ends[place] for place in places)

        until(step, f"reading {', '.join(topics)} to the end")
    finally:
        client.close()
    return [record for place in places for record in found[place]]


def committed(broker: Any, group: str, places: Iterable[TopicPartition]) -> dict[TopicPartition, Any]:
    """Offset and metadata as the group committed them, None where it never did."""
    client = KafkaConsumer(**broker.connect().settings, group_id=group, enable_auto_commit=False)
    try:
        return {
            place: client.committed(KafkaTopicPartition(*place), metadata=True, timeout_ms=30_000)
            for place in places
        }
    finally:
        client.close(autocommit=False)


@contextmanager
def room_for(bytes_of_one_file: int) -> Iterator[None]:
    """No file of this process may become larger: the system refuses as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_of_one_file, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def commands() -> dict[int, bytes]:
    """The command lines of all processes of this machine, by pid."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it ended meanwhile
                found[int(entry.name)] = (entry / "cmdline").read_bytes()
    return found


def pushing(parent: int, mark: str = "") -> list[int]:
    """The pids of those children of a process that push to the Hub; of 1: those that outlived theirs.

    Those are anybody's: `mark` is something in the environment of those that are meant.
    """
    found = []
    for pid, command in commands().items():
        if b"consumer.pushing" in command:
            with suppress(OSError):  # it ended meanwhile
                is_child = f"PPid:\t{parent}\n" in Path(f"/proc/{pid}/status").read_text()
                if is_child and mark.encode() in Path(f"/proc/{pid}/environ").read_bytes():
                    found.append(pid)
    return found
