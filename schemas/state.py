"""Durable shapes of a worker: checkpoint on its disk, metadata in its commits, receipts in their topic.

Each names its format version; a worker that meets a newer one than it knows refuses the state (checkpoint: it
is dropped and rebuilt from the log, which is always correct).
"""

from typing import Literal

from msgspec import Struct

from schemas.results import RunStatus

CHECKPOINT_FORMAT = 1
COMMIT_FORMAT = 1
RECEIPT_FORMAT = 1


class Span(Struct, frozen=True, array_like=True):
    """A piece of the run's log file: `position` and `length` in bytes."""

    position: int
    length: int


class Tally(Struct, array_like=True):
    """Rows of one task from the current attempt of one shard.

    `distinct + received - checked` is never less than the number of distinct samples received.

    Attributes:
        received: Rows received, rejected ones too.
        checked: `received` when the distinct ones were last counted.
        distinct: How many there were then.
    """

    received: int = 0
    checked: int = 0
    distinct: int = 0


class EndRecord(Struct, frozen=True):
    """A shard's last word: an accepted ``run_ended`` of its highest attempt.

    Attributes:
        offset: In the samples topic.
        status: ``ok`` or ``failed``.
        samples: Task to the distinct (filter, doc_id) rows the attempt emitted.
        aggregates: Tasks whose aggregate of this (shard, attempt) belongs to the run.
        span: The raw record in the run's log file.
    """

    offset: int
    status: Literal["ok", "failed"]
    samples: dict[str, int]
    aggregates: list[str]
    span: Span


class ShardState(Struct):
    """One shard.

    Attributes:
        attempt: Its highest attempt.
        end: That attempt's last word, if it had one.
        tallies: That attempt's rows per task number.
        short: Tasks of which `end` states more samples than can have come.
    """

    attempt: int = 0
    end: EndRecord | None = None
    tallies: dict[int, Tally] = {}
    short: set[str] = set()

    @property
    def may_be_done(self) -> bool:
        """Nothing that is cheap to know speaks against the shard being done."""
        return self.end is not None and self.end.status == "ok" and not self.short


class StartRecord(Struct, frozen=True):
    """A ``run_started`` as it lies in the log file."""

    offset: int
    shard: int
    attempt: int
    span: Span


class AggregateRecord(Struct, frozen=True):
    """An ``aggregate`` as it lies in the log file; `offset` in the aggregates topic."""

    offset: int
    shard: int
    attempt: int
    task: str
    span: Span


class TaskState(Struct):
    """One task's spool files.

    Attributes:
        name: As producers spell it.
        filters: Names by number, in order of arrival.
        rows: Bytes of the live JSONL.
        index: Bytes of the index.
        side: Bytes of the side file (text ids, scores, clusters).
    """

    name: str
    filters: list[str] = []
    rows: int = 0
    index: int = 0
    side: int = 0


class Cut(Struct, frozen=True):
    """The last offset that belongs to the run, in one topic.

    Attributes:
        offset: -1 where nothing of that topic belongs to it.
        timestamp_ms: Kafka time of the record at the cut.
        expired: A ``run_expired`` made it.
    """

    offset: int
    timestamp_ms: int = 0
    expired: bool = False


class EarlyExpiry(Struct, frozen=True):
    """A `run_expired` of a run whose records, in the other topic, are still to be read.

    Attributes:
        topic: Where it stood.
        role: What that topic carries.
        cut: The cut that it makes there.
    """

    topic: str
    role: Literal["samples", "aggregates"]
    cut: Cut


class RunState(Struct):
    """All that a worker knows of an open run; with the spool files it is a pure function of the log's prefix.

    Attributes:
        run_id: The run.
        folder: Spool folder, relative to the partition's.
        first: Topic to the run's lowest offset, or that of what expired it: pins the watermark.
        last: Topic to its highest.
        opened_ms: Kafka time of its lowest record in the samples topic; -1 while none came.
        seen_ms: Highest Kafka time of any of its records.
        num_shards: The largest number an accepted record stated.
        tainted: It began where the log no longer does: it cannot be known to be whole.
        shards: By number.
        ready: How many of them may be done.
        tasks: In order of arrival.
        starts: Every ``run_started``.
        aggregates: Every aggregate, in topic order.
        log: Bytes of the log file.
        samples_cut: Once decided.
        aggregates_cut: Once decided.
        aggregates_expired: First effective ``run_expired`` in the aggregates topic.
    """

    run_id: str
    folder: str
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    opened_ms: int = -1
    seen_ms: int = -1
    num_shards: int = 1
    tainted: bool = False
    shards: dict[int, ShardState] = {}
    ready: int = 0
    tasks: list[TaskState] = []
    starts: list[StartRecord] = []
    aggregates: list[AggregateRecord] = []
    log: int = 0
    samples_cut: Cut | None = None
    aggregates_cut: Cut | None = None
    aggregates_expired: Cut | None = None


class PartitionState(Struct):
    """Partition `partition` of all input topics.

    Attributes:
        partition: Its number.
        positions: Topic to the next offset to read: everything below is in `runs`, published, or a dead
            letter.
        runs: Open runs by run_id.
        tainted_below: Topic to the end of a log whose beginning was gone when this worker came; runs first
            seen below it, and not known before, are tainted.
        buried_in_a_row: Dead letters since the last good record; late ones do not count.
        early_expiries: run_id to the first `run_expired` of each topic that was read before anything else of
            the run; they pin the watermark as the run will.
    """

    partition: int
    positions: dict[str, int] = {}
    runs: dict[str, RunState] = {}
    tainted_below: dict[str, int] = {}
    buried_in_a_row: int = 0
    early_expiries: dict[str, list[EarlyExpiry]] = {}


class Checkpoint(Struct):
    """``checkpoint.json``: what the spool holds, as of one moment.

    Attributes:
        format: `CHECKPOINT_FORMAT`.
        group: The consumer group it belongs to.
        topic_ids: Topic to its UUID ("" where the broker has none).
        partitions: Every partition with local state, owned or not.
    """

    group: str
    topic_ids: dict[str, str]
    partitions: list[PartitionState]
    format: int = CHECKPOINT_FORMAT


class CommitMetadata(
    Struct, frozen=True, rename={"topic_id": "t", "watermark": "w", "tainted_below": "b", "format": "v"}
):
    """Metadata beside a committed offset; the offset itself only tells lag tools how far we read.

    Attributes:
        topic_id: UUID of the topic the watermark is of.
        watermark: A worker without local state starts here.
        tainted_below: As in `PartitionState`; 0 where nothing is tainted.
        format: `COMMIT_FORMAT`.
    """

    topic_id: str
    watermark: int
    tainted_below: int = 0
    format: int = COMMIT_FORMAT


class TopicCut(Struct, frozen=True):
    """A cut and the topic it is of."""

    topic_id: str
    offset: int


class Receipt(Struct, frozen=True):
    """The durable record that a run is closed; binds its own group only.

    Key in ``eval.receipts``: ``{group}/{run_id}``; partition: that of the run's input.

    Attributes:
        group: Consumer group.
        run_id: The run.
        status: As in its results JSON.
        samples: Cut in the samples topic.
        aggregates: Cut in the aggregates topic.
        stem: ``{date}-{8 hex}`` of the published files.
        results: Path of the results JSON relative to the output folder.
        sha256: Hash of the results JSON, hex.
        format: `RECEIPT_FORMAT`.
    """

    group: str
    run_id: str
    status: RunStatus
    samples: TopicCut
    aggregates: TopicCut
    stem: str
    results: str
    sha256: str
    format: int = RECEIPT_FORMAT


EXPORTED = (Checkpoint, CommitMetadata, Receipt)
"""What gets a generated JSON Schema."""
