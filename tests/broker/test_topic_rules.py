"""`consumer.intake.topic_rules`: what is said of topics that are not as they should be, without any broker."""

import pytest

from consumer.intake.topic_rules import DEAD_LETTER_BYTES_MAX, INPUT_BYTES_MAX, Found, Wanted, judge
from consumer.settings import Settings

DAY_MS = 86_400_000


def topics(**changes):
    """Three replicas as a careful operator has them; `changes` to the samples topic, or to all as `every`."""
    every = {
        "min.insync.replicas": "2",
        "unclean.leader.election.enable": "false",
        **changes.pop("every", {}),
    }
    inputs = {
        "cleanup.policy": "delete",
        "max.message.bytes": str(INPUT_BYTES_MAX),
        "retention.ms": str(14 * DAY_MS),
        "retention.bytes": "-1",
        **every,
    }
    compacted = {"cleanup.policy": "compact", "max.message.bytes": str(DEAD_LETTER_BYTES_MAX), **every}
    replication = changes.pop("replication", 3)
    samples = inputs | {name.replace("_", "."): value for name, value in changes.items()}
    return [
        Found("samples", "input", 12, replication, samples),
        Found("aggregates", "input", 12, replication, inputs),
        Found(
            "receipts", "receipts", 12, replication, compacted | {"retention.ms": "1", "retention.bytes": "1"}
        ),
        Found("dead", "dead letters", 12, replication, compacted),
    ]


def remarks(found, **wanted):
    return {topic.name: topic.remarks for topic in judge(found, Wanted(12, **wanted)) if topic.remarks}


def test_careful_topics_get_neither_problem_nor_remark():
    judged = judge(topics(), Wanted(12, 3, 2, 14 * DAY_MS, DAY_MS))
    assert [((), ())] * 4 == [(topic.problems, topic.remarks) for topic in judged]
    assert [14 * DAY_MS, 14 * DAY_MS, None, None] == [topic.retention_ms for topic in judged]
    assert [2] * 4 == [topic.min_insync_replicas for topic in judged]


def test_one_replica_on_a_laptop_gets_no_remark():
    assert {} == remarks(topics(replication=1, every={"min.insync.replicas": "1"}))


@pytest.mark.parametrize(
    ("retention_ms", "remarked"), [(DAY_MS - 1, 1), (DAY_MS, 1), (DAY_MS + 1, 0), (-1, 0)]
)
def test_a_retention_that_a_silent_run_may_outlast_is_remarked(retention_ms, remarked):
    silence_ms = round(Settings().silence_s * 1000)
    found = remarks(topics(retention_ms=str(retention_ms)), silence_ms=silence_ms)
    assert remarked == len(found)
    for [remark] in found.values():
        assert f"samples has retention.ms={retention_ms}" in remark
        assert "abandon_after_s" in remark


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"retention_bytes": "1000000"}, "set retention.bytes=-1"),
        ({"unclean_leader_election_enable": "true"}, "unclean.leader.election.enable=true"),
        ({"min_insync_replicas": "1"}, "set min.insync.replicas=2"),
        ({"min_insync_replicas": "3"}, "while one broker is down"),
    ],
)
def test_what_can_lose_something_when_something_fails_is_remarked(changes, hint):
    [remark] = remarks(topics(**changes))["samples"]
    assert hint in remark
    assert set(remarks(topics(**changes))) == {"samples"}


@pytest.mark.parametrize(
    ("wanted", "said", "of"),
    [
        ({"replication": 2}, "replicas=3, not 2", 4),
        ({"min_insync_replicas": 1}, "min.insync.replicas=2, not 1", 4),
        ({"retention_ms": 7 * DAY_MS}, f"retention.ms={14 * DAY_MS}, not {7 * DAY_MS}", 2),
    ],
)
def test_what_is_otherwise_than_asked_for_is_remarked_and_no_problem(wanted, said, of):
    found = remarks(topics(), **wanted)
    assert of == len(found)
    assert all(said in remark for [remark] in found.values())
    assert not [topic for topic in judge(topics(), Wanted(12, **wanted)) if topic.problems]


def test_settings_that_are_not_told_are_a_problem_and_nothing_is_guessed():
    found = [Found(topic.name, topic.purpose, 12, 3, {}) for topic in topics()]
    judged = judge(found, Wanted(12, 2, 1, DAY_MS, DAY_MS))
    assert all("DescribeConfigs" in problem for topic in judged for problem in topic.problems)
    assert [1] * 4 == [len(topic.problems) for topic in judged]
    assert {("replicas=3, not 2",)} == {
        tuple(remark.split(" has ")[1].split(" as ")[0] for remark in topic.remarks) for topic in judged
    }
