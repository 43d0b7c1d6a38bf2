"""From records to published runs, in one process, on both brokers: what comes out, whatever came in."""

import hashlib

import pytest

from consumer.demo.synthetic import SyntheticEvaluation
from consumer.errors import BrokerError
from consumer.report.verify import find_results, read_run, verify_run
from schemas.state import Receipt, TopicCut
from tests.observing import Sending
from tests.worker.evaluation import Evaluation


def send_synthetic(stage, evaluation):
    topics = {"samples": stage.topics.samples, "aggregates": stage.topics.aggregates}
    stage.send([Sending(topics[one.role], one.key, one.value) for one in evaluation.records()])


def told(results):
    """What a results JSON says, in the shape of `Facts`."""
    own = results["evalsink"]
    entries = {task: entry for task, entry in own["tasks"].items() if entry["rows"]}
    return {
        "status": own["status"],
        "shards": own["shards"],
        "rows": {task: entry["rows"] for task, entry in entries.items()},
        "filters": {task: list(entry["filters"]) for task, entry in entries.items()},
        "duplicates": {task: entry["duplicates"] for task, entry in entries.items() if entry["duplicates"]},
        "repaired": {task: entry["repaired"] for task, entry in entries.items() if entry["repaired"]},
        "conflicts": sum(entry["conflicts"] for entry in entries.values()),
        "results": results["results"],
    }


def facts_of(facts):
    return {
        "status": "complete",
        "shards": facts.shards,
        "rows": facts.rows,
        "filters": facts.filters,
        "duplicates": facts.duplicates,
        "repaired": facts.repaired,
        "conflicts": 0,
        "results": facts.results,
    }


def test_the_synthetic_evaluation_becomes_what_it_says_of_itself(stage):
    evaluation = SyntheticEvaluation()
    facts = evaluation.facts
    send_synthetic(stage, evaluation)
    outcome = stage.work()
    results = stage.results()
    assert [facts.run_id] == list(results)
    assert facts_of(facts) == told(results[facts.run_id])
    letters = stage.letters()
    assert (facts.dead_letters, facts.dead_letters, 1) == (
        len(letters),
        outcome.counts.dead_letters,
        outcome.counts.closed,
    )
    [path] = find_results([stage.folder / "output"])
    verify_run(read_run(path))
    [(_, receipt)] = stage.receipts()
    assert (facts.run_id, "complete", stage.group) == (receipt.run_id, receipt.status, receipt.group)
    assert [] == list((stage.folder / "output").rglob("*.tmp"))


@pytest.mark.kafka
def test_another_seed_another_run_beside_it_in_one_worker(real_stage):
    evaluations = [SyntheticEvaluation(seed=seed, run_id=f"run-{seed}") for seed in (1, 2, 3)]
    for evaluation in evaluations:
        send_synthetic(real_stage, evaluation)
    outcome = real_stage.work()
    results = real_stage.results()
    assert {one.facts.run_id: facts_of(one.facts) for one in evaluations} == {
        run_id: told(one) for run_id, one in results.items()
    }
    assert sum(one.facts.dead_letters for one in evaluations) == outcome.counts.dead_letters


def test_rows_lifecycle_and_aggregates_may_share_one_topic(shared_topic_stage):
    stage = shared_topic_stage
    evaluation = SyntheticEvaluation()
    facts = evaluation.facts
    # One record of the garbage is garbage only where aggregates have a topic of their own.
    fitting = [
        one for one in evaluation.records() if one.role == "samples" or b'"type":"aggregate"' in one.value
    ]
    stage.send([Sending(stage.topics.samples, one.key, one.value) for one in fitting])
    stage.work()
    assert facts_of(facts) == told(stage.results()[facts.run_id])
    assert facts.dead_letters - 1 == len(stage.letters())
    [(_, receipt)] = stage.receipts()
    assert receipt.samples.topic_id == receipt.aggregates.topic_id
    # Two cuts in one topic: the aggregates are all there before the last shard's end.
    assert receipt.aggregates.offset < receipt.samples.offset


def test_the_whole_run_sent_twice_before_its_last_end_is_the_same_run_with_every_row_a_duplicate(stage):
    once, twice = Evaluation("once"), Evaluation("twice")
    stage.send(once.events())
    body = [event for event in twice.body() for _ in range(2)]
    stage.send([*body, *twice.body(), twice.ended(1)])
    stage.work()
    results = stage.results()
    tree = stage.tree()
    files = {run_id: one["evalsink"]["tasks"]["mme"]["file"] for run_id, one in results.items()}
    assert tree[f"org__model/{files['once']}"] == tree[f"org__model/{files['twice']}"]
    counted = {run_id: one["evalsink"]["tasks"]["mme"] for run_id, one in results.items()}
    assert (24, 0) == (counted["once"]["rows"], counted["once"]["duplicates"])
    assert (24, 48) == (counted["twice"]["rows"], counted["twice"]["duplicates"])
    own = results["twice"]["evalsink"]
    assert ("complete", 0, 0) == (
        own["status"],
        counted["twice"]["conflicts"],
        counted["twice"]["superseded"],
    )
    # One aggregate is enough for the cut, so that the copies of it are late wherever they lie.
    assert {("late", stage.topics.aggregates)} == {
        (letter.reason, letter.topic) for letter in stage.letters()
    }
    assert 2 == len(stage.letters())


@pytest.mark.parametrize(
    ("broker", "closed_between"),
    [
        pytest.param("embedded", False, id="embedded, read together"),
        pytest.param("real", False, id="read together", marks=pytest.mark.kafka),
        pytest.param("real", True, id="the second read after the first closed", marks=pytest.mark.kafka),
    ],
    indirect=["broker"],
)
def test_published_twice_in_a_row_the_files_stay_and_the_whole_second_copy_is_late(stage, closed_between):
    evaluation = Evaluation("r", tasks=[("mme", 24), ("gqa", 7)])
    first = stage.send(evaluation.events())
    before = {}
    if closed_between:
        stage.work()
        before = stage.tree()
    second = stage.send(evaluation.events())
    stage.work()
    tree = stage.tree()
    assert 5 == len(tree)
    assert before in ({}, tree)
    assert sorted((*place, "late") for place in second) == [letter[:4] for letter in stage.letters()]
    [entry, other] = stage.results()["r"]["evalsink"]["tasks"].values()
    assert (0, 0) == (entry["duplicates"], other["duplicates"])
    [(partition, receipt)] = stage.receipts()
    ids = stage.ids()
    cuts = {
        topic: max(place.offset for place in first if place.topic == topic) for topic in stage.topics.inputs
    }
    assert first[0].partition == partition
    assert (
        TopicCut(ids[stage.topics.samples], cuts[stage.topics.samples]),
        TopicCut(ids[stage.topics.aggregates], cuts[stage.topics.aggregates]),
    ) == (receipt.samples, receipt.aggregates)


@pytest.mark.kafka
def test_a_second_group_rebuilds_the_same_bytes_also_in_the_first_ones_state_folder(real_stage):
    real_stage.send(Evaluation("a").events())
    real_stage.send(Evaluation("b", tasks=[("t", 5)], shards=3).events())
    real_stage.work()
    tree = real_stage.tree()
    assert 8 == len(tree)
    real_stage.work(group="-2", state="state-2", output="output-2")
    assert tree == real_stage.tree("output-2")
    outcome = real_stage.work(group="-3", state="state", output="output-3")
    assert tree == real_stage.tree("output-3")
    assert 2 == outcome.counts.closed
    assert 6 == len(real_stage.receipts())


@pytest.mark.kafka
def test_a_receipt_says_what_was_published(real_stage):
    [*places] = real_stage.send(Evaluation("r", shards=1).events())
    real_stage.work()
    tree = real_stage.tree()
    [name] = [name for name in tree if name.endswith("_results.json")]
    ids = real_stage.ids()
    expected = Receipt(
        group=real_stage.group,
        run_id="r",
        status="complete",
        samples=TopicCut(ids[real_stage.topics.samples], places[-1].offset),
        aggregates=TopicCut(ids[real_stage.topics.aggregates], 0),
        stem=f"20260102_030405-{hashlib.sha256(b'r').hexdigest()[:8]}",
        results=name,
        sha256=hashlib.sha256(tree[name]).hexdigest(),
    )
    assert [(places[0].partition, expected)] == real_stage.receipts()


def test_topics_that_are_not_there_are_named_and_not_made(bare_stage):
    for _ in range(2):
        with pytest.raises(BrokerError, match="evalsink topics") as refusal:
            bare_stage.work()
        for topic in (*bare_stage.topics.inputs, bare_stage.topics.receipts, bare_stage.topics.dead_letters):
            assert topic in str(refusal.value)
