"""The runs of a state folder as people see them: open ones by the checkpoint, closed ones by the receipts.

Nothing is locked, nothing written: a worker may be at work on the folder. The checkpoint is read before the
receipts, so a run that closes in between is found closed; one whose spool folder is gone by then has closed
or belongs to another worker now, and is not shown. What is shown is as old as the last checkpoint.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from heapq import nlargest
from itertools import accumulate
from operator import itemgetter
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from consumer.errors import SpoolError, StateError, UsageError
from consumer.intake.decode import decode
from consumer.intake.receipts import TABLE_FILE, read_table
from consumer.runs.checkpoint import CHECKPOINT_FILE
from consumer.runs.fields import collect
from consumer.runs.lifecycle import is_settled
from consumer.runs.progress import progress
from consumer.runs.spool import LOG_FILE, read_record, task_files
from consumer.vocabulary import Record
from schemas.results import Evalsink, RunStatus
from schemas.state import CHECKPOINT_FORMAT, Checkpoint, PartitionState, Receipt, RunState


class TaskOverview(Struct, frozen=True):
    """One task.

    Attributes:
        task: As producers spell it.
        rows: Open: received, those sent twice counted twice until their shard has ended. Closed: published.
        expected: Rows that will be there in the end, null where nobody said. Closed: null.
        file: The JSONL: live (`tail -f`) or published; null without rows, or where it is gone.
    """

    task: str
    rows: int
    expected: int | None = None
    file: str | None = None


class RunOverview(Struct, frozen=True):
    """One run; what does not apply or cannot be known is null.

    Attributes:
        run_id: The run.
        partition: Of the input topics.
        status: ``open``; ``closing``: all is there, its files are on their way; else as in its results JSON.
        shards: How many it has.
        ended: How many of them have ended well. Closed: null.
        rows: Sum over the tasks.
        expected: Sum over the tasks, null if that of one is not known. Closed: null.
        missing: Open: what it waits for. Closed: why it is not complete.
        tainted: The log no longer held its beginning. Closed: null, see `missing`.
        first_ms: Kafka time of its first record, in milliseconds. Closed: null.
        last_ms: Kafka time of its last record. Closed: null.
        closed_ms: When its results JSON was written.
        age_s: Seconds since `first_ms`, or since `closed_ms`.
        idle_s: Seconds since `last_ms`.
        results: The results JSON. Open: null.
        sha256: Hash of the results JSON, hex. Open: null.
        tasks: Its tasks.
    """

    run_id: str
    partition: int
    status: Literal["open", "closing"] | RunStatus
    shards: int | None = None
    ended: int | None = None
    rows: int | None = None
    expected: int | None = None
    missing: list[str] = []
    tainted: bool | None = None
    first_ms: int | None = None
    last_ms: int | None = None
    closed_ms: int | None = None
    age_s: float | None = None
    idle_s: float | None = None
    results: str | None = None
    sha256: str | None = None
    tasks: list[TaskOverview] = []


class Overview(Struct, frozen=True):
    """A state folder.

    Attributes:
        runs: Open runs, the longest idle one first; then closed ones, the last closed first.
        notices: What could not be read, as sentences.
    """

    runs: list[RunOverview]
    notices: list[str]


class _Published(Struct, frozen=True):
    """The part of a results JSON that is looked at."""

    evalsink: Evalsink


def survey(state: Path, output: Path, *, recent: int, now_ms: int) -> Overview:
    """The open runs of `state`, and the `recent` ones that closed last.

    Args:
        state: State folder.
        output: Output folder of its worker.
        recent: How many closed runs.
        now_ms: The time by which ages are told, milliseconds since the epoch.

    Raises:
        UsageError: no such folder.
        StateError: the checkpoint cannot be read.
    """
    if not state.is_dir():
        raise UsageError(f"no state folder at {state}; name one with --state or EVALSINK_STATE")
    checkpoint = _read_checkpoint(state / CHECKPOINT_FILE)
    notices = []
    try:
        receipts = read_table(state)
    except (sqlite3.Error, msgspec.DecodeError) as error:
        receipts = []
        notices.append(f"{state / TABLE_FILE} cannot be read, closed runs are not shown: {error}")
    closed = {(partition, receipt.run_id) for partition, receipt in receipts}
    partitions = checkpoint.partitions if checkpoint else ()
    shown = [
        overview
        for overview, _ in open_runs(state, partitions, now_ms=now_ms)
        if (overview.partition, overview.run_id) not in closed
    ]
    return Overview([*shown, *_recent(receipts, output, recent, now_ms)], notices)


def open_runs(
    state: Path,
    partitions: Iterable[PartitionState],
    *,
    now_ms: int,
    announced: Callable[[Path, RunState], Mapping[str, int]] | None = None,
) -> list[tuple[RunOverview, RunState]]:
    """The runs of `partitions` whose spool folder is there, the longest idle one first.

    Args:
        state: State folder.
        partitions: What is known of its partitions.
        now_ms: The time by which ages are told, milliseconds since the epoch.
        announced: Documents per task that a run announced, by its folder; not given: read each time.
    """
    found = []
    for partition in partitions:
        for run in partition.runs.values():
            folder = state / "runs" / str(partition.partition) / run.folder
            if folder.is_dir():
                expected = (announced or read_announced)(folder, run)
                found.append((_open_run(folder, partition.partition, run, expected, now_ms), run))
    return sorted(found, key=lambda pair: pair[0].last_ms or 0)


def _read_checkpoint(path: Path) -> Checkpoint | None:
    try:
        checkpoint = msgspec.json.decode(path.read_bytes(), type=Checkpoint)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, msgspec.DecodeError) as error:
        raise StateError(f"{path} cannot be read: {error}") from error
    if checkpoint.format != CHECKPOINT_FORMAT:
        raise StateError(f"{path} is of format {checkpoint.format}; this evalsink knows {CHECKPOINT_FORMAT}")
    return checkpoint


def _open_run(
    folder: Path, partition: int, run: RunState, announced: Mapping[str, int], now_ms: int
) -> RunOverview:
    now = progress(run, announced)
    files = {
        task.name: path
        for number, task in enumerate(run.tasks)
        if (path := task_files(folder, number, task.name).rows).exists()
    }
    first_ms = run.opened_ms if run.opened_ms >= 0 else None
    last_ms = run.seen_ms if run.seen_ms >= 0 else None
    return RunOverview(
        run_id=run.run_id,
        partition=partition,
        status="closing" if is_settled(run) else "open",
        shards=now.shards,
        ended=now.ended,
        rows=now.rows,
        expected=now.expected,
        missing=now.missing,
        tainted=run.tainted,
        first_ms=first_ms,
        last_ms=last_ms,
        age_s=_seconds(first_ms, now_ms),
        idle_s=_seconds(last_ms, now_ms),
        tasks=[
            TaskOverview(name, task.rows, task.expected, str(files[name]) if name in files else None)
            for name, task in now.tasks.items()
        ],
    )


def read_announced(folder: Path, run: RunState) -> dict[str, int]:
    """What the run's ``run_started`` events expect; nothing if its log went away meanwhile."""

    def again(record: Record) -> object:
        return decode(record.value, record.key, "both")

    try:
        return collect(run, lambda span: read_record(folder / LOG_FILE, span), again).tasks
    except (OSError, SpoolError):
        return {}


def _recent(receipts: list[tuple[int, Receipt]], output: Path, number: int, now_ms: int) -> list[RunOverview]:
    """The runs that closed last.

    Receipts tell no time. In one partition the cuts give the order, whichever file a close-out beside others
    wrote first; between partitions, the files' times.
    """
    by_partition = defaultdict(list)
    for partition, receipt in receipts:
        by_partition[partition].append(receipt)
    candidates: list[tuple[int, RunOverview]] = []
    for partition, some in by_partition.items():
        last = nlargest(number, some, key=lambda receipt: receipt.samples.offset)
        runs = [_closed_run(receipt, partition, output, now_ms) for receipt in last]
        # No run counts as closed before one that its partition closed earlier.
        closed_ms = [*accumulate((run.closed_ms or 0 for run in reversed(runs)), max)]
        candidates += zip(reversed(closed_ms), runs, strict=True)
    return [run for _, run in nlargest(number, candidates, key=itemgetter(0))]


def _closed_run(receipt: Receipt, partition: int, output: Path, now_ms: int) -> RunOverview:
    path = output / receipt.results
    run = RunOverview(
        run_id=receipt.run_id,
        partition=partition,
        status=receipt.status,
        results=str(path),
        sha256=receipt.sha256,
    )
    try:
        closed_ms = path.stat().st_mtime_ns // 1_000_000
        own = msgspec.json.decode(path.read_bytes(), type=_Published).evalsink
    except (OSError, ValueError, msgspec.DecodeError) as error:
        return msgspec.structs.replace(run, missing=[f"its results JSON cannot be read: {error}"])
    return msgspec.structs.replace(
        run,
        shards=own.shards,
        rows=sum(entry.rows for entry in own.tasks.values()),
        missing=own.why,
        closed_ms=closed_ms,
        age_s=_seconds(closed_ms, now_ms),
        tasks=[
            TaskOverview(name, entry.rows, file=str(path.parent / entry.file) if entry.file else None)
            for name, entry in own.tasks.items()
        ],
    )


def _seconds(since_ms: int | None, now_ms: int) -> float | None:
    return None if since_ms is None else max(0, now_ms - since_ms) / 1000
