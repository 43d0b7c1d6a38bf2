"""TLS and SASL against a real Kafka: the whole way over each, and what is said where the broker does not let us in."""

import json
import threading

import msgspec
import pytest

from consumer import assembly
from consumer.demo.synthetic import SyntheticEvaluation
from consumer.errors import BrokerError, UsageError
from consumer.intake.outbound import Outbound
from consumer.intake.topics import arrange
from consumer.kafka_client import connect
from consumer.report.verify import find_results, read_run, verify_run
from consumer.settings import Secret, Security, Settings, Topics
from tests.conftest import unavailable
from tests.kafka_harness import HarnessError, free_ports
from tests.kafka_harness.secured import (
    KEY_PASSWORD,
    PLAIN_PASSWORD,
    PLAIN_USER,
    SCRAM_PASSWORD,
    SCRAM_USER,
    SecuredKafka,
)

pytestmark = pytest.mark.kafka

WRONG = "wrong-p4ssword"


@pytest.fixture(scope="module")
def kafka(kafka_jars, tmp_path_factory):
    try:
        secured = SecuredKafka(tmp_path_factory.mktemp("secured"))
    except FileNotFoundError:
        unavailable("openssl, which makes the certificates, is not there")
    try:
        with secured:
            yield secured
    except HarnessError as error:
        pytest.fail(str(error))


@pytest.fixture
def ways(kafka, tmp_path):
    """Every way in, by name."""
    (tmp_path / "password").write_text(f"{SCRAM_PASSWORD}\n")
    (tmp_path / "key-password").write_text(f"{KEY_PASSWORD}\n")
    certificates = {"ca_file": str(kafka.ca_file)}
    scram = {"username": SCRAM_USER, "password_file": str(tmp_path / "password")}
    plain = {"mechanism": "PLAIN", "username": PLAIN_USER, "password": Secret(PLAIN_PASSWORD)}
    return {
        "SCRAM-SHA-512 over TLS": Security("SASL_SSL", **certificates, **scram),
        "SCRAM-SHA-256 over TLS": Security("SASL_SSL", **certificates, mechanism="SCRAM-SHA-256", **scram),
        "SCRAM-SHA-512": Security("SASL_PLAINTEXT", **scram),
        "PLAIN over TLS": Security("SASL_SSL", **certificates, **plain),
        "PLAIN": Security("SASL_PLAINTEXT", **plain),
        "our certificate": Security(
            "SSL",
            **certificates,
            certificate_file=str(kafka.client_file),
            key_file=str(kafka.client_file.with_suffix(".encrypted.key")),
            key_password_file=str(tmp_path / "key-password"),
        ),
    }


def changed(security, **changes):
    return msgspec.structs.replace(security, **changes)


def enter(kafka, security, protocol=None, timeout_s=30):
    return connect(kafka.bootstrap(protocol or security.protocol), security, timeout_s=timeout_s)


@pytest.mark.parametrize("way", ["SCRAM-SHA-512 over TLS", "PLAIN", "our certificate"])
def test_a_run_goes_the_whole_way(kafka, ways, tmp_path, way, caplog):
    security = ways[way]
    names = Topics(
        *(f"{name}-{way.replace(' ', '-')}" for name in ("samples", "aggregates", "receipts", "dead"))
    )
    settings = Settings(
        brokers=kafka.bootstrap(security.protocol),
        output=str(tmp_path / "output"),
        state=str(tmp_path / "state"),
        topics=names,
        security=security,
    )
    connection = enter(kafka, security)
    arrange(connection, names, partitions=2)
    evaluation = SyntheticEvaluation()
    outbound = Outbound(connection)
    for record in evaluation.records():
        topic = names.samples if record.role == "samples" else names.aggregates
        outbound.send(topic, key=record.key, value=record.value)
    outbound.flush(30)
    outbound.close()
    with assembly.worker(settings) as worker:
        worker.run(exit_when_idle_s=1)
    [path] = find_results([tmp_path / "output"])
    results = json.loads(path.read_bytes())
    verify_run(read_run(path))
    assert results["evalsink"]["status"] == "complete"
    assert results["results"] == evaluation.facts.results
    for secret in (SCRAM_PASSWORD, PLAIN_PASSWORD, KEY_PASSWORD):
        assert secret not in caplog.text


@pytest.mark.parametrize("way", ["SCRAM-SHA-256 over TLS", "SCRAM-SHA-512", "PLAIN over TLS"])
def test_the_other_ways_are_open_too(kafka, ways, way):
    assert not enter(kafka, ways[way]).embedded


def test_a_connection_shows_no_password(kafka, ways):
    for way, secret in (("SCRAM-SHA-512", SCRAM_PASSWORD), ("PLAIN", PLAIN_PASSWORD)):
        assert secret not in repr(enter(kafka, ways[way]))


@pytest.mark.parametrize("way", ["SCRAM-SHA-512 over TLS", "SCRAM-SHA-512", "PLAIN over TLS", "PLAIN"])
def test_a_wrong_password_is_said_at_once_and_without_it_and_leaves_no_thread(kafka, ways, way, caplog):
    security = changed(ways[way], password=Secret(WRONG))
    threads = set(threading.enumerate())
    with pytest.raises(BrokerError) as refusal:
        enter(kafka, security, timeout_s=3600)
    message = str(refusal.value)
    assert f"does not admit user {security.username}" in message
    assert security.mechanism in message
    assert "security.password_file" in message
    assert "EVALSINK_SECURITY_PASSWORD" in message
    assert WRONG not in message + caplog.text
    assert set(threading.enumerate()) == threads


def test_an_unknown_user_is_named(kafka, ways):
    with pytest.raises(BrokerError, match="does not admit user nobody"):
        enter(kafka, changed(ways["SCRAM-SHA-512"], username="nobody"), timeout_s=3600)


def test_an_authority_that_did_not_sign_the_brokers_certificate_is_said_at_once(kafka, ways):
    security = changed(ways["SCRAM-SHA-512 over TLS"], ca_file=str(kafka.stranger_file))
    with pytest.raises(
        BrokerError, match=r"certificate of 127\.0\.0\.1:\d+ is not trusted.*security\.ca_file"
    ):
        enter(kafka, security, timeout_s=3600)


def test_a_host_that_the_certificate_is_not_for_is_said_at_once(kafka, ways):
    security = ways["SCRAM-SHA-512 over TLS"]
    brokers = kafka.bootstrap("SASL_SSL").replace("127.0.0.1", "localhost")
    with pytest.raises(BrokerError, match=r"localhost.*--brokers"):
        connect(brokers, security, timeout_s=3600)


def test_a_broker_that_wants_our_certificate_and_gets_none_is_a_hint_at_the_setting(kafka, ways):
    security = changed(ways["our certificate"], certificate_file="", key_file="", key_password_file="")
    with pytest.raises(BrokerError, match=r"security\.certificate_file"):
        enter(kafka, security, timeout_s=3600)


def test_a_wrong_password_of_our_key_is_refused_without_asking_anybody(kafka, ways, tmp_path):
    (tmp_path / "key-password").write_text(WRONG)
    with pytest.raises(UsageError, match=r"security\.certificate_file.*key_password_file") as refusal:
        enter(kafka, ways["our certificate"])
    assert WRONG not in str(refusal.value)


@pytest.mark.parametrize(
    ("way", "listener"),
    [
        ("SCRAM-SHA-512 over TLS", "PLAINTEXT"),
        ("SCRAM-SHA-512 over TLS", "SASL_PLAINTEXT"),
        ("SCRAM-SHA-512 over TLS", "SSL"),
        ("SCRAM-SHA-512", "PLAINTEXT"),
        ("SCRAM-SHA-512", "SASL_SSL"),
        ("our certificate", "SASL_SSL"),
        ("our certificate", "PLAINTEXT"),
    ],
)
def test_a_listener_of_another_protocol_is_a_hint_at_the_setting(kafka, ways, way, listener):
    with pytest.raises(BrokerError, match=r"security\.protocol"):
        enter(kafka, ways[way], listener, timeout_s=3600)


@pytest.mark.parametrize("listener", ["SSL", "SASL_SSL", "SASL_PLAINTEXT"])
def test_no_security_at_a_listener_that_has_some_is_a_hint_at_the_setting(kafka, listener):
    with pytest.raises(BrokerError, match=r"security\.protocol"):
        enter(kafka, Security(), listener, timeout_s=1)


def test_a_server_that_is_down_is_passed_over_for_one_that_lets_us_in(kafka, ways):
    [dead] = free_ports(1)
    security = ways["SCRAM-SHA-512 over TLS"]
    assert connect(f"127.0.0.1:{dead},{kafka.bootstrap('SASL_SSL')}", security, timeout_s=30)
