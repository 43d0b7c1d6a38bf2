"""Which aggregates belong to a run, and what becomes of the others. Pure, but for reading bytes back.

Of a task that counting ends name, the lowest shard that names it decides; of its aggregates up to the cut the
highest offset wins. An earlier one of the same (shard, attempt) is a duplicate if its bytes are equal, else
superseded; one of another (shard, attempt) is superseded. A task that no counting end names: unexpected.
Above the cut: late, decided first.
"""

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from consumer.runs.lifecycle import named_aggregates
from consumer.vocabulary import Record
from schemas.state import AggregateRecord, RunState, Span


class Chosen(Struct, frozen=True):
    """The verdict on a run's aggregates.

    Attributes:
        winners: Task to its aggregate, in the order the counting ends name them; None where it never came.
        superseded: How many lost to another.
        duplicates: How many came again with equal bytes.
        absent: (shard, task) of named aggregates that never came (expired runs only).
    """

    winners: dict[str, AggregateRecord | None]
    superseded: int
    duplicates: int
    absent: list[tuple[int, str]]


def choose(run: RunState, read: Callable[[Span], Record]) -> Chosen:
    """The verdict, once both cuts are decided."""
    assert run.aggregates_cut is not None
    named = named_aggregates(run)
    decides: dict[str, tuple[int, int]] = {}
    for shard, attempt, task in named:
        decides.setdefault(task, (shard, attempt))
    up_to_cut = [one for one in run.aggregates if one.offset <= run.aggregates_cut.offset]
    winners: dict[str, AggregateRecord | None] = dict.fromkeys(decides)
    for one in up_to_cut:
        if decides.get(one.task) == (one.shard, one.attempt):
            winners[one.task] = one
    superseded = duplicates = 0
    for one in up_to_cut:
        winner = winners.get(one.task)
        if one.task not in decides or one is winner:
            continue
        same_source = decides[one.task] == (one.shard, one.attempt)
        if same_source and winner is not None and read(one.span).value == read(winner.span).value:
            duplicates += 1
        else:
            superseded += 1
    there = {(one.shard, one.attempt, one.task) for one in up_to_cut}
    absent = [(shard, task) for shard, attempt, task in named if (shard, attempt, task) not in there]
    return Chosen(winners, superseded, duplicates, absent)


def refused(run: RunState) -> list[tuple[AggregateRecord, Literal["late", "unexpected"]]]:
    """Aggregates read before the run closed that become dead letters, once both cuts are decided."""
    assert run.aggregates_cut is not None
    tasks = {task for _, _, task in named_aggregates(run)}
    verdicts: list[tuple[AggregateRecord, Literal["late", "unexpected"]]] = []
    for one in run.aggregates:
        if one.offset > run.aggregates_cut.offset:
            verdicts.append((one, "late"))
        elif one.task not in tasks:
            verdicts.append((one, "unexpected"))
    return verdicts
