"""What the results JSON tells of a run's rows: counts per task, what is missing, status and reasons.

Status comes from end counts, rejected rows and named aggregates alone, all of them functions of the log up to
the cuts.
"""

from collections.abc import Mapping

from msgspec import UNSET, Struct, UnsetType

from consumer.runs.aggregates import Chosen
from consumer.runs.index import ENTRY, count_distinct
from consumer.runs.lifecycle import TallyKey, counting_ends
from consumer.runs.samples import GAPS_MAX, Copied
from consumer.runs.scores import TaskScores
from consumer.runs.spool import SpooledRun
from schemas.results import RunStatus, TaskEntry


class TaskCopy(Struct):
    """One task's outcome."""

    name: str
    file: str
    filters: list[str]
    copied: Copied
    scores: TaskScores


def entry(copy: TaskCopy | None, stated: int, expected: int | None, *, complete: bool) -> TaskEntry:
    """A task's entry: `stated` rows by its ends, `expected` documents if announced, `copy` if rows came."""
    if copy is None:
        short = not complete and (stated > 0 or bool(expected))
        return TaskEntry(missing=max(stated, expected or 0) if short else UNSET)
    copied = copy.copied
    documents = max(copied.filters.values(), default=0)
    missing: list[tuple[int, int]] | int | UnsetType = UNSET
    if not complete and (copied.rows < stated or (expected is not None and documents < expected)):
        missing = _missing(copied, stated, expected) or UNSET
    return TaskEntry(
        file=copy.file if copied.rows else None,
        rows=copied.rows,
        bytes=copied.size,
        sha256=copied.sha256 if copied.rows else None,
        filters={copy.filters[rank]: rows for rank, rows in sorted(copied.filters.items())},
        duplicates=copied.duplicates,
        conflicts=copied.conflicts,
        superseded=copied.superseded,
        rejected=copied.rejected,
        repaired=copied.repaired,
        scores_dropped=copied.scores_dropped,
        missing=missing,
    )


def _missing(copied: Copied, stated: int, expected: int | None) -> list[tuple[int, int]] | int:
    """Ranges of documents that lack a row under some filter.

    Where ids are not all integers: how many rows are short.
    """
    documents = max(copied.filters.values(), default=0)
    number = max(stated - copied.rows, (expected or 0) - documents, 0)
    if copied.gaps is None or not copied.filters:
        return number
    end = expected if expected is not None else max(copied.highest.values(), default=-1) + 1
    ranges: list[tuple[int, int]] = []
    for rank in copied.filters:
        ranges += [(first, min(last, end - 1)) for first, last in copied.gaps.get(rank, []) if first < end]
        if (last := copied.highest.get(rank, -1)) + 1 < end:
            ranges.append((last + 1, end - 1))
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged if merged and len(merged) <= GAPS_MAX else number


def judge(spooled: SpooledRun, chosen: Chosen, copies: Mapping[str, Copied]) -> tuple[RunStatus, list[str]]:
    """Status and reasons, from end counts, rejected rows and named aggregates alone."""
    run = spooled.run
    assert run.samples_cut is not None
    why: list[str] = []
    failed = False
    if run.tainted:
        why.append("tainted: the log no longer holds the beginning of what this run's topic held")
    if run.samples_cut.expired:
        for shard in range(run.num_shards):
            state = run.shards.get(shard)
            if state is None or state.end is None:
                why.append(f"shard {shard}: never ended")
            elif state.end.status == "failed":
                failed = True
                why.append(f"shard {shard}: failed")
        why += _short_counts(spooled)
    for task, copied in sorted(copies.items()):
        if copied.rejected_now:
            why.append(f"task {task}: {copied.rejected_now} samples rejected")
    why += [f"task {task}: its aggregate by shard {shard} never came" for shard, task in chosen.absent]
    return ("failed" if failed else "incomplete" if why else "complete"), why


def _short_counts(spooled: SpooledRun) -> list[str]:
    run = spooled.run
    numbers = {task.name: number for number, task in enumerate(run.tasks)}
    why = []
    for task in sorted({task for _, _, end in counting_ends(run) for task in end.samples}):
        keys = {
            TallyKey(numbers.get(task, -1), shard, attempt): end.samples[task]
            for shard, attempt, end in counting_ends(run)
            if end.samples.get(task)
        }
        counts: Mapping[TallyKey, int] = (
            count_distinct(
                spooled.tasks[numbers[task]].index,
                run.tasks[numbers[task]].index // ENTRY.itemsize,
                keys.keys(),
                scratch=spooled.scratch,
            )
            if task in numbers
            else {}
        )
        why += [
            f"shard {key.shard}: task {task}: {counts.get(key, 0)} of {count} samples"
            for key, count in keys.items()
            if counts.get(key, 0) < count
        ]
    return why
