"""The topics: made as evalsink needs them, or, where they are there already, checked against it.

Owns what evalsink requires of a topic, and why:

- inputs and receipts have equal partition counts: partition p of all of them belongs to one worker;
- inputs are not compacted: the key is the run_id, so compaction would leave the last event of every run;
- receipts are compacted and nothing else: a receipt that time deletes would re-open its run on replay;
- dead letters take larger records than the inputs: one that does not fit would hold its partition for ever.

Refuses to change a topic that exists: more partitions would move run_ids to other partitions in the middle of
a run, and the rest is the operator's to decide. The embedded broker is none of this module's business: it has
no admin calls.
"""

from collections.abc import Sequence
from typing import Any, Literal

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource
from kafka.errors import TopicAlreadyExistsError, for_code
from msgspec import Struct

from consumer.errors import BrokerError, UsageError
from consumer.kafka_client import Connection, admin, broker_errors
from consumer.settings import Topics

PARTITIONS = 12
"""Unless asked otherwise. It caps the number of workers, and cannot be changed while runs are under way."""

INPUT_BYTES_MAX = 8 * 1024 * 1024
"""`max.message.bytes` of inputs made here: a batch of long answers passes Kafka's default of 1 MiB."""

DEAD_LETTER_BYTES_MAX = 64 * 1024 * 1024
"""`max.message.bytes` of dead letters made here. Wide: a dead letter may compress worse than its batch."""

_BROKER_DEFAULT = -1

Purpose = Literal["input", "receipts", "dead letters"]


class Topic(Struct, frozen=True):
    """One topic after the call.

    Attributes:
        name: Its name.
        purpose: What evalsink uses it for.
        partitions: Number of partitions, None if there is no such topic.
        replication: Replicas of each partition, None likewise.
        created: Whether this call made it.
        problems: What is wrong with it, as sentences that name the setting to change.
    """

    name: str
    purpose: Purpose
    partitions: int | None = None
    replication: int | None = None
    created: bool = False
    problems: tuple[str, ...] = ()


def arrange(
    connection: Connection,
    names: Topics,
    *,
    partitions: int | None = None,
    replication: int | None = None,
    create: bool = True,
) -> list[Topic]:
    """Make the topics that are not there and check those that are. Calling it again changes nothing.

    Args:
        connection: A real broker.
        names: What the topics are called.
        partitions: Wanted number of partitions; not given: that of the topics that exist, else `PARTITIONS`.
        replication: Replicas of topics made now; not given: the broker's default.
        create: False only checks.

    Returns:
        Every topic, inputs first, with its problems. Nothing is made while an existing one has problems.

    Raises:
        UsageError: two purposes share one topic.
        BrokerError: the broker is gone or refused.
    """
    purposes = purposes_of(names)
    with broker_errors("arranging the topics"), admin(connection) as client:
        found = _survey(client, purposes)
        expected = partitions or _agreed(found) or PARTITIONS
        judged = _judge(found, expected)
        missing = [topic for topic in judged if topic.partitions is None]
        if not (create and missing) or any(topic.problems for topic in judged if topic not in missing):
            return judged
        _create(client, missing, expected, replication or _BROKER_DEFAULT)
        made = {topic.name for topic in missing}
        return _judge(_survey(client, purposes), expected, made)


class _Found(Struct, frozen=True):
    """What the broker says of a topic; `partitions` is None and `config` empty if there is none."""

    name: str
    purpose: Purpose
    partitions: int | None
    replication: int | None
    config: dict[str, str]


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


def _survey(client: KafkaAdminClient, purposes: dict[str, Purpose]) -> list[_Found]:
    described = {
        topic["name"]: topic for topic in client.describe_topics(list(purposes)) if topic["partitions"]
    }
    resources = [ConfigResource("topic", name) for name in described]
    configs: dict[str, dict[str, Any]] = (
        client.describe_configs(resources, config_filter="all").get("topic", {}) if resources else {}
    )
    return [
        _Found(
            name,
            purpose,
            partitions=len(described[name]["partitions"]) if name in described else None,
            replication=len(described[name]["partitions"][0]["replica_nodes"]) if name in described else None,
            config={key: str(config["value"]) for key, config in configs.get(name, {}).items()},
        )
        for name, purpose in purposes.items()
    ]


def _agreed(found: Sequence[_Found]) -> int | None:
    """The partition count of the inputs that exist, else of the receipts."""
    for purpose in ("input", "receipts"):
        for topic in found:
            if topic.purpose == purpose and topic.partitions is not None:
                return topic.partitions
    return None


def _judge(
    found: Sequence[_Found], expected: int, made: frozenset[str] | set[str] = frozenset()
) -> list[Topic]:
    input_bytes = max((_bytes_max(topic) for topic in found if topic.purpose == "input"), default=0)
    return [
        Topic(
            topic.name,
            topic.purpose,
            partitions=topic.partitions,
            replication=topic.replication,
            created=topic.name in made,
            problems=tuple(_problems(topic, expected, input_bytes)) if topic.partitions is not None else (),
        )
        for topic in found
    ]


def _problems(topic: _Found, expected: int, input_bytes: int) -> list[str]:
    problems = []
    if topic.purpose != "dead letters" and topic.partitions != expected:
        problems.append(
            f"{topic.name} has {topic.partitions} partitions, not {expected}: inputs and receipts need equal "
            "counts (--partitions; name new topics in the settings rather than adding partitions)"
        )
    policy = topic.config.get("cleanup.policy")
    if policy is None:
        problems.append(
            f"{topic.name}: its settings cannot be read; the user needs the right DescribeConfigs"
        )
    elif topic.purpose == "input" and "compact" in policy:
        problems.append(
            f"{topic.name} has cleanup.policy={policy}: it would lose events; set cleanup.policy=delete"
        )
    elif topic.purpose != "input" and policy != "compact":
        lost = "receipts" if topic.purpose == "receipts" else "dead letters"
        problems.append(
            f"{topic.name} has cleanup.policy={policy}: it would lose {lost}; set cleanup.policy=compact"
        )
    if policy is not None and topic.purpose == "dead letters" and _bytes_max(topic) <= input_bytes:
        problems.append(
            f"{topic.name} has max.message.bytes={_bytes_max(topic)}, the inputs {input_bytes}: "
            f"a dead letter is larger than its record; set max.message.bytes={DEAD_LETTER_BYTES_MAX}"
        )
    return problems


def _bytes_max(topic: _Found) -> int:
    return int(topic.config.get("max.message.bytes", 0))


def _create(client: KafkaAdminClient, missing: Sequence[Topic], partitions: int, replication: int) -> None:
    configs: dict[Purpose, dict[str, str]] = {
        "input": {"cleanup.policy": "delete", "max.message.bytes": str(INPUT_BYTES_MAX)},
        "receipts": {"cleanup.policy": "compact"},
        "dead letters": {"cleanup.policy": "compact", "max.message.bytes": str(DEAD_LETTER_BYTES_MAX)},
    }
    wanted = {
        topic.name: {
            "num_partitions": partitions,
            "replication_factor": replication,
            "configs": configs[topic.purpose],
        }
        for topic in missing
    }
    answers = client.create_topics(wanted, raise_errors=False)["topics"]
    refused = [
        f"{answer['name']}: {answer['error_message'] or for_code(answer['error_code']).__name__}"
        for answer in answers
        # Somebody was quicker: what they made is judged like any other.
        if answer["error_code"] not in (0, TopicAlreadyExistsError.errno)
    ]
    if refused:
        raise BrokerError("Kafka did not make the topics\n  " + "\n  ".join(refused))
    client.wait_for_topics([topic.name for topic in missing])
