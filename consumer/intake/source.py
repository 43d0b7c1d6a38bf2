"""The seam to Kafka: what the worker needs of a consumer group, and what it is told about assignments.

Invariants of every implementation: an assigned partition yields nothing until `start` was called for it;
after `lost` no record of it comes; positions only move by reading or `start`; a commit that fails raises
`CommitRefused`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from consumer.intake.resume import Committed, TopicEnds
from consumer.vocabulary import Record, TopicPartition


class CommitRefused(Exception):  # noqa: N818 - it names what happened; the worker goes on
    """The group did not take the commit: a rebalance is on, or this member was thrown out.

    Maybe this is a zombie: poll again.
    """


class Assigned(Struct, frozen=True):
    """Partition numbers now owned, in all input topics; none of them flows yet."""

    partitions: frozenset[int]


class Lost(Struct, frozen=True):
    """Partition numbers no longer owned."""

    partitions: frozenset[int]


Assignment = Assigned | Lost


class Source(Protocol):
    """A member of the consumer group on the input topics."""

    def poll(self) -> Sequence[Record]:
        """Records in order per topic-partition; may be empty."""

    def hold(self) -> None:
        """Stay a member for a moment without taking records."""

    def assignments(self) -> Sequence[Assignment]:
        """What changed since the last call, in order."""

    def committed(self, partition: int) -> Mapping[str, Committed | None]:
        """What the group committed, per input topic."""

    def ends(self, partitions: Collection[int]) -> Mapping[TopicPartition, TopicEnds]:
        """First readable offset and end per topic-partition."""

    def end_as_heard(self, place: TopicPartition) -> int | None:
        """The log's end as the broker last told it by the way; None where it has not. Never waits."""

    def start(self, partition: int, offsets: Mapping[str, int]) -> None:
        """Let a partition flow from these offsets."""

    def position(self, partition: int) -> Mapping[str, int]:
        """Next offset per input topic of a started partition, gaps left by transactions included."""

    def commit(self, offsets: Mapping[TopicPartition, Committed]) -> None:
        """Commit for the group."""

    def close(self) -> None:
        """Leave the group."""
