"""`consumer.kafka_client`: what answers, and what every client of ours starts from."""

import logging
import socket
import threading

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer

from consumer.errors import BrokerError, UsageError
from consumer.kafka_client import admin, connect, end_offsets, partition_counts, topic_ids
from consumer.vocabulary import TopicPartition
from tests.kafka_harness import free_ports


def test_a_broker_is_known_for_what_it_is_and_only_the_embedded_one_is_pinned(broker):
    connection = connect(broker.bootstrap)
    assert connection.embedded == broker.embedded
    assert ("api_version" in connection.settings) == broker.embedded


def test_one_set_of_settings_serves_consumer_producer_and_admin_client(broker):
    connection = broker.connect()
    topic = broker.topics().samples
    producer = KafkaProducer(**connection.settings)
    sent = producer.send(topic, key=b"k", value=b"v", partition=2).get(timeout=10)
    producer.close()
    consumer = KafkaConsumer(
        topic, **connection.settings, group_id=None, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    records = []
    for _ in range(100):
        records += [record for batch in consumer.poll(250).values() for record in batch]
        if records:
            break
    consumer.close()
    client = KafkaAdminClient(**connection.settings)
    described = client.describe_topics([topic])
    client.close()
    assert [(record.partition, record.offset, record.key, record.value) for record in records] == [
        (2, 0, b"k", b"v")
    ]
    assert (sent.partition, described[0]["name"]) == (2, topic)


def test_partition_counts_say_none_for_a_topic_that_is_not_there_and_do_not_make_it(broker):
    connection = broker.connect()
    present, absent = broker.topics().samples, broker.name()
    for _ in range(2):
        assert partition_counts(connection, [present, absent]) == {present: 4, absent: None}
    assert partition_counts(connection, []) == {}


def test_end_offsets_count_what_was_sent(broker):
    connection = broker.connect()
    topic = broker.topics().samples
    producer = KafkaProducer(**connection.settings)
    for _ in range(3):
        producer.send(topic, value=b"v", partition=1).get(timeout=10)
    producer.close()
    wanted = [TopicPartition(topic, 0), TopicPartition(topic, 1)]
    assert end_offsets(connection, wanted) == {wanted[0]: 0, wanted[1]: 3}


def test_end_offsets_of_a_topic_that_is_not_there_are_an_error(broker):
    with pytest.raises(BrokerError, match="end offsets"):
        end_offsets(broker.connect(), [TopicPartition(broker.name(), 0)])


def test_the_embedded_broker_has_no_topic_ids(embedded_broker):
    connection = connect(embedded_broker.bootstrap)
    assert topic_ids(connection, ["whatever"]) == {}


@pytest.mark.kafka
def test_a_topic_made_anew_under_its_old_name_has_another_id(real):
    connection = real.connect()
    topic, absent = real.name(), real.name()
    ids = []
    for _ in range(2):
        with admin(connection) as client:
            client.create_topics({topic: {"num_partitions": 1}}, wait_for_metadata=True)
        ids.append(topic_ids(connection, [topic, absent]))
        with admin(connection) as client:
            client.delete_topics([topic])
    assert [set(found) for found in ids] == [{topic}, {topic}]
    assert ids[0] != ids[1]


@pytest.mark.kafka
def test_a_real_broker_that_is_slow_to_answer_is_not_taken_for_an_embedded_one(pausable_kafka):
    # Frozen long enough for several attempts of either kind to fail; its port accepts connections all the while.
    pausable_kafka.pause()
    thaw = threading.Timer(2.0, pausable_kafka.resume)
    thaw.start()
    try:
        connection = connect(pausable_kafka.bootstrap, timeout_s=60)
    finally:
        thaw.join()
        pausable_kafka.resume()
    assert not connection.embedded
    assert "api_version" not in connection.settings


def test_nobody_there_is_an_error_that_names_the_option_and_leaves_no_thread_and_no_log_line(caplog):
    threads = set(threading.enumerate())
    [port] = free_ports(1)
    with caplog.at_level(logging.INFO), pytest.raises(BrokerError) as refusal:
        connect(f"127.0.0.1:{port}", timeout_s=1)
    message = str(refusal.value)
    assert f"127.0.0.1:{port}" in message
    assert "--brokers" in message
    assert "EVALSINK_BROKERS" in message
    assert "refused" in message
    assert set(threading.enumerate()) == threads
    assert caplog.records == []


def test_a_port_that_is_not_kafka_is_told_apart_from_one_that_is_closed():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(BrokerError, match="accepts connections"):
            connect(f"127.0.0.1:{port}", timeout_s=1)


def test_one_living_server_of_several_is_enough(embedded_broker):
    [dead] = free_ports(1)
    assert connect(f"127.0.0.1:{dead}, {embedded_broker.bootstrap}", timeout_s=30).embedded


@pytest.mark.parametrize(
    "brokers", ["", " , ", "a b", "host:", "host:0", "host:65536", "host:kafka", "http://host:1"]
)
def test_what_is_no_address_is_refused_before_anything_is_tried(brokers):
    with pytest.raises(UsageError, match="EVALSINK_BROKERS"):
        connect(brokers, timeout_s=1)


def test_hosts_may_be_given_without_port_and_as_ipv6(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "consumer.kafka_client._cluster_id", lambda settings, *_: asked.append(settings) or "real"
    )
    connect("[::1]:9,kafka.example, 10.0.0.1:19092")
    assert asked[-1]["bootstrap_servers"] == ["[::1]:9", "kafka.example:9092", "10.0.0.1:19092"]


def test_a_broker_elsewhere_is_never_asked_in_the_embedded_way(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "consumer.kafka_client._cluster_id", lambda settings, *_: asked.append(settings) or "real"
    )
    connect("127.0.0.1:9092,kafka.example:9092")
    assert ["api_version" in settings for settings in asked] == [False]
