"""What an open run waits for, from its state alone."""

from consumer.runs.progress import TaskProgress, progress
from schemas.state import AggregateRecord, Cut, EndRecord, RunState, ShardState, Span, Tally, TaskState

HERE = Span(0, 0)


def end(samples, status="ok", aggregates=()):
    return EndRecord(0, status, samples, list(aggregates), HERE)


def run(shards, *, num_shards=None, tasks=("mme",), **more):
    return RunState(
        "r",
        "folder",
        num_shards=num_shards or len(shards),
        shards=dict(enumerate(shards)) if isinstance(shards, list) else shards,
        tasks=[TaskState(name, filters=["none"]) for name in tasks],
        **more,
    )


def test_shards_without_an_end_are_named_in_ranges():
    state = run({1: ShardState(end=end({})), 4: ShardState()}, num_shards=8)
    assert ["shards 0, 2-7: not ended"] == progress(state, {}).missing
    assert (8, 1) == (progress(state, {}).shards, progress(state, {}).ended)


def test_a_single_shard_without_an_end_is_named_alone():
    assert ["shard 1: not ended"] == progress(run([ShardState(end=end({})), ShardState()]), {}).missing


def test_a_failed_shard_has_not_ended_well_and_waits_for_a_new_attempt():
    found = progress(run([ShardState(end=end({}, "failed"))]), {})
    assert (0, ["shard 0: failed, a new attempt may come"]) == (found.ended, found.missing)


def test_an_end_that_states_more_rows_than_came_is_named():
    state = run([ShardState(end=end({"mme": 5, "gsm": 1}), tallies={0: Tally(received=3)})])
    assert ["shard 0: task mme: 3 of 5 rows", "shard 0: task gsm: 0 of 1 rows"] == progress(state, {}).missing


def test_rows_known_to_have_come_twice_do_not_fill_a_gap():
    state = run([ShardState(end=end({"mme": 5}), tallies={0: Tally(received=6, checked=5, distinct=3)})])
    assert ["shard 0: task mme: 4 of 5 rows"] == progress(state, {}).missing


def test_an_aggregate_that_an_end_names_is_missing_until_this_attempt_sent_it():
    shards = [ShardState(attempt=1, end=end({}, aggregates=["mme", "gsm"]))]
    there = [AggregateRecord(0, 0, 1, "gsm", HERE), AggregateRecord(1, 0, 0, "mme", HERE)]
    state = run(shards, aggregates=there, samples_cut=Cut(3))
    assert ["shard 0: the aggregate of task mme"] == progress(state, {}).missing


def test_a_settled_run_misses_nothing_even_if_it_was_given_up():
    state = run({}, num_shards=3, samples_cut=Cut(5, expired=True), aggregates_cut=Cut(-1))
    assert [] == progress(state, {}).missing


def test_announced_documents_are_expected_once_per_filter_until_all_shards_have_ended():
    state = run(
        [ShardState(end=end({"mme": 2}), tallies={0: Tally(received=2)}), ShardState(tallies={0: Tally(9)})]
    )
    state.tasks[0].filters = ["none", "strict"]
    found = progress(state, {"mme": 10, "gsm": 4})
    assert {"mme": TaskProgress(11, 20), "gsm": TaskProgress(0, 4)} == found.tasks
    assert (11, 24) == (found.rows, found.expected)


def test_once_all_shards_have_ended_their_counts_are_expected():
    shards = [ShardState(end=end({"mme": count}), tallies={0: Tally(received=4)}) for count in (3, 5)]
    assert {"mme": TaskProgress(3 + 4, 8)} == progress(run(shards), {"mme": 100}).tasks


def test_without_announcement_and_ends_nothing_is_expected():
    found = progress(run([ShardState(tallies={0: Tally(received=4)})]), {})
    assert (4, None) == (found.rows, found.expected)
