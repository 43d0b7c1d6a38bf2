"""When a run closes: the rules of the cuts, as functions of one `RunState` and one record at a time. No I/O.

Invariants: a cut, once set, never changes; it is decided by its own topic's order alone, so reading the
topics interleaved in any way gives the same cuts. A shard counts for its highest attempt only. Aggregates
never void an end.

Refuses: nothing. What reaches these functions was decoded and accepted; late records must not reach them
(`is_late`).
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from consumer.vocabulary import Record, Role
from schemas.events import Aggregate, RunEnded, RunExpired, RunStarted
from schemas.state import (
    AggregateRecord,
    Cut,
    EarlyExpiry,
    EndRecord,
    RunState,
    ShardState,
    Span,
    StartRecord,
    Tally,
)


class TallyKey(NamedTuple):
    """Rows of one task from one attempt of one shard."""

    task: int
    shard: int
    attempt: int


CountDistinct = Callable[[Mapping[TallyKey, int]], Mapping[TallyKey, int]]
"""Counts distinct samples per key in the run's index; the values are how many each key needs.

Expensive, so called only when the bounds allow success."""


def cut_of(run: RunState, role: Role) -> Cut | None:
    """The cut of `role`, if decided."""
    return run.samples_cut if role == "samples" else run.aggregates_cut


def is_settled(run: RunState) -> bool:
    """True when both cuts are decided: the run can be closed, and nothing read later changes it."""
    return run.samples_cut is not None and run.aggregates_cut is not None


def note_record(run: RunState, record: Record) -> None:
    """Account for one accepted record's place and time. `run_expired` events are no records of the run."""
    topic, offset, timestamp = record.topic, record.offset, record.timestamp
    if topic not in run.first:
        run.first[topic] = offset
    run.last[topic] = offset
    run.seen_ms = max(run.seen_ms, timestamp)


def apply_started(run: RunState, event: RunStarted, record: Record, span: Span) -> None:
    """A `run_started`: its fields count at close-out; here only its numbers do."""
    _enter(run, event.shard, event.attempt, event.num_shards)
    run.starts.append(StartRecord(record.offset, event.shard, event.attempt, span))


def apply_rows(
    run: RunState,
    *,
    shard: int,
    attempt: int,
    num_shards: int,
    task: int,
    count: int,
    new: int | None = None,
) -> None:
    """`count` rows, rejected ones included, of task number `task`.

    Args:
        run: The run.
        shard: Shard number.
        attempt: Its attempt.
        num_shards: As the event states it.
        task: Task number.
        count: Rows of the event.
        new: How many of their samples are new, where that is known.
    """
    state = _enter(run, shard, attempt, num_shards)
    if attempt != state.attempt:
        return
    tally = state.tallies.get(task)
    if tally is None:
        tally = state.tallies[task] = Tally()
    tally.received += count
    if new is not None:
        tally.distinct, tally.checked = tally.distinct + new, tally.received
    if state.short and (name := run.tasks[task].name) in state.short:
        assert state.end is not None
        if _may_reach(tally, state.end.samples[name]):
            state.short.discard(name)
            run.ready += state.may_be_done


def apply_ended(run: RunState, event: RunEnded, record: Record, span: Span) -> None:
    """A `run_ended`: replaces an earlier one of its attempt wholly; of a lower attempt it is void."""
    state = _enter(run, event.shard, event.attempt, event.num_shards)
    if event.attempt != state.attempt:
        return
    run.ready -= state.may_be_done
    state.end = EndRecord(record.offset, event.status, event.samples, event.aggregates, span)
    numbers = {task.name: number for number, task in enumerate(run.tasks)}
    state.short = {
        task
        for task, stated in event.samples.items()
        if not _may_reach(state.tallies.get(numbers.get(task, -1)), stated)
    }
    run.ready += state.may_be_done


def apply_aggregate(run: RunState, event: Aggregate, record: Record, span: Span) -> None:
    """An `aggregate`: kept with its place; whether it counts is decided with the cut."""
    run.aggregates.append(AggregateRecord(record.offset, event.shard, event.attempt, event.task, span))


def apply_expired(run: RunState, event: RunExpired, record: Record, roles: Collection[Role]) -> bool:
    """A `run_expired` in the topic that carries `roles`.

    Returns:
        True if it took effect: it did not come too late for that topic, and `last` is still the run's last
        record.
    """
    if event.last != run.last.get(record.topic, -1):
        return False
    cut = Cut(record.offset, record.timestamp, expired=True)
    effective = False
    if "samples" in roles and run.samples_cut is None:
        run.samples_cut, effective = cut, True
    if "aggregates" in roles and run.aggregates_cut is None and run.aggregates_expired is None:
        run.aggregates_expired, effective = cut, True
    if effective:
        # No record of the run, but who takes over before the receipt has to find it again.
        run.first.setdefault(record.topic, record.offset)
    return effective


def expire_early(run: RunState, early: EarlyExpiry) -> None:
    """A `run_expired` that was read before anything of `run`, which is new."""
    if early.role == "samples":
        run.samples_cut = early.cut
    else:
        run.aggregates_expired = early.cut
    run.first[early.topic] = early.cut.offset


def may_settle(run: RunState) -> bool:
    """A cut may be decided by what was just applied: `settle` has something to look at."""
    return run.ready == run.num_shards or run.samples_cut is not None


def settle(run: RunState, record: Record, count_distinct: CountDistinct) -> None:
    """Decide what `record`, just applied, decides.

    The samples cut, if every shard is now done; the aggregates cut, if every aggregate that a counting end
    names is there.
    """
    if run.samples_cut is None and run.ready == run.num_shards and _all_done(run, count_distinct):
        run.samples_cut = Cut(record.offset, record.timestamp)
    if run.samples_cut is not None and run.aggregates_cut is None:
        run.aggregates_cut = _aggregates_cut(run)


def counting_ends(run: RunState) -> Iterator[tuple[int, int, EndRecord]]:
    """(shard, attempt, end) of every shard with a last word: after the cut, the counting ends."""
    for shard in sorted(run.shards):
        state = run.shards[shard]
        if state.end is not None:
            yield shard, state.attempt, state.end


def named_aggregates(run: RunState) -> dict[tuple[int, int, str], None]:
    """(shard, attempt, task) of every aggregate that a counting end names, in order of shard and naming."""
    return {
        (shard, attempt, task): None for shard, attempt, end in counting_ends(run) for task in end.aggregates
    }


def _enter(run: RunState, shard: int, attempt: int, num_shards: int) -> ShardState:
    run.num_shards = max(run.num_shards, num_shards)
    state = run.shards.get(shard)
    if state is None:
        state = run.shards[shard] = ShardState(attempt=attempt)
    elif attempt > state.attempt:
        # The higher attempt voids the lower one's end; nor will its rows ever be counted again.
        run.ready -= state.may_be_done
        state.attempt, state.end, state.tallies, state.short = attempt, None, {}, set()
    return state


def _may_reach(tally: Tally | None, stated: int) -> bool:
    """As many distinct samples as `stated` may have come."""
    if tally is None:
        return stated == 0
    return tally.distinct + tally.received - tally.checked >= stated


def _all_done(run: RunState, count_distinct: CountDistinct) -> bool:
    """Every shard is done; asked only when all of them may be. Those that turn out short are marked so."""
    numbers = {task.name: number for number, task in enumerate(run.tasks)}
    uncertain: dict[TallyKey, int] = {}
    for shard, state in run.shards.items():
        assert state.end is not None
        for task, stated in state.end.samples.items():
            if stated and state.tallies[numbers[task]].distinct < stated:
                uncertain[TallyKey(numbers[task], shard, state.attempt)] = stated
    counts = count_distinct(uncertain) if uncertain else {}
    for key, stated in uncertain.items():
        state = run.shards[key.shard]
        tally = state.tallies[key.task]
        tally.checked, tally.distinct = tally.received, counts[key]
        if tally.distinct < stated:
            run.ready -= state.may_be_done
            state.short.add(run.tasks[key.task].name)
    return run.ready == run.num_shards


def _aggregates_cut(run: RunState) -> Cut | None:
    wanted = set(named_aggregates(run))
    cut = None if wanted else Cut(-1)
    for aggregate in run.aggregates:
        if not wanted:
            break
        wanted.discard((aggregate.shard, aggregate.attempt, aggregate.task))
        if not wanted:
            cut = Cut(aggregate.offset)
    expired = run.aggregates_expired
    if expired is not None and (cut is None or expired.offset < cut.offset):
        return expired
    return cut
