"""How far an open run is and what it still waits for. Pure, and for people: nothing here decides anything."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from msgspec import Struct

from consumer.runs.lifecycle import counting_ends, named_aggregates
from schemas.state import RunState, Tally


class TaskProgress(Struct, frozen=True):
    """One task's rows.

    Attributes:
        rows: Received from each shard's current attempt. A row that came twice counts twice until its shard
            has ended.
        expected: What the ends state if every shard has ended; else what was announced, once per filter seen;
            None if nobody said.
    """

    rows: int
    expected: int | None


class Progress(Struct, frozen=True):
    """One open run.

    Attributes:
        shards: How many it has.
        ended: How many of them have ended well.
        tasks: Every task that came, was announced, or is named in an end.
        missing: What it waits for, one sentence each; empty for a settled run.
    """

    shards: int
    ended: int
    tasks: dict[str, TaskProgress]
    missing: list[str]

    @property
    def rows(self) -> int:
        """Rows of all tasks."""
        return sum(task.rows for task in self.tasks.values())

    @property
    def expected(self) -> int | None:
        """Expected rows of all tasks; None if those of one are not known."""
        known = [task.expected for task in self.tasks.values() if task.expected is not None]
        return sum(known) if known and len(known) == len(self.tasks) else None


def progress(run: RunState, announced: Mapping[str, int]) -> Progress:
    """How far `run` is.

    Args:
        run: The run.
        announced: Task to its distinct documents, from the ``run_started`` events.
    """
    ended = sum(end.status == "ok" for _, _, end in counting_ends(run))
    return Progress(
        shards=run.num_shards,
        ended=ended,
        tasks=_tasks(run, announced, all_ended=ended == run.num_shards),
        missing=list(_missing(run)),
    )


def _tasks(run: RunState, announced: Mapping[str, int], *, all_ended: bool) -> dict[str, TaskProgress]:
    rows = dict.fromkeys([*(task.name for task in run.tasks), *announced], 0)
    stated: dict[str, int] = {}
    for _, _, end in counting_ends(run):
        for name, count in end.samples.items():
            rows.setdefault(name, 0)
            stated[name] = stated.get(name, 0) + count
    for state in run.shards.values():
        for number, tally in state.tallies.items():
            name = run.tasks[number].name
            received = _at_most(tally)
            if state.end is not None and name in state.end.samples:
                received = min(received, state.end.samples[name])
            rows[name] += received
    filters = {task.name: max(1, len(task.filters)) for task in run.tasks}

    def expected(name: str) -> int | None:
        if all_ended and name in stated:
            return stated[name]
        if name in announced:
            return max(stated.get(name, 0), announced[name] * filters.get(name, 1))
        return None

    return {name: TaskProgress(count, expected(name)) for name, count in rows.items()}


def _missing(run: RunState) -> Iterator[str]:
    if run.samples_cut is None:
        ends = {shard: end for shard, _, end in counting_ends(run)}
        if silent := [shard for shard in range(run.num_shards) if shard not in ends]:
            yield f"{_shards(silent)}: not ended"
        if failed := [shard for shard, end in ends.items() if end.status == "failed"]:
            yield f"{_shards(failed)}: failed, a new attempt may come"
        numbers = {task.name: number for number, task in enumerate(run.tasks)}
        for shard, end in ends.items():
            for task, count in end.samples.items():
                received = _at_most(run.shards[shard].tallies.get(numbers.get(task, -1), Tally()))
                if received < count:
                    yield f"shard {shard}: task {task}: {received} of {count} rows"
    if run.aggregates_cut is None:
        there = {(one.shard, one.attempt, one.task) for one in run.aggregates}
        for shard, attempt, task in named_aggregates(run):
            if (shard, attempt, task) not in there:
                yield f"shard {shard}: the aggregate of task {task}"


def _at_most(tally: Tally) -> int:
    """More distinct rows than these cannot have come."""
    return tally.distinct + tally.received - tally.checked


def _shards(numbers: Sequence[int]) -> str:
    """``shard 3`` or ``shards 1, 3-7``."""
    ranges = []
    for _, group in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        row = [number for _, number in group]
        ranges.append(f"{row[0]}-{row[-1]}" if len(row) > 1 else str(row[0]))
    return f"shard{'s' * (len(numbers) > 1)} {', '.join(ranges)}"
