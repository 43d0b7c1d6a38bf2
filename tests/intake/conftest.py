"""Members of a consumer group as the contract tests drive them."""

import contextlib
import threading

import pytest

from consumer.errors import BrokerError
from consumer.intake.group import GroupSource
from consumer.intake.source import Assigned
from consumer.settings import Settings
from tests.observing import until


class Member:
    """A `GroupSource` and what it has said so far."""

    def __init__(self, broker, topics, group, **more):
        self.settings = Settings(
            **{
                "brokers": broker.bootstrap,
                "group": group,
                "topics": topics,
                "poll_timeout_ms": 100,
                "session_timeout_ms": 6000,
                **more,
            }
        )
        self.source = GroupSource(broker.connect(), self.settings)
        self.changes = []
        self.owned = set()
        self.records = []

    def poll(self):
        """One poll; its records, what changed noted."""
        records = self.source.poll()
        for change in self.source.assignments():
            self.changes.append(change)
            if isinstance(change, Assigned):
                self.owned |= change.partitions
            else:
                self.owned -= change.partitions
        self.records += records
        return records

    def poll_until(self, condition, what):
        """Poll until `condition` holds."""
        until(lambda: self.poll() is not None and condition(), what, every_s=0)

    def join(self, expected=frozenset(range(4))):
        """Poll until exactly these partitions are owned."""
        self.poll_until(lambda: self.owned == expected, f"owning {set(expected)}")
        return self

    def start_all(self, offset=0):
        for partition in self.owned:
            self.source.start(partition, dict.fromkeys(self.settings.topics.inputs, offset))

    def read(self, number):
        """Poll until so many records came in all."""
        self.poll_until(lambda: len(self.records) >= number, f"{number} records")
        return self.records

    def close(self):
        with contextlib.suppress(BrokerError):
            self.source.close()


@contextlib.contextmanager
def polling(*members):
    """Every member polls on a thread of its own, as in a process of its own, while the body waits for something."""
    stop = threading.Event()

    def poll(member):
        while not stop.is_set():
            member.poll()

    threads = [threading.Thread(target=poll, args=[member]) for member in members]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.fixture
def topics(broker):
    return broker.topics()


@pytest.fixture
def group(broker):
    return broker.name("group")


@pytest.fixture
def join():
    """Makes members, and closes them at the end of the test."""
    members = []

    def make(broker, topics, group, expected=frozenset(range(4)), **more):
        members.append(Member(broker, topics, group, **more))
        return members[-1].join(expected) if expected is not None else members[-1]

    yield make
    for member in members:
        member.close()
