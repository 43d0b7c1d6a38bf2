"""What holds of decoding for any bytes at all: it never raises, loses no row, and touches none that is whole."""

import hashlib
import json
import math
import time

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.intake.decode import Rejection, decode
from consumer.intake.sift import LooseSamples, sift_loosely
from consumer.vocabulary import DecodedSamples
from schemas.mending import mend

ROLES = st.sampled_from(["samples", "aggregates", "both"])

# Text that Python's json writes and msgspec refuses: halves of surrogate pairs, words that look like numbers.
texts = st.text(st.characters(exclude_categories=())) | st.sampled_from(
    ["NaN", "-Infinity", '"NaN"', "\\ud83d", "\ud83d", "\ud83d\ud83d\U0001f600", "a\\", '\\"', "\n\r\u2028"]
)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | texts
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
rows = st.dictionaries(texts, values, max_size=4)
finite_rows = st.dictionaries(
    st.text(),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=8,
    ),
    max_size=4,
)
styles = st.fixed_dictionaries(
    {
        "ensure_ascii": st.booleans(),
        "separators": st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " : ")]),
    }
)

EVENTS = [
    b'{"type":"run_started","run_id":"r","shard":1,"num_shards":4,"harness":"lm-eval","model_name":"org/m","tasks":{"t":2},"config":{"limit":null}}',
    b'{"type":"samples","run_id":"r","task":"t","filter":"none","samples":[{"doc_id":0,"row":{"doc_id":0,"acc":NaN},"scores":{"acc":1.0,"k":[1,0]},"cluster":"v"},{"doc_id":"b","row":{"x":"\\ud83d"}}]}',
    b'{"type":"samples","run_id":"r","task":"t","samples":[{"doc_id":0,"row":{"doc_id":0,"acc":1.0},"scores":{"acc":1.0}},{"doc_id":1,"row":{"a":{"b":[]}}}]}',
    b'{"type":"aggregate","run_id":"r","task":"t","results":{"alias":"t","acc,none":NaN},"version":"Yaml","n_shot":0,"group":null}',
    b'{"type":"run_ended","run_id":"r","status":"failed","samples":{"t":2},"aggregates":["t"],"report":{"date":"20260101_000000"}}',
    b'{"type":"run_expired","run_id":"r","last":17,"reason":"idle"}',
]
SPLICES = [
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\n",
    b"\xff",
    b"NaN",
    b"Infinity",
    b"\\ud83d",
    b"null",
    b"-1",
    b"1e999",
    b"\x00",
    b"\xef\xbb\xbf",
]


@st.composite
def mutated_events(draw):
    value = bytearray(draw(st.sampled_from(EVENTS)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(value)))
        cut = draw(st.integers(0, 6))
        value[at : at + cut] = draw(st.sampled_from(SPLICES) | st.binary(max_size=3))
    return bytes(value)


def batch(elements, **style):
    return json.dumps({"type": "samples", "run_id": "r", "task": "t", "samples": elements}, **style).encode(
        "utf-8", "surrogatepass"
    )


def strict(line: bytes):
    """`line` as strict JSON has it: no NaN, no half surrogate pairs, UTF-8."""

    def refuse(token):
        raise AssertionError(token)

    value = json.loads(line.decode(), parse_constant=refuse)
    json.dumps(value, ensure_ascii=False).encode()
    return value


def check(value, result):
    assert isinstance(result, Rejection) or result.run_id
    if isinstance(result, DecodedSamples):
        assert list(result.indexes) == sorted(set(result.indexes))
        assert len(result.rows) == len(result.indexes)
        everything = sorted([*result.indexes, *(row.index for row in result.rejected)])
        assert list(range(len(everything))) == everything
        assert result.repaired | result.scores_dropped <= set(result.indexes)
        for index, sample in zip(result.indexes, result.rows, strict=True):
            line = bytes(sample.row)
            assert isinstance(strict(line), dict)
            assert b"\n" not in line
            assert b"\r" not in line
            if index not in result.repaired:
                assert line in value or b"\n" in value or b"\r" in value


@given(st.binary(), st.none() | st.binary(), ROLES)
def test_no_bytes_make_decoding_raise(value, key, role):
    check(value, decode(value, key, role))


@given(mutated_events(), ROLES)
@settings(max_examples=2000)
def test_no_damage_to_an_event_makes_decoding_raise_or_lets_a_bad_row_through(value, role):
    check(value, decode(value, b"r", role))


@given(values, styles)
def test_any_json_is_an_event_or_refused(value, style):
    document = json.dumps(value, **style).encode("utf-8", "surrogatepass")
    assert isinstance(decode(document, b"r", "both"), Rejection)


@given(st.lists(finite_rows, max_size=5), styles)
def test_good_rows_come_out_as_the_bytes_they_were(rows, style):
    result = decode(
        batch([{"doc_id": i, "row": row} for i, row in enumerate(rows)], **style), b"r", "samples"
    )
    assert [json.dumps(row, **style).encode() for row in rows] == [
        bytes(sample.row) for sample in result.rows
    ]
    assert list(range(len(rows))) == list(result.indexes)
    assert frozenset() == result.repaired == result.scores_dropped


@given(st.lists(rows, max_size=5), st.booleans())
def test_python_s_own_json_is_repaired_where_it_must_be_and_verbatim_elsewhere(rows, verbose):
    style = {"separators": (" , ", " : ")} if verbose else {}
    result = decode(
        batch([{"doc_id": i, "row": row} for i, row in enumerate(rows)], **style), b"r", "samples"
    )
    for index, (row, sample) in enumerate(zip(rows, result.rows, strict=True)):
        mended = whole(row)
        assert (mended != row or not_equal_to_itself(row)) == (index in result.repaired)
        if index in result.repaired:
            assert msgspec.json.encode(msgspec.json.decode(json.dumps(mended))) == bytes(sample.row)
        else:
            assert json.dumps(row, **style).encode() == bytes(sample.row)


def whole(value):
    """`value` with None for what is no number and U+FFFD for half a pair."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        # As JSON escapes, two halves side by side are a whole pair.
        return (
            value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            if not is_text(value)
            else value
        )
    if isinstance(value, list):
        return [whole(item) for item in value]
    if isinstance(value, dict):
        return {whole(name): whole(item) for name, item in value.items()}
    return value


def is_text(value):
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def not_equal_to_itself(value):
    return json.dumps(value) != json.dumps(whole(value))


@given(st.lists(finite_rows, max_size=4), styles)
def test_looking_at_rows_one_by_one_gives_what_looking_at_all_at_once_gives(rows, style):
    value = batch([{"doc_id": i, "row": row, "scores": {"a": i}} for i, row in enumerate(rows)], **style)
    at_once = decode(value, b"r", "samples")
    loose = msgspec.json.decode(value, type=LooseSamples)
    one_by_one = sift_loosely(loose, loose)
    assert [(s.doc_id, bytes(s.row), s.scores) for s in at_once.rows] == [
        (s.doc_id, bytes(s.row), s.scores) for s in one_by_one.rows
    ]
    assert list(at_once.indexes) == list(one_by_one.indexes)


@given(st.binary())
def test_a_rejected_element_has_the_same_identity_in_every_batch(noise):
    element = json.dumps({"row": {}, "noise": noise.hex()}).encode()
    value = b'{"type":"samples","run_id":"r","task":"t","samples":[%b, 1]}' % element
    other = (
        b'{"samples":[{"doc_id":1,"row":{"a":NaN}},%b],"type":"samples","run_id":"r","task":"t"}' % element
    )
    expected = hashlib.sha256(element).digest()
    assert expected == decode(value, b"r", "both").rejected[0].identity
    assert expected == decode(other, b"r", "both").rejected[0].identity


@pytest.mark.parametrize(
    "value",
    [
        b"NaN" + b'"' * 1_000_000,
        b"NaN" + b'\\"' * 500_000,
        b'NaN"' + b"\\" * 999_999,
        b"\\u" + b"\\" * 999_999,
        b"NaN\\ud83d" * 100_000,
        b"-" * 1_000_000 + b"NaN",
        b"NaN" + b"I" * 1_000_000,
        b"\\ud83d" * 150_000,
    ],
)
def test_mending_takes_time_in_proportion_to_the_bytes(value):
    start = time.process_time()
    mend(value)
    # A pattern that backtracks takes hours here, this one tenths of a second; the rest is room for busy machines.
    assert time.process_time() - start < 20
