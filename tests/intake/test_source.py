"""The contract of `consumer.intake.source.Source`, held by `GroupSource` on both brokers."""

import contextlib
import time
from types import SimpleNamespace

import pytest
from confluent_kafka import Producer as TransactionalProducer
from kafka import KafkaAdminClient
from kafka import TopicPartition as KafkaTopicPartition
from kafka.admin import MemberToRemove

from consumer.errors import BrokerAwayError, BrokerError
from consumer.intake.fetching import ask_in_time
from consumer.intake.group import GroupSource
from consumer.intake.resume import Committed, TopicEnds
from consumer.intake.source import Assigned, CommitRefused, Lost
from consumer.kafka_client import admin, partition_counts
from consumer.settings import Settings, Topics
from consumer.vocabulary import Record, TopicPartition
from tests.conftest import Broker
from tests.intake.conftest import polling
from tests.kafka_harness import RealKafka
from tests.observing import Sending, produce, until

ALL = frozenset(range(4))
SHARED = [({0, 1}, {2, 3}), ({2, 3}, {0, 1})]
POLLS_WITHOUT = 5
"""How often a test polls before it believes that nothing comes."""


def one_each(topics, mark=b"v"):
    """A record for every partition of every input topic."""
    return [Sending(topic, b"k", mark, partition) for topic in topics.inputs for partition in range(4)]


def places(records):
    return {(record.topic, record.partition, record.offset) for record in records}


def test_an_assigned_partition_yields_nothing_until_started_and_then_from_where_it_was_told(
    broker, topics, group, join
):
    produce(broker, one_each(topics, b"a") + one_each(topics, b"b"))
    member = join(broker, topics, group)
    for _ in range(POLLS_WITHOUT):
        assert [] == list(member.poll())
    # Once: a member that joins without its topics' metadata at hand is assigned everything a second time.
    assert [Assigned(ALL)] == [change for change in member.changes if change.partitions]
    member.source.start(1, {topics.samples: 1, topics.aggregates: 0})
    member.source.start(3, {topics.samples: 2, topics.aggregates: 1})
    assert {
        (topics.samples, 1, 1),
        (topics.aggregates, 1, 0),
        (topics.aggregates, 1, 1),
        (topics.aggregates, 3, 1),
    } == places(member.read(4))
    for _ in range(POLLS_WITHOUT):
        assert [] == list(member.poll())
    assert {topics.samples: 2, topics.aggregates: 2} == member.source.position(1)
    assert {topics.samples: 2, topics.aggregates: 2} == member.source.position(3)
    # What is started can be started again elsewhere.
    member.records.clear()
    member.source.start(1, {topics.samples: 1, topics.aggregates: 2})
    assert {(topics.samples, 1, 1)} == places(member.read(1))


def test_records_arrive_whole_and_in_order(broker, topics, group, join):
    sent = [
        Sending(topics.samples, b"k", b"v", 1, (("a", b"1"), ("a", b"\xff")), timestamp_ms=1_700_000_000_123),
        Sending(topics.samples, None, b"\xff\x00", 1, timestamp_ms=1_700_000_000_001),
        Sending(topics.samples, b"", b"", 1, timestamp_ms=1_700_000_000_002),
        Sending(topics.samples, b"tombstone", None, 1, timestamp_ms=1_700_000_000_003),
    ]
    produce(broker, sent)
    member = join(broker, topics, group)
    member.start_all()
    received = [
        Record(one.topic, one.partition, one.offset, one.timestamp, one.key, one.value, list(one.headers))
        for one in member.read(4)
    ]
    expected = [
        Record(one.topic, 1, offset, one.timestamp_ms, one.key, one.value, list(one.headers))
        for offset, one in enumerate(sent)
    ]
    assert expected == received


def test_while_a_busy_partition_has_more_at_hand_nobody_waits_for_quiet_ones(broker, topics, group, join):
    produce(broker, [Sending(topics.samples, b"k", b"v", 1)] * 400)
    member = join(broker, topics, group, poll_records_max=100)
    member.start_all()
    member.read(100)
    fetcher = member.source._consumer._fetcher
    for taken in (200, 300, 400):
        fetcher.send_fetches()  # as `poll` does when it thinks that nothing is at hand
        assert not fetcher.in_flight_fetches(), "the broker would keep this question: nothing else has come"
        member.poll()
        assert taken == len(member.records)
    # Once all is taken, it hears of every partition again.
    produce(broker, one_each(topics, b"new"))
    member.read(400 + 2 * 4)


def test_a_client_that_asks_in_another_way_is_left_as_it_is():
    unknown = SimpleNamespace(_send_fetches_async=None)
    ask_in_time(unknown)
    assert SimpleNamespace(_send_fetches_async=None) == unknown


@pytest.mark.parametrize("place", [0, 7])
def test_a_poll_is_bounded_by_bytes_wherever_among_small_records_the_large_ones_stand(place):
    sizes = [1_000_000 if number % 20 == place else 1 for number in range(2000)]
    records = [Record("t", 0, number, 0, None, b"v" * size) for number, size in enumerate(sizes[:100])] * 20
    source = SimpleNamespace(_poll_records_max=2000, _records_of_one_poll=2000)
    GroupSource._adapt(source, records)
    assert 8 * 1024 * 1024 // (1_000_000 // 20) == pytest.approx(source._records_of_one_poll, rel=0.01)


def test_ends_tell_the_first_readable_offset_and_the_one_after_the_last(broker, topics, group, join):
    produce(broker, [Sending(topics.aggregates, b"k", b"v", 2)] * 3)
    member = join(broker, topics, group)
    assert {
        TopicPartition(topics.samples, 0): TopicEnds(0, 0),
        TopicPartition(topics.samples, 2): TopicEnds(0, 0),
        TopicPartition(topics.aggregates, 0): TopicEnds(0, 0),
        TopicPartition(topics.aggregates, 2): TopicEnds(0, 3),
    } == member.source.ends([0, 2])
    assert {} == member.source.ends([])


def test_what_was_committed_comes_back_with_its_metadata_to_the_next_member(broker, topics, group, join):
    member = join(broker, topics, group)
    assert {topics.samples: None, topics.aggregates: None} == member.source.committed(1)
    commits = {
        TopicPartition(topics.samples, 1): Committed(7, '{"t":"","w":5,"v":1}'),
        TopicPartition(topics.aggregates, 1): Committed(0, ""),
        TopicPartition(topics.samples, 2): Committed(9, "שלום"),
    }
    member.source.commit(commits)
    member.source.commit({})
    expected = [
        {topics.samples: Committed(7, '{"t":"","w":5,"v":1}'), topics.aggregates: Committed(0, "")},
        {topics.samples: Committed(9, "שלום"), topics.aggregates: None},
    ]
    assert expected == [member.source.committed(partition) for partition in (1, 2)]
    member.source.commit({TopicPartition(topics.samples, 1): Committed(3, "back")})
    member.close()
    successor = join(broker, topics, group)
    assert Committed(3, "back") == successor.source.committed(1)[topics.samples]
    assert expected[1] == successor.source.committed(2)
    # What was committed decides nothing here: the worker says where to start.
    for _ in range(POLLS_WITHOUT):
        assert [] == list(successor.poll())


def test_a_second_member_takes_over_partition_numbers_and_gets_all_topics_of_each(
    broker, topics, group, join
):
    first = join(broker, topics, group)
    first.start_all()
    second = join(broker, topics, group, expected=None)

    with polling(first, second):
        until(lambda: (first.owned, second.owned) in SHARED, "two members sharing four partitions")
    assert Lost(ALL) in first.changes
    first.records.clear()
    produce(broker, one_each(topics))
    # Retained or new, nothing flows before it is started again.
    for _ in range(POLLS_WITHOUT):
        assert ([], []) == (list(first.poll()), list(second.poll()))
    for member in (first, second):
        member.start_all()
    first.read(4)
    second.read(4)
    assert [
        {(topic, p, 0) for topic in topics.inputs for p in member.owned} for member in (first, second)
    ] == [
        places(first.records),
        places(second.records),
    ]
    # The one that leaves hands over; what it had read does not come to the other by itself.
    leaving = first.owned.copy()
    first.close()
    second.records.clear()
    second.join(ALL)
    for partition in leaving:
        second.source.start(partition, dict.fromkeys(topics.inputs, 0))
    assert {(topic, p, 0) for topic in topics.inputs for p in leaving} == places(second.read(4))


@pytest.mark.kafka
def test_a_member_that_was_thrown_out_cannot_commit_and_comes_back_by_polling(real, join):
    topics, group = real.topics(), real.name("group")
    member = join(real, topics, group)
    member.start_all()
    place = TopicPartition(topics.samples, 0)
    member.source.commit({place: Committed(1, "mine")})
    with admin(real.connect()) as client:
        thrown_out = [
            MemberToRemove(member_id=one["member_id"])
            for one in client.describe_groups([group])[group]["members"]
        ]
        client.remove_group_members(group, thrown_out)
    assert 1 == len(thrown_out)
    with pytest.raises(CommitRefused):
        member.source.commit({place: Committed(2, "zombie")})
    before = len(member.changes)
    member.poll_until(lambda: len(member.changes) >= before + 2, "losing and getting partitions")
    assert [Lost(ALL), Assigned(ALL)] == member.changes[before:]
    assert Committed(1, "mine") == member.source.committed(0)[topics.samples]
    member.source.commit({place: Committed(2, "again a member")})
    assert Committed(2, "again a member") == member.source.committed(0)[topics.samples]


@pytest.mark.kafka
def test_aborted_records_are_skipped_and_positions_jump_the_gaps(real, join):
    topics, group = real.topics(), real.name("group")
    member = join(real, topics, group)
    member.start_all()
    transactions = TransactionalProducer(
        {
            "bootstrap.servers": real.bootstrap,
            "transactional.id": real.name("tx"),
            "linger.ms": 0,
            "log_level": 0,
        }
    )
    transactions.init_transactions(30)

    def transaction(*values, commit):
        transactions.begin_transaction()
        for value in values:
            transactions.produce(topics.samples, value, b"k", partition=0)
        transactions.flush()
        (transactions.commit_transaction if commit else transactions.abort_transaction)(30)

    transaction(b"a0", b"a1", commit=False)  # 0, 1; marker 2
    transaction(b"c3", b"c4", commit=True)  # 3, 4; marker 5
    transaction(b"a6", commit=False)  # 6; marker 7
    assert [(3, b"c3"), (4, b"c4")] == [(one.offset, one.value) for one in member.read(2)]
    place = TopicPartition(topics.samples, 0)
    member.poll_until(
        lambda: member.source.position(0)[topics.samples] == 8, "the position behind the last marker"
    )
    assert TopicEnds(0, 8) == member.source.ends([0])[place]
    assert 2 == len(member.records)
    # An open transaction holds back what follows it, and the end with it: idle is judged by what can be read.
    transactions.begin_transaction()
    transactions.produce(topics.samples, b"o8", b"k", partition=0)
    transactions.flush()
    produce(real, [Sending(topics.samples, b"k", b"n9", 0)])
    for _ in range(POLLS_WITHOUT):
        assert [] == list(member.poll())
    assert (8, TopicEnds(0, 8)) == (member.source.position(0)[topics.samples], member.source.ends([0])[place])
    transactions.abort_transaction(30)
    assert [(9, b"n9")] == [(one.offset, one.value) for one in member.read(3)[2:]]


@pytest.mark.kafka
def test_an_offset_that_the_log_no_longer_has_is_an_error_not_a_jump(real, join):
    topics, group = real.topics(), real.name("group")
    produce(real, [Sending(topics.samples, b"k", b"v", 1)] * 3)
    with admin(real.connect()) as client:
        client.delete_records({KafkaTopicPartition(topics.samples, 1): 2})
    member = join(real, topics, group)
    assert TopicEnds(2, 3) == member.source.ends([1])[TopicPartition(topics.samples, 1)]
    member.source.start(1, {topics.samples: 0, topics.aggregates: 0})
    with pytest.raises(BrokerError):
        member.poll_until(lambda: False, "an error")
    member.source.start(1, {topics.samples: 2, topics.aggregates: 0})
    assert {(topics.samples, 1, 2)} == places(member.read(1))


@pytest.mark.kafka
def test_a_join_that_ends_between_two_polls_is_not_made_again(real, join):
    # A static member is taken with its first request; two round trips take longer than such a poll.
    member = join(real, real.topics(), real.name("group"), None, group_instance_id="one", poll_timeout_ms=1)
    coordinator = member.source._consumer._coordinator

    def has_ended_meanwhile():
        member.poll()
        if (task := coordinator._join_task) is None:
            return False
        task = getattr(task, "_task", task)
        until(lambda: task.is_done, "the end of a join, while nobody polls")
        return task.exception is None  # a new broker may say first that it is not ready

    until(has_ended_meanwhile, "a join that ended well", every_s=0)
    member.join()
    assert 1 == coordinator._generation.generation_id


@pytest.mark.kafka
def test_a_member_never_makes_topics_not_even_where_the_broker_would(kafka_jars, tmp_path):
    with RealKafka(tmp_path, properties={"auto.create.topics.enable": "true"}) as kafka:
        broker = Broker(kafka.bootstrap, embedded=False)
        absent = Topics(samples="absent-samples", aggregates="absent-aggregates")
        source = GroupSource(
            broker.connect(), Settings(brokers=kafka.bootstrap, topics=absent, poll_timeout_ms=50)
        )
        with contextlib.suppress(BrokerError):
            for _ in range(POLLS_WITHOUT):
                assert [] == list(source.poll())
        source.close()
        assert dict.fromkeys(absent.inputs) == partition_counts(broker.connect(), absent.inputs)
        client = KafkaAdminClient(**broker.connect().settings)
        assert [] == [topic for topic in client.list_topics() if topic.startswith("absent")]
        client.close()


@pytest.mark.kafka
def test_positions_are_told_at_once_while_the_broker_is_away_and_ends_as_last_heard(
    kafka_jars, tmp_path, join
):
    with RealKafka(tmp_path) as kafka:
        broker = Broker(kafka.bootstrap, embedded=False)
        topics = broker.topics()
        produce(broker, one_each(topics))
        member = join(broker, topics, broker.name("group"))
        place = TopicPartition(topics.samples, 1)
        assert member.source.end_as_heard(place) is None
        member.start_all()
        member.read(8)
        kafka.stop()
        # The client's own `position` would wait for 30 s, eight times.
        asked = time.monotonic()
        assert all(
            dict.fromkeys(topics.inputs, 1) == member.source.position(partition) for partition in range(4)
        )
        assert time.monotonic() - asked < 5
        assert 1 == member.source.end_as_heard(place)
        assert member.source.end_as_heard(TopicPartition(topics.samples, 99)) is None
        with pytest.raises(BrokerAwayError, match="not assigned"):
            member.source.position(99)
