"""The topics: made as evalsink needs them, or, where they are there already, checked against it.

Owns the asking and the making; what is asked for, and why, is `consumer.intake.topic_rules`.

Refuses to change a topic that exists: more partitions would move run_ids to other partitions in the middle of
a run, and the rest is the operator's to decide. The embedded broker is none of this module's business: it has
no admin calls.
"""

from collections.abc import Sequence
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource
from kafka.errors import TopicAlreadyExistsError, for_code

from consumer.errors import BrokerError, UsageError
from consumer.intake.topic_rules import PARTITIONS, Found, Purpose, Topic, Wanted, agreed_partitions, judge
from consumer.kafka_client import Connection, admin, broker_errors
from consumer.settings import Topics

_BROKER_DEFAULT = -1


def arrange(
    connection: Connection,
    names: Topics,
    *,
    partitions: int | None = None,
    replication: int | None = None,
    min_insync_replicas: int | None = None,
    retention_ms: int | None = None,
    silence_ms: int = 0,
    create: bool = True,
) -> list[Topic]:
    """Make the topics that are not there and check those that are. Calling it again changes nothing.

    Args:
        connection: A real broker.
        names: What the topics are called.
        partitions: As `Wanted`, like the four below; not given: that of the topics that exist, else
            `PARTITIONS`.
        replication: Not given: the broker's default.
        min_insync_replicas: Likewise.
        retention_ms: Likewise.
        silence_ms: Not given: not looked at.
        create: False only checks.

    Returns:
        Every topic, inputs first, with its problems and remarks. Nothing is made while an existing one has
        problems.

    Raises:
        UsageError: two purposes share one topic.
        BrokerError: the broker is gone or refused.
    """
    purposes = purposes_of(names)
    with broker_errors("arranging the topics"), admin(connection) as client:
        found = _survey(client, purposes)
        expected = partitions or agreed_partitions(found) or PARTITIONS
        wanted = Wanted(expected, replication, min_insync_replicas, retention_ms, silence_ms)
        judged = judge(found, wanted)
        missing = [topic for topic in judged if topic.partitions is None]
        if not (create and missing) or any(topic.problems for topic in judged):
            return judged
        _create(client, missing, wanted)
        return judge(_survey(client, purposes), wanted, {topic.name for topic in missing})


def purposes_of(names: Topics) -> dict[str, Purpose]:
    """What each topic is for, inputs first.

    Raises:
        UsageError: two purposes share one topic.
    """
    purposes: dict[str, Purpose] = dict.fromkeys(names.inputs, "input")
    others: tuple[tuple[str, Purpose], ...] = (
        (names.receipts, "receipts"),
        (names.dead_letters, "dead letters"),
    )
    for name, purpose in others:
        if name in purposes:
            raise UsageError(
                f"setting topics: {name} is given twice; only `samples` and `aggregates` may be the same"
            )
        purposes[name] = purpose
    return purposes


def _survey(client: KafkaAdminClient, purposes: dict[str, Purpose]) -> list[Found]:
    described = {
        topic["name"]: topic for topic in client.describe_topics(list(purposes)) if topic["partitions"]
    }
    resources = [ConfigResource("topic", name) for name in described]
    configs: dict[str, dict[str, Any]] = (
        client.describe_configs(resources, config_filter="all").get("topic", {}) if resources else {}
    )
    return [
        Found(
            name,
            purpose,
            partitions=len(described[name]["partitions"]) if name in described else None,
            replication=len(described[name]["partitions"][0]["replica_nodes"]) if name in described else None,
            config={key: str(config["value"]) for key, config in configs.get(name, {}).items()},
        )
        for name, purpose in purposes.items()
    ]


def _create(client: KafkaAdminClient, missing: Sequence[Topic], wanted: Wanted) -> None:
    topics = {
        topic.name: {
            "num_partitions": wanted.partitions,
            "replication_factor": wanted.replication or _BROKER_DEFAULT,
            "configs": wanted.configs(topic.purpose),
        }
        for topic in missing
    }
    answers = client.create_topics(topics, raise_errors=False)["topics"]
    refused = [
        f"{answer['name']}: {answer['error_message'] or for_code(answer['error_code']).__name__}"
        for answer in answers
        # Somebody was quicker: what they made is judged like any other.
        if answer["error_code"] not in (0, TopicAlreadyExistsError.errno)
    ]
    if refused:
        raise BrokerError("Kafka did not make the topics\n  " + "\n  ".join(refused))
    # The controller has them; the broker that is asked next hears of them a moment later.
    client.wait_for_topics([topic.name for topic in missing])
