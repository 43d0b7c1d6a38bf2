"""deploy/kafka: the examples of settings and of producers' properties are taken, and do what they say."""

import re
import subprocess
import tomllib

import confluent_kafka
import pytest
from kafka.partitioner.default import murmur2

from consumer import assembly
from consumer.intake.topic_rules import INPUT_BYTES_MAX
from consumer.settings import Settings, load
from tests.cluster.guarded import CERTIFICATE, DEPLOY, PASSWORDS, USERS
from tests.kafka_harness.tools import known_settings
from tests.observing import read_all
from tests.worker.evaluation import Evaluation

PARTITIONS = 5
EXAMPLES = sorted(path.name for path in DEPLOY.glob("*.toml"))


def properties(text):
    """A properties file as its reader sees it."""
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_of_settings_is_taken_and_says_nothing_that_is_the_default(name):
    settings, default = load(config=DEPLOY / name, environ={}), Settings()
    said = tomllib.loads((DEPLOY / name).read_text("utf-8"))
    assert said.pop("security").keys() <= set(settings.security.__struct_fields__)
    assert [] == [key for key in said if getattr(settings, key) == getattr(default, key)]
    assert settings.security.tls
    # A worker that is asked to end must be back before its session is over.
    assert settings.session_timeout_ms > 2 * 1000 * settings.drain_timeout_s


def test_there_is_an_example_for_passwords_and_one_for_certificates():
    assert ["SASL_SSL", "SSL"] == sorted(
        load(config=DEPLOY / name, environ={}).security.protocol for name in EXAMPLES
    )


@pytest.mark.parametrize(
    ("name", "largest"),
    [("producer.properties", "max.request.size"), ("producer-librdkafka.properties", "message.max.bytes")],
)
def test_the_producers_send_what_the_inputs_take_and_lose_nothing(name, largest):
    said = properties((DEPLOY / name).read_text("utf-8"))
    assert said[largest] == str(INPUT_BYTES_MAX)
    assert (said["acks"], said["enable.idempotence"]) == ("all", "true")


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("name", "client"),
    [("producer.properties", "producer.ProducerConfig"), ("admin.properties", "admin.AdminClientConfig")],
)
def test_kafkas_own_clients_know_all_that_they_are_told(kafka_jars, name, client):
    said, known = properties((DEPLOY / name).read_text("utf-8")), known_settings(client)
    assert "sasl.jaas.config" in known
    # What finds the password belongs to no client; that nobody gets in without it is seen below.
    assert [] == [key for key in said.keys() - known if not key.startswith("config.providers")]


def send_with_kafkas_own_client(guarded_kafka, stage, event_records):
    """Through kafka-console-producer, one for each topic; what they printed."""
    config = stage.folder / "producer.properties"
    config.write_text(guarded_kafka.example("producer.properties", stage.folder, USERS["producer"]), "utf-8")
    running = []
    for topic in stage.topics.inputs:
        call = [
            guarded_kafka.command("kafka-console-producer.sh"),
            "--topic",
            topic,
            "--producer.config",
            config,
        ]
        call += [
            "--bootstrap-server",
            guarded_kafka.kafka.bootstrap("SASL_SSL"),
            "--property",
            "parse.key=true",
        ]
        lines = [one.key + b"\t" + one.value + b"\n" for one in event_records if one.topic == topic]
        process = subprocess.Popen(
            call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        running.append((process, b"".join(lines)))
    said = [process.communicate(lines, timeout=120)[0].decode() for process, lines in running]
    assert [0, 0] == [process.returncode for process, _ in running], said
    return "".join(said)


def send_with_librdkafka(guarded_kafka, stage, event_records):
    text = guarded_kafka.example("producer-librdkafka.properties", stage.folder, USERS["producer"])
    producer = confluent_kafka.Producer({**properties(text), "sasl.password": PASSWORDS[USERS["producer"]]})
    refused = []
    for one in event_records:
        producer.produce(
            one.topic,
            key=one.key,
            value=one.value,
            on_delivery=lambda error, _: error and refused.append(error),
        )
    assert 0 == producer.flush(60)
    assert [] == refused


@pytest.mark.kafka
def test_what_the_producers_of_the_examples_send_comes_together_at_a_worker_with_a_certificate(
    guarded_kafka, tmp_path
):
    stage = guarded_kafka.stage(tmp_path, partitions=PARTITIONS)
    guarded_kafka.give(f"User:{CERTIFICATE}", guarded_kafka.rights_of("worker", stage))
    runs = {name: Evaluation(name, shards=2) for name in ("java", "librdkafka")}
    records = {name: [stage.record(event) for event in run.events()] for name, run in runs.items()}
    said = send_with_kafkas_own_client(guarded_kafka, stage, records["java"])
    assert not re.search("WARN|ERROR", said), said
    send_with_librdkafka(guarded_kafka, stage, records["librdkafka"])
    for record in read_all(guarded_kafka.outside, *stage.topics.inputs):
        assert record.partition == (murmur2(record.key) & 0x7FFFFFFF) % PARTITIONS
    config = guarded_kafka.settings_file("worker", stage, example="worker-mtls.toml")
    with assembly.worker(load(config=config, environ={})) as worker:
        worker.run(exit_when_idle_s=0.5)
    assert dict.fromkeys(runs, "complete") == {
        name: results["evalsink"]["status"] for name, results in stage.results().items()
    }
    assert [] == stage.letters()
