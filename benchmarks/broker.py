"""The broker of a benchmark and what lies in it: one real single-node Kafka, each load sent once.

A load's topics are named after its shape. Whoever finds them filled does not send again, so with --brokers
(a Kafka that stays, say of `make kafka`) one load serves any number of calls. Topics that hold something else
than their name says are refused.
"""

import argparse
import contextlib
import signal
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import kafka
from confluent_kafka import KafkaException, Producer
from kafka.partitioner.default import murmur2

from benchmarks.measuring import RESULTS
from benchmarks.rows import Keyed, Shape, ends, samples
from consumer.intake.topics import arrange
from consumer.kafka_client import connect
from consumer.settings import Topics
from tests.kafka_harness.broker import RealKafka

PARTITIONS = 4
HOME = Path(__file__).parents[1] / ".cache" / "bench"
"""Environments and scratch data; ignored by git, removed by `make clean`."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """What all benchmarks are told."""
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--brokers", help="a Kafka that runs already (make kafka); loads stay in it")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON file")


@contextlib.contextmanager
def running(brokers: str | None) -> Iterator[str]:
    """The address of the broker that was named, or of one started for this call."""
    if brokers:
        yield brokers
        return
    HOME.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=HOME, prefix="kafka-") as folder, RealKafka(Path(folder)) as started:
        yield started.bootstrap


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder for what contenders write, on the disk of this checkout; removed, on SIGTERM too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    HOME.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=HOME, prefix="work-") as folder:
        yield Path(folder)


def make_topics(bootstrap: str, name: str) -> Topics:
    """evalsink's four topics, called after `name`; those that are there stay."""
    topics = Topics(f"{name}.samples", f"{name}.aggregates", f"{name}.receipts", f"{name}.dead-letters")
    made = arrange(connect(bootstrap), topics, partitions=PARTITIONS)
    if problems := [problem for topic in made for problem in topic.problems]:
        raise SystemExit("; ".join(problems))
    return topics


def fill(bootstrap: str, shape: Shape, *, ended: bool = False) -> Topics:
    """Send a load, if it is not there; with `ended` its runs end too. Returns its topics."""
    topics = make_topics(bootstrap, shape.name + (".ended" if ended else ""))
    expected = shape.events + (shape.runs if ended else 0)
    found = records_in(bootstrap, topics.samples)
    if found == expected:
        return topics
    if found:
        raise SystemExit(f"{topics.samples} holds {found} records instead of {expected}: remove it first")
    with sending(bootstrap) as producer:
        send(producer, topics, samples(shape))
        if ended:
            send(producer, topics, ends(shape))
    return topics


@contextlib.contextmanager
def sending(bootstrap: str, more: Mapping[str, Any] | None = None) -> Iterator[Producer]:
    """A producer as evaluators would have one: lz4, acks of all, Kafka's own partitioner."""
    failures: list[str] = []
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "compression.type": "lz4",
            "linger.ms": 20,
            "acks": "all",
            "partitioner": "murmur2_random",
            "queue.buffering.max.kbytes": 256 * 1024,
            "on_delivery": lambda error, _: failures.append(str(error)) if error else None,
            **(more or {}),
        }
    )
    yield producer
    producer.flush()
    if failures:
        raise KafkaException(f"{len(failures)} records were not taken, the first: {failures[0]}")


def send(producer: Producer, topics: Topics, records: Iterable[Keyed]) -> None:
    """Hand records over; waits while the producer is full."""
    for role, key, value in records:
        while True:
            try:
                producer.produce(getattr(topics, role), value, key)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)


def records_in(bootstrap: str, topic: str) -> int:
    """Records of a topic to which nobody wrote in transactions."""
    consumer = kafka.KafkaConsumer(bootstrap_servers=bootstrap)
    try:
        places = [kafka.TopicPartition(topic, number) for number in range(PARTITIONS)]
        return sum(consumer.end_offsets(places).values())
    finally:
        consumer.close()


def partition_of(key: str) -> int:
    """Where Kafka's own partitioner puts a key."""
    partition: int = (murmur2(key.encode()) & 0x7FFFFFFF) % PARTITIONS
    return partition


def names_in(partition: int, prefix: str) -> Iterator[str]:
    """Names of runs that lie in one partition, without end."""
    return (name for number in count() if partition_of(name := f"{prefix}-{number:04d}") == partition)
