"""What evalsink requires of a topic, and what it advises, judged from what the broker says of it.

Required (a `problem`: nothing is made beside it, and for all but the dead letters no worker starts):

- inputs and receipts have equal partition counts: partition p of all of them belongs to one worker;
- inputs are not compacted: the key is the run_id, so compaction would leave the last event of every run;
- receipts are compacted and nothing else: a receipt that time deletes would re-open its run on replay;
- dead letters take larger records than the inputs: one that does not fit would hold its partition for ever.

Advised (a `remark`: it works, until something fails), because the log is the only original until a run is
published: a retention beyond the time after which a silent run is given up, and none by size; no
acknowledgement by one replica alone, no unclean leader, and no replica count that stops writing when one
broker is down. What was asked for and is otherwise is a remark too. How long the longest run is, only its
operator knows.
"""

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

PARTITIONS = 12
"""Unless asked otherwise. It caps the number of workers, and cannot be changed while runs are under way."""

INPUT_BYTES_MAX = 8 * 1024 * 1024
"""`max.message.bytes` of inputs made here: a batch of long answers passes Kafka's default of 1 MiB."""

DEAD_LETTER_BYTES_MAX = 64 * 1024 * 1024
"""`max.message.bytes` of dead letters made here. Wide: a dead letter may compress worse than its batch."""

_UNLIMITED = -1
_REPLICAS_SAFE = 2

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
        min_insync_replicas: Replicas that must have a record before it is acknowledged; None if not known.
        retention_ms: Age at which records may be deleted, -1 for never; None if not known, or not by age.
        remarks: What can lose something, or is otherwise than asked for; likewise.
    """

    name: str
    purpose: Purpose
    partitions: int | None = None
    replication: int | None = None
    created: bool = False
    problems: tuple[str, ...] = ()
    min_insync_replicas: int | None = None
    retention_ms: int | None = None
    remarks: tuple[str, ...] = ()


class Wanted(Struct, frozen=True):
    """How topics should be; None: as the cluster has it by default.

    Attributes:
        partitions: Of inputs and receipts.
        replication: Replicas of each partition.
        min_insync_replicas: Of them, how many must have a record before it is acknowledged.
        retention_ms: Age at which the inputs' records may be deleted.
        silence_ms: How long a run may be silent and still be completed; an input has to remember it so long.
    """

    partitions: int
    replication: int | None = None
    min_insync_replicas: int | None = None
    retention_ms: int | None = None
    silence_ms: int = 0

    def configs(self, purpose: Purpose) -> dict[str, str]:
        """Settings of a topic that is made."""
        configs = {"cleanup.policy": "delete" if purpose == "input" else "compact"}
        if purpose == "input":
            configs["max.message.bytes"] = str(INPUT_BYTES_MAX)
        if purpose == "dead letters":
            configs["max.message.bytes"] = str(DEAD_LETTER_BYTES_MAX)
        if purpose == "input" and self.retention_ms is not None:
            configs["retention.ms"] = str(self.retention_ms)
        if self.min_insync_replicas is not None:
            configs["min.insync.replicas"] = str(self.min_insync_replicas)
        return configs


class Found(Struct, frozen=True):
    """What the broker says of a topic; `partitions` is None and `config` empty if there is none."""

    name: str
    purpose: Purpose
    partitions: int | None
    replication: int | None
    config: dict[str, str]

    def number(self, name: str) -> int | None:
        """A setting that is a number, None if it is not told."""
        return int(self.config[name]) if name in self.config else None


def agreed_partitions(found: Sequence[Found]) -> int | None:
    """The partition count of the inputs that exist, else of the receipts."""
    for purpose in ("input", "receipts"):
        for topic in found:
            if topic.purpose == purpose and topic.partitions is not None:
                return topic.partitions
    return None


def judge(
    found: Sequence[Found], wanted: Wanted, made: frozenset[str] | set[str] = frozenset()
) -> list[Topic]:
    """Every topic with what is to be said of it.

    Args:
        found: All of them, as they are now.
        wanted: As they should be.
        made: Names of those made just now.
    """
    input_bytes = max((_bytes_max(topic) for topic in found if topic.purpose == "input"), default=0)
    return [
        Topic(topic.name, topic.purpose)
        if topic.partitions is None
        else Topic(
            topic.name,
            topic.purpose,
            partitions=topic.partitions,
            replication=topic.replication,
            created=topic.name in made,
            problems=tuple(_problems(topic, wanted.partitions, input_bytes)),
            min_insync_replicas=topic.number("min.insync.replicas"),
            retention_ms=topic.number("retention.ms") if topic.purpose == "input" else None,
            remarks=(*_risks(topic, wanted), *_differences(topic, wanted)),
        )
        for topic in found
    ]


def _problems(topic: Found, expected: int, input_bytes: int) -> list[str]:
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


def _risks(topic: Found, wanted: Wanted) -> list[str]:
    risks = []
    retention_ms, retention_bytes = topic.number("retention.ms"), topic.number("retention.bytes")
    if topic.purpose == "input":
        if retention_ms is not None and _UNLIMITED < retention_ms <= wanted.silence_ms:
            risks.append(
                f"{topic.name} has retention.ms={retention_ms}, and a run may be silent for "
                f"{wanted.silence_ms} ms (abandon_after_s, grace_s): its beginning can be gone before its "
                "end comes; set retention.ms well above, by the longest run and the longest outage"
            )
        if retention_bytes is not None and retention_bytes > _UNLIMITED:
            risks.append(
                f"{topic.name} has retention.bytes={retention_bytes}: a busy day deletes what was not read "
                "yet, whatever its age; set retention.bytes=-1"
            )
    if topic.config.get("unclean.leader.election.enable") == "true":
        risks.append(
            f"{topic.name} has unclean.leader.election.enable=true: acknowledged records can be lost; set it "
            "to false"
        )
    replicas, in_sync = topic.replication or 1, topic.number("min.insync.replicas")
    if replicas >= _REPLICAS_SAFE and in_sync is not None:
        if in_sync < _REPLICAS_SAFE:
            risks.append(
                f"{topic.name} has {replicas} replicas and min.insync.replicas={in_sync}: a record is "
                "acknowledged that one broker alone has, and lost with it; set min.insync.replicas=2"
            )
        elif in_sync >= replicas:
            risks.append(
                f"{topic.name} has {replicas} replicas and min.insync.replicas={in_sync}: nothing can be "
                "written while one broker is down; more replicas than that are needed"
            )
    return risks


def _differences(topic: Found, wanted: Wanted) -> list[str]:
    """What was asked for and is otherwise; partition counts are a matter of `_problems`."""
    asked = [
        ("replicas", topic.replication, wanted.replication),
        ("min.insync.replicas", topic.number("min.insync.replicas"), wanted.min_insync_replicas),
    ]
    if topic.purpose == "input":
        asked.append(("retention.ms", topic.number("retention.ms"), wanted.retention_ms))
    return [
        f"{topic.name} has {what}={now}, not {wish} as asked: a topic that exists is not changed"
        for what, now, wish in asked
        if wish is not None and now is not None and now != wish
    ]


def _bytes_max(topic: Found) -> int:
    return topic.number("max.message.bytes") or 0
