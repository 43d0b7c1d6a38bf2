"""`consumer.archive.columns`: a semilattice, and a quick scan that finds the least element above all rows."""

import functools
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.archive import columns as table
from consumer.archive.columns import COLUMNS_MAX, DEPTH_MAX, FIELDS_MAX, UNREADABLE, WIDE, join, scan

names = st.sampled_from(["a", "b", "doc_id", "", " ", "日本\u2028", "a.b", "list", "\n", "_type"])
types = st.recursive(
    st.sampled_from(["null", "bool", "int64", "float64", "string", "json"]),
    lambda inner: inner.map(lambda kind: [kind]) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
tables = st.dictionaries(names, types, max_size=4)
maybe_tables = tables | st.sampled_from([WIDE, UNREADABLE])
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)
rows = st.dictionaries(names, values, max_size=4)


def lines(*found):
    return [line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in found]


@given(maybe_tables, maybe_tables, maybe_tables)
def test_join_is_commutative_associative_and_idempotent(one, other, third):
    assert join(one, other) == join(other, one)
    assert join(one, join(other, third)) == join(join(one, other), third)
    assert join(one, one) == one
    assert join(one, {}) == one


@given(tables)
def test_features_are_read_back(kinds):
    declared = table.features(kinds)
    assert kinds == table.of_features(declared)
    assert sorted(kinds) == [one["name"] for one in declared]
    assert table.of_features(json.loads(json.dumps(declared))) == kinds


@settings(deadline=None)
@given(st.lists(rows, max_size=6))
def test_a_scan_joins_the_columns_of_every_row(found):
    one_by_one = [scan(lines(row)) for row in found]
    assert functools.reduce(join, one_by_one, {}) == scan(lines(*found)) == scan(lines(*reversed(found)))


@settings(deadline=None)
@given(st.lists(rows, max_size=6))
def test_what_a_scan_found_takes_every_row_without_inference(found):
    clean = [line for line in lines(*found) if b"\\n" not in line[:-1]]
    takes = table._decoder(scan(clean))
    for line in clean:
        takes(line)


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        ([None], "null"),
        ([None, 1], "int64"),
        ([1, 1.5], "float64"),
        ([1.5, None, 2**70], "float64"),
        ([2**63 - 1, -(2**63)], "int64"),
        ([2**63], "float64"),
        ([True, None], "bool"),
        ([True, 1], "json"),
        ([True, 1.5], "json"),
        (["a", 1], "json"),
        (["a", ["a"]], "json"),
        ([[], None], ["null"]),
        ([["a"], []], ["string"]),
        ([["a"], [None], [1]], ["json"]),
        ([[1], {"a": 1}], "json"),
        ([{"a": 1}, {"b": "x"}, {"a": 1.5}, {}], {"a": "float64", "b": "string"}),
        ([{"a": {"b": [1]}}, {"a": None}], {"a": {"b": ["int64"]}}),
        ([{"a": {"b": [1]}}, {"a": 1}], {"a": "json"}),
        ([{str(n): n for n in range(FIELDS_MAX)}], {str(n): "int64" for n in range(FIELDS_MAX)}),
        ([{str(n): n for n in range(FIELDS_MAX + 1)}], "json"),
        ([{str(n): n} for n in range(FIELDS_MAX + 1)], "json"),
    ],
)
def test_a_column_has_the_least_type_that_loads_all_of_it(found, kind):
    assert {"x": kind} == scan(lines(*({"x": value} for value in found)))


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b'{"x": 1e999}', "json"),
        (b'{"x": [1e999, 1]}', ["json"]),
        (b'{"x": NaN, "y": 1e999}', "float64"),
        (b'{"x": -Infinity}', "float64"),
        (b'{"x": "\\ud83d"}', "json"),
        (b'{"x": {"\\ud83d": 1}}', "json"),
        (b'{"x": [["a", "\\ud83d"]]}', [["json"]]),
        (b'{"x": 1' + b"0" * 400 + b"}", "float64"),
    ],
)
def test_what_strict_json_does_not_know_has_a_type_too(line, kind):
    assert scan([line])["x"] == kind
    assert scan([b'{"x": null}\n', line, line])["x"] == kind


@pytest.mark.parametrize(
    "line",
    [b'{"x": 1', b"[1]", b"1", b"null", b'{"x": "\xff"}', b'{"\\ud83d": 1}', b"{}{}", b"[" * 100_000],
    ids=range(8),
)
def test_what_is_no_row_makes_the_file_unreadable(line):
    assert UNREADABLE == scan([b'{"x": 1}\n', line, b'{"x": 2}\n'])


def test_empty_files_and_rows_have_no_columns_and_empty_lines_are_passed_over():
    for nothing in ([], [b"{}\n"], [b"\n", b"  \n"]):
        assert {} == scan(nothing)
    assert {"x": "int64"} == scan([b"\n", b'{"x": 1}\r\n', b" \n"])


def test_more_columns_than_can_be_declared_are_too_many_in_one_row_or_in_all():
    row = {f"c{n}": n for n in range(COLUMNS_MAX)}
    assert COLUMNS_MAX == len(scan(lines(row)))
    assert WIDE == scan(lines({**row, "more": 1}))
    assert WIDE == scan(lines(row, {"more": 1}))
    assert WIDE == join(scan(lines(row)), {"more": "null"})


def test_what_is_too_deep_to_declare_is_json():
    value, kind = 1, "json"
    for _ in range(DEPTH_MAX + 5):
        value = [value]
    for _ in range(DEPTH_MAX):
        kind = [kind]
    found = scan(lines({"x": value}))
    assert {"x": kind} == found == table.of_features(table.features(found))


def test_nothing_is_kept_of_the_lines_and_known_shapes_cost_no_inference(monkeypatch):
    first = json.dumps({"doc_id": 1, "doc": {"a": ["b"]}, "acc": 1.0}).encode()
    inferred = []
    infer = table._row
    monkeypatch.setattr(table, "_row", lambda line: inferred.append(line) or infer(line))
    scan(first for _ in range(10_000))
    assert [first] == inferred


@pytest.mark.parametrize(
    "declared",
    [
        None,
        {},
        [1],
        [{"name": "x"}],
        [{"name": 1, "dtype": "int64"}],
        [{"name": "x", "dtype": "int32"}],
        [{"name": "x", "dtype": ["int64"]}],
        [{"name": "x", "dtype": "int64", "more": 1}],
        [{"name": "x", "list": 5}],
        [{"name": "x", "list": {"dtype": "image"}}],
        [{"name": "x", "struct": {"a": "int64"}}],
    ],
)
def test_features_of_somebody_else_are_refused(declared):
    with pytest.raises(ValueError, match="feature"):
        table.of_features(declared)


def test_features_nested_into_themselves_are_refused():
    inner: list = []
    inner.append({"name": "x", "struct": inner})
    with pytest.raises(ValueError, match="features"):
        table.of_features(inner)
    inner = {}
    inner["list"] = inner
    with pytest.raises(ValueError, match="features"):
        table.of_features([{"name": "x", "list": inner}])


def test_real_samples_files_are_typed_throughout_but_for_objects_whose_keys_are_data(realdata):
    odd = {}
    for path in sorted(realdata.rglob("*.jsonl")):
        with path.open("rb") as file:
            found = scan(file)
        assert isinstance(found, dict)
        assert math.isfinite(len(found))
        odd |= {
            (path.name.partition("_samples_")[2] or path.name, name): kind
            for name, kind in found.items()
            if "json" in str(kind)
        }
    assert {name for _, name in odd} == {"submission", "mmmu_acc", "f1"}
