"""The setting `security`: what it takes, what it refuses, and that no password shows."""

import json
import socket
import ssl

import msgspec
import pytest

from consumer.errors import BrokerError, UsageError
from consumer.kafka_client import connect
from consumer.kafka_security import client_settings
from consumer.settings import Secret, Security, Settings, load

PASSWORD = "correct horse"


def settings(tmp_path, text="", **environ):
    path = tmp_path / "evalsink.toml"
    path.write_text(text)
    return load(config=path, environ=environ)


def test_without_it_clients_are_told_nothing():
    assert load(environ={}).security == Security()
    assert client_settings(Security()) == {}


def test_user_and_password_file_reach_the_client_and_the_end_of_line_does_not(tmp_path):
    (tmp_path / "password").write_text(PASSWORD + "\n")
    text = f"""
        [security]
        protocol = "SASL_PLAINTEXT"
        username = "sam"
        password_file = "{tmp_path / "password"}"
    """
    assert client_settings(settings(tmp_path, text).security) == {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "sam",
        "sasl_plain_password": PASSWORD,
    }


def test_the_environment_says_any_of_it_and_its_password_wins_over_the_file(tmp_path):
    (tmp_path / "password").write_text("another")
    found = settings(
        tmp_path,
        f'[security]\nusername = "paula"\npassword_file = "{tmp_path / "password"}"',
        EVALSINK_SECURITY_PROTOCOL="SASL_SSL",
        EVALSINK_SECURITY_MECHANISM="PLAIN",
        EVALSINK_SECURITY_PASSWORD=PASSWORD,
    ).security
    told = client_settings(found)
    assert (told["sasl_mechanism"], told["sasl_plain_username"], told["sasl_plain_password"]) == (
        "PLAIN",
        "paula",
        PASSWORD,
    )
    assert isinstance(told["ssl_context"], ssl.SSLContext)
    assert told["ssl_context"].verify_mode == ssl.CERT_REQUIRED
    assert told["ssl_context"].check_hostname


def test_a_password_is_a_mask_to_whatever_prints_it_and_no_encoder_takes_it():
    security = Security(protocol="SASL_PLAINTEXT", username="sam", password=Secret(PASSWORD))
    chosen = Settings(security=security)
    told = client_settings(security)
    password = told["sasl_plain_password"]
    shown = [
        repr(chosen),
        str(chosen),
        f"{chosen}",
        repr(told),
        str(password),
        f"{password}",
        f"{password:>20}",
        "%s %r" % (password, password),  # noqa: UP031 - the way of logging
    ]
    assert not [text for text in shown if PASSWORD in text]
    for encode in (msgspec.json.encode, msgspec.to_builtins):
        with pytest.raises(TypeError):
            encode(chosen)
    assert password.encode() == PASSWORD.encode()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('protocol = "TLS"', "TLS"),
        ('protocol = "SSL"\nmechanism = "GSSAPI"', "GSSAPI"),
        ('protocol = "SASL_SSL"', "security.username"),
        ('protocol = "SASL_SSL"\nusername = "sam"', "security.password_file"),
        ('username = "sam"', "PLAINTEXT"),
        ('protocol = "SSL"\npassword_file = "p"', "SSL"),
        ('ca_file = "ca.pem"', "PLAINTEXT"),
        ('protocol = "SASL_PLAINTEXT"\nusername = "s"\npassword_file = "p"\nca_file = "c"', "SASL_PLAINTEXT"),
        ('protocol = "SSL"\nkey_file = "k"', "certificate_file"),
        ('user = "sam"', "user"),
    ],
)
def test_what_would_be_ignored_or_cannot_work_is_refused(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        settings(tmp_path, f"[security]\n{text}")


def test_a_password_for_a_plaintext_broker_is_refused_without_showing_it(tmp_path):
    with pytest.raises(UsageError) as refusal:
        settings(tmp_path, EVALSINK_SECURITY_PASSWORD=PASSWORD)
    assert PASSWORD not in str(refusal.value)


def test_a_password_in_the_settings_file_is_refused_without_showing_it(tmp_path):
    with pytest.raises(UsageError, match="password_file") as refusal:
        settings(tmp_path, f"[security]\npassword = {json.dumps(PASSWORD)}")
    assert PASSWORD not in str(refusal.value)


def test_a_security_that_is_no_table_is_refused_whatever_the_environment_says(tmp_path):
    with pytest.raises(UsageError, match="security"):
        settings(tmp_path, 'security = "SSL"', EVALSINK_SECURITY_PROTOCOL="SSL")


@pytest.mark.parametrize(
    ("setting", "security"),
    [
        (
            "password_file",
            Security(protocol="SASL_PLAINTEXT", username="sam", password_file="/nowhere/secret"),
        ),
        ("ca_file", Security(protocol="SSL", ca_file="/nowhere/ca.pem")),
        ("certificate_file", Security(protocol="SSL", certificate_file="/nowhere/client.pem")),
        (
            "key_password_file",
            Security(
                protocol="SSL", certificate_file="/nowhere/client.pem", key_password_file="/nowhere/secret"
            ),
        ),
    ],
)
def test_a_file_that_is_not_there_is_named_with_its_setting(setting, security):
    with pytest.raises(UsageError, match=rf"security\.{setting}.*/nowhere/"):
        client_settings(security)


def test_a_ca_file_without_a_certificate_is_refused(tmp_path):
    (tmp_path / "ca.pem").write_text("not PEM")
    with pytest.raises(UsageError, match=r"security\.ca_file"):
        client_settings(Security(protocol="SSL", ca_file=str(tmp_path / "ca.pem")))


def test_a_server_that_says_nothing_in_time_is_not_said_to_refuse_us():
    security = Security(protocol="SASL_PLAINTEXT", username="sam", password=Secret(PASSWORD))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(BrokerError, match=f"no Kafka answers at {address}"):
            connect(address, security, timeout_s=1)
