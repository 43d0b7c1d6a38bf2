"""The broker of a benchmark and what lies in it: one real single-node Kafka, each load sent once.

A load's topics are named after its shape. Whoever finds them filled does not send again, so with --brokers (a Kafka
that stays, say of `make kafka`) one load serves any number of calls. Topics that hold something else than their name
says are refused.
"""

import argparse
import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import kafka as kafka_python
from confluent_kafka import KafkaException, Producer

from benchmarks.rows import Keyed, Shape, ends, samples
from consumer.intake.topics import arrange
from consumer.kafka_client import connect
from consumer.settings import Topics
from tests.kafka_harness.broker import RealKafka

PARTITIONS = 4
HOME = Path(__file__).parents[1] / ".cache" / "bench"
"""Environments and scratch data; ignored by git, removed by `make clean`."""


@contextlib.contextmanager
def broker(options: argparse.Namespace) -> Iterator[str]:
    """The address of the broker that the options name, or of one started for this call."""
    if options.brokers:
        yield options.brokers
        return
    HOME.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=HOME, prefix="kafka-") as folder, RealKafka(Path(folder)) as kafka:
        yield kafka.bootstrap


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder for what contenders write, on the disk of this checkout; removed afterwards."""
    HOME.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=HOME, prefix="work-") as folder:
        yield Path(folder)


def names_of(shape: Shape, suffix: str = "") -> Topics:
    """The topics of a load."""
    name = shape.name + suffix
    return Topics(f"{name}.samples", f"{name}.aggregates", f"{name}.receipts", f"{name}.dead-letters")


def fill(bootstrap: str, shape: Shape, *, ended: bool = False) -> Topics:
    """Send the load, if it is not there. Returns its topics.

    Args:
        bootstrap: The broker.
        shape: What to send.
        ended: Its runs end too.
    """
    topics = names_of(shape, ".ended" if ended else "")
    made = arrange(connect(bootstrap), topics, partitions=PARTITIONS)
    if problems := [problem for topic in made for problem in topic.problems]:
        raise SystemExit("; ".join(problems))
    expected = shape.events + (shape.runs if ended else 0)
    found = records_in(bootstrap, topics.samples)
    if found == expected:
        return topics
    if found:
        raise SystemExit(
            f"{topics.samples} holds {found} records instead of {expected}: remove it and call again"
        )
    with sending(bootstrap) as producer:
        send(producer, topics.samples, samples(shape))
        if ended:
            for aggregates, end in ends(shape):
                send(producer, topics.aggregates, aggregates)
                send(producer, topics.samples, [end])
    return topics


@contextlib.contextmanager
def sending(bootstrap: str) -> Iterator[Producer]:
    """A producer as evaluators would have one: lz4, acks of all, Kafka's own partitioner."""
    failures: list[str] = []
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "compression.type": "lz4",
            "linger.ms": 20,
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "queue.buffering.max.kbytes": 256 * 1024,
            "on_delivery": lambda error, _: failures.append(str(error)) if error else None,
        }
    )
    yield producer
    producer.flush()
    if failures:
        raise KafkaException(f"{len(failures)} records were not taken, the first: {failures[0]}")


def send(producer: Producer, topic: str, records: Iterable[Keyed]) -> None:
    """Hand records over; waits while the producer is full."""
    for key, value in records:
        while True:
            try:
                producer.produce(topic, value, key)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)


def records_in(bootstrap: str, topic: str) -> int:
    """Records of a topic to which nobody wrote in transactions."""
    consumer = kafka_python.KafkaConsumer(bootstrap_servers=bootstrap)
    try:
        places = [kafka_python.TopicPartition(topic, number) for number in range(PARTITIONS)]
        return sum(consumer.end_offsets(places).values())
    finally:
        consumer.close()
