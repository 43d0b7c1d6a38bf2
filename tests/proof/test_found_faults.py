"""Faults that the proof has found, each as the shortest story that shows it."""

import random

import pytest

from tests.proof.worker_group import WorkerGroup

AGGREGATE = {"type": "aggregate", "task": "mme", "results": {"acc,none": 0.5}, "shard": 0, "attempt": 0}
ROWS = {
    "type": "samples",
    "task": "mme",
    "filter": "none",
    "samples": [{"doc_id": 0, "row": {"doc_id": 0}}],
    "shard": 0,
    "attempt": 0,
    "more_shards": 0,
}
END = {
    "type": "run_ended",
    "status": "ok",
    "aggregates": ["mme"],
    "counts": "all",
    "shard": 0,
    "attempt": 0,
    "more_shards": 0,
}


def expired(role):
    """What a worker asks that has read all there is."""
    return {"type": "run_expired", "role": role, "last": "right"}


@pytest.fixture
def story():
    """A machine whose rules are called one by one; `check` is its end."""
    machine = WorkerGroup()
    machine.begin(together=False, workers=0, dice=0)
    yield machine
    machine.has_failed = True  # it only cleans up: the test has checked
    machine.teardown()


def start(story, name, *, reads):
    """A worker that has all partitions; one input topic is much slower than the other."""
    story.enter(name)
    story.rebalance(dice=0, asleep="")
    source = story.members[name].source
    poll = source.poll

    def poll_one_topic():
        source._hear()
        flowing = source._flowing
        source._flowing = {place: offset for place, offset in flowing.items() if place.topic == reads}
        records = poll()
        source._flowing = flowing | source._flowing
        return records

    source.poll = poll_one_topic


def save(story, name):
    """Turns enough for a checkpoint and its commit."""
    for _ in range(4):
        story.act(name, lambda member: member.tick(50, random.Random(0)))
        story.act(name, lambda member: member.scribe.work())
        story.cluster.now_s += 1


def reasons(story):
    return [dict(one.headers)["reason"] for one in story.cluster.letters.values()]


def test_a_question_read_before_its_run_holds_for_who_takes_over_with_an_empty_disk(story):
    story.send(run="r0", body=[ROWS, END, expired("aggregates")], dice=0)
    start(story, "ann", reads="aggregates")
    save(story, "ann")
    assert story.cluster.commits > 0
    story.harm(who=0, how="kill", dice=0, number=1)
    story.send(run="r0", body=[AGGREGATE], dice=0)
    story.check()
    assert [b"late"] == reasons(story)
    assert "incomplete" == story.cluster.receipts["r0"].status


def test_a_run_of_aggregates_alone_is_given_up_for_those_too_who_read_the_question_first(story):
    story.send(run="r0", body=[AGGREGATE, expired("samples")], dice=0)
    start(story, "ann", reads="samples")
    save(story, "ann")
    story.harm(who=0, how="kill", dice=0, number=1)
    story.send(run="r0", body=[ROWS, END], dice=0)
    story.check()
    assert [b"late"] * 3 == reasons(story)


def test_a_question_that_no_worker_can_have_asked_is_forgotten(story):
    story.cluster.append("aggregates", 0, b"r0", b'{"type":"run_expired","run_id":"r0","last":-1}')
    story.check()  # the watermark stays behind nothing
    assert {} == story.cluster.receipts
