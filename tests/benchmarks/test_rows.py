"""The load of the benchmarks is what it says: its sizes, its counts, its texts."""

import json
from collections import Counter

import lz4.frame
import pytest

from benchmarks.broker import names_in, partition_of
from benchmarks.rows import Shape, ends, pool_of, samples, shuffled
from consumer.intake.decode import decode
from consumer.vocabulary import DecodedSamples

SHAPE = Shape(rows=1003, batch=20, runs=3, tasks=2)


def rows_of(events):
    """(run_id, task, doc_id) of every row, and every row's bytes."""
    for _, key, value in events:
        event = decode(value, key.encode(), "both")
        if isinstance(event, DecodedSamples):
            assert not event.rejected
            assert not event.repaired
            for sample in event.rows:
                yield (event.run_id, event.task, sample.doc_id), bytes(sample.row)


def test_a_load_holds_as_many_rows_and_events_as_its_shape_says():
    events = list(samples(SHAPE))
    found = Counter(place for place, _ in rows_of(events))
    assert SHAPE.events == len(events)
    assert SHAPE.rows == len(found) == found.total()
    assert SHAPE.rows_of_tasks() == list(Counter((run, task) for run, task, _ in sorted(found)).values())


def test_equal_shapes_give_equal_bytes():
    assert list(samples(SHAPE)) == list(samples(SHAPE))


def test_every_end_event_states_the_rows_of_its_run():
    sent = Counter((run, task) for (run, task, _), _ in rows_of(samples(SHAPE)))
    stated = {
        (event["run_id"], task): count
        for role, _, value in ends(SHAPE)
        if role == "samples"
        for event in [json.loads(value)]
        for task, count in event["samples"].items()
    }
    assert sent == stated


@pytest.mark.parametrize("size", [1000, 8000])
def test_rows_have_the_size_asked_for(size):
    rows = [bytes(pool_of(size).sample(doc_id, 3).row) for doc_id in range(4000)]
    assert 0.97 < sum(map(len, rows)) / len(rows) / size < 1.03
    assert all(json.loads(row)["doc_id"] == doc_id for doc_id, row in enumerate(rows))


@pytest.mark.parametrize("size", [1000, 8000])
@pytest.mark.parametrize("batch", [1, 20])
@pytest.mark.parametrize("runs", [1, 16, 200])
def test_records_compress_as_real_ones_do_however_many_runs_send_the_same_documents(size, batch, runs):
    shape = Shape(rows=8_000_000 // size, row_bytes=size, batch=batch, runs=runs)
    sent = b"".join(one.value for one in samples(shape))
    assert 3 < len(sent) / len(lz4.frame.compress(sent)) < 8


def test_a_shuffled_load_has_its_rows_in_another_order_and_a_share_of_them_twice():
    shape = Shape(rows=1000, batch=20, runs=1, tasks=1)
    found = list(rows_of(shuffled(shape, duplicates=0.05)))
    ids = [doc_id for (_, _, doc_id), _ in found]
    assert 1050 == len(found)
    assert set(range(1000)) == set(ids)
    assert ids != sorted(ids)
    assert 1000 == len(set(found)), "who comes twice comes with equal bytes"


def test_names_of_runs_can_be_had_for_each_partition():
    names = names_in(2, "run")
    assert {2} == {partition_of(next(names)) for _ in range(20)}
