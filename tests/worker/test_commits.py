"""What a worker commits, in which order, and what it makes of a log that is not whole."""

import pytest
from kafka import OffsetAndMetadata
from kafka import TopicPartition as KafkaTopicPartition

from consumer import assembly
from consumer.errors import BrokerError
from consumer.kafka_client import admin
from consumer.vocabulary import TopicPartition
from schemas.events import Samples
from tests.observing import Sending, committed, until
from tests.worker.conftest import cut_off
from tests.worker.evaluation import Evaluation, run_ids

pytestmark = pytest.mark.kafka


def tick_until(worker, condition, what):
    until(lambda: worker.tick() is not None and condition(), what, every_s=0)


def test_the_offset_is_our_position_and_the_watermark_the_first_record_of_the_open_run(real_stage):
    stage = real_stage
    ids = run_ids(3)
    closed, held, late_comer = (Evaluation(next(ids)) for _ in range(3))
    body = list(held.body())
    places = stage.send([*closed.events(), *body, *late_comer.events()])
    first = {}
    for place in places[len(list(closed.events())) :]:
        first.setdefault(place.topic, place.offset)
    ends = {
        topic: 1 + max(one.offset for one in places if one.topic == topic) for topic in stage.topics.inputs
    }
    outcome = stage.work()
    assert (2, {closed.run_id, late_comer.run_id}) == (outcome.counts.closed, set(stage.results()))
    ids_of = stage.ids()
    assert {topic: (ends[topic], (ids_of[topic], first[topic], 1)) for topic in stage.topics.inputs} == ours(
        stage, 3
    )
    # Where nothing ever came, the commit says so.
    assert {topic: (0, (ids_of[topic], 0, 1)) for topic in stage.topics.inputs} == ours(stage, 0)
    # Its live rows can be followed meanwhile, those of each shard in its order.
    [live] = (stage.folder / "state" / "runs").glob(f"*/{held.run_id}-*/*-mme.jsonl")
    written = live.read_bytes().splitlines()
    sent = [
        [
            bytes(sample.row)
            for event in body
            if isinstance(event, Samples) and event.shard == shard
            for sample in event.samples
        ]
        for shard in range(held.shards)
    ]
    assert sent == [[row for row in written if row in rows] for rows in sent]
    assert len(written) == sum(map(len, sent))
    stage.send([held.ended(1)])
    stage.work()
    ends[stage.topics.samples] += 1
    assert {topic: (ends[topic], (ids_of[topic], ends[topic], 1)) for topic in stage.topics.inputs} == ours(
        stage, 3
    )
    assert 3 == len(stage.results())


def ours(stage, partition):
    """Per topic: committed offset, and of its metadata topic UUID, watermark and version."""
    return {
        topic: (offset, (metadata["t"], metadata["w"], metadata["v"]))
        for topic, (offset, metadata) in stage.committed(partition).items()
    }


def test_a_committed_offset_never_falls_not_even_on_an_empty_state(real_stage):
    stage = real_stage
    held = Evaluation(next(run_ids(2)))
    sent = stage.send(held.body())
    stage.work()
    before = stage.committed(2)
    offsets, uncommitted = [], []
    with assembly.worker(
        stage.settings(state="empty", poll_records_max=1, checkpoint_interval_s=0.001)
    ) as worker:
        poll, commit = worker._source.poll, worker._source.commit

        def one_by_one():
            # The next record only after a commit behind this one, however seldom a checkpoint gets its turn.
            records = [] if uncommitted else poll()
            uncommitted.extend(records)
            return records

        def noting(commits):
            offsets.append(
                {place.topic: one.offset for place, one in commits.items() if place.partition == 2}
            )
            uncommitted.clear()
            commit(commits)

        worker._source.poll, worker._source.commit = one_by_one, noting
        worker.run(exit_when_idle_s=0.2)
    seen = [one for one in offsets if one]
    assert len(seen) >= len(sent) > 3
    assert [{topic: offset for topic, (offset, _) in before.items()}] * len(seen) == seen
    assert before == stage.committed(2)


def test_no_watermark_passes_a_run_before_its_receipt_is_acknowledged(real_stage):
    stage = real_stage
    run = Evaluation(next(run_ids(1)))
    places = stage.send(run.events())
    ends = {
        topic: 1 + max(one.offset for one in places if one.topic == topic) for topic in stage.topics.inputs
    }

    def watermarks():
        return {topic: None if one is None else one[1]["w"] for topic, one in stage.committed(1).items()}

    with assembly.worker(stage.settings()) as worker:
        acknowledged = worker._outbound.acknowledged
        # The receipt is sent, and its acknowledgement is a long time coming.
        worker._outbound.acknowledged = lambda: min(acknowledged(), 0)
        tick_until(worker, lambda: worker._outbound.sent == 1, "the receipt sent")
        assert 4 == len(stage.tree())
        turns = worker.turns
        tick_until(worker, lambda: worker.turns >= turns + 10, "ten turns more")
        assert set(watermarks().values()) <= {None, 0}
        assert [run.run_id] == [one.run_id for one in worker._book.partitions[1].runs.values()]
        worker._outbound.acknowledged = acknowledged
        tick_until(worker, lambda: watermarks() == ends, "the watermark behind the run")
        assert {} == worker._book.partitions[1].runs
        worker.run(exit_when_idle_s=0.1)


def test_no_watermark_passes_a_dead_letter_before_it_is_acknowledged(real_stage):
    stage = real_stage
    stage.send([Sending(stage.topics.samples, b"k", b"garbage", 1)])
    with assembly.worker(stage.settings()) as worker:
        acknowledged = worker._outbound.acknowledged
        worker._outbound.acknowledged = lambda: min(acknowledged(), 0)
        tick_until(worker, lambda: worker.counts.dead_letters == 1, "the dead letter sent")
        turns = worker.turns
        tick_until(worker, lambda: worker.turns >= turns + 10, "ten turns more")
        found = stage.committed(1)[stage.topics.samples]
        assert found is None or found[0] == 0
        cut_off(worker)
    again = stage.work()
    assert (1, 1) == (again.counts.dead_letters, len(stage.letters()))
    assert (1, 1) == (
        stage.committed(1)[stage.topics.samples][0],
        stage.committed(1)[stage.topics.samples][1]["w"],
    )


def test_a_log_that_begins_above_its_start_taints_what_was_first_seen_below_the_gap_was_found(real_stage):
    stage = real_stage
    ids = run_ids(1)
    lost, whole, after = (Evaluation(next(ids)) for _ in range(3))
    gone = stage.send(lost.body())
    stage.send(whole.events())
    with admin(stage.broker.connect()) as client:
        last = max(place.offset for place in gone if place.topic == stage.topics.samples)
        client.delete_records({KafkaTopicPartition(stage.topics.samples, 1): last + 1})
    stage.work()
    stage.send(after.events())
    stage.work()
    told = {
        run_id: (one["evalsink"]["status"], len(one["evalsink"]["why"]))
        for run_id, one in stage.results().items()
    }
    assert {whole.run_id: ("incomplete", 1), after.run_id: ("complete", 0)} == told
    [why] = stage.results()[whole.run_id]["evalsink"]["why"]
    assert why.startswith("tainted")
    # With every row there, nothing is missing that could be named.
    assert "missing" not in stage.results()[whole.run_id]["evalsink"]["tasks"]["mme"]


def test_an_operators_reset_to_the_beginning_is_safe(real_stage):
    stage = real_stage
    evaluation = Evaluation(next(run_ids(1)))
    places = stage.send(evaluation.events())
    stage.work()
    tree = stage.tree()
    with admin(stage.broker.connect()) as client:
        client.alter_group_offsets(
            stage.group,
            {KafkaTopicPartition(topic, 1): OffsetAndMetadata(0, "", -1) for topic in stage.topics.inputs},
        )
    places_of_1 = [TopicPartition(topic, 1) for topic in stage.topics.inputs]
    reset = committed(stage.broker, stage.group, places_of_1)
    assert [(0, "")] * 2 == [(one.offset, one.metadata) for one in reset.values()]
    again = stage.work(state="empty")
    assert (len(places), 0, 0) == (again.counts.replayed, again.counts.closed, again.counts.dead_letters)
    assert tree == stage.tree()
    assert 1 == len(stage.receipts())


def test_topics_made_anew_are_read_from_their_beginning_and_a_closed_run_stays_closed(real_stage):
    stage = real_stage
    ids = run_ids(1)
    old, new = Evaluation(next(ids)), Evaluation(next(ids))
    stage.send([*old.events(), *Evaluation(next(ids)).body()])
    stage.work()
    tree = stage.tree()
    with admin(stage.broker.connect()) as client:
        client.delete_topics(list(stage.topics.inputs))
        until(lambda: not {*stage.topics.inputs} & {*client.list_topics()}, "the topics gone")
        client.create_topics(
            {topic: {"num_partitions": 4} for topic in stage.topics.inputs}, wait_for_metadata=True
        )
    again = stage.send([*old.events(), *new.events()])
    outcome = stage.work()
    assert (1, {old.run_id, new.run_id}) == (outcome.counts.closed, set(stage.results()))
    assert tree.items() < stage.tree().items()
    of_old = {(*place, "late") for place in again[: len(list(old.events()))]}
    assert of_old == {letter[:4] for letter in stage.letters()}
    uuids = stage.ids()
    assert {uuids[topic] for topic in stage.topics.inputs} == {
        one["t"] for _, one in stage.committed(1).values()
    }


@pytest.mark.parametrize("odd", ["samples", "aggregates", "receipts"])
def test_unequal_partition_counts_are_refused_with_the_numbers(real_bare_stage, odd):
    stage = real_bare_stage
    make(stage, {**dict.fromkeys(("samples", "aggregates", "receipts"), 2), odd: 3})
    with pytest.raises(BrokerError, match="equal counts") as refusal:
        stage.work()
    message = str(refusal.value)
    assert "3 partitions, not 2" in message or "2 partitions, not 3" in message
    assert getattr(stage.topics, odd if odd != "samples" else "aggregates") in message


def make(stage, partitions):
    policies = {"receipts": "compact"}
    with admin(stage.broker.connect()) as client:
        client.create_topics(
            {
                getattr(stage.topics, name): {
                    "num_partitions": partitions.get(name, 1),
                    "configs": {"cleanup.policy": policies.get(name, "delete")},
                }
                for name in ("samples", "aggregates", "receipts", "dead_letters")
            },
            wait_for_metadata=True,
        )


def test_the_dead_letters_may_have_any_number_of_partitions(real_bare_stage):
    stage = real_bare_stage
    make(stage, dict.fromkeys(("samples", "aggregates", "receipts"), 2))
    stage.send([*Evaluation("r").events(), Sending(stage.topics.samples, b"k", b"garbage")])
    stage.work()
    assert (["r"], 1) == (list(stage.results()), len(stage.letters()))
