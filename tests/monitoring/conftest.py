"""A monitor without a worker, scrapes, and a state folder that no Kafka fills."""

import json
from types import SimpleNamespace
from typing import NamedTuple

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from consumer.intake.decode import decode
from consumer.monitoring import Monitor
from consumer.observations import Standing
from consumer.runs.book import RunBook
from consumer.runs.spool import Spool
from consumer.settings import Settings, Topics
from consumer.telemetry.exporter import Request
from consumer.vocabulary import Record
from schemas.events import Aggregate, encode
from tests.worker.conftest import real_stage

__all__ = ["real_stage"]


class Scrape(NamedTuple):
    """What one scrape said."""

    text: str

    @property
    def families(self):
        return {family.name: family for family in text_string_to_metric_families(self.text)}

    @property
    def values(self):
        """(name, labels without order) to value."""
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    @property
    def series(self):
        return set(self.values)

    def value(self, name, **labels):
        return self.values[name, frozenset(labels.items())]


def standing(**more):
    """A worker that does well."""
    return Standing(
        **{
            "assigned": True,
            "owned": frozenset({0}),
            "waiting": frozenset(),
            "lag": {},
            "open_runs": 0,
            "closing": 0,
            "blocked": {},
            "opened_ms": None,
            "seen_ms": None,
            "unacknowledged": 0,
            **more,
        }
    )


class Watched:
    """A monitor, the worker it believes to watch, and the time."""

    def __init__(self, folder):
        self.now = 1000.0
        self.settings = Settings(state=str(folder / "state"), output=str(folder / "output"))
        self.monitor = Monitor(self.settings, clock=lambda: self.now, now_s=lambda: self.now)
        self.worker = SimpleNamespace(turns=0, turned_at=self.now, is_stopping=False)

    def observe(self, *observations):
        for one in observations:
            self.monitor.observe(one)

    def ask(self, path, **headers):
        return self.monitor.routes[path](Request(path, "", headers))

    def json(self, path):
        """Status and content."""
        response = self.ask(path)
        return response.status, json.loads(response.body)

    def scrape(self):
        return Scrape(self.ask("/metrics").body.decode())


@pytest.fixture
def watched(tmp_path):
    """A monitor whose worker turns its loop."""
    watched = Watched(tmp_path)
    watched.monitor.attach(watched.worker)
    return watched


class Shelf:
    """A run book on disk, and the page that shows it."""

    def __init__(self, folder):
        self.settings = Settings(state=str(folder / "state"), output=str(folder / "output"))
        self.watched = Watched(folder)
        self.topics = Topics()
        self.offsets = {}
        self.book = RunBook(Spool(self.settings.state_path, open_files_max=8))

    def take(self, events, partition=0):
        """Apply events as a worker does, and flush."""
        for event in events:
            topic = self.topics.aggregates if isinstance(event, Aggregate) else self.topics.samples
            offset = self.offsets[topic] = self.offsets.get(topic, -1) + 1
            record = Record(topic, partition, offset, 900_000, event.run_id.encode(), encode(event))
            decoded = decode(record.value, record.key, "both")
            run = self.book.find(partition, event.run_id) or self.book.open(record, event.run_id)
            roles = ["aggregates" if isinstance(event, Aggregate) else "samples"]
            self.book.apply(run, record, decoded, roles)
        self.book.spool.flush()

    def show(self):
        """What the poll thread does at the end of a turn."""
        self.watched.monitor.window.show(lambda: list(self.book.partitions.values()))

    def runs(self):
        """The page's runs by name, half a minute after the last question."""
        self.watched.now += 30
        self.watched.monitor.window._asked = True  # the question would wait for the turn that we are
        self.show()
        status, content = self.watched.json("/runs")
        assert 200 == status
        return {run["run_id"]: run for run in content["runs"]}

    def restart(self):
        """A new process over what lies on the disk."""
        states = msgspec.msgpack.decode(
            msgspec.msgpack.encode(list(self.book.partitions.values())),
            type=list[type(next(iter(self.book.partitions.values())))],
        )
        self.book.spool.close()
        self.book = RunBook(
            Spool(self.settings.state_path, open_files_max=8), {one.partition: one for one in states}
        )
        self.watched = Watched(self.settings.state_path.parent)


@pytest.fixture
def shelf(tmp_path):
    shelf = Shelf(tmp_path)
    yield shelf
    shelf.book.spool.close()
