"""When a run closes, in worked examples: each is a log, read topic by topic in both orders and record by record."""

import random

import pytest

from consumer.runs.lifecycle import cut_of
from tests.runs.logs import APART, Reader, assemble, interleave, read
from tests.runs.oracle import Sent


def rows(*doc_ids, shard=0, attempt=0, task="t", of=1, filter_name="none"):
    elements = [{"doc_id": doc_id, "row": {"doc_id": doc_id}} for doc_id in doc_ids]
    return sent(
        "samples",
        task=task,
        filter=filter_name,
        samples=elements,
        shard=shard,
        attempt=attempt,
        num_shards=of,
    )


def sent(kind, **fields):
    return {"type": kind, **fields}


def ended(counts=(), *, shard=0, attempt=0, of=1, status="ok", aggregates=()):
    return sent(
        "run_ended",
        status=status,
        samples=dict(counts),
        aggregates=list(aggregates),
        shard=shard,
        attempt=attempt,
        num_shards=of,
    )


def aggregate(task="t", *, shard=0, attempt=0, value=1):
    return sent("aggregate", task=task, results={"acc,none": value}, shard=shard, attempt=attempt)


def expired(role, last):
    return sent("run_expired", role=role, last=last)


def log_of(*events):
    """Records with offsets from 0 in each topic."""
    log, ends = [], {"samples": 0, "aggregates": 0}
    for event in events:
        topic = event.pop("role", "aggregates" if event["type"] == "aggregate" else "samples")
        log.append(Sent(topic, ends[topic], 1000 + len(log), {"run_id": "r", **event}))
        ends[topic] += 1
    return log


def cuts(tmp_path, *events):
    """(offset, expired) of both cuts; the same whichever topic is read first."""
    log = log_of(*events)
    found = set()
    for number, first in enumerate(("samples", "aggregates", None)):
        order = sorted(log, key=lambda one: one.topic != first) if first else log
        home = tmp_path / str(number)
        home.mkdir()
        outcome = read(order, home)
        found.add(tuple(cut and (cut.offset, cut.expired) for cut in outcome.runs["r"]))
    (only,) = found
    return only


DONE = ended({"t": 2})


@pytest.mark.parametrize(
    ("events", "offset"),
    [
        pytest.param([rows(0, 1), ended({"t": 2})], 1, id="rows, then the end"),
        pytest.param([ended({"t": 2}), rows(0), rows(1)], 2, id="the end before its rows"),
        pytest.param([ended({"t": 2}), rows(0), rows(0), rows(0, 1)], 3, id="a row sent again is one"),
        pytest.param([rows(0, "0"), ended({"t": 2})], 1, id="0 and '0' differ"),
        pytest.param([rows(0), rows(0, filter_name="b"), ended({"t": 2})], 2, id="filters differ"),
        pytest.param([rows(0, 1, 2), ended({"t": 2})], 1, id="more rows than stated"),
        pytest.param([ended()], 0, id="an end alone"),
        pytest.param([ended({"t": 0})], 0, id="nothing stated"),
        pytest.param([rows(0), ended({"t": 2})], None, id="short"),
        pytest.param([rows(0, 1), ended({"t": 2, "u": 1})], None, id="another task short"),
        pytest.param([rows(0, 1), ended({"t": 2}, status="failed")], None, id="failed is not done"),
        pytest.param(
            [rows(0, 1), ended({"t": 2}, status="failed"), ended({"t": 2})], 2, id="failed, then ok after all"
        ),
        pytest.param([ended({"t": 2}), ended({"t": 1}), rows(0)], 2, id="a later end replaces wholly"),
        pytest.param(
            [rows(0), ended({"t": 2}), ended({"t": 3}), rows(1)], None, id="replaced by a larger one"
        ),
        pytest.param(
            [ended({"t": 1}), rows(0, attempt=1), rows(0)],
            None,
            id="a higher attempt voids the end of a lower",
        ),
        pytest.param(
            [rows(0, attempt=1), ended({"t": 1}), ended({"t": 1}, attempt=1)], 2, id="a lower end is void"
        ),
        pytest.param(
            [rows(0, 1), ended({"t": 3}), rows(2, attempt=1), ended({"t": 3}, attempt=1)],
            None,
            id="rows of a lower attempt do not count",
        ),
        pytest.param(
            [sent("run_started", attempt=3, num_shards=1), rows(0), ended({"t": 1})],
            None,
            id="a start alone makes an attempt",
        ),
        pytest.param(
            [rows(0, of=2), ended({"t": 1}, of=2), ended(shard=1, of=2)], 2, id="both shards have to end"
        ),
        pytest.param(
            [rows(0, of=2), ended({"t": 1}, of=1), ended(shard=1, of=2)],
            2,
            id="the largest num_shards counts",
        ),
        pytest.param(
            [rows(0), ended({"t": 1}), rows(0, shard=1, of=2)],
            1,
            id="more shards above the cut come too late",
        ),
    ],
)
def test_the_samples_cut_is_the_lowest_offset_at_which_every_shard_is_done(tmp_path, events, offset):
    found, _ = cuts(tmp_path, *map(dict, events))
    assert (None if offset is None else (offset, False)) == found


@pytest.mark.parametrize(
    "element",
    [{"doc_id": 1}, {"doc_id": 1, "row": "no object"}, {"row": {}}, 7, None],
)
def test_a_rejected_row_counts_as_a_sample_once(tmp_path, element):
    batch = sent("samples", task="t", samples=[element, element], shard=0, attempt=0)
    assert ((1, False), (-1, False)) == cuts(tmp_path, batch, ended({"t": 1}))


def test_a_rejected_row_and_a_good_one_of_the_same_document_are_one_sample(tmp_path):
    batch = sent("samples", task="t", samples=[{"doc_id": 1}], shard=0, attempt=0)
    assert (None, None) == cuts(tmp_path, batch, rows(1), ended({"t": 2}))


@pytest.mark.parametrize(
    ("events", "cut"),
    [
        pytest.param([ended()], (-1, False), id="nobody names one"),
        pytest.param([aggregate(), ended()], (-1, False), id="one that nobody names"),
        pytest.param([aggregate(), ended(aggregates=["t"])], (0, False), id="the one that is named"),
        pytest.param(
            [aggregate(), aggregate(), ended(aggregates=["t"])], (0, False), id="the first is enough"
        ),
        pytest.param(
            [aggregate("u"), aggregate(attempt=1), aggregate(shard=1), aggregate(), ended(aggregates=["t"])],
            (3, False),
            id="another task, attempt, shard is not it",
        ),
        pytest.param([aggregate(), ended(aggregates=["t", "u"])], None, id="the second is missing"),
        pytest.param(
            [
                aggregate(shard=1),
                aggregate(),
                ended(of=2, aggregates=["t"]),
                ended(shard=1, of=2, aggregates=["t"]),
            ],
            (1, False),
            id="two shards name it: both have to come",
        ),
        pytest.param(
            [aggregate(), ended({"t": 1}, aggregates=["t"]), ended(attempt=1)],
            (-1, False),
            id="a voided end names nothing",
        ),
    ],
)
def test_the_aggregates_cut_is_the_lowest_offset_at_which_all_that_are_named_are_there(tmp_path, events, cut):
    _, found = cuts(tmp_path, *map(dict, events))
    assert cut == found


@pytest.mark.parametrize(
    ("events", "found"),
    [
        pytest.param([rows(0), expired("samples", 0)], ((1, True), (-1, False)), id="in time"),
        pytest.param([rows(0), rows(1), expired("samples", 0)], (None, None), id="a record came before it"),
        pytest.param([rows(0), expired("samples", 5)], (None, None), id="a record that never came"),
        pytest.param([rows(0), expired("samples", -1)], (None, None), id="it never was without records"),
        pytest.param(
            [rows(0), expired("samples", 1), expired("samples", 0)],
            ((2, True), (-1, False)),
            id="events of its kind are no records",
        ),
        pytest.param([ended(), expired("samples", 0)], ((0, False), (-1, False)), id="after the run is done"),
        pytest.param(
            [ended(aggregates=["t"]), expired("aggregates", -1)],
            ((0, False), (0, True)),
            id="the aggregate never came",
        ),
        pytest.param(
            [aggregate("u"), ended(aggregates=["t"]), expired("aggregates", 0), aggregate()],
            ((0, False), (1, True)),
            id="the aggregate came too late",
        ),
        pytest.param(
            [aggregate(), ended(aggregates=["t"]), expired("aggregates", 0)],
            ((0, False), (0, False)),
            id="the aggregate had come",
        ),
        pytest.param(
            [rows(0), ended({"t": 2}, aggregates=["t"]), aggregate(), expired("samples", 1)],
            ((2, True), (0, False)),
            id="in an expired run the last words count",
        ),
    ],
)
def test_a_run_expires_at_the_offset_of_the_decision_if_nothing_came_before_it(tmp_path, events, found):
    log = log_of(*map(dict, events))
    for seed in range(24):
        home = tmp_path / str(seed)
        home.mkdir()
        outcome = read(interleave(log, APART, random.Random(seed)), home)
        assert found == tuple(cut and (cut.offset, cut.expired) for cut in outcome.runs["r"])


def test_what_expires_a_run_keeps_the_watermark_below_itself(tmp_path):
    reader = Reader(tmp_path)
    for one in log_of(ended(aggregates=["t"]), expired("aggregates", -1)):
        reader.take(one)
    run = reader.book.find(0, "r")
    # A worker that takes over before the receipt must find the decision again.
    assert {"samples": 0, "aggregates": 0} == run.first


def test_a_run_expired_without_effect_pins_nothing(tmp_path):
    reader = Reader(tmp_path)
    for one in log_of(ended(aggregates=["t"]), expired("aggregates", 3)):
        assert reader.take(one) in {"applied", "surplus"}
    assert {"samples": 0} == reader.book.find(0, "r").first


def test_a_run_expires_at_the_same_offset_whichever_topic_is_read_first(tmp_path):
    assert ((0, False), (0, True)) == cuts(
        tmp_path, ended(aggregates=["t"]), expired("aggregates", -1), aggregate()
    )


def test_cuts_once_decided_never_change(tmp_path):
    reader = Reader(tmp_path)
    log = log_of(
        rows(0), ended({"t": 1}), rows(1), ended({"t": 2}), rows(2, attempt=1), expired("samples", 1)
    )
    outcomes = [reader.take(one) for one in log]
    assert ["applied", "applied", "late", "late", "late", "surplus"] == outcomes
    assert 1 == cut_of(reader.book.find(0, "r"), "samples").offset


def test_the_identities_are_sorted_only_when_the_counts_allow_success(tmp_path, monkeypatch):
    reader = Reader(tmp_path)
    looked = []
    real = reader.book.spool.count_distinct
    monkeypatch.setattr(
        reader.book.spool,
        "count_distinct",
        lambda partition, run, keys: looked.append(offset) or real(partition, run, keys),
    )
    log = log_of(ended({"t": 5}), rows(0, 0, 0), rows(1), rows(2), rows(2), rows(2), rows(3), rows(4))
    for one in log:
        offset = one.offset
        reader.take(one)
    # Five rows have come at 3, two of them again: another look can succeed only after two more.
    assert 3 == looked[0]
    assert set(looked) <= {3, 5, 7}
    assert 7 == cut_of(reader.book.find(0, "r"), "samples").offset


def test_a_filter_is_noted_once_however_many_rows_it_has(tmp_path):
    reader = Reader(tmp_path)
    for one in log_of(rows(0), rows(1), rows(2, filter_name="b"), rows(3)):
        reader.take(one)
    assert ["none", "b"] == reader.book.find(0, "r").tasks[0].filters


def test_assembled_logs_leave_out_what_no_worker_can_have_written():
    log = assemble(
        [("r", expired("samples", "right")), ("r", rows(0)), ("r", expired("samples", "right"))], APART
    )
    assert ["samples", "run_expired"] == [one.event["type"] for one in log]
