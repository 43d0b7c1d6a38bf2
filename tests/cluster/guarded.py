"""A cluster as a platform team runs it: TLS, SCRAM and certificates, and nobody may do what he was not given.

Owns: the broker; a user for each role of deploy/kafka/acls.sh, who has what that script gave him; and the examples of
deploy/kafka with this cluster's addresses, files and passwords in place of theirs. Whoever comes without TLS is
`User:ANONYMOUS`, and may do everything: for what tests do from outside.
"""

import json
import os
import subprocess

from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)

from consumer.kafka_client import admin, connect
from consumer.settings import Topics, load
from tests.conftest import ROOT, Broker
from tests.kafka_harness.secured import KEY_PASSWORD, SecuredKafka
from tests.kafka_harness.tools import make_command
from tests.observing import until
from tests.worker.conftest import Stage

DEPLOY = ROOT / "deploy" / "kafka"
ACLS = DEPLOY / "acls.sh"

USERS = {
    "producer": "evaluator",
    "worker": "evalsink-worker",
    "topics": "evalsink-topics",
    "operator": "evalsink-operator",
    "monitor": "evalsink-monitor",
}
"""The user of each role; the examples of deploy/kafka name the first two."""

CERTIFICATE = "CN=client"
"""Whom the broker takes the bearer of our certificate for."""

PASSWORDS = {user: f"{user}-p4ssword" for user in (*USERS.values(), "admin")}

_PROPERTIES = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    # ANONYMOUS is also what the broker is to itself.
    "super.users": "User:ANONYMOUS;User:admin",
}


class As(Broker):
    """The broker as one user sees it."""

    def __init__(self, settings):
        super().__init__(settings.brokers, embedded=False)
        self.settings = settings

    def connect(self):
        return connect(self.settings.brokers, self.settings.security, timeout_s=30)


class GuardedKafka:
    """`with GuardedKafka(folder) as guarded: …`."""

    def __init__(self, folder):
        self.folder = folder
        self.kafka = SecuredKafka(folder, users=PASSWORDS, properties=_PROPERTIES)
        self._commands = folder / "bin"
        self._commands.mkdir()

    def __enter__(self):
        self.kafka.__enter__()
        self.outside = Broker(self.kafka.bootstrap("PLAINTEXT"), embedded=False)
        calls = [(role, self.start_acls("add", role, f"User:{user}")) for role, user in USERS.items()]
        for role, call in calls:
            said, _ = call.communicate(timeout=120)
            assert 0 == call.returncode, f"acls.sh add {role}: {said}"
        # By role, what its user may now.
        self.given = {role: self.rights(f"User:{user}") for role, user in USERS.items()}
        return self

    def __exit__(self, *error):
        self.kafka.__exit__(*error)

    def command(self, name):
        """One of Kafka's own commands."""
        return make_command(self._commands, name)

    def example(self, name, folder, user):
        """The text of a file of deploy/kafka, for this cluster and that user's password."""
        secrets = folder / f"secrets of {user}"
        secrets.mkdir(exist_ok=True)
        (secrets / "kafka-password").write_text(PASSWORDS.get(user, ""))
        (secrets / "key-password").write_text(KEY_PASSWORD)
        text = (DEPLOY / name).read_text("utf-8")
        for example, ours in (
            ("kafka-1:9093,kafka-2:9093,kafka-3:9093", self.kafka.bootstrap("SASL_SSL")),
            ("kafka-1:9094,kafka-2:9094,kafka-3:9094", self.kafka.bootstrap("SSL")),
            ("/etc/evalsink/ca.pem", self.kafka.ca_file),
            ("/etc/evalsink/worker.crt", self.kafka.client_file),
            ("/etc/evalsink/worker.key", self.kafka.client_file.with_suffix(".encrypted.key")),
            ("/run/secrets", secrets),
            ("/data/runs", folder / "output"),
            ("/var/lib/evalsink", folder / "state"),
        ):
            text = text.replace(example, str(ours))
        left = [line for line in text.splitlines() if not line.startswith("#") and "kafka-1" in line]
        assert [] == left, "a placeholder of which nobody knows"
        return text

    def start_acls(self, verb, role, principal, **variables):
        """`deploy/kafka/acls.sh` as the administrator calls it: started, not awaited."""
        properties = self.folder / "admin.properties"
        if not properties.exists():
            properties.write_text(self.example("admin.properties", self.folder, "admin"), "utf-8")
        return subprocess.Popen(
            [ACLS, verb, role, principal],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={
                "PATH": os.environ["PATH"],
                "EVALSINK_BROKERS": self.kafka.bootstrap("SASL_SSL"),
                "COMMAND_CONFIG": str(properties),
                "KAFKA_ACLS": str(self.command("kafka-acls.sh")),
                **variables,
            },
        )

    def rights(self, principal):
        """(kind of resource, its name, operation) of all that a principal may, by the broker's authorizer."""
        found = self._acls(principal)
        assert {("*", ACLPermissionType.ALLOW, ACLResourcePatternType.LITERAL)} >= {
            (acl.host, acl.permission_type, acl.resource_pattern.pattern_type) for acl in found
        }
        return {_right(acl) for acl in found}

    def give(self, principal, rights):
        self._change("create_acls", [_acl(principal, right) for right in rights])
        until(lambda: rights <= self.rights(principal), f"{principal} may {rights}")

    def take(self, principal, rights):
        filters = [
            ACLFilter(
                acl.principal,
                acl.host,
                acl.operation,
                acl.permission_type,
                ResourcePatternFilter(
                    acl.resource_pattern.resource_type,
                    acl.resource_pattern.resource_name,
                    ACLResourcePatternType.LITERAL,
                ),
            )
            for acl in (_acl(principal, right) for right in rights)
        ]
        self._change("delete_acls", filters)
        until(lambda: not rights & self.rights(principal), f"{principal} may not {rights}")

    def rights_of(self, role, stage):
        """What acls.sh gave the role, for the topics and the group of a test."""
        names = dict(zip(_every(Topics()), _every(stage.topics), strict=True))
        return {
            (kind, stage.group if kind is ResourceType.GROUP else names[name], operation)
            for kind, name, operation in self.given[role]
        }

    def stage(self, folder, *, make=True, partitions=4):
        """Topics and a group of this test alone, on which each role's user has his role's rights."""
        mark = self.outside.name("")
        names = Topics(f"samples{mark}", f"aggregates{mark}", f"receipts{mark}", f"dead-letters{mark}")
        stage = Stage(self.outside, folder, self.outside.topics(partitions) if make else names)
        for role, user in USERS.items():
            self.give(f"User:{user}", self.rights_of(role, stage))
        return stage

    def settings_file(self, role, stage, *, example="worker-scram.toml", name=None, **changes):
        """A settings file for the role's user, made of an example; `changes` win over what stands there."""
        text = self.example(example, stage.folder, USERS[role]).replace(USERS["worker"], USERS[role])
        names = {name: getattr(stage.topics, name) for name in Topics.__struct_fields__}
        lines = text.splitlines()
        for key, value in {"group": stage.group, **changes}.items():
            lines = [line for line in lines if not line.startswith(f"{key} = ")]
            lines.insert(0, f"{key} = {json.dumps(value)}")
        lines += ["[topics]", *(f'{key} = "{value}"' for key, value in names.items())]
        path = stage.folder / f"{name or role}.toml"
        path.write_text("\n".join(lines) + "\n", "utf-8")
        return path

    def user(self, role, stage, **changes):
        """The broker as the role's user sees it."""
        return As(load(config=self.settings_file(role, stage, **changes), environ={}))

    def _acls(self, principal):
        anything = ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY)
        wanted = ACLFilter(principal, None, ACLOperation.ANY, ACLPermissionType.ANY, anything)
        return self._change("describe_acls", wanted)[0]

    def _change(self, call, acls):
        with admin(self.outside.connect()) as client:
            return getattr(client, call)(acls)


def _every(topics):
    return [*topics.inputs, topics.receipts, topics.dead_letters]


def _right(acl):
    pattern = acl.resource_pattern
    return (pattern.resource_type, pattern.resource_name, acl.operation)


def _acl(principal, right):
    kind, name, operation = right
    return ACL(principal, "*", operation, ACLPermissionType.ALLOW, ResourcePattern(kind, name))
