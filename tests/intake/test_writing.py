"""What the worker writes itself: acknowledged in order, refused aloud; dead letters whole."""

import os

import pytest

from consumer.errors import BrokerError
from consumer.intake.deadletters import DeadLetters
from consumer.intake.outbound import Outbound
from consumer.kafka_client import admin
from consumer.vocabulary import Record, RejectedRow
from tests.conftest import Broker
from tests.observing import read_all, until


class Future:
    """A record on its way, as kafka-python hands it out."""

    def __init__(self, *, is_done):
        self.is_done = is_done

    def failed(self):
        return False


@pytest.fixture
def outbound(broker):
    outbound = Outbound(broker.connect())
    yield outbound
    outbound.close()


def test_tickets_count_up_and_what_is_acknowledged_lies_in_the_topic(broker, outbound):
    topic = broker.topics().samples
    assert (0, 0, 0) == (outbound.sent, outbound.pending, outbound.acknowledged())
    tickets = [
        outbound.send(topic, key=b"k", value=b"%d" % number, partition=number % 4, headers=[("h", b"1")])
        for number in range(8)
    ]
    assert (list(range(1, 9)), 8) == (tickets, outbound.sent)
    outbound.flush(30)
    assert (8, 0) == (outbound.acknowledged(), outbound.pending)
    assert [(number % 4, b"%d" % number, [("h", b"1")]) for number in (0, 4, 1, 5, 2, 6, 3, 7)] == [
        (record.partition, record.value, list(record.headers)) for record in read_all(broker, topic)
    ]


def test_a_record_does_not_count_before_its_predecessor(embedded_broker):
    outbound = Outbound(Broker(embedded_broker.bootstrap, embedded=True).connect())
    futures = [Future(is_done=done) for done in (True, False, True)]
    outbound._pending.extend(("t", 0, future) for future in futures)
    assert (1, 2) == (outbound.acknowledged(), outbound.pending)
    futures[1].is_done = True
    assert (3, 0) == (outbound.acknowledged(), outbound.pending)
    outbound.close()


@pytest.mark.kafka
def test_nothing_counts_while_the_broker_does_not_answer(pausable_kafka):
    broker = Broker(pausable_kafka.bootstrap, embedded=False)
    topic = broker.topics().samples
    outbound = Outbound(broker.connect())
    outbound.send(topic, key=None, value=b"first")
    outbound.flush(30)
    pausable_kafka.pause()
    try:
        outbound.send(topic, key=None, value=b"second")
        with pytest.raises(BrokerError):
            outbound.flush(0.5)
        assert (1, 1) == (outbound.acknowledged(), outbound.pending)
    finally:
        pausable_kafka.resume()
    outbound.flush(60)
    assert (2, 0) == (outbound.acknowledged(), outbound.pending)
    outbound.close()


@pytest.mark.kafka
def test_a_record_that_the_broker_refuses_is_an_error_and_nothing_behind_it_counts(real):
    topic = real.name()
    with admin(real.connect()) as client:
        client.create_topics(
            {topic: {"num_partitions": 1, "configs": {"max.message.bytes": "1000"}}}, wait_for_metadata=True
        )
    outbound = Outbound(real.connect())
    outbound.send(topic, key=None, value=b"fits")
    outbound.flush(30)
    outbound.send(topic, key=None, value=os.urandom(5000))
    with pytest.raises(BrokerError, match=topic):
        until(lambda: outbound.acknowledged() > 1, "the refusal")
    outbound.close()


IDS = {"samples": "0b5c7c6e-uuid"}


def send(broker, record, reason, *more, topic_ids=IDS):
    """The dead letter of a record, as it lies in the topic."""
    topic = broker.topics().dead_letters
    outbound = Outbound(broker.connect())
    DeadLetters(outbound, topic=topic, topic_ids=topic_ids).send(record, reason, *more)
    outbound.flush(30)
    outbound.close()
    [letter] = read_all(broker, topic)
    return letter.key, letter.value, list(letter.headers)


def test_a_dead_letter_holds_the_original_bytes_and_where_they_came_from(broker):
    record = Record("samples", 3, 17, 1_700_000_000_123, b"k\xff", b"\x00\xffbytes", [("theirs", b"1")])
    rows = [RejectedRow(2, 5, "row-missing"), RejectedRow(11, b"digest", "bad-doc-id")]
    assert (
        b"0b5c7c6e-uuid/3/17",
        b"\x00\xffbytes",
        [
            ("reason", b"bad-rows"),
            ("detail", "why, שלום".encode()),
            ("topic", b"samples"),
            ("partition", b"3"),
            ("offset", b"17"),
            ("timestamp", b"1700000000123"),
            ("key", b"k\xff"),
            ("rows", b"2,11"),
        ],
    ) == send(broker, record, "bad-rows", "why, שלום", rows)


def test_a_null_becomes_an_empty_value_that_says_so_for_a_null_would_be_a_tombstone(broker):
    record = Record("samples", 0, 0, 0, None, None)
    assert (
        b"samples/0/0",
        b"",
        [
            ("reason", b"empty"),
            ("detail", b""),
            ("topic", b"samples"),
            ("partition", b"0"),
            ("offset", b"0"),
            ("timestamp", b"0"),
            ("null", b"1"),
        ],
    ) == send(broker, record, "empty", topic_ids={"samples": ""})


def test_an_empty_value_and_an_empty_key_are_not_null(broker):
    key, value, headers = send(broker, Record("samples", 0, 1, 0, b"", b""), "empty")
    assert (b"0b5c7c6e-uuid/0/1", b"") == (key, value)
    assert ("key", b"") in headers
    assert "null" not in dict(headers)
