"""Whatever happens to a worker in the middle: the published files are those of one that nothing happened to."""

import threading
from functools import partial

import pytest
from kafka.admin import MemberToRemove

from consumer import assembly
from consumer.demo.synthetic import SyntheticEvaluation
from consumer.errors import StateError
from consumer.kafka_client import admin
from schemas.events import Aggregate
from tests.observing import Sending, until
from tests.worker.conftest import cut_off
from tests.worker.evaluation import Evaluation, run_ids

SMALL = {"poll_records_max": 20, "checkpoint_interval_s": 0.001}
"""So that a worker is often in the middle of something, with a checkpoint behind it."""


def tick_until(worker, condition, what):
    until(lambda: worker.tick() is not None and condition(), what, every_s=0)


def synthetic(stage):
    """The records of the synthetic evaluation, and what is to become of them."""
    evaluation = SyntheticEvaluation()
    topics = {"samples": stage.topics.samples, "aggregates": stage.topics.aggregates}
    return [Sending(topics[one.role], one.key, one.value) for one in evaluation.records()], evaluation.facts


@pytest.mark.parametrize(
    ("broker", "state"),
    [
        pytest.param("embedded", "state", id="embedded, its old state"),
        pytest.param("real", "state", id="its old state", marks=pytest.mark.kafka),
        pytest.param("real", "another-state", id="an empty one", marks=pytest.mark.kafka),
    ],
    indirect=["broker"],
)
def test_a_worker_cut_off_in_the_middle_and_started_on(stage, state):
    records, facts = synthetic(stage)
    third = len(records) // 3
    [place, *_] = stage.send(records[: 2 * third])
    with assembly.worker(stage.settings(**SMALL)) as worker:
        committed = [0]
        poll, commit = worker._source.poll, worker._source.commit

        def in_the_middle():
            return worker.counts.records >= third and committed[-1] >= third

        def noting(offsets):
            commit(offsets)
            committed.append(sum(one.offset for one in offsets.values()))

        # Reading waits for the commit, however long a checkpoint takes.
        worker._source.poll = lambda: [] if worker.counts.records >= third and not in_the_middle() else poll()
        worker._source.commit = noting
        tick_until(worker, in_the_middle, "a commit in the middle")
        # From here on the spool grows beyond the checkpoint.
        worker._saving.advance = lambda *_, **__: None
        tick_until(worker, lambda: worker.counts.records == 2 * third, "all that was sent")
        cut_off(worker)
    stage.send(records[2 * third :])
    assert {} == stage.tree()
    watermarks = {topic: metadata["w"] for topic, (_, metadata) in stage.committed(place.partition).items()}
    after = stage.work(state=state).counts
    # On an empty state it begins at the watermarks, on its own it goes on from its checkpoint.
    again = len(records) - sum(watermarks.values())
    assert (
        after.records == again
        if state == "another-state"
        else len(records) - 2 * third < after.records < again
    )
    stage.work(group="-undisturbed", state="state-undisturbed", output="output-undisturbed")
    tree = stage.tree()
    assert 8 == len(tree)
    assert tree == stage.tree("output-undisturbed")
    assert facts.dead_letters == len(stage.letters())
    assert [facts.run_id, facts.run_id] == [receipt.run_id for _, receipt in stage.receipts()]


@pytest.mark.kafka
def test_a_worker_cut_off_again_and_again_on_old_and_on_empty_states(real_stage):
    stage = real_stage
    records, facts = synthetic(stage)
    stage.send(records)
    ids = run_ids(2)
    for _ in range(2):
        stage.send(Evaluation(next(ids), tasks=[("a", 40), ("b", 40)], batch=1).events())
    for life in range(8):
        state = "state" if life % 3 else f"state-{life}"
        stage.work_until(lambda worker: worker.counts.records >= 60, state=state, **SMALL)
    stage.work()
    stage.work(group="-undisturbed", state="state-undisturbed", output="output-undisturbed")
    tree = stage.tree()
    assert 8 + 2 * 5 == len(tree)
    assert tree == stage.tree("output-undisturbed")
    assert facts.dead_letters == len(stage.letters())
    group = [receipt for _, receipt in stage.receipts() if receipt.group == stage.group]
    # A receipt may come twice, if the first was not remembered; but it never says two things.
    assert 3 == len({(receipt.run_id, receipt.sha256) for receipt in group})


@pytest.mark.kafka
def test_a_worker_cut_off_after_publishing_but_before_the_receipt_publishes_nothing_new(real_stage):
    stage = real_stage
    stage.send(Evaluation("r").events())
    stage.work_until(
        lambda _: any(name.endswith("_results.json") for name in stage.tree()), checkpoint_interval_s=60
    )
    tree = stage.tree()
    assert 4 == len(tree)
    inodes = {path.name: path.stat().st_ino for path in (stage.folder / "output" / "org__model").iterdir()}
    for state in ("state", "empty"):
        stage.work(state=state)
        assert tree == stage.tree()
    assert inodes == {
        path.name: path.stat().st_ino for path in (stage.folder / "output" / "org__model").iterdir()
    }
    assert 1 <= len(stage.receipts()) <= 2
    assert [] == stage.letters()


@pytest.mark.kafka
def test_a_replayed_tail_of_a_closed_run_opens_nothing(real_stage):
    # An open run before and inside a closed one holds the watermark below the closed run's cut.
    stage = real_stage
    ids = run_ids(1)
    held, closed = Evaluation(next(ids)), Evaluation(next(ids))
    body = list(closed.body())
    stage.send([*body[:3], held.started(), *body[3:], closed.ended(1)])
    first = stage.work()
    tree = stage.tree()
    assert (1, 4) == (first.counts.closed, len(tree))
    again = stage.work(state="empty")
    assert (0, 0, tree) == (again.counts.closed, again.counts.dead_letters, stage.tree())
    samples = [event for event in (*body[3:], closed.ended(1)) if not isinstance(event, Aggregate)]
    assert len(samples) == again.counts.replayed
    assert [held.run_id] == [
        path.name.partition("-")[0] + "-" + path.name.split("-")[1] for path in runs(stage, "empty")
    ]


def runs(stage, state):
    return [path for path in (stage.folder / state / "runs").glob("*/*") if path.is_dir()]


@pytest.mark.kafka
def test_a_member_that_is_thrown_out_in_the_middle_comes_back_and_loses_nothing(real_stage):
    stage = real_stage
    records, facts = synthetic(stage)
    quarter = len(records) // 4
    taken = []
    with assembly.worker(stage.settings(**SMALL)) as worker:
        start = worker._source.start
        worker._source.start = lambda *arguments: (taken.append(arguments), start(*arguments))
        for life in range(3):
            tick_until(worker, partial(is_back, taken, life), "all partitions again")
            read = worker.counts.records
            stage.send(records[life * quarter : (life + 1) * quarter])
            tick_until(worker, partial(has_read, worker, read + quarter // 2), "half of what was sent")
            with admin(stage.broker.connect()) as client:
                members = client.describe_groups([stage.group])[stage.group]["members"]
                client.remove_group_members(
                    stage.group, [MemberToRemove(member_id=one["member_id"]) for one in members]
                )
        stage.send(records[3 * quarter :])
        tick_until(worker, partial(is_back, taken, 3), "all partitions for the fourth time")
        worker.run(exit_when_idle_s=0.2)
    stage.work(group="-undisturbed", state="state-undisturbed", output="output-undisturbed")
    assert stage.tree() == stage.tree("output-undisturbed")
    assert 8 == len(stage.tree())
    assert facts.dead_letters == len(stage.letters())


def is_back(taken, lives):
    return len(taken) >= 4 * (lives + 1)


def has_read(worker, records):
    return worker.counts.records >= records


@pytest.mark.kafka
def test_a_second_worker_joins_in_the_middle_and_the_first_leaves(real_stage):
    stage = real_stage
    evaluations = [Evaluation(f"r{number}", tasks=[("t", 60)], batch=1, shards=3) for number in range(12)]
    mixed = [event for group in zip(*(one.events() for one in evaluations), strict=True) for event in group]
    half = len(mixed) // 2
    stage.send(mixed[:half])
    stopped, counts = [], []

    def second():
        with assembly.worker(stage.settings(state="state-2", **SMALL)) as worker:
            # Idle must not mean: the other one still has them.
            tick_until(worker, lambda: stopped, "the first worker gone")
            worker.run(exit_when_idle_s=0.3)
            counts.append(worker.counts)

    thread = threading.Thread(target=second)
    with assembly.worker(stage.settings(**SMALL)) as worker:
        tick_until(worker, lambda: worker.counts.records >= 100, "100 records")
        thread.start()
        tick_until(worker, lambda: len(worker._owned) == 2, "two partitions gone")
        stage.send(mixed[half:])
        read = worker.counts.records
        tick_until(worker, lambda: worker.counts.records >= read + 20, "some of the rest")
        cut_off(worker)
    stopped.append(True)
    thread.join(60)
    assert counts, "the second worker ended as it should"
    stage.work(group="-undisturbed", state="state-undisturbed", output="output-undisturbed")
    tree = stage.tree()
    assert 12 * 4 == len(tree)
    assert tree == stage.tree("output-undisturbed")
    assert [] == stage.letters()


@pytest.mark.kafka
def test_a_state_folder_serves_one_process_at_a_time(real_stage):
    stage = real_stage
    with (
        assembly.worker(stage.settings()) as worker,
        pytest.raises(StateError, match="--state"),
        assembly.worker(stage.settings(group="-2", output="output-2")),
    ):
        pytest.fail("two workers have one state folder")
    cut_off(worker)
    stage.work()


@pytest.mark.kafka
def test_the_spool_of_a_closed_run_is_gone_after_the_next_start_at_the_latest(real_stage):
    stage = real_stage
    stage.send(Evaluation("r").events())
    stage.work()
    stage.work()
    assert [] == runs(stage, "state")
