"""`consumer.report.metrics`: the figures of any results JSON as uniform rows, whoever wrote it."""

import json
import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.report import table
from consumer.report.metrics import render
from schemas.metrics import MetricRow, encode_rows

PATH = "org__m/20260101_000000_results.json"
decode_rows = msgspec.json.Decoder(MetricRow).decode_lines
COLUMNS = MetricRow.__struct_fields__


def rows(results, path=PATH, **more):
    content = render(results, path, "0" * 64, **more)
    found = [json.loads(line, parse_constant=pytest.fail) for line in content.split(b"\n") if line]
    assert content == b"".join(line + b"\n" for line in content.split(b"\n") if line)
    for row in found:
        assert list(COLUMNS) == list(row)
        assert all(value is None or isinstance(value, str | int | float) for value in row.values())
        assert all(math.isfinite(value) for value in row.values() if isinstance(value, float))
    return found


def figures(results, *columns, **more):
    return [tuple(row[column] for column in columns) for row in rows(results, **more)]


def test_a_run_of_ours_is_named_with_its_status_files_and_hashes():
    entry = {"file": "d-1a2b3c4d_samples_mme.jsonl", "rows": 2, "sha256": "ab"}
    results = {
        "results": {"mme": {"alias": "mme", "acc,none": 0.5, "acc_stderr,none": "N/A"}},
        "versions": {"mme": "Yaml"},
        "n-shot": {"mme": 5},
        "higher_is_better": {"mme": {"acc": True}},
        "n-samples": {"mme": {"original": 100, "effective": 2}},
        "git_hash": "0a1b",
        "lmms_eval_version": "0.7",
        "task_hashes": {"mme": "cd"},
        "model_source": "vllm",
        "model_name": "org/m",
        "evalsink": {"run_id": "r1", "status": "incomplete", "tasks": {"mme": entry, "announced": {}}},
    }
    [row, announced] = rows(results, "org__m/d-1a2b3c4d_results.json")
    expected = {
        "run_id": "r1",
        "status": "incomplete",
        "harness": "lmms-eval",
        "model_name": "org/m",
        "model": "org__m",
        "date": "d",
        "task": "mme",
        "filter": "none",
        "metric": "acc",
        "value": 0.5,
        "higher_is_better": True,
        "n_shot": 5,
        "version": "Yaml",
        "group": False,
        "samples": 2,
        "samples_total": 100,
        "rows": 2,
        "samples_file": "org__m/d-1a2b3c4d_samples_mme.jsonl",
        "samples_sha256": "ab",
        "results_file": "org__m/d-1a2b3c4d_results.json",
        "results_sha256": "0" * 64,
        "task_hash": "cd",
        "git_hash": "0a1b",
        "harness_version": "0.7",
        "model_source": "vllm",
    }
    assert dict.fromkeys(COLUMNS) | expected == row
    assert ("announced", None, None) == (announced["task"], announced["metric"], announced["rows"])


def test_the_other_layout_and_a_model_without_a_folder():
    own = {"run_id": "r", "status": "complete", "tasks": {"t": {"file": "samples_t_d-00000000.jsonl"}}}
    [row] = rows({"results": {"t": {"acc,none": 1}}, "evalsink": own}, "results_d-00000000.json")
    assert ("lm-eval", "d", "", "samples_t_d-00000000.jsonl") == tuple(
        row[name] for name in ("harness", "date", "model", "samples_file")
    )


def test_a_run_that_evalsink_did_not_close_has_no_status_and_the_files_that_were_found():
    results = {"results": {"t": {"acc,none": 1}}, "lm_eval_version": "0.4", "date": 1.5}
    found = rows(results, "m/x-00000000_results.json", samples_files={"t": "m/s.jsonl", "u": "m/u.jsonl"})
    assert [
        (None, None, "lm-eval", "x-00000000", "t", "m/s.jsonl"),
        (None, None, "lm-eval", "x-00000000", "u", "m/u.jsonl"),
    ] == [
        tuple(row[name] for name in ("run_id", "status", "harness", "date", "task", "samples_file"))
        for row in found
    ]


def test_companions_are_columns_of_their_metric_and_filter():
    task = {
        "acc,a": 0.25,
        "acc_stderr,a": 0.1,
        "acc_stderr_clt,a": 0.2,
        "acc_stderr_clustered,a": "N/A",
        "acc_expected_accuracy,a": 0.3,
        "acc_consensus_accuracy,a": 0.4,
        "acc_internal_variance,a": 0.5,
        "acc_consistency_rate,a": 1,
        "acc,b,c": 0.75,
        "acc_stderr,b,c": 0.6,
    }
    columns = COLUMNS[COLUMNS.index("filter") : COLUMNS.index("higher_is_better")]
    assert [
        ("a", "acc", 0.25, None, 0.1, 0.2, None, 0.3, 0.4, 0.5, 1.0),
        ("b,c", "acc", 0.75, None, 0.6, *[None] * 6),
    ] == figures({"results": {"t": task}}, *columns)


def test_what_ends_like_a_companion_but_has_no_metric_is_one():
    task = {"acc_stderr,a": 0.1, "acc,b": 1, "_stderr,b": 2.0, "x_stderr": 0.5, "consistency_rate,a": 3}
    assert [
        ("acc_stderr", 0.1),
        ("acc", 1.0),
        ("_stderr", 2.0),
        ("x_stderr", 0.5),
        ("consistency_rate", 3.0),
    ] == figures({"results": {"t": task}}, "metric", "value")


def test_keys_that_are_no_metrics_are_left_out_and_the_task_still_has_a_row():
    task = {
        "alias": " - t",
        "name": "t",
        "sample_len": 20,
        "sample_count": {"t": 1},
        " ": " ",
        "": 1,
        ",none": 2,
        "empty,none": [],
        "empty_stderr,none": [],
        "object,none": {},
        "paired_baseline": "x",
        "paired_pvalue": 0.1,
    }
    assert [("t", None, None, None, 20)] == figures(
        {"results": {"t": task}}, "task", "metric", "filter", "value", "samples"
    )
    # With a comma they are what somebody measured.
    assert [("name", 1.0)] == figures({"results": {"t": {"name,none": 1}}}, "metric", "value")


@pytest.mark.parametrize(
    ("value", "number", "text"),
    [
        (0.1, 0.1, None),
        (True, 1.0, None),
        (3, 3.0, None),
        (2**53 + 1, 2.0**53, str(2**53 + 1)),
        (10**22, 1e22, None),
        (10**400, None, "1" + "0" * 400),
        (10**5000, None, None),
        (math.inf, None, None),
        (math.nan, None, None),
        (None, None, None),
        ("N/A", None, '"N/A"'),
        ("", None, '""'),
        ("a\ud83d", None, '"a\N{REPLACEMENT CHARACTER}"'),
        ({"é": [1, math.inf, 10**5000]}, None, '{"é":[1,null,null]}'),
        ([0.5], None, "[0.5]"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_number_is_a_number_and_what_is_none_is_json(value, number, text):
    assert [(number, text)] == figures({"results": {"t": {"x,none": value}}}, "value", "value_json")


def test_nesting_ends_in_null_before_it_ends_in_an_error():
    value = "end"
    for _ in range(100_000):
        value = [value]
    [(text,)] = figures({"results": {"t": {"x,none": value}}}, "value_json")
    assert "[" * 128 + "null" + "]" * 128 == text


def test_a_key_without_a_comma_has_no_filter_and_one_that_ends_in_it_an_empty_one():
    task = {"acc": 1, "acc_stderr": 0.5, "f1,": 2, "f1_stderr,": 0.25}
    assert [("acc", None, 0.5), ("f1", "", 0.25)] == figures(
        {"results": {"t": task}}, "metric", "filter", "stderr"
    )


def test_a_group_is_one_and_its_rows_come_once():
    results = {
        "results": {"g": {" ": " "}, "t": {"acc,none": 1}, "both": {"acc,none": 2}},
        "groups": {"both": {"acc,none": 3, "f1,none": 4}, "only": {"acc,none": 5}},
        "group_subtasks": {"g": ["t"], "t": []},
    }
    assert [
        ("g", None, True),
        ("t", 1.0, False),
        ("both", 2.0, True),
        ("both", 4.0, True),
        ("only", 5.0, True),
    ] == figures(results, "task", "value", "group")


def test_every_run_has_a_row():
    for results in ({}, {"results": {}}, {"results": [], "groups": 3, "evalsink": "x", "model_name": 5}):
        assert [(None, None, None)] == figures(results, "task", "metric", "run_id")


def test_counts_that_are_none_are_null():
    for count in (True, 2**63, -(2**63) - 1, "5", 1.5, math.inf, math.nan, [5]):
        assert [(None, None)] == figures(
            {"results": {"t": {}}, "n-shot": {"t": count}, "n-samples": {"t": {"effective": count}}},
            "n_shot",
            "samples",
        )
    assert [(5,)] == figures({"results": {"t": {}}, "n-shot": {"t": 5.0}}, "n_shot")


@pytest.mark.parametrize(
    ("version", "told"),
    [("Yaml", "Yaml"), (1.0, "1.0"), (2, "2"), (None, None), ([1], None), (True, None), (math.nan, None)],
)
def test_a_version_is_text(version, told):
    assert [(told,)] == figures({"results": {"t": {}}, "versions": {"t": version}}, "version")


texts = st.text(st.characters(codec=None, exclude_categories=()), max_size=12)
names = texts | st.sampled_from(["acc,none", "acc_stderr,none", "acc", "acc_stderr", "alias", ",", " "])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
TOP = [
    "results",
    "groups",
    "group_subtasks",
    "versions",
    "n-shot",
    "higher_is_better",
    "n-samples",
    "evalsink",
]
documents = st.dictionaries(
    st.sampled_from(TOP) | texts,
    values | st.dictionaries(names, st.dictionaries(names, values, max_size=4), max_size=3),
    max_size=5,
)


@settings(deadline=None, max_examples=300)
@given(documents, texts)
def test_any_json_gives_rows_that_are_read_back_and_a_run_always_has_one(document, path):
    content = render(document, path, "0" * 64)
    found = decode_rows(content)
    assert found
    assert content == encode_rows(found)
    assert rows(document, path)


@settings(deadline=None)
@given(st.dictionaries(names, st.integers(-3, 3) | st.sampled_from(["N/A", [], {}, None, 0.5]), max_size=8))
def test_metrics_are_the_rows_of_the_table(task):
    mended = {key.encode("utf-16", "surrogatepass").decode("utf-16", "replace"): task[key] for key in task}
    of_table = {(row["Metric"], row["Filter"]) for row in table._task_rows({}, "t", mended)}
    no_metrics = {(name, "") for name in ("name", "sample_len", "sample_count") if name in mended}
    shown = {
        (row["metric"], row["filter"] or "") for row in rows({"results": {"t": mended}}) if row["metric"]
    }
    orphans = {one for one in shown if one[0].endswith(table._SUFFIXES)}
    assert {one for one in of_table if one[0].strip()} - no_metrics == shown - orphans


def test_columns_that_a_later_version_adds_are_passed_over_and_nonsense_is_refused():
    [row] = decode_rows(render({}, PATH, "0"))
    later = msgspec.json.encode({**msgspec.to_builtins(row), "more": [1]}) + b"\n"
    assert [row] == decode_rows(later)
    for content in (b"{}\n", b"[", b"\xff", b'{"run_id": 1}'):
        with pytest.raises(msgspec.MsgspecError):
            decode_rows(content)


def test_every_figure_of_real_results_is_there_as_it_was(realdata):
    seen = 0
    for path in sorted(realdata.rglob("*results*.json")):
        content = path.read_bytes()
        results = json.loads(content)
        found = rows(results, f"m/{path.name}")
        by_key = {(row["task"], row["metric"], row["filter"]): row for row in found}
        assert len(by_key) == len(found)
        tasks = {**results.get("groups", {}), **results["results"]}
        assert set(tasks) == {row["task"] for row in found}
        for task, metrics in tasks.items():
            for key, value in metrics.items():
                metric, _, name = key.partition(",")
                if not isinstance(value, float) or "_stderr" in metric:
                    continue
                row = by_key[task, metric, name]
                assert value == row["value"]
                error = metrics[f"{metric}_stderr,{name}"]
                assert row["stderr"] == (None if error == "N/A" else error)
                seen += 1
    assert seen > 50
