"""In which order a run's rows and aggregates are sent, and which rows twice.

Owns: dealing rows to batches, shuffling, sending again. Pure: it sees columns of numbers, never a row.
Invariants: every row is in a batch at least once; the rows of a batch share shard and stream; a shard's end
is its last step, and all aggregates come before the end of shard 0; the same arguments give the same order.

Memory: 8 bytes a row, and the row numbers of the batches being filled.
"""

from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from random import Random
from typing import NamedTuple

MAX_BATCH_BYTES = 256 * 1024
"""A batch is closed before it grows beyond: brokers take 1 MiB a record unless told otherwise. One row may be
larger."""


class Arrangement(NamedTuple):
    """How to send a run.

    Attributes:
        batch_size: Rows in one event at most.
        seed: Shuffles rows and aggregates; None: the order of the files.
        duplicate: Fraction of the rows, from 0 to 1, that is sent twice.
    """

    batch_size: int = 20
    seed: int | None = None
    duplicate: float = 0.0


class Columns(NamedTuple):
    """What is known of each row: its shard, its stream, its length in bytes."""

    shard: Sequence[int]
    stream: Sequence[int]
    length: Sequence[int]


class Batch(NamedTuple):
    """One samples event."""

    shard: int
    stream: int
    rows: list[int]


class AggregateStep(NamedTuple):
    """One aggregate event; `number` counts in the order of ``results``."""

    number: int


class EndStep(NamedTuple):
    """The end of a shard."""

    shard: int


Step = Batch | AggregateStep | EndStep


def arrange(columns: Columns, *, shards: int, aggregates: int, arrangement: Arrangement) -> Iterator[Step]:
    """The steps in order.

    Args:
        columns: One value a row in each column.
        shards: Number of shards; one without rows ends at once.
        aggregates: Number of aggregates.
        arrangement: What the caller wants.
    """
    order = _order(len(columns.shard), arrangement)
    last = {columns.shard[row]: position for position, row in enumerate(order)}
    waiting = _aggregates(aggregates, last.get(0, 0), arrangement)
    if 0 not in last:
        yield from (AggregateStep(waiting.popleft()[1]) for _ in range(aggregates))
    yield from (EndStep(shard) for shard in range(shards) if shard not in last)

    filling: dict[int, dict[int, _Filling]] = {}
    for position, row in enumerate(order):
        while waiting and waiting[0][0] <= position:
            yield AggregateStep(waiting.popleft()[1])
        shard, stream, length = columns.shard[row], columns.stream[row], columns.length[row]
        batches = filling.setdefault(shard, {})
        batch = batches.setdefault(stream, _Filling())
        if batch.rows and batch.length + length > MAX_BATCH_BYTES:
            yield Batch(shard, stream, batch.take())
        batch.add(row, length)
        if len(batch.rows) == arrangement.batch_size:
            yield Batch(shard, stream, batch.take())
        if position == last[shard]:
            rest = filling.pop(shard).items()
            yield from (Batch(shard, stream, batch.rows) for stream, batch in rest if batch.rows)
            yield EndStep(shard)


class _Filling:
    """A batch that still takes rows."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.length = 0

    def add(self, row: int, length: int) -> None:
        self.rows.append(row)
        self.length += length

    def take(self) -> list[int]:
        rows, self.rows, self.length = self.rows, [], 0
        return rows


def _order(rows: int, arrangement: Arrangement) -> "array[int]":
    """Row numbers in the order of sending, those that are sent twice among them twice."""
    order = array("Q", range(rows))
    random = Random(arrangement.seed or 0)  # noqa: S311 - an order that can be had again, not a secret
    if rows and arrangement.duplicate > 0:
        again = max(1, round(rows * arrangement.duplicate))
        order.extend(sorted(random.sample(range(rows), again)))
    if arrangement.seed is not None:
        random.shuffle(order)
    return order


def _aggregates(number: int, last: int, arrangement: Arrangement) -> deque[tuple[int, int]]:
    """(position, number) of the aggregates in the order of sending; `last` is that of shard 0's last row."""
    if arrangement.seed is None:
        return deque((last, aggregate) for aggregate in range(number))
    random = Random(arrangement.seed)  # noqa: S311 - as above
    return deque(sorted((random.randint(0, last), aggregate) for aggregate in range(number)))
