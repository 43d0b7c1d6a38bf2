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
from itertools import chain, repeat
from operator import contains, itemgetter
from typing import Final

from msgspec import Struct

from consumer.runs import lifecycle
from consumer.runs.index import ENTRY, pack_rows
from consumer.runs.spool import Spool, TaskFiles
from consumer.vocabulary import DecodedSamples, Record
from schemas.events import Sample
from schemas.state import RunState, TaskState

LaneKey = tuple[int, str, str, str, int, int, int]
"""(partition, run_id, task, filter, shard, attempt, num_shards)."""

LANES_MAX: Final = 20_000
"""Lanes kept; beyond it all are given up, and come again with their next records. Some 30 MB."""

_BRACE: Final = ord("{")
_PIECE_BYTES: Final = 64 * 1024
_first_byte = itemgetter(0)
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
        rows, odd = 0, []
        for lane in lanes:
            if not lane.records:
                continue
            count = append_rows(lane, self._spool)
            if count is None:
                odd += lane.records
            else:
                rows += count
                _account(lane, count)
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
    run.seen_ms = max(run.seen_ms, *(record.timestamp for record in records))


def append_rows(lane: Lane, spool: Spool) -> int | None:
    """Hand the rows that wait in `lane` to the spool; the lane keeps them.

    Returns:
        How many they are; None if one of them needs a look of its own, and nothing was done.
    """
    samples = list(chain.from_iterable(lane.samples))
    rows = [bytes(sample.row) for sample in samples]
    content = b"\n".join([*rows, b""])
    if not _are_plain([record.value or b"" for record in lane.records], rows, content):
        return None
    sizes = list(map(len, lane.samples))
    place, task = lane.place, lane.place.task
    packed = pack_rows(
        samples,
        rows,
        offsets=chain.from_iterable(map(repeat, [record.offset for record in lane.records], sizes)),
        places=chain.from_iterable(map(range, sizes)),
        filter_number=place.filter,
        shard=lane.shard,
        attempt=lane.attempt,
        marks={},
        position=task.rows,
        side=task.side,
    )
    spool.append_rows(
        place.files,
        task,
        rows=(content,),
        entries=packed.entries,
        sides=packed.sides,
        ends=(
            task.rows + len(content),
            task.index + len(rows) * ENTRY.itemsize,
            task.side + packed.side_bytes,
        ),
    )
    return len(rows)


def _are_plain(values: Sequence[bytes], rows: Sequence[bytes], content: bytes) -> bool:
    """All are JSON objects in UTF-8 on one line. A newline in JSON can only stand between tokens.

    `values` are the events that the rows come from: to look for one byte in few long ones is quickest.
    """
    if any(map(contains, values, repeat(b"\n"))) or any(map(contains, values, repeat(b"\r"))):
        return False
    return _is_utf8(content) and set(map(_first_byte, rows)) <= {_BRACE}


def _is_utf8(content: bytes) -> bool:
    """A piece at a time: a megabyte at once costs twice as much, in fresh memory."""
    if content.isascii():
        return True
    decode = _utf8_decoder().decode
    try:
        for start in range(0, len(content), _PIECE_BYTES):
            decode(content[start : start + _PIECE_BYTES])
        decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True
