"""``evalsink rebuild``: from the log alone, what the worker published, byte for byte."""

import json
import uuid
from pathlib import Path

import pytest
from kafka import TopicPartition as KafkaTopicPartition
from msgspec.structs import replace

from consumer import assembly
from consumer.errors import DeterminismError, EvalsinkError
from consumer.filesystem import Disk
from consumer.intake.replay import open_replay
from consumer.kafka_client import admin
from consumer.rebuild import rebuild
from consumer.runs.publication import STAGING_FOLDER
from tests.observing import read_all
from tests.operators.conftest import Part, evaluation, expired, make_desk, tree, whole


class TornDisk(Disk):
    """Gives way when a file gets its published name; staging goes well."""

    def link_file(self, source, target):
        if STAGING_FOLDER not in target.parts:
            raise OSError(5, "torn")
        return super().link_file(source, target)


def verdicts(outcome):
    """The words in front of the paths."""
    return [line.split()[0] for line in outcome.stdout.splitlines()]


def results_of(folder: Path) -> Path:
    [path] = folder.rglob("*_results.json")
    return path


def test_a_rebuilt_run_is_byte_for_byte_the_workers(desk, tmp_path):
    facts = desk.send_evaluation("r1")
    desk.work()
    outcome = desk.rebuild("r1", output=tmp_path / "again")
    assert (0, {"published"}) == (outcome.exit_code, set(verdicts(outcome))), outcome
    assert f"complete: {sum(facts.rows.values()):,} rows" in outcome.stderr
    assert tree(desk.output) == tree(tmp_path / "again")


def test_only_the_run_asked_for_is_rebuilt(desk, tmp_path):
    desk.send(*whole("r1"), *whole("r2"))
    desk.work()
    assert 0 == desk.rebuild("r2", output=tmp_path / "again").exit_code
    published, again = tree(desk.output), tree(tmp_path / "again")
    assert again.keys() < published.keys()
    assert again == {name: published[name] for name in again}
    assert "r2" == json.loads(results_of(tmp_path / "again").read_bytes())["evalsink"]["run_id"]


def test_rebuilt_over_itself_every_file_is_identical_and_untouched(desk):
    desk.send(*whole("r1"))
    desk.work()
    before = {path: path.stat() for path in desk.output.rglob("*") if path.is_file()}
    outcome = desk.rebuild("r1")
    assert (0, ["identical"] * 4) == (outcome.exit_code, verdicts(outcome))
    assert {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in before.items()} == {
        path: (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in desk.output.rglob("*")
        if path.is_file()
    }


def test_nothing_is_written_to_kafka(desk, tmp_path):
    topics = desk.settings.topics
    desk.send_evaluation("r1")
    desk.work()
    before = [
        read_all(desk.broker, topic) for topic in (*topics.inputs, topics.receipts, topics.dead_letters)
    ]
    assert 0 == desk.rebuild("r1", output=tmp_path / "again").exit_code
    assert before == [
        read_all(desk.broker, topic) for topic in (*topics.inputs, topics.receipts, topics.dead_letters)
    ]


def test_a_damaged_file_stops_it_and_is_repaired_if_that_was_asked_for(desk):
    desk.send(*whole("r1"))
    desk.work()
    published = tree(desk.output)
    [damaged] = desk.output.rglob("*_samples_*.jsonl")
    damaged.write_bytes(b"{}\n")
    spoiled = tree(desk.output)
    outcome = desk.rebuild("r1")
    assert isinstance(outcome.exception, DeterminismError)
    assert 1 == outcome.exception.exit_code
    assert str(damaged) in str(outcome.exception)
    assert spoiled == tree(desk.output)
    outcome = desk.rebuild("r1", "--in-place")
    assert 0 == outcome.exit_code, outcome
    assert [f"replaced   {damaged}"] == [
        line for line in outcome.stdout.splitlines() if not line.startswith("identical")
    ]
    assert published == tree(desk.output)


def test_a_lost_file_is_published_again_without_further_ado(desk):
    desk.send(*whole("r1"))
    desk.work()
    published = tree(desk.output)
    [lost] = desk.output.rglob("*_samples_*.jsonl")
    lost.unlink()
    outcome = desk.rebuild("r1")
    assert (0, ["identical", "identical", "published", "identical"]) == (
        outcome.exit_code,
        verdicts(outcome),
    ), outcome
    assert published == tree(desk.output)


def test_an_interrupted_repair_leaves_no_results_json_and_the_next_one_completes_it(desk):
    desk.send(*whole("r1"))
    desk.work()
    published = tree(desk.output)
    [damaged] = desk.output.rglob("*_samples_*.jsonl")
    damaged.write_bytes(b"{}\n")
    tools = assembly.tools(desk.settings, uuid.uuid4().hex, TornDisk())
    with (
        open_replay(desk.broker.connect(), desk.settings.topics.inputs) as replay,
        pytest.raises(OSError, match="torn"),
    ):
        rebuild("r1", replay, desk.settings, tools, in_place=True, advance=lambda _: None)
    assert [] == list(desk.output.rglob("*_results.json"))
    assert 0 == desk.rebuild("r1", "--in-place").exit_code
    assert published == tree(desk.output)


def test_a_shard_that_never_ended_is_named(desk, tmp_path):
    desk.send(*evaluation("r1", Part(range(2), 2), Part(range(2, 3)), Part(range(4, 6), 3), announced=6))
    outcome = desk.rebuild("r1", output=tmp_path / "again")
    assert isinstance(outcome.exception, EvalsinkError)
    assert 1 == outcome.exception.exit_code
    message = str(outcome.exception)
    for sentence in (
        "5 of 6 rows, 2 of 3 shards ended",
        "shard 1: not ended",
        "shard 2: task mme: 2 of 3 rows",
    ):
        assert sentence in message
    assert {} == tree(tmp_path / "again")


def test_an_unknown_run_is_refused_and_leaves_nothing(desk, tmp_path):
    desk.send(*whole("r1"))
    outcome = desk.rebuild("r2", output=tmp_path / "again")
    assert isinstance(outcome.exception, EvalsinkError)
    assert 1 == outcome.exception.exit_code
    assert str(outcome.exception).startswith("no record of run 'r2' in ")
    assert not (tmp_path / "again").exists()


def test_one_topic_for_both_kinds_gives_the_same(broker, tmp_path, monkeypatch):
    apart = broker.topics()
    desk = make_desk(broker, replace(apart, aggregates=apart.samples), tmp_path, monkeypatch)
    desk.send_evaluation("r1")
    desk.work()
    assert 0 == desk.rebuild("r1", output=tmp_path / "again").exit_code
    assert tree(desk.output) == tree(tmp_path / "again") != {}


def test_a_run_that_was_given_up_is_given_up_again(desk, tmp_path):
    parts = [Part(range(2), 2), Part(range(2, 4))]
    *_, last = desk.send(*evaluation("r1", *parts, announced=4, aggregate=False))
    desk.send(expired("r1", last.offset))
    desk.send(*evaluation("r1", Part(range(0)), Part(range(2, 5), 3), aggregate=False))
    desk.work()
    outcome = desk.rebuild("r1", output=tmp_path / "again")
    assert 0 == outcome.exit_code, outcome
    assert tree(desk.output) == tree(tmp_path / "again") != {}
    own = json.loads(results_of(tmp_path / "again").read_bytes())["evalsink"]
    assert ("incomplete", ["shard 1: never ended"]) == (own["status"], own["why"])


def test_records_in_another_partition_are_told_and_left_out(desk, tmp_path):
    desk.send(*whole("r1"), partition=1)
    desk.send(*evaluation("r1", Part(range(7, 8)), announced=1), partition=3)
    outcome = desk.rebuild("r1", output=tmp_path / "again")
    assert 0 == outcome.exit_code, outcome
    assert "partition 3 holds records of the run too" in outcome.stderr
    desk.send(*whole("r1", 4), partition=2)
    outcome = desk.rebuild("r1", output=tmp_path / "more")
    assert "is whole in partitions 1, 2" in str(outcome.exception)


@pytest.mark.kafka
def test_where_the_log_has_lost_its_beginning_the_run_is_tainted_and_replaces_nothing(real_desk, tmp_path):
    desk = real_desk
    places = desk.send(*whole("r0"), *whole("r1"), partition=1)
    desk.work()
    published = tree(desk.output)
    first = KafkaTopicPartition(desk.settings.topics.samples, 1)
    with admin(desk.broker.connect()) as client:
        client.delete_records({first: 2})
    assert places[0].offset < 2
    outcome = desk.rebuild("r1", output=tmp_path / "again")
    assert 0 == outcome.exit_code, outcome
    assert "tainted" in outcome.stderr
    own = json.loads(results_of(tmp_path / "again").read_bytes())["evalsink"]
    assert "incomplete" == own["status"]
    outcome = desk.rebuild("r1", "--in-place")
    assert isinstance(outcome.exception, DeterminismError)
    assert published == tree(desk.output)
    outcome = desk.rebuild("r0", output=tmp_path / "lost")
    assert "begins at 2: what was before is gone" in str(outcome.exception)
