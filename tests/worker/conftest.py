"""A stage for workers: topics and folders of one test, events in, published files and dead letters out."""

import json
from typing import NamedTuple

import msgspec
import pytest

from consumer import assembly
from consumer.kafka_client import topic_ids
from consumer.settings import Settings, Topics
from consumer.vocabulary import TopicPartition
from schemas.events import Aggregate, encode
from schemas.state import Receipt
from tests.observing import Sending, committed, produce, read_all, until


class Outcome(NamedTuple):
    """What a worker said at its end."""

    counts: object
    violations: list


class Letter(NamedTuple):
    """A dead letter, the last under its key."""

    topic: str
    partition: int
    offset: int
    reason: str
    value: bytes
    headers: dict


class Stage:
    """Topics, a group and folders that no other test uses."""

    def __init__(self, broker, folder, topics):
        self.broker, self.folder, self.topics = broker, folder, topics
        self.group = broker.name("group")

    def settings(self, *, group="", state="state", output="output", **more):
        return Settings(
            **{
                "brokers": self.broker.bootstrap,
                "group": f"{self.group}{group}",
                "state": str(self.folder / state),
                "output": str(self.folder / output),
                "topics": self.topics,
                "checkpoint_interval_s": 0.05,
                "poll_timeout_ms": 100,
                "session_timeout_ms": 6000,
                **more,
            }
        )

    def send(self, events):
        """Send events, or `Sending`s as they are; returns their places."""
        return produce(self.broker, [one if isinstance(one, Sending) else self.record(one) for one in events])

    def record(self, event):
        topic = self.topics.aggregates if isinstance(event, Aggregate) else self.topics.samples
        return Sending(topic, event.run_id.encode(), encode(event))

    def work(self, **settings):
        """A worker until it is idle."""
        with assembly.worker(self.settings(**settings)) as worker:
            worker.run(exit_when_idle_s=0.2)
            return Outcome(worker.counts, worker.violations)

    def work_until(self, condition, what="the moment to stop the worker", **settings):
        """A worker that is cut off in the middle: nothing is saved, nothing is committed any more."""
        with assembly.worker(self.settings(**settings)) as worker:
            until(lambda: worker.tick() is not None and condition(worker), what, every_s=0)
            cut_off(worker)
            return worker.counts

    def tree(self, output="output"):
        """Every published file and its bytes."""
        root = self.folder / output
        return {
            str(path.relative_to(root)): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and ".evalsink" not in path.parts
        }

    def results(self, output="output"):
        """The results JSONs by run_id."""
        found = [
            json.loads(content)
            for name, content in self.tree(output).items()
            if name.endswith("_results.json")
        ]
        return {one["evalsink"]["run_id"]: one for one in found}

    def letters(self):
        """The dead letters as the compacted topic will keep them, by source."""
        last = {record.key: record for record in read_all(self.broker, self.topics.dead_letters)}
        letters = []
        for record in last.values():
            headers = dict(record.headers)
            letters.append(
                Letter(
                    headers["topic"].decode(),
                    int(headers["partition"]),
                    int(headers["offset"]),
                    headers["reason"].decode(),
                    record.value,
                    headers,
                )
            )
        return sorted(letters, key=lambda letter: letter[:3])

    def receipts(self):
        """(partition, receipt) in the topic's order."""
        return [
            (record.partition, msgspec.json.decode(record.value, type=Receipt))
            for record in read_all(self.broker, self.topics.receipts)
        ]

    def ids(self):
        names = [*self.topics.inputs, self.topics.receipts]
        found = {} if self.broker.embedded else topic_ids(self.broker.connect(), names)
        return {name: found.get(name, "") for name in names}

    def committed(self, partition, group=""):
        """Per input topic: offset and our metadata."""
        places = [TopicPartition(topic, partition) for topic in self.topics.inputs]
        return {
            place.topic: None if found is None else (found.offset, json.loads(found.metadata))
            for place, found in committed(self.broker, f"{self.group}{group}", places).items()
        }


def cut_off(worker):
    """Let go of what a worker holds, as the kernel does for a process that is killed."""
    worker._source.close()
    worker._outbound.close()
    worker._receipts.close()
    worker._book.spool.close()


@pytest.fixture
def stage(broker, tmp_path):
    """On either broker."""
    return Stage(broker, tmp_path, broker.topics())


@pytest.fixture
def real_stage(real, tmp_path):
    return Stage(real, tmp_path, real.topics())


@pytest.fixture
def shared_topic_stage(broker, tmp_path):
    """Rows, lifecycle and aggregates in one topic."""
    topics = broker.topics()
    return Stage(broker, tmp_path, msgspec.structs.replace(topics, aggregates=topics.samples))


def bare(broker, folder):
    """Topics that do not exist."""
    names = Topics(
        samples=broker.name(), aggregates=broker.name(), receipts=broker.name(), dead_letters=broker.name()
    )
    return Stage(broker, folder, names)


@pytest.fixture
def bare_stage(broker, tmp_path):
    return bare(broker, tmp_path)


@pytest.fixture
def real_bare_stage(real, tmp_path):
    return bare(real, tmp_path)
