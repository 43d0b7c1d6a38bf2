"""Rows taken in bulk: what a poll brings for one task, filter and shard of a run goes to the spool at once.

Nearly all records are rows of a run that is under way, and nothing is decided by them but how many there are.
A lane holds such records until the poll's end, or until anything else happens to their run; its rows are then
checked, hashed and packed by calls that each see all of them, which costs a fifth of going row by row.

Invariants: a lane stands only while rows of its kind cannot decide a cut, nor change the run in any way that
is not a sum or a maximum; whatever else is taken of its run removes it first (`RunBook.release`). So the
outcome is that of taking the records one by one; only rows of one task that came from several shards may
lie in another order in the spool, where every entry names its offset.

Refuses: a row that needs a look of its own (no object, no UTF-8, on several lines). Its lane's records are
handed back untouched, to be taken one by one.
"""

import codecs
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain
from operator import itemgetter
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from consumer.runs import lifecycle
from consumer.runs.index import ENTRY, pack_rows, place
from consumer.runs.spool import Spool, TaskFiles
from consumer.vocabulary import DecodedSamples, Record
from schemas.events import Sample
from schemas.state import RunState, TaskState

LaneKey = tuple[int, str, str, str, int, int, int]
"""(partition, run_id, task, filter, shard, attempt, num_shards)."""

LANES_MAX: Final = 20_000
"""Lanes kept; beyond it all are given up, and come again with their next records. Some 30 MB."""

_OFFSET: Final = itemgetter(Record._fields.index("offset"))
_TIMESTAMP: Final = itemgetter(Record._fields.index("timestamp"))
_BRACE: Final = ord("{")
_NEWLINE: Final = ord("\n")
_PIECE_BYTES: Final = 64 * 1024
_utf8_decoder = codecs.getincrementaldecoder("utf-8")


class Place(Struct, frozen=True):
    """Where the rows of one task and filter of a run go.

    Attributes:
        number: The task's number in the run.
        task: The task.
        filter: The filter's number in the task.
        files: The task's files.
    """

    number: int
    task: TaskState
    filter: int
    files: TaskFiles


class Lane(Struct):
    """Rows of one kind that wait for the poll's end.

    Attributes:
        topic: Where its records come from.
        key: The key that its records bear.
        run: Their run.
        place: Where they go.
        shard: Who sent them.
        attempt: In which attempt.
        num_shards: Of how many, by their word.
        records: What waits.
        samples: The rows of each.
    """

    topic: str
    key: bytes
    run: RunState
    place: Place
    shard: int
    attempt: int
    num_shards: int
    records: list[Record] = []
    samples: list[list[Sample]] = []


class Gathered(Struct, frozen=True):
    """What lanes held.

    Attributes:
        rows: How many were taken in.
        odd: Records that have to be taken one by one, now.
    """

    rows: int = 0
    odd: Sequence[Record] = ()


NOTHING: Final = Gathered()


class Lanes:
    """The lanes of all open runs; `by_key` is for who looks one up for each record."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self.by_key: dict[LaneKey, Lane] = {}
        self._keys: dict[str, list[LaneKey]] = {}

    def open(self, record: Record, run: RunState, event: DecodedSamples, place: Place) -> None:
        """A lane for more rows like those of `event`, if there is none."""
        key = (
            record.partition,
            run.run_id,
            event.task,
            event.filter,
            event.shard,
            event.attempt,
            event.num_shards,
        )
        if key not in self.by_key:
            self._keys.setdefault(run.folder, []).append(key)
            self.by_key[key] = Lane(
                record.topic,
                run.run_id.encode(),
                run,
                place,
                event.shard,
                event.attempt,
                event.num_shards,
            )

    def gather(self) -> Gathered:
        """Take in what all lanes hold. They stay, unless they have become too many."""
        gathered = self._take_in(self.by_key.values())
        if len(self.by_key) > LANES_MAX:
            self.by_key.clear()
            self._keys.clear()
        return gathered

    def release(self, run: RunState) -> Gathered:
        """Take in what the run's lanes hold, and remove them."""
        return self._take_in([self.by_key.pop(key) for key in self._keys.pop(run.folder, ())])

    def drop(self, run: RunState) -> None:
        """Remove the run's lanes, whatever they hold."""
        for key in self._keys.pop(run.folder, ()):
            del self.by_key[key]

    def _take_in(self, lanes: Iterable[Lane]) -> Gathered:
        waiting = [lane for lane in lanes if lane.records]
        if not waiting:
            return NOTHING
        odd: list[Record] = []
        rows = append_rows(waiting, self._spool)
        if rows is None:
            # One lane is odd, at the least.
            rows = 0
            for lane in waiting:
                count = append_rows([lane], self._spool)
                if count is None:
                    odd += lane.records
                else:
                    rows += count
        for lane in waiting:
            lane.records, lane.samples = [], []
        return Gathered(rows, odd)


def _account(lane: Lane, count: int) -> None:
    """What `lifecycle` would have noted of each record, in one."""
    run, records = lane.run, lane.records
    lifecycle.apply_rows(
        run,
        shard=lane.shard,
        attempt=lane.attempt,
        num_shards=lane.num_shards,
        task=lane.place.number,
        count=count,
    )
    run.last[lane.topic] = max(run.last[lane.topic], records[-1].offset)
    run.seen_ms = max(run.seen_ms, *map(_TIMESTAMP, records))


def append_rows(lanes: Sequence[Lane], spool: Spool) -> int | None:
    """Hand the rows that wait in `lanes` to the spool and note them in their runs; the lanes keep them.

    Args:
        lanes: At least one, each with records; those may be without rows.
        spool: Where to.

    Returns:
        How many they are; None if one of them needs a look of its own, and nothing was done.
    """
    records = list(chain.from_iterable(lane.records for lane in lanes))
    batches = list(chain.from_iterable(lane.samples for lane in lanes))
    samples = list(chain.from_iterable(batches))
    rows = [sample.row for sample in samples]
    content = b"\n".join([*rows, b""])
    sizes = list(map(len, batches))
    counts = [sum(map(len, lane.samples)) for lane in lanes]
    packed = pack_rows(
        samples,
        rows,
        offsets=np.repeat(list(map(_OFFSET, records)), sizes),
        places=chain.from_iterable(map(range, sizes)),
        filter_number=np.repeat([lane.place.filter for lane in lanes], counts),
        shard=np.repeat([lane.shard for lane in lanes], counts),
        attempt=np.repeat([lane.attempt for lane in lanes], counts),
        marks={},
    )
    entries = packed.entries
    firsts = [0, *accumulate(counts)]
    starts = entries["position"].astype(np.intp)
    if not _are_plain(content, starts):
        return None
    lines = np.append(starts, len(content)).take(firsts).tolist()
    sides = np.append(entries["side"].astype(np.intp), len(packed.sides)).take(firsts).tolist()
    lines_of, sides_of = memoryview(content), memoryview(packed.sides)
    for number, (lane, count) in enumerate(zip(lanes, counts, strict=True)):
        task, after = lane.place.task, number + 1
        spool.append_rows(
            lane.place.files,
            task,
            rows=(lines_of[lines[number] : lines[after]],),
            entries=(place(entries[firsts[number] : firsts[after]], task.rows, task.side),),
            sides=(sides_of[sides[number] : sides[after]],),
            ends=(
                task.rows + lines[after] - lines[number],
                task.index + count * ENTRY.itemsize,
                task.side + sides[after] - sides[number],
            ),
        )
        _account(lane, count)
    return len(rows)


def _are_plain(content: bytes, starts: npt.NDArray[np.intp]) -> bool:
    """All rows are JSON objects in UTF-8 on one line.

    Args:
        content: The rows, a newline behind each.
        starts: Where in it each row begins.
    """
    firsts = np.frombuffer(content, dtype=np.uint8).take(starts)
    return bool((firsts == _BRACE).all()) and _is_text(content, lines=starts.size)


def _is_text(content: bytes, *, lines: int) -> bool:
    """UTF-8 of so many lines. A piece at a time: a megabyte at once would leave the processor's caches."""
    decode = _utf8_decoder().decode
    try:
        for start in range(0, len(content), _PIECE_BYTES):
            piece = content[start : start + _PIECE_BYTES]
            # Counting them with `bytes.count` takes four times as long.
            lines -= int(np.count_nonzero(np.frombuffer(piece, dtype=np.uint8) == _NEWLINE))
            if b"\r" in piece:
                return False
            decode(piece)
        decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return lines == 0
