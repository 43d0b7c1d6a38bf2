"""The results JSON: keys in the harness's order, strict JSON, and no word about parts that nobody sent."""

import json
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.runs.fields import RunFields
from consumer.runs.redaction import REDACTED
from consumer.runs.results_json import Times, assemble, dump, filter_order
from schemas.events import Aggregate
from schemas.results import KEY_ORDER, Evalsink

OWN = Evalsink(run_id="r", status="complete", why=[], shards=1, tasks={})

LMMS_KEYS = [
    "results",
    "groups",
    "group_subtasks",
    "configs",
    "versions",
    "n-shot",
    "higher_is_better",
    "n-samples",
    "config",
    "git_hash",
    "git_branch",
    "lmms_eval_version",
    "date",
    "throughput",
    "usage",
    "efficiency",
    "task_hashes",
    "model_source",
    "model_name",
    "model_name_sanitized",
    "system_instruction",
    "system_instruction_sha",
    "fewshot_as_multiturn",
    "chat_template",
    "chat_template_sha",
    "start_time",
    "end_time",
    "total_evaluation_time_seconds",
]
"""As lmms-eval writes them."""


def raw(value):
    return msgspec.Raw(json.dumps(value).encode())


def fields(report=None, harness="lmms-eval", **others):
    return RunFields(
        **{
            "harness": harness,
            "model_name": "org/m",
            "model_source": "hf",
            "date": "20260101_000000",
            "tasks": {},
            "config": None,
            "report": report or {},
            **others,
        }
    )


def results_of(said=None, aggregates=None, **others):
    arguments = {
        "computed": {},
        "task_hashes": {},
        "documents": {},
        "times": Times(1.0, 3.5),
        "own": OWN,
        **others,
    }
    return assemble(said or fields(), aggregates or {}, **arguments)


def aggregate(task, results=None, **parts):
    return Aggregate(
        "r", task=task, results=raw(results or {"alias": task}), **{k: raw(v) for k, v in parts.items()}
    )


def test_the_order_of_lmms_evals_keys_is_its_own():
    assert tuple(LMMS_KEYS) == KEY_ORDER["lmms-eval"]


@pytest.mark.parametrize("harness", ["lmms-eval", "lm-eval"])
@given(data=st.data())
def test_keys_stand_in_the_harness_order_then_unknown_ones_then_ours(harness, data):
    known = list(KEY_ORDER[harness])
    report = {
        key: 1 if key.endswith("time") else {}
        for key in data.draw(st.permutations([*known, "more", "and_more"]))
        if data.draw(st.booleans())
    }
    results = results_of(fields(report, harness, config={"a": 1}))
    keys = list(results)
    assert "evalsink" == keys[-1]
    assert [key for key in known if key in results] == [key for key in keys if key in known]
    assert [key for key in report if key not in known] == [
        key for key in keys if key not in known and key != "evalsink"
    ]
    places = [known.index(key) if key in known else len(known) for key in keys[:-1]]
    assert all(one <= other for one, other in pairwise(places))


def test_what_nobody_sent_is_not_written():
    results = results_of()
    for key in (
        "groups",
        "group_subtasks",
        "config",
        "git_hash",
        "throughput",
        "efficiency",
        "chat_template",
    ):
        assert key not in results
    assert {} == results["results"] == results["configs"] == results["task_hashes"]
    lm_eval = results_of(fields(harness="lm-eval"))
    assert "start_time" not in lm_eval
    assert "total_evaluation_time_seconds" not in lm_eval


def test_parts_of_the_aggregates_stand_sorted_by_task_except_the_results():
    aggregates = {
        "b": aggregate("b", version="Yaml", n_shot=0, config={"x": 1}, higher_is_better={"acc": True}),
        "a": aggregate(
            "a", version=1.0, n_shot=5, n_samples={"original": 2, "effective": 1}, group={"acc,none": 1}
        ),
    }
    results = results_of(aggregates=aggregates)
    assert ["b", "a"] == list(results["results"])
    assert {"a": {"acc,none": 1}} == results["groups"]
    assert {"b": {"x": 1}} == results["configs"]
    assert [("a", 1.0), ("b", "Yaml")] == list(results["versions"].items())
    assert [("a", 5), ("b", 0)] == list(results["n-shot"].items())
    assert {"b": {"acc": True}} == results["higher_is_better"]
    assert {"a": {"original": 2, "effective": 1}} == results["n-samples"]


def test_a_version_of_null_is_written_as_null():
    assert {"t": None} == results_of(aggregates={"t": aggregate("t", version=None)})["versions"]


def test_tasks_without_an_aggregate_follow_with_what_was_computed():
    results = results_of(
        fields(tasks={"b": 10}),
        {"z": aggregate("z")},
        computed={"a": {"alias": "a"}, "b": {"alias": "b"}},
        documents={"a": 3, "b": 4, "z": 9},
    )
    assert ["z", "a", "b"] == list(results["results"])
    wanted = {"a": {"original": 3, "effective": 3}, "b": {"original": 10, "effective": 4}}
    assert wanted == results["n-samples"]


@pytest.mark.parametrize(
    "key",
    ["results", "config", "task_hashes", "model_source", "model_name", "model_name_sanitized", "evalsink"],
)
def test_a_report_cannot_overrule_what_is_computed_here(key):
    plain, crafted = results_of(), results_of(fields({key: {"forged": 1}}))
    assert plain == crafted


def test_a_reports_date_goes_in_as_it_is_and_the_stamp_stands_in_for_none():
    assert "9 o'clock" == results_of(fields({"date": "9 o'clock"}))["date"]
    assert 1.5 == results_of(fields({"date": 1.5}, "lm-eval"))["date"]
    assert "20260101_000000" == results_of()["date"]


@pytest.mark.parametrize(
    ("report", "written"),
    [
        ({}, (1.0, 3.5, "2.5")),
        ({"start_time": 10.0, "end_time": 11.5}, (10.0, 11.5, "1.5")),
        ({"start_time": 10.0}, (1.0, 3.5, "2.5")),
        (
            {"start_time": 1, "end_time": 2, "total_evaluation_time_seconds": "7"},
            (1, 2, "7"),
        ),
        ({"start_time": "a", "end_time": "b"}, ("a", "b", "2.5")),
        ({"start_time": None, "end_time": 2}, (None, 2, "2.5")),
        ({"start_time": 0.5, "end_time": 10**400}, (0.5, 10**400, "2.5")),
        (
            {"start_time": -(10**4300) + 1, "end_time": 10**4300 - 1},
            (-(10**4300) + 1, 10**4300 - 1, "2.5"),
        ),
    ],
    ids=range(8),
)
def test_times_are_the_reports_or_else_those_of_the_log(report, written):
    results = results_of(fields(report))
    keys = ("start_time", "end_time", "total_evaluation_time_seconds")
    assert written == tuple(results[key] for key in keys)
    dump(results)


def test_secrets_of_config_and_report_are_redacted_and_special_tokens_stay():
    said = fields(
        {
            "hf_token": "x",
            "usage": {"api_key": "y"},
            "tokenizer_pad_token": ["<pad>", "0"],
            "throughput": {"total": 1},
        },
        config={"model_args": "pretrained=m,token=abc", "max_tokens": 5},
    )
    results = results_of(said)
    assert REDACTED == results["hf_token"] == results["usage"]["api_key"]
    assert ["<pad>", "0"] == results["tokenizer_pad_token"]
    assert {"model_args": f"pretrained=m,token={REDACTED}", "max_tokens": 5} == results["config"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def refuse(token):
    raise AssertionError(f"not strict JSON: {token}")


@given(
    report=st.dictionaries(st.text(), json_values, max_size=3),
    results=st.dictionaries(st.text(), json_values),
)
def test_the_file_is_strict_json_indented_by_two_with_no_newline_at_its_end(report, results):
    assembled = results_of(fields(report), {"t": aggregate("t", results or {"a": 1})})
    content = dump(assembled)
    assert assembled == json.loads(content.decode(), parse_constant=refuse)
    assert content.startswith(b'{\n  "results": {')
    assert content.endswith(b"}")
    assert content == dump(assembled)


def test_a_number_beyond_a_float_is_null_in_the_file():
    sent = Aggregate("r", task="t", results=msgspec.Raw(b'{"acc,none":1e999,"b":[-1e999]}'))
    results = json.loads(dump(results_of(aggregates={"t": sent})), parse_constant=refuse)
    assert {"acc,none": None, "b": [None]} == results["results"]["t"]


def test_text_in_other_scripts_is_not_escaped():
    assert "日本\u2028".encode() in dump(results_of(fields({"x": "日本\u2028"})))


@pytest.mark.parametrize(
    ("results", "names", "order"),
    [
        ({"acc,b": 1, "acc_stderr,b": 1, "f1,a": 1}, ["a", "b"], ["b", "a"]),
        ({"alias": "t", "acc,b": 1}, ["c", "a", "b"], ["b", "a", "c"]),
        ({"acc,x": 1}, ["b", "a"], ["a", "b"]),
        ({"acc,a,b": 1, "acc,b": 1}, ["b", "a,b"], ["a,b", "b"]),
        ({" ": " ", "none": 1, ",": 2}, ["none", ""], ["", "none"]),
        (None, ["é", "z"], ["z", "é"]),
        ({"acc,b": 1}, [], []),
    ],
)
def test_filters_stand_as_they_first_appear_in_the_aggregate_and_the_others_by_their_bytes(
    results, names, order
):
    assert order == filter_order(results, names)
