"""A full disk: a worker waits as a member of its group, and goes on by itself when there is room."""

import errno
import itertools
import logging
import os
import sqlite3

import pytest

from consumer import assembly, closing
from consumer.errors import DiskFullError
from consumer.filesystem import Disk
from consumer.kafka_client import admin
from consumer.observations import DiskHeld
from consumer.runs import index
from consumer.runs.spool import Spool
from consumer.vocabulary import TopicPartition
from tests.observing import committed, until
from tests.worker.evaluation import Evaluation

pytestmark = pytest.mark.kafka


def no_room():
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Room:
    """Whether there is any; what is called `behind` it fails while there is none."""

    def __init__(self, *, until_refused=None):
        self.is_there = False
        self.refused = 0
        self._until_refused = until_refused

    def behind(self, call):
        def guarded(*arguments, **named):
            if self.is_there:
                return call(*arguments, **named)
            self.refused += 1
            if self.refused == self._until_refused:
                self.is_there = True
            raise no_room()

        return guarded


def evaluations(number, stem="r"):
    return [Evaluation(f"{stem}{one}", tasks=[("t", 30)], batch=2, shards=3) for one in range(number)]


def mixed(*runs):
    """Their events, dealt out in turn."""
    turns = itertools.zip_longest(*(one.events() for one in runs))
    return [event for turn in turns for event in turn if event is not None]


def members(stage):
    with admin(stage.broker.connect()) as client:
        return sorted(
            one["member_id"] for one in client.describe_groups([stage.group])[stage.group]["members"]
        )


def tick_until(worker, condition, what):
    until(lambda: worker.tick() is not None and condition(), what, every_s=0)


def undisturbed(stage):
    """The files that a worker to which nothing happens publishes."""
    stage.work(group="-undisturbed", state="state-undisturbed", output="output-undisturbed")
    return stage.tree("output-undisturbed")


POINTS = {
    "appending": (os, "pwrite"),
    "making a run's folder": (Spool, "create"),
    "counting rows": (index, "count_distinct"),
}


@pytest.mark.parametrize("point", POINTS)
def test_while_the_disk_is_full_a_worker_waits_as_a_member_and_then_loses_nothing(
    real_stage, monkeypatch, point
):
    stage = real_stage
    first, second = mixed(*evaluations(4)), mixed(*evaluations(4, "s"))
    room, holds, started, told = Room(), [], [], []
    settings = stage.settings(poll_records_max=30, poll_timeout_ms=20)
    with assembly.worker(settings, observe=told.append) as worker:
        start, hold = worker._source.start, worker._source.hold

        def holding():
            holds.append(worker.turns)
            if len(holds) == 10:  # what comes meanwhile waits too
                stage.send(second)
            if len(holds) == 20:
                assert before == members(stage)
                room.is_there = True
            return hold()

        worker._source.start = lambda *arguments: (started.append(arguments), start(*arguments))
        worker._source.hold = holding
        tick_until(worker, lambda: len(started) == 4, "all partitions")
        before = members(stage)
        owner, name = POINTS[point]
        call = getattr(owner, name)
        monkeypatch.setattr(owner, name, room.behind(call))
        stage.send(first)
        worker.run(exit_when_idle_s=0.2)
        counts = worker.counts
    # A turn of the loop each, for the watchdog to see.
    assert (20, 20) == (len(holds), len(set(holds)))
    assert 1 == len(before)
    assert (4, len(first) + len(second), 8) == (len(started), counts.records, counts.closed)
    assert room.refused >= 20
    assert [True, False] == [one.waiting for one in told if isinstance(one, DiskHeld)]
    assert undisturbed(stage) == stage.tree()
    assert [] == stage.letters()


def test_what_the_disk_took_of_a_write_before_it_was_full_is_written_again(real_stage, monkeypatch):
    stage = real_stage
    stage.send(mixed(*evaluations(4)))
    pwrite, calls = os.pwrite, itertools.count()

    def torn(descriptor, content, position):
        turn = next(calls) % 3
        if turn == 1:
            raise no_room()
        return pwrite(descriptor, content if turn == 2 else content[: len(content) // 2 + 1], position)

    monkeypatch.setattr(os, "pwrite", torn)
    assert 4 == stage.work(poll_timeout_ms=1).counts.closed
    monkeypatch.setattr(os, "pwrite", pwrite)
    assert next(calls) > 10
    assert undisturbed(stage) == stage.tree()


def test_a_worker_that_is_stopped_while_the_disk_is_full_says_so_and_loses_nothing(real_stage, monkeypatch):
    stage = real_stage
    stage.send(mixed(*evaluations(2)))
    room = Room()
    with assembly.worker(stage.settings()) as worker:
        hold = worker._source.hold
        worker._source.hold = lambda: (worker.stop(), hold())
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", room.behind(os.pwrite))
            with pytest.raises(DiskFullError, match="nothing is lost") as refusal:
                worker.run()
        assert 6 == refusal.value.exit_code
        worker._receipts.close()
        worker._outbound.close()
        worker._book.spool.close()
    assert 2 == stage.work().counts.closed
    assert undisturbed(stage) == stage.tree()


class FullDisk(Disk):
    """A disk on which nothing can be made durable while there is no room."""

    def __init__(self, name, room):
        setattr(self, name, room.behind(getattr(self, name)))


def test_checkpoints_that_fail_are_made_later_and_nothing_is_committed_until_then(real_stage, caplog):
    stage = real_stage
    places = stage.send(mixed(*evaluations(4)))
    room = Room()
    wanted = [TopicPartition(topic, one) for topic in stage.topics.inputs for one in range(4)]
    disk = FullDisk("sync_tree", room)
    with caplog.at_level(logging.ERROR, "consumer"), assembly.worker(stage.settings(), disk=disk) as worker:
        tick_until(worker, lambda: worker.counts.closed == 4, "all runs closed")
        tick_until(worker, lambda: room.refused >= 3, "three checkpoints that failed")
        assert {None} == set(committed(stage.broker, stage.group, wanted).values())
        room.is_there = True
        worker.run(exit_when_idle_s=0.2)
    assert "checkpoint_failed" in caplog.messages
    assert len(places) == worker.counts.records
    ends = {
        place: 1 + max((one.offset for one in places if one[:2] == place), default=-1) for place in wanted
    }
    after = committed(stage.broker, stage.group, wanted)
    assert ends == {place: one.offset for place, one in after.items()}
    assert undisturbed(stage) == stage.tree()
    assert [] == list((stage.folder / "state" / "runs").glob("*/*"))


def test_a_close_out_for_which_there_is_no_room_is_done_later(real_stage, monkeypatch, caplog):
    stage = real_stage
    monkeypatch.setattr(closing, "RETRY_AFTER_S", 0.05)
    stage.send(mixed(*evaluations(2)))
    room = Room(until_refused=5)
    with (
        caplog.at_level(logging.ERROR, "consumer"),
        assembly.worker(stage.settings(), disk=FullDisk("link_file", room)) as worker,
    ):
        worker.run(exit_when_idle_s=0.2)
    assert (5, 2) == (caplog.messages.count("close_out_failed"), worker.counts.closed)
    assert undisturbed(stage) == stage.tree()


def test_a_run_is_closed_even_if_the_table_of_receipts_had_no_room_for_it(real_stage):
    stage = real_stage
    [evaluation] = evaluations(1)
    stage.send(evaluation.events())
    with assembly.worker(stage.settings()) as worker:
        tick_until(worker, lambda: len(worker._owned) == 4, "all partitions")
        add = worker._receipts._table.add

        def full(*_):
            raise sqlite3.OperationalError("database or disk is full")

        worker._receipts._table.add = full
        tick_until(worker, lambda: worker.counts.closed == 1, "the run closed")
        late = stage.send([evaluation.ended(0)])
        read = worker.counts.records
        tick_until(worker, lambda: worker.counts.records > read, "the late record")
        assert [] == [run for one in worker._book.partitions.values() for run in one.runs.values()]
        worker._receipts._table.add = add
        worker.run(exit_when_idle_s=0.2)
    assert {(*place, "late") for place in late} == {letter[:4] for letter in stage.letters()}
