import json

import pytest

from consumer.errors import EvalsinkError, UsageError
from consumer.publish.outputs import find_outputs
from consumer.publish.publication import prepare
from schemas.events import Aggregate, RunEnded, RunStarted
from tests.publish.evaluations import (
    STAMP,
    events,
    lines,
    of_type,
    publication,
    report,
    results,
    sent_rows,
    write_lmms,
)

PARTS = {
    "configs": "config",
    "versions": "version",
    "n-shot": "n_shot",
    "higher_is_better": "higher_is_better",
    "n-samples": "n_samples",
    "groups": "group",
}


def decoded(raw):
    return json.loads(bytes(raw))


def reassembled(all_events):
    """The results JSON as a reader of the events would put it together again."""
    [start] = of_type(RunStarted, all_events)
    aggregates = {event.task: event for event in of_type(Aggregate, all_events)}
    [end] = [event for event in of_type(RunEnded, all_events) if event.shard == 0]
    document = {"results": {task: decoded(aggregates[task].results) for task in end.aggregates}}
    for key, field in PARTS.items():
        values = {task: getattr(event, field) for task, event in aggregates.items()}
        if carried := {
            task: decoded(value) for task, value in values.items() if value.__class__.__name__ == "Raw"
        }:
            document[key] = carried
    for key, value in decoded(end.report).items():
        document[key] = document[key] | value if key in document else value
    if start.model_name.__class__ is str:
        document["model_name"] = start.model_name
    if start.model_source:
        document["model_source"] = start.model_source
    if start.config.__class__.__name__ == "Raw":
        document["config"] = decoded(start.config)
    return document


def strict(path):
    document = json.loads(path.read_text("utf-8"), parse_constant=lambda _: None)
    for key in ("task_hashes", "model_name_sanitized"):
        document.pop(key, None)
    return document


def test_real_results_come_together_again_from_their_events(realdata):
    outputs = find_outputs(realdata).outputs
    assert 10 == len(outputs)
    for output in outputs:
        assert strict(output.results) == reassembled(events(prepare(output, shards=4)))


def test_real_rows_are_sent_verbatim(realdata):
    for output in find_outputs(realdata).outputs:
        sent = sent_rows(events(prepare(output, shards=4)))
        for task, path in output.samples.items():
            original = path.read_bytes().split(b"\n")[:-1]
            assert sorted(original) == sorted(row for name, _, _, row, _ in sent if name == task)


def test_the_order_of_results_stays(realdata):
    for output in find_outputs(realdata).outputs:
        [end] = of_type(RunEnded, events(prepare(output)))
        assert list(strict(output.results)["results"]) == end.aggregates


def test_what_no_task_takes_travels_in_the_report(tmp_path):
    document = results(
        configs={"mme": {"a": 1}, "ghost": {"b": 2}, "bad": 3},
        versions={"mme": None, "ghost": 1},
        groups={},
        **{"n-shot": None, "n-samples": [], "config": "text", "model_source": 5, "model_name": None},
    )
    all_events = events(publication(write_lmms(tmp_path, document, {})))
    assert document == reassembled(all_events)
    assert {"ghost": {"b": 2}, "bad": 3} == report(all_events)["configs"]


def test_a_group_that_only_groups_lists_is_an_aggregate(tmp_path):
    document = results(groups={"suite": {"alias": "suite", "acc,none": 0.5}})
    all_events = events(publication(write_lmms(tmp_path, document, {})))
    assert ["mme", "suite"] == [event.task for event in of_type(Aggregate, all_events)]
    assert document["groups"] == reassembled(all_events)["groups"]


def test_non_numbers_in_results_become_null_and_are_counted(tmp_path):
    document = results(results={"mme": {"acc,none": float("nan"), "text": "NaN"}}, usage={"x": float("inf")})
    prepared = publication(write_lmms(tmp_path, document, {}))
    assert {"acc,none": None, "text": "NaN"} == reassembled(events(prepared))["results"]["mme"]
    assert "2 value(s) in the results JSON" in prepared.notices()[0]


def test_numbers_keep_their_digits(tmp_path):
    path = write_lmms(tmp_path, results(), {})
    path.write_text('{"results": {"t": {"a,none": 0.10, "b": 123456789012345678901234567890, "c": 1e999}}}')
    [aggregate] = of_type(Aggregate, events(publication(path)))
    assert b'{"a,none":0.10,"b":123456789012345678901234567890,"c":1e999}' == bytes(aggregate.results)


@pytest.mark.parametrize("odd", [None, [], {"t": None}, {"t": {}, "u": "x"}])
def test_results_must_hold_objects(tmp_path, odd):
    path = write_lmms(tmp_path, results(results=odd), {})
    with pytest.raises(EvalsinkError, match="must hold an object for each task"):
        publication(path)


def test_the_start_announces_what_comes(tmp_path):
    path = write_lmms(tmp_path, results(config={"model": "hf"}), {"mme": [*lines(3), *lines(3)]})
    [start] = of_type(RunStarted, events(publication(path, shards=2)))
    assert ("lmms-eval", "org/m", STAMP, {"mme": 3}, 2) == (
        start.harness,
        start.model_name,
        start.date,
        start.tasks,
        start.num_shards,
    )


def test_each_shard_ends_and_shard_0_speaks_for_the_run(tmp_path):
    path = write_lmms(tmp_path, results(), {"mme": lines(5)})
    ends = of_type(RunEnded, events(publication(path, shards=4)))
    assert {0: {"mme": 2}, 1: {"mme": 1}, 2: {"mme": 1}, 3: {"mme": 1}} == {
        end.shard: end.samples for end in ends
    }
    assert {0: ["mme"], 1: [], 2: [], 3: []} == {end.shard: end.aggregates for end in ends}


def test_shards_without_documents_end_too(tmp_path):
    ends = of_type(
        RunEnded, events(publication(write_lmms(tmp_path, results(), {"mme": lines(1)}), shards=3))
    )
    assert {0: {"mme": 1}, 1: {}, 2: {}} == {end.shard: end.samples for end in ends}


def test_the_run_id_comes_of_the_content_alone(tmp_path):
    first = publication(write_lmms(tmp_path / "a", results(), {"mme": lines(3)}))
    moved = publication(write_lmms(tmp_path / "b" / "c", results(), {"mme": lines(3)}), shards=4, seed=3)
    other = publication(write_lmms(tmp_path / "d", results(), {"mme": lines(4)}))
    assert first.run_id == moved.run_id
    assert first.run_id != other.run_id
    assert first.run_id.startswith(f"lmms-eval-{STAMP}-")


def test_an_empty_run_id_is_refused(tmp_path):
    with pytest.raises(UsageError, match="--run-id"):
        publication(write_lmms(tmp_path, results(), {}), run_id="")


def test_shuffled_and_doubled_rows_are_all_there(tmp_path):
    path = write_lmms(tmp_path, results(), {"mme": lines(50), "pope": lines(30)})
    plain = sent_rows(events(publication(path, shards=4)))
    mixed = sent_rows(events(publication(path, shards=4, seed=7, duplicate=0.05, batch_size=3)))
    assert set(plain) == set(mixed)
    assert len(plain) + 4 == len(mixed)
    assert plain != mixed
