"""The open runs of a worker: records in, rows in the spool, cuts decided.

Owns `PartitionState` and what lies in the spool for it. Invariants: an accepted record is applied exactly
once per life of the local state; state and spool are a function of the log's prefix up to the positions; a
settled run never changes.

Refuses nothing that was decoded: what comes above a cut is `late`, a `run_expired` without effect is
`surplus`.
"""

import uuid
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final, Literal

from consumer.runs import lifecycle
from consumer.runs.index import ENTRY, Flag, encode_side, identity, pack_entry, pack_rows, place
from consumer.runs.known import KnownSamples
from consumer.runs.lanes import NOTHING, Gathered, Lanes, Place
from consumer.runs.lifecycle import TallyKey
from consumer.runs.spool import Spool, SpooledRun, run_folder_name
from consumer.vocabulary import DecodedSamples, Record, Role
from schemas.events import Aggregate, RunEnded, RunExpired, RunStarted
from schemas.state import Cut, EarlyExpiry, PartitionState, RunState, Span, TaskState

Event = DecodedSamples | RunStarted | Aggregate | RunEnded | RunExpired

_ENTRY_BYTES: Final = ENTRY.itemsize

Outcome = Literal["applied", "late", "surplus", "expired"]


def role_of(event: Event) -> Role:
    """Whose order decides about `event` (a `run_expired` belongs to its topic, whatever that carries)."""
    return "aggregates" if isinstance(event, Aggregate) else "samples"


class RunBook:
    """All local state, of partitions owned or not."""

    def __init__(self, spool: Spool, partitions: Mapping[int, PartitionState] | None = None) -> None:
        self.spool = spool
        self.lanes = Lanes(spool)
        self.partitions: dict[int, PartitionState] = dict(partitions or {})
        self._places: dict[str, dict[tuple[str, str], Place]] = {}
        self._known: dict[tuple[int, str, int], KnownSamples] = {}

    def find(self, partition: int, run_id: str) -> RunState | None:
        """The open run, if it is known."""
        state = self.partitions.get(partition)
        return state.runs.get(run_id) if state is not None else None

    def open(self, record: Record, run_id: str) -> RunState:
        """A new run, first seen in `record`.

        Its folder is new too: what an earlier life of the run left may still be read by its close-out.
        """
        state = self.partitions.setdefault(record.partition, PartitionState(record.partition))
        run = RunState(run_id, f"{run_folder_name(run_id)}.{uuid.uuid4().hex[:8]}")
        self.spool.create(record.partition, run)
        for early in state.early_expiries.pop(run_id, ()):
            lifecycle.expire_early(run, early)
        state.runs[run_id] = run
        return run

    def note_early(self, record: Record, event: RunExpired, roles: Collection[Role]) -> None:
        """A `run_expired` of a run that is not known here. It opens nothing.

        Yet where the topics are two it can be rightly the first in its own (`last` is -1), and the other one
        merely be read later.
        """
        if event.last != -1 or len(roles) != 1:
            return
        [role] = roles
        cut = Cut(record.offset, record.timestamp, expired=True)
        state = self.partitions.setdefault(record.partition, PartitionState(record.partition))
        noted = state.early_expiries.setdefault(event.run_id, [])
        if all(one.topic != record.topic for one in noted):
            noted.append(EarlyExpiry(record.topic, role, cut))

    def apply(self, run: RunState, record: Record, event: Event, roles: Collection[Role]) -> Outcome:
        """`take` and `settle` in one, for who need not survive a full disk."""
        outcome = self.take(run, record, event, roles)
        self.settle(run, record)
        return outcome

    def take(self, run: RunState, record: Record, event: Event, roles: Collection[Role]) -> Outcome:
        """Apply one decoded record to its run, in memory and in the spool's buffers; `settle` comes next.

        Args:
            run: The run, settled or not.
            record: Where it stood.
            event: What it held.
            roles: What the record's topic carries.
        """
        if isinstance(event, RunExpired):
            return "expired" if lifecycle.apply_expired(run, event, record, roles) else "surplus"
        role = role_of(event)
        cut = lifecycle.cut_of(run, role)
        if cut is not None and record.offset > cut.offset:
            return "late"
        if role == "samples" and run.opened_ms < 0:
            run.opened_ms = record.timestamp
        match event:
            case Aggregate():
                lifecycle.apply_aggregate(run, event, record, self._log(run, record))
            case RunStarted():
                lifecycle.apply_started(run, event, record, self._log(run, record))
            case RunEnded():
                lifecycle.apply_ended(run, event, record, self._log(run, record))
            case _:
                self._append(run, record, event)
        if record.topic not in run.first:
            # Each topic by itself: which one happened to be read first must not show.
            below = self.partitions[record.partition].tainted_below.get(record.topic, 0)
            run.tainted = run.tainted or record.offset < below
        lifecycle.note_record(run, record)
        if isinstance(event, DecodedSamples) and not event.rejected:
            self._open_lane(run, record, event)
        return "applied"

    def release(self, run: RunState, event: Event) -> Gathered:
        """Have the run's lanes taken in and removed before `event`, if that is more than further rows.

        Rows of a short shard are more: they may make the run ready, and what is counted then may find another
        shard short, whose next rows decide.
        """
        if isinstance(event, DecodedSamples):
            shard = run.shards.get(event.shard)
            if shard is None or (event.attempt <= shard.attempt and not shard.short):
                return NOTHING
        return self.lanes.release(run)

    def _open_lane(self, run: RunState, record: Record, event: DecodedSamples) -> None:
        """For more rows like `event`'s, if rows can decide nothing now."""
        shard = run.shards[event.shard]
        place = self._places[run.folder][event.task, event.filter]
        may_decide = run.ready == run.num_shards or shard.short
        is_counted_by_row = (record.partition, run.run_id, place.number) in self._known
        if (
            run.samples_cut is None
            and event.attempt == shard.attempt
            and not (may_decide or is_counted_by_row)
        ):
            self.lanes.open(record, run, event, place)

    def settle(self, run: RunState, record: Record) -> None:
        """Decide what `record`, just taken, decides.

        Raises:
            OSError: the indexes cannot be written or read; nothing was decided, call again.
        """
        lifecycle.settle(run, record, partial(self._count_distinct, record.partition, run))

    def spooled(self, partition: int, run: RunState) -> SpooledRun:
        """What close-out needs of a settled run; everything appended is flushed."""
        self.spool.flush()
        return SpooledRun(
            partition=partition,
            run=run,
            scratch=self.spool.folder(partition, run) / f"closing-{uuid.uuid4().hex[:8]}",
            tasks=[self.spool.task_files(partition, run, number) for number in range(len(run.tasks))],
            log=self.spool.log_path(partition, run),
        )

    def settled(self, partition: int) -> Iterator[RunState]:
        """Runs of a partition whose cuts are decided."""
        state = self.partitions.get(partition)
        return (run for run in list(state.runs.values()) if lifecycle.is_settled(run)) if state else iter(())

    def drop_run(self, partition: int, run: RunState) -> Path:
        """Forget a run. Returns its folder, to be removed once no checkpoint lists it."""
        self.spool.drop(partition, run)
        self._places.pop(run.folder, None)
        self.lanes.drop(run)
        for number in range(len(run.tasks)):
            self._known.pop((partition, run.run_id, number), None)
        del self.partitions[partition].runs[run.run_id]
        return self.spool.folder(partition, run)

    def drop_partition(self, partition: int) -> list[Path]:
        """Forget all of a partition. Returns the folders of its runs."""
        state = self.partitions.get(partition)
        folders = [self.drop_run(partition, run) for run in list(state.runs.values())] if state else []
        self.partitions[partition] = PartitionState(partition)
        return folders

    def _count_distinct(
        self, partition: int, run: RunState, needed: Mapping[TallyKey, int]
    ) -> Mapping[TallyKey, int]:
        """Distinct samples per key; of tasks that turn out short, what came is remembered."""
        counts = self.spool.count_distinct(partition, run, needed)
        short = [key for key in needed if counts[key] < needed[key]]
        for number in {key.task for key in short}:
            self._known[partition, run.run_id, number] = KnownSamples(
                self.spool.task_files(partition, run, number).index,
                run.tasks[number].index // _ENTRY_BYTES,
                [key for key in short if key.task == number],
                scratch=self.spool.folder(partition, run) / f"known-{uuid.uuid4().hex[:8]}",
            )
        return counts

    def _count_new(
        self, record: Record, run: RunState, number: int, event: DecodedSamples, filter_number: int
    ) -> int | None:
        """How many samples of the event never came before; None where that is not known row by row."""
        known = self._known.get((record.partition, run.run_id, number))
        if known is None or not known.covers(event.shard, event.attempt):
            return None
        ids = [sample.doc_id for sample in event.rows] + [row.identity for row in event.rejected]
        return known.add(event.shard, event.attempt, [(filter_number, *identity(one)) for one in ids])

    def _log(self, run: RunState, record: Record) -> Span:
        return self.spool.append_record(record.partition, run, record)

    def _place(self, partition: int, run: RunState, name: str, filter_name: str) -> Place:
        """Where the rows of a task and filter go; found by one look-up for all but the first."""
        places = self._places.get(run.folder)
        if places is None:
            places = self._places[run.folder] = {}
        place = places.get((name, filter_name))
        if place is None:
            number = next((number for number, task in enumerate(run.tasks) if task.name == name), None)
            if number is None:
                number = len(run.tasks)
                run.tasks.append(TaskState(name))
            task = run.tasks[number]
            if filter_name not in task.filters:
                task.filters.append(filter_name)
            place = places[name, filter_name] = Place(
                number, task, task.filters.index(filter_name), self.spool.task_files(partition, run, number)
            )
        return place

    def _append(self, run: RunState, record: Record, event: DecodedSamples) -> None:
        home = self._place(record.partition, run, event.task, event.filter)
        task = home.task
        packed = pack_rows(
            event.rows,
            event.contents,
            offsets=record.offset,
            places=event.indexes,
            filter_number=home.filter,
            shard=event.shard,
            attempt=event.attempt,
            marks=_marks(event),
        )
        rows = b"\n".join([*event.contents, b""])
        entries = [place(packed.entries, task.rows, task.side)]
        sides, side_position = [packed.sides], task.side + len(packed.sides)
        for rejected in event.rejected:
            kind, high, low = identity(rejected.identity)
            side = encode_side(rejected.identity if isinstance(rejected.identity, str) else None, {}, None)
            entries.append(
                pack_entry(
                    record.offset, rejected.index, home.filter, event.shard, event.attempt,
                    kind | Flag.REJECTED, high, low, task.rows + len(rows), b"", side_position, len(side),
                )
            )  # fmt: skip  # columns in the order of the format
            if side:
                sides.append(side)
                side_position += len(side)
        count = len(event.rows) + len(event.rejected)
        self.spool.append_rows(
            home.files,
            task,
            rows=(rows,),
            entries=entries,
            sides=sides,
            ends=(task.rows + len(rows), task.index + count * _ENTRY_BYTES, side_position),
        )
        new = self._count_new(record, run, home.number, event, home.filter) if self._known else None
        lifecycle.apply_rows(
            run,
            shard=event.shard,
            attempt=event.attempt,
            num_shards=event.num_shards,
            task=home.number,
            count=count,
            new=new,
        )


def _marks(event: DecodedSamples) -> dict[int, int]:
    """Flags of the rows to which something was done, by their number among the good ones."""
    if not event.repaired and not event.scores_dropped:
        return {}
    marks = {}
    for number, index in enumerate(event.indexes):
        repaired, dropped = index in event.repaired, index in event.scores_dropped
        marks[number] = Flag.REPAIRED * repaired | Flag.SCORES_DROPPED * dropped
    return marks
