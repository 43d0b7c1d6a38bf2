"""Runs on a broker, a worker that takes them in, and the commands of operators."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner
from msgspec import Raw

from consumer import assembly
from consumer.cli import rebuild, runs
from consumer.demo.synthetic import SyntheticEvaluation
from consumer.runs.publication import STAGING_FOLDER
from consumer.settings import Settings
from schemas.events import Aggregate, RunEnded, RunExpired, RunStarted, Sample, Samples, encode
from tests.observing import Sending, produce


class Desk:
    """A broker with topics of its own, one worker's folders, and what operators call."""

    def __init__(self, broker, topics, home: Path) -> None:
        self.broker = broker
        self.settings = Settings(
            brokers=broker.bootstrap,
            group=broker.name("group"),
            output=str(home / "output"),
            state=str(home / "state"),
            topics=topics,
            poll_timeout_ms=50,
            checkpoint_interval_s=0.1,
            session_timeout_ms=6000,
        )

    @property
    def output(self) -> Path:
        return self.settings.output_path

    @property
    def state(self) -> Path:
        return self.settings.state_path

    def send(self, *events, partition=None):
        """Send events, each to its topic; where they came to lie."""
        topics = self.settings.topics
        return produce(
            self.broker,
            [
                Sending(
                    topics.aggregates if isinstance(event, Aggregate) else topics.samples,
                    event.run_id.encode(),
                    encode(event),
                    partition,
                )
                for event in events
            ],
        )

    def send_evaluation(self, run_id):
        """Send the demo's evaluation: shuffled, with duplicates and garbage."""
        topics = self.settings.topics
        evaluation = SyntheticEvaluation(run_id=run_id)
        produce(
            self.broker,
            [
                Sending(topics.samples if one.role == "samples" else topics.aggregates, one.key, one.value)
                for one in evaluation.records()
            ],
        )
        return evaluation.facts

    def work(self):
        """A worker from its start until nothing is left to do."""
        with assembly.worker(self.settings) as worker:
            worker.run(exit_when_idle_s=0.3)

    def work_until(self, condition):
        """A worker from its start until `condition`, asked after every turn of its loop."""
        with assembly.worker(self.settings) as worker:
            worker.run(on_tick=lambda: worker.stop() if condition() else None)

    def runs(self, *options):
        return CliRunner().invoke(
            runs.command, ["--state", str(self.state), "--output", str(self.output), *options]
        )

    def listed(self, *options):
        """What `runs --json` lists, by run id."""
        outcome = self.runs("--json", *options)
        assert 0 == outcome.exit_code, outcome
        return {run["run_id"]: run for run in map(json.loads, outcome.stdout.splitlines())}

    def rebuild(self, run_id, *options, output=None):
        target = self.output if output is None else output
        return CliRunner().invoke(
            rebuild.command, [run_id, "--brokers", self.broker.bootstrap, "--output", str(target), *options]
        )


class Part(NamedTuple):
    """What one shard of a run sends: its documents, and the count its end states (None: it does not end)."""

    doc_ids: range
    stated: int | None = None


def evaluation(run_id, *parts, announced=None, aggregate=True, status="ok"):
    """Events of a run of one task `mme`, a part for each shard; shard 0 sends the aggregate if it ends."""
    shards = len(parts)
    if announced is not None:
        yield RunStarted(
            run_id, num_shards=shards, model_name="org/m", date="20260101_000000", tasks={"mme": announced}
        )
    for shard, part in enumerate(parts):
        if part.doc_ids:
            yield Samples(
                run_id, "mme", [sample(one) for one in part.doc_ids], shard=shard, num_shards=shards
            )
        if part.stated is None:
            continue
        names = ["mme"] if shard == 0 and aggregate else []
        if names:
            yield Aggregate(run_id, "mme", Raw(b'{"alias":"mme","acc,none":1.0}'), shard=shard)
        yield RunEnded(
            run_id,
            shard=shard,
            num_shards=shards,
            samples={"mme": part.stated},
            aggregates=names,
            status=status,
        )


def whole(run_id, documents=3):
    """Events of a run that closes."""
    return evaluation(run_id, Part(range(documents), documents), announced=documents)


def sample(doc_id):
    return Sample(doc_id, Raw(b'{"doc_id":%d,"acc":1.0}' % doc_id), scores={"acc": 1.0})


def expired(run_id, last):
    return RunExpired(run_id, last=last, reason="a test")


def tree(folder: Path) -> dict[str, bytes]:
    """Relative path to content of every published file; staged ones may not be left."""
    assert not (folder / STAGING_FOLDER).exists()
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def desk(broker, tmp_path, monkeypatch):
    """On either broker."""
    return make_desk(broker, broker.topics(), tmp_path, monkeypatch)


@pytest.fixture
def real_desk(real, tmp_path, monkeypatch):
    """On a real Kafka."""
    return make_desk(real, real.topics(), tmp_path, monkeypatch)


def make_desk(broker, topics, home, monkeypatch):
    """The topics are in force for the commands as well."""
    monkeypatch.setenv("EVALSINK_TOPICS_SAMPLES", topics.samples)
    monkeypatch.setenv("EVALSINK_TOPICS_AGGREGATES", topics.aggregates)
    return Desk(broker, topics, home)
