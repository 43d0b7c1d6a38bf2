from collections import Counter, defaultdict

from hypothesis import given
from hypothesis import strategies as st

from consumer.publish.arrangement import (
    MAX_BATCH_BYTES,
    AggregateStep,
    Arrangement,
    Batch,
    Columns,
    EndStep,
    arrange,
)


@st.composite
def cases(draw):
    shards = draw(st.integers(1, 5))
    rows = draw(
        st.lists(
            st.tuples(st.integers(0, shards - 1), st.integers(0, 3), st.integers(2, MAX_BATCH_BYTES)),
            max_size=60,
        )
    )
    columns = Columns(*map(list, zip(*rows, strict=True))) if rows else Columns([], [], [])
    arrangement = Arrangement(
        batch_size=draw(st.integers(1, 6)),
        seed=draw(st.none() | st.integers()),
        duplicate=draw(st.sampled_from([0.0, 0.05, 0.5, 1.0])),
    )
    return columns, {"shards": shards, "aggregates": draw(st.integers(0, 4)), "arrangement": arrangement}


@given(cases())
def test_each_shard_ends_once_and_after_all_it_sends(case):
    columns, options = case
    ended = []
    for step in arrange(columns, **options):
        if isinstance(step, EndStep):
            ended.append(step.shard)
        elif isinstance(step, Batch):
            assert step.shard not in ended
        else:
            assert 0 not in ended
    assert list(range(options["shards"])) == sorted(ended)


@given(cases())
def test_every_row_is_sent_and_the_fraction_twice(case):
    columns, options = case
    times = Counter(
        row for step in arrange(columns, **options) if isinstance(step, Batch) for row in step.rows
    )
    total, fraction = len(columns.shard), options["arrangement"].duplicate
    assert list(range(total)) == sorted(times)
    twice = max(1, round(total * fraction)) if total and fraction else 0
    assert {1: total - twice, 2: twice} == {1: 0, 2: 0} | Counter(times.values())


@given(cases())
def test_the_rows_of_a_batch_share_shard_and_stream_and_fit(case):
    columns, options = case
    for step in arrange(columns, **options):
        if isinstance(step, Batch):
            assert {(step.shard, step.stream)} == {
                (columns.shard[row], columns.stream[row]) for row in step.rows
            }
            assert 1 <= len(step.rows) <= options["arrangement"].batch_size
            assert len(step.rows) == 1 or sum(columns.length[row] for row in step.rows) <= MAX_BATCH_BYTES


@given(cases())
def test_every_aggregate_is_sent_once(case):
    columns, options = case
    numbers = [step.number for step in arrange(columns, **options) if isinstance(step, AggregateStep)]
    assert list(range(options["aggregates"])) == sorted(numbers)


@given(cases())
def test_equal_arguments_give_equal_orders(case):
    columns, options = case
    assert list(arrange(columns, **options)) == list(arrange(columns, **options))


def test_unshuffled_rows_keep_their_order_within_a_stream():
    columns = Columns(shard=[0, 1] * 20, stream=[0] * 20 + [1] * 20, length=[10] * 40)
    order = defaultdict(list)
    for step in arrange(columns, shards=2, aggregates=0, arrangement=Arrangement(batch_size=3)):
        if isinstance(step, Batch):
            order[step.shard, step.stream] += step.rows
    assert all(rows == sorted(rows) for rows in order.values())


def test_another_seed_gives_another_order():
    columns = Columns(shard=[0] * 50, stream=[0] * 50, length=[10] * 50)
    first, second = (
        list(arrange(columns, shards=1, aggregates=0, arrangement=Arrangement(seed=seed))) for seed in (1, 2)
    )
    assert first != second


def test_shuffling_interleaves_shards_and_tasks():
    columns = Columns(
        shard=[i % 4 for i in range(400)], stream=[i // 200 for i in range(400)], length=[10] * 400
    )
    steps = list(arrange(columns, shards=4, aggregates=0, arrangement=Arrangement(batch_size=5, seed=7)))
    first_half = [step for step in steps[: len(steps) // 2] if isinstance(step, Batch)]
    assert {(shard, stream) for shard in range(4) for stream in range(2)} == {
        (step.shard, step.stream) for step in first_half
    }
