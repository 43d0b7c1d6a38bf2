"""The harness: a real Kafka keeps its data, and no JVM outlives its owner."""

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from kafka import KafkaProducer

from consumer.kafka_client import admin, connect, end_offsets
from consumer.vocabulary import TopicPartition
from tests.kafka_harness import HarnessError, RealKafka
from tests.kafka_harness.broker import answers

pytestmark = [pytest.mark.kafka, pytest.mark.usefixtures("kafka_jars")]


def test_acknowledged_records_survive_a_restart_a_kill_and_a_pause(tmp_path):
    with RealKafka(tmp_path) as kafka:
        with admin(connect(kafka.bootstrap)) as client:
            client.create_topics({"t": {"num_partitions": 1}}, wait_for_metadata=True)
        partition = TopicPartition("t", 0)
        assert send(kafka) == 0
        kafka.restart()
        assert end_offsets(connect(kafka.bootstrap), [partition]) == {partition: 1}
        assert send(kafka) == 1
        kafka.kill()
        assert not answers(kafka.port)
        kafka.start()
        assert end_offsets(connect(kafka.bootstrap), [partition]) == {partition: 2}
        kafka.pause()
        kafka.resume()
        assert send(kafka) == 2


def send(kafka):
    producer = KafkaProducer(**connect(kafka.bootstrap).settings)
    sent = producer.send("t", b"v").get(timeout=30)
    producer.close()
    return sent.offset


def test_the_jvm_dies_with_an_owner_that_is_killed(tmp_path):
    owner = f"""
from pathlib import Path
from tests.kafka_harness import RealKafka
kafka = RealKafka(Path({str(tmp_path)!r})).start()
print(kafka.pid, flush=True)
input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", owner],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as process:
        jvm = os.pidfd_open(int(process.stdout.readline()))
        process.send_signal(signal.SIGKILL)
    try:
        # Readable means: the process has ended.
        assert select.select([jvm], [], [], 30)[0] == [jvm]
    finally:
        os.close(jvm)


def test_a_broker_that_cannot_start_says_why_and_leaves_nothing(tmp_path):
    kafka = RealKafka(tmp_path, properties={"num.io.threads": "none"})
    with pytest.raises(HarnessError, match=r"num\.io\.threads"):
        kafka.start()
    with pytest.raises(HarnessError, match="not running"):
        kafka.pid  # noqa: B018 - asking is the test


def test_a_taken_port_is_said_before_anything_is_started(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(HarnessError, match=f"port {port}"):
            RealKafka(tmp_path, port=port).start()
    assert list(tmp_path.iterdir()) == []
