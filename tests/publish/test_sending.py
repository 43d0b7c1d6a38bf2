import secrets

import pytest
from click.testing import CliRunner
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import NewTopic

from consumer.cli.publish import command
from consumer.errors import BrokerError, UsageError
from consumer.kafka_client import admin
from consumer.publish import producer
from consumer.publish.outputs import find_outputs
from consumer.publish.producer import Sender
from consumer.publish.publication import prepare
from consumer.settings import Topics
from tests.conftest import Broker
from tests.publish.evaluations import lines, publication, results, write_lmms


def records(broker, topics):
    """Every record of the input topics, by partition."""
    consumer = KafkaConsumer(**broker.connect().settings, auto_offset_reset="earliest")
    try:
        partitions = [
            TopicPartition(topic, number)
            for topic in topics.inputs
            for number in sorted(consumer.partitions_for_topic(topic) or ())
        ]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        found = {partition: [] for partition in partitions}
        while any(consumer.position(partition) < ends[partition] for partition in partitions):
            for partition, batch in consumer.poll(500).items():
                found[partition] += batch
    finally:
        consumer.close()
    return {partition: batch for partition, batch in found.items() if batch}


@pytest.fixture
def topics(broker, monkeypatch):
    """Topics of this test alone, in force for the command line as well."""
    names = broker.topics()
    monkeypatch.setenv("EVALSINK_TOPICS_SAMPLES", names.samples)
    monkeypatch.setenv("EVALSINK_TOPICS_AGGREGATES", names.aggregates)
    return names


def test_records_arrive_as_arranged_in_one_partition_number(broker, topics, tmp_path):
    path = write_lmms(tmp_path, results(), {"mme": lines(30)})
    prepared = publication(path, shards=4, seed=1, duplicate=0.1, batch_size=3)
    with Sender(broker.connect(), topics) as sender:
        sender.send(prepared)
    found = records(broker, topics)
    arrived = {
        partition.topic: [(record.key, record.value) for record in batch]
        for partition, batch in found.items()
    }
    messages = list(prepared.messages())
    assert {
        topics.samples: [(prepared.key, message.value) for message in messages if message.role == "samples"],
        topics.aggregates: [
            (prepared.key, message.value) for message in messages if message.role == "aggregates"
        ],
    } == arrived
    assert 1 == len({partition.partition for partition in found})


def test_the_command_prints_the_run_ids_alone(broker, topics, realdata):
    folder = realdata / "lm-eval"
    outcome = CliRunner().invoke(command, [str(folder), "--brokers", broker.bootstrap, "--shards", "2"])
    run_ids = [prepare(output).run_id for output in find_outputs(folder).outputs]
    assert (0, run_ids) == (outcome.exit_code, outcome.stdout.splitlines())
    assert "sent lm-eval-" in outcome.stderr
    keys = {record.key.decode() for batch in records(broker, topics).values() for record in batch}
    assert set(run_ids) == keys


def test_a_run_id_for_several_runs_is_refused(realdata):
    outcome = CliRunner().invoke(command, [str(realdata / "lm-eval"), "--run-id", "x"])
    assert isinstance(outcome.exception, UsageError)
    assert "--run-id names one run" in str(outcome.exception)


@pytest.mark.kafka
def test_absent_topics_are_refused_and_not_created(real):
    topics = Topics(samples=real.name(), aggregates=real.name())
    for _ in range(2):
        with pytest.raises(BrokerError, match="evalsink topics"):
            Sender(real.connect(), topics)


def test_on_the_embedded_broker_topics_come_up_by_themselves(embedded_broker, tmp_path):
    broker = Broker(embedded_broker.bootstrap, embedded=True)
    topics = Topics(samples=broker.name(), aggregates=broker.name())
    with Sender(broker.connect(), topics) as sender:
        sender.send(publication(write_lmms(tmp_path, results(), {"mme": lines(3)})))
    assert 2 == len(records(broker, topics))


@pytest.mark.kafka
def test_a_row_too_large_for_the_topic_is_refused_with_the_setting(real, tmp_path):
    topics = Topics(samples=real.name(), aggregates=real.name())
    with admin(real.connect()) as client:
        client.create_topics(
            [NewTopic(name, 1, 1, topic_configs={"max.message.bytes": "10000"}) for name in topics.inputs]
        )
    row = b'{"doc_id": 0, "incompressible": "' + secrets.token_hex(20_000).encode() + b'"}'
    prepared = publication(write_lmms(tmp_path, results(), {"mme": [row]}))
    with (
        pytest.raises(BrokerError, match=r"max\.message\.bytes"),
        Sender(real.connect(), topics) as sender,
    ):
        sender.send(prepared)
    values = [record.value for batch in records(real, topics).values() for record in batch]
    assert not [value for value in values if b'"run_ended"' in value]


def test_what_the_embedded_broker_would_drop_is_refused_beforehand(embedded_broker, tmp_path):
    broker = Broker(embedded_broker.bootstrap, embedded=True)
    topics = broker.topics()
    rows = [{"doc_id": i, "t": "x" * 100_000} for i in range(50)]
    prepared = publication(write_lmms(tmp_path, results(), {"mme": rows}))
    with Sender(broker.connect(), topics) as sender:
        with pytest.raises(UsageError, match="too much for the embedded broker"):
            sender.check_room([prepared])
        sender.check_room([publication(write_lmms(tmp_path / "b", results(), {"mme": rows[:20]}))])


def test_what_the_embedded_broker_dropped_after_all_is_said(embedded_broker, tmp_path):
    broker = Broker(embedded_broker.bootstrap, embedded=True)
    rows = [{"doc_id": i, "t": secrets.token_hex(50_000)} for i in range(40)]
    prepared = publication(write_lmms(tmp_path, results(), {"mme": rows}))
    with Sender(broker.connect(), broker.topics()) as sender:
        sender.send(prepared)
        with pytest.raises(BrokerError, match="dropped records"):
            sender.send(prepared)


def test_ends_wait_until_the_rest_is_acknowledged(broker, topics, tmp_path, monkeypatch):
    prepared = publication(write_lmms(tmp_path, results(), {"mme": lines(9)}), shards=3, seed=2)
    waiting = []
    with Sender(broker.connect(), topics) as sender:
        send = sender._send

        def noting(topic, key, value):
            if b'"run_ended"' in value[:30]:
                waiting.append(len(sender._pending))
            send(topic, key, value)

        monkeypatch.setattr(sender, "_send", noting)
        sender.send(prepared)
    assert [0, 0, 0] == waiting


def test_what_waits_for_acknowledgement_is_bounded(broker, topics, tmp_path, monkeypatch):
    monkeypatch.setattr(producer, "WINDOW_BYTES", 2_000)
    prepared = publication(write_lmms(tmp_path, results(), {"mme": lines(200)}), batch_size=1)
    most = 0
    with Sender(broker.connect(), topics) as sender:

        def noting(_):
            nonlocal most
            most = max(most, sender._pending_bytes)

        sender.send(prepared, noting)
    assert 0 < most <= 2_000
