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

from collections.abc import Sequence
from itertools import chain, repeat
from typing import Final

from msgspec import Struct

from consumer.runs.index import ENTRY, pack_rows
from consumer.runs.spool import Spool, TaskFiles
from consumer.vocabulary import Record
from schemas.events import Sample
from schemas.state import RunState, TaskState

LaneKey = tuple[int, str, str, str, int, int, int]
"""(partition, run_id, task, filter, shard, attempt, num_shards)."""

LANES_MAX: Final = 20_000
"""Lanes kept; beyond it all are given up, and come again with their next records. Some 30 MB."""

_BRACE: Final = ord("{")


class Lane(Struct):
    """Where rows of one kind go, and those that wait to go there.

    Attributes:
        topic: Where its records come from.
        key: The key that its records bear.
        run: Their run.
        number: Their task's number in the run.
        task: Their task.
        filter: Their filter's number in the task.
        files: The task's files.
        shard: Who sent them.
        attempt: In which attempt.
        num_shards: Of how many, by their word.
        records: What waits.
        samples: The rows of each.
    """

    topic: str
    key: bytes
    run: RunState
    number: int
    task: TaskState
    filter: int
    files: TaskFiles
    shard: int
    attempt: int
    num_shards: int
    records: list[Record] = []
    samples: list[list[Sample]] = []


def append_rows(lane: Lane, spool: Spool) -> int | None:
    """Hand the rows that wait in `lane` to the spool; the lane keeps them.

    Returns:
        How many they are; None if one of them needs a look of its own, and nothing was done.
    """
    samples = list(chain.from_iterable(lane.samples))
    rows = [bytes(sample.row) for sample in samples]
    content = b"\n".join([*rows, b""])
    if not _are_plain(rows, content):
        return None
    sizes = list(map(len, lane.samples))
    task = lane.task
    packed = pack_rows(
        samples,
        rows,
        offsets=chain.from_iterable(map(repeat, [record.offset for record in lane.records], sizes)),
        places=chain.from_iterable(map(range, sizes)),
        filter_number=lane.filter,
        shard=lane.shard,
        attempt=lane.attempt,
        marks={},
        position=task.rows,
        side=task.side,
    )
    spool.append_rows(
        lane.files,
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


def _are_plain(rows: Sequence[bytes], content: bytes) -> bool:
    """All are JSON objects in UTF-8 on one line. A newline in JSON can only stand between tokens."""
    if content.count(b"\n") != len(rows) or b"\r" in content:
        return False
    if not content.isascii():
        try:
            content.decode()
        except UnicodeDecodeError:
            return False
    return all(row[0] == _BRACE for row in rows)
