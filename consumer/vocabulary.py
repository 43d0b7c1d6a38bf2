"""Values that flow between the stages, and the seams they meet at.

Stages never import each other: they exchange what stands here. Nothing here does any I/O.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from msgspec import Struct

from schemas.events import Sample

Role = Literal["samples", "aggregates"]
"""What a record is for: rows and lifecycle, or aggregates. Each role has its own topic order and its own
cut."""


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


RowReason = Literal["not-an-object", "bad-doc-id", "row-missing", "row-not-an-object", "bad-utf8"]


class RejectedRow(Struct, frozen=True, gc=False):
    """One element of a batch that holds no usable row.

    Attributes:
        index: Its place in the batch, from 0.
        identity: Its doc_id where that can be read, else the sha256 digest (32 bytes) of the element as it
            stands in the event, or would if it were mended.
        reason: Stable slug.
    """

    index: int
    identity: int | str | bytes
    reason: RowReason


class DecodedSamples(Struct, frozen=True, gc=False):
    """A ``samples`` event whose rows have all been looked at.

    Attributes:
        run_id: As sent.
        task: As sent, not yet a safe file name.
        filter: As sent.
        shard: Below `num_shards`.
        num_shards: 1 to 65,536.
        attempt: From 0.
        rows: The good ones in the batch's order. Their ``row`` keeps the whole record's value alive.
        contents: The ``row`` of each of `rows`, as bytes of its own.
        indexes: The place of each of `rows` in the batch, ascending.
        rejected: The others, in the batch's order.
        repaired: Places in the batch of kept rows in which a non-number or half a pair was replaced.
        scores_dropped: Places in the batch of kept rows that lost a score or the cluster.
    """

    run_id: str
    task: str
    filter: str
    shard: int
    num_shards: int
    attempt: int
    rows: Sequence[Sample]
    contents: Sequence[bytes]
    indexes: Sequence[int]
    rejected: Sequence[RejectedRow] = ()
    repaired: frozenset[int] = frozenset()
    scores_dropped: frozenset[int] = frozenset()


class OutboxReading(Struct, frozen=True):
    """How the outbox stands, for who watches.

    Attributes:
        depth: Runs that are not archived yet, by state: ``queued``, ``pushing``, ``parked``.
        oldest_age_s: How long the oldest of them has been waiting; 0 without any.
        pushes: Pushes since the outbox was made, by outcome: ``archived``, ``retried``, ``parked``.
    """

    depth: dict[str, int]
    oldest_age_s: float
    pushes: dict[str, int]
