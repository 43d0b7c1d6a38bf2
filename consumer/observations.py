"""What the worker tells those who watch it: values, handed to one function.

Invariants: an observation is a fact about something that has happened, complete in itself; nothing that the
worker does depends on who hears it. `Turned` alone lends what goes on changing (`counts`, and the records,
which are not to be kept): it comes with every turn of the loop and must cost nothing.

Refused here: anything per row. Who wants that reads the spool (`consumer.runs.live`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from msgspec import Struct

from consumer.vocabulary import Record, TopicPartition
from schemas.results import RunStatus


class Counts(Struct):
    """What this process met since it started; for people, never for artefacts.

    Attributes:
        records: Records of owned partitions.
        rows: Rows taken into the spool.
        repaired: Those of them in which something had to be replaced.
        scores_dropped: Those of them that lost a score or the cluster.
        rejected: Elements of batches that held no usable row.
        dead_letters: Records buried while reading.
        replayed: Records of runs that are closed, up to their cuts.
        closed: Runs closed and receipted.
    """

    records: int = 0
    rows: int = 0
    repaired: int = 0
    scores_dropped: int = 0
    rejected: int = 0
    dead_letters: int = 0
    replayed: int = 0
    closed: int = 0


class Turned(Struct, frozen=True):
    """One turn of the loop: the records it read, all of them applied, and the counts so far."""

    records: Sequence[Record]
    counts: Counts


class Buried(Struct, frozen=True):
    """A dead letter was handed to Kafka, for this reason."""

    reason: str


class Closed(Struct, frozen=True):
    """A run's files are published; its receipt comes next.

    Attributes:
        status: As in its results JSON.
        rows: Published rows.
        size: Bytes of the samples files.
        duplicates: Rows that came again with equal bytes.
        conflicts: Rows that came again with other bytes, and lost.
        superseded: Rows of a lower attempt that lost.
        seconds: From the decision that it is whole to the results file.
    """

    status: RunStatus
    rows: int
    size: int
    duplicates: int
    conflicts: int
    superseded: int
    seconds: float


Obstacle = Literal["disk", "determinism", "spool", "crash"]
"""Why a close-out failed: the disk, other bytes under its name, a damaged spool, or what nobody foresaw."""


class CloseOutFailed(Struct, frozen=True):
    """A close-out came to nothing: ``disk`` is tried again, ``spool`` rebuilt; the others block the run."""

    reason: Obstacle


class Checkpointed(Struct, frozen=True):
    """A checkpoint ended. `seconds`: of syncing and writing; 0 where nothing had changed."""

    outcome: Literal["written", "unchanged", "failed"]
    seconds: float = 0.0


class CommitEnded(Struct, frozen=True):
    """A commit was asked for. `accepted`: the group took it."""

    accepted: bool


class Rebalanced(Struct, frozen=True):
    """The group gave this worker partitions, or took them."""

    change: Literal["assigned", "lost"]


class DiskHeld(Struct, frozen=True):
    """The loop began to wait for a full disk, or goes on."""

    waiting: bool


class Standing(Struct, frozen=True):
    """How the worker stands, told about once a second.

    Attributes:
        assigned: The group has given partitions at least once.
        owned: Partitions that flow.
        waiting: Partitions that are assigned and could not be started yet.
        lag: Offsets, markers included, between what was applied and the end of the log as last heard, for
            owned partitions.
        open_runs: Runs without receipt, those on their way out too.
        closing: Those of them on their way out.
        blocked: Those that cannot be published, by reason.
        opened_ms: Kafka time of the oldest open run's first record.
        seen_ms: Kafka time of the last record of the run that has been silent for longest.
        unacknowledged: Dead letters and receipts that Kafka has not thanked for.
    """

    assigned: bool
    owned: frozenset[int]
    waiting: frozenset[int]
    lag: Mapping[TopicPartition, int]
    open_runs: int
    closing: int
    blocked: Mapping[str, int]
    opened_ms: int | None
    seen_ms: int | None
    unacknowledged: int


Observation = (
    Turned | Buried | Closed | CloseOutFailed | Checkpointed | CommitEnded | Rebalanced | DiskHeld | Standing
)

Observe = Callable[[Observation], None]


def unobserved(_observation: Observation) -> None:
    """Nobody watches."""
