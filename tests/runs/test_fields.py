"""What a run says of itself, key by key: the lowest shard, then the highest attempt, then the highest offset."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.runs.fields import collect, loads
from schemas.events import RunEnded, RunStarted
from schemas.state import Cut, EndRecord, RunState, ShardState, Span, StartRecord

OPENED_MS = 1_767_225_600_123


def fields_of(starts=(), ends=(), *, opened_ms=OPENED_MS):
    """Fields of a run with these (shard, attempt, offset, fields) starts and (shard, report) ends."""
    events = {}
    run = RunState("r", "f", opened_ms=opened_ms, samples_cut=Cut(99, OPENED_MS + 1000))
    for shard, attempt, offset, said in starts:
        span = Span(len(events), 0)
        config = {"config": raw(said["config"])} if "config" in said else {}
        events[span] = RunStarted("r", shard=shard, attempt=attempt, **{**said, **config})
        run.starts.append(StartRecord(offset, shard, attempt, span))
    for shard, report in ends:
        span = Span(len(events), 0)
        events[span] = RunEnded("r", shard=shard, **({} if report is None else {"report": raw(report)}))
        run.shards[shard] = ShardState(end=EndRecord(50 + shard, "ok", {}, [], span))
    return collect(run, lambda span: span, events.__getitem__)


def raw(value):
    return json.dumps(value).encode()


def test_nobody_said_anything():
    fields = fields_of()
    assert ("lmms-eval", "unknown", "", "20260101_000000", {}, None, {}) == (
        fields.harness,
        fields.model_name,
        fields.model_source,
        fields.date,
        fields.tasks,
        fields.config,
        fields.report,
    )


KEYS = {
    "harness": st.sampled_from(["lmms-eval", "lm-eval"]),
    "model_name": st.sampled_from(["", "a", "b"]),
    "model_source": st.sampled_from(["", "hf", "vllm"]),
    "date": st.sampled_from(["", "d1", "d2"]),
    "config": st.sampled_from([{}, {"x": 1}, {"y": None}]),
}
some_fields = st.fixed_dictionaries({}, optional=KEYS)


@given(
    starts=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 40), some_fields),
        unique_by=lambda start: start[2],
        max_size=6,
    ),
    ends=st.lists(
        st.tuples(st.integers(0, 3), some_fields | st.none()), unique_by=lambda end: end[0], max_size=3
    ),
)
def test_each_key_is_the_first_value_that_is_not_empty(starts, ends):
    fields = fields_of(starts, ends)
    places = [said for *_, said in sorted(starts, key=lambda start: (start[0], -start[1], -start[2]))]
    places += [said or {} for _, said in sorted(ends, key=lambda end: end[0])]
    for key, otherwise in {
        "harness": "lmms-eval",
        "model_name": "" if any("model_name" in said for said in places) else "unknown",
        "model_source": "",
        "config": None,
    }.items():
        found = [said[key] for said in places if said.get(key) not in (None, "", {})]
        assert (found[0] if found else otherwise) == getattr(fields, key), key
    found = [said["date"] for said in places if said.get("date")]
    stamp = {"lmms-eval": "20260101_000000", "lm-eval": "2026-01-01T00-00-00.123000"}[fields.harness]
    assert (found[0] if found else stamp) == fields.date


def test_a_report_is_merged_key_by_key_over_the_shards():
    ends = [
        (2, {"git_hash": "c", "usage": {"n": 2}, "only": [3]}),
        (0, {"git_hash": "", "usage": {"n": 0}, "zero": 0, "no": False}),
        (1, {"git_hash": "b", "zero": 1, "no": True}),
    ]
    wanted = {"git_hash": "b", "usage": {"n": 0}, "zero": 0, "no": False, "only": [3]}
    assert wanted == fields_of(ends=ends).report


def test_expected_documents_are_told_task_by_task():
    starts = [
        (1, 0, 1, {"tasks": {"a": 9, "b": 2}}),
        (0, 0, 5, {"tasks": {"a": 1}}),
        (0, 1, 3, {"tasks": {"c": 3}}),
    ]
    assert {"a": 1, "b": 2, "c": 3} == fields_of(starts).tasks


@pytest.mark.parametrize("said", [None, 5, ["m"], {"name": "m"}, True])
def test_a_report_whose_model_is_no_text_says_nothing(said):
    assert (
        "unknown"
        == fields_of(ends=[(0, {"model_name": said, "date": said, "model_source": said})]).model_name
    )


def test_an_empty_model_name_that_was_sent_is_one():
    assert "" == fields_of([(0, 0, 1, {"model_name": ""})]).model_name
    assert "" == fields_of(ends=[(0, {"model_name": ""})]).model_name
    assert "m" == fields_of([(0, 0, 1, {"model_name": ""})], [(0, {"model_name": "m"})]).model_name


@pytest.mark.parametrize("harness", ["inspect", 7, ["lm-eval"], None, {}])
def test_an_unknown_harness_in_a_report_is_lmms_eval_with_its_date(harness):
    fields = fields_of(ends=[(0, {"harness": harness})])
    assert ("lmms-eval", "20260101_000000") == (fields.harness, fields.date)


def test_a_run_without_a_record_in_the_samples_topic_has_the_time_of_its_cut():
    assert "20260101_000001" == fields_of(opened_ms=-1).date


@pytest.mark.parametrize("text", ["1e999", "-1e999", "[1e400]"])
def test_a_number_beyond_a_float_becomes_null(text):
    assert loads(text.encode()) in (None, [None])


def test_integers_and_floats_stay_what_they_are():
    assert {"i": 2**70, "f": 0.1, "n": None} == loads(b'{"i":1180591620717411303424,"f":0.1,"n":null}')
