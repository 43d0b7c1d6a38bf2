"""A real Kafka with a listener for every security protocol, and the certificates that go with it.

Owns: an authority and the broker's certificate (for 127.0.0.1 alone), made by openssl for a day; a second authority that
signed nothing of the broker's; two users, one that Kafka's configuration knows (PLAIN) and one in its log (SCRAM), and
more of the second kind as wanted.
"""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from kafka import KafkaAdminClient
from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

from tests.kafka_harness.broker import RealKafka, free_ports

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
PLAIN_USER, PLAIN_PASSWORD = "paula", "plain-p4ssword"
SCRAM_USER, SCRAM_PASSWORD = "sam", "scram-p4ssword"
KEY_PASSWORD = "key-p4ssword"

_LOGIN = "org.apache.kafka.common.security"


class SecuredKafka:
    """`with SecuredKafka(folder) as kafka: … kafka.bootstrap("SASL_SSL") …`."""

    def __init__(
        self,
        folder: Path,
        *,
        users: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        """Makes the certificates; nothing is started yet.

        Args:
            folder: Its own.
            users: More users of SCRAM, with their passwords.
            properties: Broker settings that add to ours.
        """
        self._users = {SCRAM_USER: SCRAM_PASSWORD, **(users or {})}
        self.certificates = folder / "certificates"
        self.certificates.mkdir(parents=True)
        self._make_authority("ca")
        self._make_authority("stranger")
        self._make_certificate("broker", "IP:127.0.0.1")
        self._make_certificate("client", "DNS:client")
        self._encrypt_key("client")
        *ports, controller_port = free_ports(len(PROTOCOLS) + 1)
        self._ports = dict(zip(PROTOCOLS, ports, strict=True))
        self._kafka = RealKafka(
            folder / "kafka",
            port=self._ports["PLAINTEXT"],
            controller_port=controller_port,
            properties={**self._properties(controller_port), **(properties or {})},
        )

    @property
    def ca_file(self) -> Path:
        """The authority that signed the broker's certificate."""
        return self.certificates / "ca.pem"

    @property
    def stranger_file(self) -> Path:
        """An authority that did not."""
        return self.certificates / "stranger.pem"

    @property
    def client_file(self) -> Path:
        """A certificate for clients, its key (under `KEY_PASSWORD`) in client.encrypted.key beside it."""
        return self.certificates / "client.crt"

    @property
    def log(self) -> Path:
        """What the broker printed."""
        return self._kafka.log

    def bootstrap(self, protocol: str) -> str:
        """Address of the listener for `protocol`; that for SSL asks for our certificate."""
        return f"127.0.0.1:{self._ports[protocol]}"

    def __enter__(self) -> Self:
        self._kafka.start()
        client = KafkaAdminClient(bootstrap_servers=self.bootstrap("PLAINTEXT"))
        try:
            for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
                said = client.alter_user_scram_credentials(
                    [
                        UserScramCredentialUpsertion(user, mechanism, password)
                        for user, password in self._users.items()
                    ]
                )
                assert said == dict.fromkeys(self._users), said
        finally:
            client.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kafka.stop()

    def _properties(self, controller_port: int) -> dict[str, str]:
        listeners = [f"{protocol}://127.0.0.1:{port}" for protocol, port in self._ports.items()]
        properties = {
            "listeners": ",".join([*listeners, f"CONTROLLER://127.0.0.1:{controller_port}"]),
            "advertised.listeners": ",".join(listeners),
            "listener.security.protocol.map": ",".join(
                ["CONTROLLER:PLAINTEXT", *(f"{protocol}:{protocol}" for protocol in PROTOCOLS)]
            ),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.certificates / "broker.pem"),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.ca_file),
            "listener.name.ssl.ssl.client.auth": "required",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        }
        for listener in ("sasl_plaintext", "sasl_ssl"):
            prefix = f"listener.name.{listener}"
            properties[f"{prefix}.plain.sasl.jaas.config"] = (
                f'{_LOGIN}.plain.PlainLoginModule required user_{PLAIN_USER}="{PLAIN_PASSWORD}";'
            )
            for mechanism in ("scram-sha-256", "scram-sha-512"):
                properties[f"{prefix}.{mechanism}.sasl.jaas.config"] = (
                    f"{_LOGIN}.scram.ScramLoginModule required;"
                )
        return properties

    def _make_authority(self, name: str) -> None:
        self._openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={name}"),
            *("-keyout", f"{name}.key", "-out", f"{name}.pem"),
        )

    def _make_certificate(self, name: str, alternative_name: str) -> None:
        (self.certificates / "extensions").write_text(f"subjectAltName={alternative_name}\n")
        self._openssl(
            *("req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"),
            *("-keyout", f"{name}.key", "-out", f"{name}.csr"),
        )
        self._openssl(
            *(
                "x509",
                "-req",
                "-in",
                f"{name}.csr",
                "-days",
                "1",
                "-extfile",
                "extensions",
                "-out",
                f"{name}.crt",
            ),
            *("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
        )
        both = [(self.certificates / f"{name}.{part}").read_text() for part in ("key", "crt")]
        (self.certificates / f"{name}.pem").write_text("".join(both))

    def _encrypt_key(self, name: str) -> None:
        self._openssl(
            *("pkcs8", "-topk8", "-in", f"{name}.key", "-out", f"{name}.encrypted.key"),
            *("-passout", f"pass:{KEY_PASSWORD}"),
        )

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.certificates, check=True, capture_output=True)
