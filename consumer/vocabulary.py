"""Values that flow between the stages, and the seams they meet at.

Stages never import each other: they exchange what stands here. Nothing here does any I/O.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

Role = Literal["samples", "aggregates"]
"""What a record is for: rows and lifecycle, or aggregates. Each role has its own topic order and its own cut."""


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


class Record(NamedTuple):
    """One Kafka record as read.

    Attributes:
        topic: Topic name.
        partition: Partition number.
        offset: Its place in the partition.
        timestamp: Milliseconds since the epoch.
        key: Key bytes, None where the record has none.
        value: Value bytes, None for a tombstone.
        headers: Names and values in order.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()
