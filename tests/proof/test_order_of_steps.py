"""One worker, told step by step what its disk, its jobs and Kafka do: what must not come before what."""

import random

import msgspec

from consumer.archive.desk import LOOK_EVERY_S, Desk
from consumer.archive.outbox import Outbox
from consumer.settings import Hub, Settings
from schemas.state import Receipt, TopicCut
from tests.proof.members import GROUP
from tests.proof.stage import END, ROWS, RUN, UNEXPECTED, handed_over


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


def test_a_run_is_not_forgotten_and_no_watermark_passes_it_before_its_receipt_is_acknowledged(stage):
    stage.send(ROWS, END)
    member = stage.start()
    stage.tick(delivers=False, saves=True, turns=10)
    assert ["receipts"] == handed_over(member)
    assert [RUN] == member.open_runs()
    assert 0 == stage.watermarks().get(("samples", 0), 0)
    stage.tick(saves=True, turns=10)
    assert [] == member.open_runs()
    assert 2 == stage.watermarks()["samples", 0]


def test_no_watermark_passes_a_dead_letter_before_it_is_acknowledged(stage):
    stage.cluster.append("samples", 0, b"k", b"garbage")
    member = stage.start()
    stage.tick(delivers=False, saves=True, turns=6)
    assert ["letters"] == handed_over(member)
    assert {} == stage.cluster.committed
    stage.tick(saves=True, turns=6)
    assert 1 == stage.watermarks()["samples", 0]


def test_a_folder_stays_until_a_checkpoint_no_longer_lists_its_run(stage):
    stage.send(ROWS, END)
    member = stage.start()
    stage.tick(jobs=False, saves=True, turns=6)
    [folder] = (member.state / "runs" / "0").iterdir()
    stage.tick(turns=6)
    assert [] == member.open_runs()
    assert folder.exists()
    stage.tick(saves=True, turns=6)
    assert not folder.exists()


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
            mirror="",
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
