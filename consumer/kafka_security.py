"""TLS and SASL on the way to a broker.

Owns: what kafka-python is told of the setting `security`, and why a broker does not let us in. kafka-python
keeps that to itself: it tries again until its time is up, and says "timed out". So each server is asked once
on a connection of its own before any client is made; a wrong password is then one failed login, not dozens.

Secrets are read here, when a connection is made, and stay `Secret`. No message carries one: users, mechanisms
and names of files do appear.
"""

import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kafka.errors import IllegalSaslStateError, SaslAuthenticationFailedError, UnsupportedSaslMechanismError
from kafka.net.compat import KafkaNetClient
from kafka.protocol.metadata import ApiVersionsRequest

from consumer.errors import BrokerError, UsageError
from consumer.settings import Secret, Security


def client_settings(security: Security) -> dict[str, Any]:
    """Keyword arguments for kafka-python's clients; none for a plaintext broker.

    Raises:
        UsageError: a file that `security` names cannot be used.
    """
    settings: dict[str, Any] = {}
    if security.tls:
        settings["ssl_context"] = _tls(security)
    if security.sasl:
        settings["sasl_mechanism"] = security.mechanism
        settings["sasl_plain_username"] = security.username
        settings["sasl_plain_password"] = security.password or _read_secret(
            "password_file", security.password_file
        )
    if settings:
        settings["security_protocol"] = security.protocol
    return settings


def check_admission(
    settings: dict[str, Any], security: Security, servers: Sequence[tuple[str, int]], timeout_s: float
) -> None:
    """Ask the servers, one after the other, until one lets us in. Those that do not answer are passed over.

    Args:
        settings: For kafka-python's clients.
        security: What they were made from.
        servers: Host and port of each of the bootstrap servers.
        timeout_s: The longest wait for each.

    Raises:
        BrokerError: a server is there and does not let us in.
    """
    for (host, port), address in zip(servers, settings["bootstrap_servers"], strict=True):
        try:
            with socket.create_connection((host, port), timeout_s) as connection:
                if security.tls:
                    settings["ssl_context"].wrap_socket(connection, server_hostname=host).close()
        except ssl.SSLCertVerificationError as error:
            raise BrokerError(
                f"the TLS certificate of {address} is not trusted ({error.verify_message}): check "
                "security.ca_file, and the host name in --brokers"
            ) from error
        except ssl.SSLError as error:
            raise BrokerError(
                f"{address} does not speak TLS ({error.reason}): check security.protocol, and the port in "
                "--brokers"
            ) from error
        except OSError:
            continue
        answer = _ask({**settings, "bootstrap_servers": [address]}, timeout_s)
        if answer is None:
            continue
        if answer.succeeded():
            return
        raise BrokerError(_refusal(address, security, answer.exception)) from answer.exception


def _ask(settings: dict[str, Any], timeout_s: float) -> Any:
    """What becomes of one request on a connection that was made, encrypted and authenticated for it.

    None if nothing did in time: a server that is slow, or still starting, does not refuse us.
    """
    client = KafkaNetClient(**settings)
    try:
        [server] = client.cluster.bootstrap_brokers()
        answer = client.send(server.node_id, ApiVersionsRequest(version=0))
        client.poll(timeout_ms=round(timeout_s * 1000), future=answer)
        # Before it is closed: that fails what is still waited for.
        return answer if answer.is_done else None
    finally:
        client.close()


def _refusal(address: str, security: Security, error: Exception) -> str:
    # The broker's word on a wrong password is lost when it comes together with the end of the connection.
    known = isinstance(
        error, SaslAuthenticationFailedError | UnsupportedSaslMechanismError | IllegalSaslStateError
    )
    said = (known and str(error)) or "it closed the connection"
    if security.sasl:
        return (
            f"{address} does not admit user {security.username} over {security.protocol} with "
            f"{security.mechanism} ({said}): check security.username, security.password_file or "
            "EVALSINK_SECURITY_PASSWORD, security.mechanism and security.protocol"
        )
    return (
        f"{address} does not admit us over {security.protocol} ({said}): check security.protocol, and "
        "security.certificate_file, if it asks for our certificate"
    )


def _tls(security: Security) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=security.ca_file or None)
    except (OSError, ValueError) as error:
        raise UsageError(f"security.ca_file: cannot use {security.ca_file}: {error}") from error
    if security.certificate_file:
        # An empty password is a wrong one, but none at all would make OpenSSL ask for it on the terminal.
        password = _read_secret("key_password_file", security.key_password_file)
        try:
            context.load_cert_chain(security.certificate_file, security.key_file or None, password)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"security.certificate_file, key_file or key_password_file: cannot use "
                f"{security.certificate_file}: {error}"
            ) from error
    return context


def _read_secret(setting: str, path: str) -> Secret:
    if not path:
        return Secret()
    try:
        return Secret(Path(path).read_text("utf-8").rstrip("\r\n"))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(f"security.{setting}: cannot read {path}: {why}") from error
