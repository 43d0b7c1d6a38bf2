"""One worker, told step by step what its disk, its jobs and Kafka do: what must not come before what."""

import random
import shutil
from pathlib import Path

import msgspec
import pytest

from consumer.archive.desk import LOOK_EVERY_S, Desk
from consumer.archive.outbox import Outbox
from consumer.settings import Hub, Settings
from schemas.state import Receipt, TopicCut
from tests.proof.authors import Author
from tests.proof.cluster import APART, Cluster
from tests.proof.members import GROUP, Member
from tests.proof.mortality import Storage, watching
from tests.proof.worker_group import deal

RUN = "r0"
ROWS = {
    "type": "samples",
    "task": "mme",
    "filter": "none",
    "samples": [{"doc_id": number, "row": {"doc_id": number}} for number in range(3)],
    "shard": 0,
    "attempt": 0,
    "more_shards": 0,
}
END = {
    "type": "run_ended",
    "status": "ok",
    "aggregates": [],
    "counts": "all",
    "shard": 0,
    "attempt": 0,
    "more_shards": 0,
}
UNEXPECTED = {"type": "aggregate", "task": "mme", "results": {"acc,none": 1}, "shard": 0, "attempt": 0}


class Stage:
    """A cluster and workers that do nothing unless they are told to."""

    def __init__(self, folder):
        self.folder = folder
        self.output = folder / "output"
        self.output.mkdir()
        self.cluster = Cluster(APART, Storage(self.output))
        self.author = Author(self.cluster, (RUN,))
        self.members = {}

    def send(self, *body):
        self.author.write(RUN, list(body), random.Random(1))

    def start(self, name="ann", desk=None):
        member = self.members[name] = Member(self.cluster, self.folder / name, self.output, name)
        member.desk = desk
        with member.process:
            member.start()
        self.deal()
        return member

    def deal(self, *owners):
        deal(self.cluster, [self.members[name] for name in owners or self.members], random.Random(0))
        if owners:
            for name in self.members.keys() - set(owners):
                self.members[name].source.pending.append((self.cluster.generation, frozenset()))

    def tick(self, name="ann", *, jobs=True, saves=False, delivers=True, turns=3):
        member = self.members[name]
        with member.process:
            for _ in range(turns):
                member.tick(50, random.Random(0))
                if jobs:
                    member.hands.work()
                if saves:
                    member.scribe.work()
                if delivers:
                    member.producer.deliver(random.Random(0))
                self.cluster.now_s += 0.6
        return member


@pytest.fixture
def stage(tmp_path):
    with watching():
        one = Stage(tmp_path)
        yield one
        for member in one.members.values():
            member.let_go()


def handed_over(member):
    """Topics of what was handed to the network and not thanked for."""
    return [future.record[0] for future in member.producer.waiting]


def test_a_receipt_is_not_handed_over_before_the_runs_dead_letters_are_acknowledged(stage):
    stage.send(UNEXPECTED, ROWS, END)
    member = stage.start()
    stage.tick(delivers=False)
    assert ["letters"] == handed_over(member)
    assert list(stage.output.rglob("*_results.json"))
    member.producer.deliver(random.Random(0), thank=False)
    stage.tick(delivers=False)
    assert ["letters"] == handed_over(member)
    member.producer.deliver(random.Random(0))
    stage.tick(delivers=False)
    assert ["receipts"] == handed_over(member)


def test_a_record_does_not_count_as_durable_before_its_predecessor(stage):
    member = stage.start()
    with member.process:
        tickets = [
            member.outbound.send(topic, key=b"k", value=b"", partition=0) for topic in ("letters", "else")
        ]
    first, second = member.producer.waiting
    second.is_done = True
    assert 0 == member.outbound.acknowledged()
    first.is_done = True
    assert tickets[-1] == member.outbound.acknowledged()


def test_nothing_is_committed_before_the_checkpoint_is_written(stage):
    stage.send(ROWS)
    member = stage.start()
    stage.tick()
    assert member.scribe.jobs
    assert {} == stage.cluster.committed
    stage.tick(saves=True)
    assert 4 == len(stage.cluster.committed)


def test_a_worker_commits_where_nothing_is_new_for_only_a_commit_tells_whether_it_is_still_a_member(stage):
    stage.start()
    stage.tick(saves=True, turns=6)
    before = stage.cluster.commits
    stage.tick(saves=True, turns=6)
    assert stage.cluster.commits > before


def test_a_folder_stays_as_long_as_a_close_out_that_was_given_up_reads_it(stage):
    stage.send(ROWS, END)
    ann = stage.start("ann")
    stage.tick("ann", jobs=False, saves=True)
    with ann.process:
        ann.hands.work(3)  # it stops in the middle
    stage.start("bob")
    stage.deal("bob")
    stage.tick("ann", jobs=False, saves=True)
    stage.tick("bob", saves=True, turns=6)
    assert RUN in stage.cluster.receipts
    stage.deal("ann")
    stage.tick("bob")
    stage.tick("ann", jobs=False, saves=True, turns=8)
    assert ann.closing.has_abandoned()
    [folder] = (ann.state / "runs" / "0").iterdir()
    with ann.process:
        ann.hands.work()
    stage.tick("ann", saves=True, turns=8)
    assert not folder.exists()


def test_a_receipt_of_another_group_closes_nothing(stage):
    stage.send(ROWS, END)
    other = Receipt("other", RUN, "complete", TopicCut("", 9), TopicCut("", 9), "s", "r", "0")
    receipts = stage.cluster.log
    stage.start()
    stage.cluster.append("else", 0, f"other/{RUN}".encode(), msgspec.json.encode(other))
    receipts[("receipts", 0)] = receipts.pop(("else", 0))
    stage.cluster.ends[("receipts", 0)] = 1
    stage.tick(saves=True, turns=8)
    assert [GROUP] == [one.group for one in stage.cluster.receipts.values()]


class Archive:
    """The worker's side of the outbox, and the outbox; nobody pushes."""

    def __init__(self, stage, *, durable):
        self.outbox = Outbox(None)
        self.desk = Desk(
            self.outbox,
            Settings(durable=durable, hub=Hub(repo="org/evals")),
            clock=lambda: stage.cluster.now_s,
            now=lambda: stage.cluster.now_s,
        )


def test_a_run_stands_in_the_outbox_before_its_receipt_is_handed_over(stage):
    archive = Archive(stage, durable="output")
    stage.send(ROWS, END)
    member = stage.start(desk=archive.desk)
    stage.tick(delivers=False)
    assert ["receipts"] == handed_over(member)
    assert [RUN] == [errand.run_id for errand in archive.outbox.waiting()]


def test_a_run_that_is_durable_only_on_the_hub_has_no_receipt_before_it_is_there(stage):
    archive = Archive(stage, durable="hub")
    stage.send(ROWS, END)
    member = stage.start(desk=archive.desk)
    stage.tick(delivers=False, turns=8)
    assert [] == handed_over(member)
    archive.outbox.archive(archive.outbox.waiting(), now=0.0)
    stage.cluster.now_s += LOOK_EVERY_S
    stage.tick(delivers=False)
    assert ["receipts"] == handed_over(member)


def test_what_an_outbox_was_given_is_synced_when_it_returns(tmp_path):
    outbox = Outbox(tmp_path)
    assert [(2,)] == outbox._db.execute("PRAGMA synchronous").fetchall()  # FULL
    outbox.close()
