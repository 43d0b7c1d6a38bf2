"""The table of bad input in docs/FORMATS.md, row by row: what a record becomes, and that its neighbours stay verbatim."""

import hashlib
import json

import msgspec
import pytest

from consumer.intake.decode import Rejection, decode
from consumer.runs.fields import loads
from consumer.runs.redaction import redact
from consumer.runs.results_json import dump
from consumer.vocabulary import DecodedSamples, RejectedRow
from schemas.events import Aggregate, RunEnded, RunExpired, RunStarted

KEY = b"r"

LONG = msgspec.Raw(b"9" * 5000)
"""An integer that Python refuses to read."""


def event(kind="samples", **fields):
    """An event's value; `fields` may hold anything that Python's own json writes."""
    if kind == "samples":
        fields = {"task": "t", "samples": [], **fields}
    value = json.dumps({"type": kind, "run_id": "r", **fields}, default=lambda _: "LONG").encode()
    return value.replace(b'"LONG"', bytes(LONG))


def batch(*elements: bytes, **fields) -> bytes:
    """A samples event with `elements` exactly as given."""
    return event(samples=["@"], **fields).replace(b'"@"', b", ".join(elements))


def decoded(value, role="both"):
    result = decode(value, KEY, role)
    assert not isinstance(result, Rejection), result
    return result


def reason(value, key=KEY, role="both"):
    result = decode(value, key, role)
    assert isinstance(result, Rejection), result
    return result.reason


def lines(result):
    return [bytes(sample.row) for sample in result.rows]


# Whole records


@pytest.mark.parametrize("value", [None, b""])
def test_a_record_without_value_is_refused_as_empty(value):
    assert reason(value) == "empty"


@pytest.mark.parametrize(
    "value",
    [
        b"hello",
        b"\x00\x00\x00\x00\x01{}",
        b'\xef\xbb\xbf{"type":"run_ended","run_id":"r"}',
        b'{"type":"run_ended","run_id":"r"',
        b'{"type":"run_ended","run_id":"r"} x',
        b'{"type":"run_ended","run_id":"r","x":"\x01"}',
        b'{"type":"run_ended","run_id":"r","x":-NaN}',
        b'{"type":"run_ended","run_id":"r","x":1NaN}',
        b'{"type":"run_ended","run_id":"r","x":NaN1}',
        b'{"type":"run_ended","run_id":"r",NaN:1}',
        b'{"type":"run_ended","run_id":"r","x":\\ud83d}',
        b'{"type":"run_ended","run_id":"r","x":nan}',
        b"\xff\xfe{\x00}\x00",
    ],
)
def test_what_is_not_json_is_refused(value):
    assert reason(value) == "not-json"


@pytest.mark.parametrize("value", [b"1", b"null", b"[]", b'"x"', b"{}", b'{"run_id":"r"}'])
def test_json_that_is_no_event_is_refused_as_invalid(value):
    assert reason(value) == "invalid"


@pytest.mark.parametrize("kind", ["sample", "", 5, None, ["samples"]])
def test_an_unknown_type_is_refused(kind):
    assert reason(event(kind)) == "unknown-type"


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("samples", {"run_id": ""}),
        ("samples", {"run_id": 5}),
        ("samples", {"task": None}),
        ("samples", {"samples": {}}),
        ("samples", {"filter": None}),
        ("samples", {"attempt": -1}),
        ("samples", {"attempt": 2**31}),
        ("run_started", {"tasks": {"t": -1}}),
        ("run_started", {"tasks": {"t": 1.0}}),
        ("run_started", {"harness": "helm"}),
        ("run_started", {"model_name": None}),
        ("run_started", {"config": []}),
        ("run_started", {"config": None}),
        ("run_started", {"config": "x"}),
        ("aggregate", {"task": "t"}),
        ("aggregate", {"task": "t", "results": []}),
        ("aggregate", {"task": "t", "results": None}),
        ("aggregate", {"task": "t", "results": {}, "group": []}),
        ("aggregate", {"task": "t", "results": {}, "config": 1}),
        ("aggregate", {"task": "t", "results": {}, "attempt": -1}),
        ("run_ended", {"status": "done"}),
        ("run_ended", {"samples": {"t": -1}}),
        ("run_ended", {"samples": {"t": 2**63}}),
        ("run_ended", {"samples": {"t": "1"}}),
        ("run_ended", {"aggregates": "t"}),
        ("run_ended", {"report": [1]}),
        ("run_ended", {"report": {"a": LONG}}),
        ("aggregate", {"task": "t", "results": {"a": LONG}}),
        ("run_expired", {}),
        ("run_expired", {"last": -2}),
        ("run_expired", {"last": True}),
    ],
)
def test_wrong_types_and_negative_counts_are_refused_as_invalid(kind, fields):
    assert reason(event(kind, **fields)) == "invalid"


@pytest.mark.parametrize("kind", ["samples", "run_started", "run_ended"])
@pytest.mark.parametrize(
    "fields",
    [
        {"shard": 1},
        {"shard": 4, "num_shards": 4},
        {"shard": -1},
        {"shard": 65_536, "num_shards": 65_536},
        {"num_shards": 0},
        {"num_shards": 65_537},
        {"shard": 0.0},
        {"shard": True},
        {"shard": None},
        {"num_shards": "4"},
    ],
)
def test_a_bad_shard_number_is_refused(kind, fields):
    assert reason(event(kind, **fields)) == "bad-shard"


def test_the_highest_shard_number_is_taken():
    assert decoded(event(shard=65_535, num_shards=65_536)).shard == 65_535


@pytest.mark.parametrize("key", [None, b"", b"R", b"r ", b"\xff"])
def test_a_key_that_is_not_the_run_id_is_refused(key):
    assert reason(event(), key=key) == "key-mismatch"


def test_the_key_is_the_run_id_in_utf8():
    value = event(run_id="Läufe/1")
    assert isinstance(decode(value, "Läufe/1".encode(), "both"), DecodedSamples)
    assert reason(value, key="Läufe/1".encode("latin-1")) == "key-mismatch"


@pytest.mark.parametrize(
    ("value", "home", "elsewhere"),
    [
        (event(), "samples", "aggregates"),
        (event("run_started"), "samples", "aggregates"),
        (event("run_ended"), "samples", "aggregates"),
        (event("aggregate", task="t", results={}), "aggregates", "samples"),
    ],
)
def test_an_event_in_the_other_topic_is_refused_while_there_are_two(value, home, elsewhere):
    decoded(value, home)
    decoded(value, "both")
    assert reason(value, role=elsewhere) == "wrong-topic"


@pytest.mark.parametrize("role", ["samples", "aggregates", "both"])
def test_an_expiry_belongs_in_every_topic(role):
    assert RunExpired(run_id="r", last=-1) == decoded(event("run_expired", last=-1), role)


@pytest.mark.parametrize(
    "value",
    [
        event("run_ended", x="@").replace(b'"@"', b"[" * 5000 + b"]" * 5000),
        event("run_ended", report={"x": "@"}).replace(b'"@"', b"[" * 130 + b"]" * 130),
        event("run_started", config={"x": "@"}).replace(b'"@"', b'{"a":' * 130 + b"1" + b"}" * 130),
        batch(b'{"doc_id":1,"row":{"x":' + b"[" * 5000 + b"]" * 5000 + b"}}"),
        batch(b'{"doc_id":1,"row":{"x":' + b"[" * 100_000),
        batch(b'{"doc_id":1,"row":{"x":NaN,"y":' + b"[" * 5000 + b"]" * 5000 + b"}}"),
        batch(b'{"doc_id":1,"row":{},"cluster":' + b"[" * 5000 + b"]" * 5000 + b"}"),
    ],
)
def test_a_nesting_bomb_anywhere_refuses_the_event(value):
    assert reason(value) == "too-deep"


def test_brackets_in_strings_are_no_nesting():
    deep = '[{"' * 2000
    assert isinstance(decoded(event("run_started", config={"x": deep, "y": 'a"\\' + deep})), RunStarted)


@pytest.mark.parametrize(
    "value",
    [
        event("run_ended", report={"x": "@"}).replace(b"@", b"\xff"),
        event("run_ended", unknown="@").replace(b"@", b"\xff"),
        event("run_started", model_name="@").replace(b"@", b"\xed\xa0\x80"),
        event("aggregate", task="t", results={"@": 1}).replace(b"@", b"\xc3"),
        event(task="@").replace(b"@", b"\xff"),
        event(filter="@").replace(b"@", b"\xff"),
        event(run_id="@").replace(b"@", b"\xff"),
    ],
)
def test_bytes_that_are_not_utf8_refuse_a_lifecycle_event_or_an_event_whose_fields_hold_them(value):
    assert reason(value) == "bad-utf8"


def test_a_rejections_detail_is_short():
    assert len(decode(event("x" * 5000), KEY, "both").detail) <= 200


def test_unknown_fields_are_ignored():
    value = batch(b'{"doc_id":1,"row":{},"new":[1]}', new={"a": 1})
    assert [b"{}"] == lines(decoded(value))


def test_a_null_group_is_an_absent_one():
    result = decoded(event("aggregate", task="t", results={}, group=None))
    assert isinstance(result, Aggregate)
    assert msgspec.UNSET is result.group


def test_parts_that_may_be_anything_may_be_null():
    result = decoded(
        event("aggregate", task="t", results={}, n_samples=None, higher_is_better=None, version=None)
    )
    assert [b"null"] * 3 == [bytes(result.n_samples), bytes(result.higher_is_better), bytes(result.version)]


@pytest.mark.parametrize("token", [b"NaN", b"Infinity", b"-Infinity"])
def test_bare_non_numbers_in_a_lifecycle_event_become_null(token):
    result = decoded(event("run_ended", report={"a": "@", "b": 1.50}).replace(b'"@"', token))
    assert isinstance(result, RunEnded)
    assert b'{"a": null, "b": 1.5}' == bytes(result.report)


# Single rows


@pytest.mark.parametrize(
    ("element", "identity", "why"),
    [
        (b'{"row":{}}', None, "bad-doc-id"),
        (b'{"doc_id":null,"row":{}}', None, "bad-doc-id"),
        (b'{"doc_id":1.0,"row":{}}', None, "bad-doc-id"),
        (b'{"doc_id":true,"row":{}}', None, "bad-doc-id"),
        (b'{"doc_id":9223372036854775808,"row":{}}', None, "bad-doc-id"),
        (b'{"doc_id":-9223372036854775809,"row":{}}', None, "bad-doc-id"),
        (b'{"doc_id":' + b"9" * 5000 + b',"row":{}}', None, "bad-doc-id"),
        (b'{"doc_id":[1],"row":{}}', None, "bad-doc-id"),
        (b'{"doc_id":"\xff","row":{}}', None, "bad-doc-id"),
        (b"5", None, "not-an-object"),
        (b"null", None, "not-an-object"),
        (b"[1]", None, "not-an-object"),
        (b'{"doc_id":7}', 7, "row-missing"),
        (b'{"doc_id":"a"}', "a", "row-missing"),
        (b'{"doc_id":7,"row":null}', 7, "row-not-an-object"),
        (b'{"doc_id":7,"row":[{}]}', 7, "row-not-an-object"),
        (b'{"doc_id":7,"row":"{}"}', 7, "row-not-an-object"),
        (b'{"doc_id":7,"row":{"x":"\xff"}}', 7, "bad-utf8"),
        (b'{"doc_id":7,"row":{"\xed\xa0\x80":1}}', 7, "bad-utf8"),
    ],
)
def test_one_bad_row_is_rejected_alone_and_its_neighbours_stay_verbatim(element, identity, why):
    before, after = (
        b'{"doc_id":1, "row" : {"a" :  1.50,"b":1e999}  }',
        b'{"row":{"a":"\\u00e9"},"doc_id":"1"}',
    )
    result = decoded(batch(before, element, after))
    expected = identity if identity is not None else hashlib.sha256(element).digest()
    assert [RejectedRow(index=1, identity=expected, reason=why)] == result.rejected
    assert [b'{"a" :  1.50,"b":1e999}', b'{"a":"\\u00e9"}'] == lines(result)
    assert [1, "1"] == [sample.doc_id for sample in result.rows]
    assert [0, 2] == list(result.indexes)
    assert frozenset() == result.repaired == result.scores_dropped


def test_a_batch_of_bad_rows_alone_is_still_a_batch():
    result = decoded(batch(b"1", b"2", attempt=3))
    assert ([], 3, 2) == (result.rows, result.attempt, len(result.rejected))


def test_bytes_that_are_not_utf8_do_not_matter_in_fields_nobody_reads():
    value = batch(b'{"doc_id":1,"row":{"a":1},"x":"\xff"}', b'{"doc_id":2,"row":{"a":2}}', note="#").replace(
        b"#", b"\xff"
    )
    assert [b'{"a":1}', b'{"a":2}'] == lines(decoded(value))


@pytest.mark.parametrize("doc_id", [0, -1, 2**63 - 1, -(2**63), "", "0", "x" * 5000, "\u202e", "\x00"])
def test_doc_ids_are_signed_64_bit_numbers_or_strings(doc_id):
    value = batch(json.dumps({"doc_id": doc_id, "row": {}}).encode())
    assert [doc_id] == [sample.doc_id for sample in decoded(value).rows]


# Scores and clusters


@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        (b'{"a":1,"b":"x"}', {"a": 1.0}),
        (b'{"a":1,"b":true}', {"a": 1.0}),
        (b'{"a":1,"b":null}', {"a": 1.0}),
        (b'{"a":[1,0],"b":[1,null]}', {"a": [1.0, 0.0]}),
        (b'{"a":1e308,"b":1e999}', {"a": 1e308}),
        (b'{"a":1,"b":NaN}', {"a": 1.0}),
        (b'{"a":1,"b":[Infinity]}', {"a": 1.0}),
        (b'{"\xff":1}', {}),
        (b"null", {}),
        (b"[]", {}),
        (b"3", {}),
    ],
)
def test_a_bad_score_is_dropped_and_the_row_kept_verbatim(scores, kept):
    result = decoded(
        batch(b'{"doc_id":1,"row":{"a": 1}}', b'{"doc_id":2,"row":{"a": 2},"scores":' + scores + b"}")
    )
    assert [b'{"a": 1}', b'{"a": 2}'] == lines(result)
    assert [{}, kept] == [sample.scores for sample in result.rows]
    assert frozenset({1}) == result.scores_dropped
    assert frozenset() == result.repaired


@pytest.mark.parametrize("cluster", [b"[1]", b"{}", b"true", b"1e999", b"9" * 30, b'"\xff"'])
def test_a_bad_cluster_is_dropped_and_the_rest_kept(cluster):
    result = decoded(batch(b'{"doc_id":1,"row":{},"scores":{"a":1},"cluster":' + cluster + b"}"))
    assert [({"a": 1.0}, None)] == [(sample.scores, sample.cluster) for sample in result.rows]
    assert frozenset({0}) == result.scores_dropped


@pytest.mark.parametrize("cluster", [None, 1, 1.5, "video-1"])
def test_a_good_cluster_beside_a_bad_score_is_kept(cluster):
    element = json.dumps({"doc_id": 1, "row": {}, "scores": {"a": "x"}, "cluster": cluster}).encode()
    assert [cluster] == [sample.cluster for sample in decoded(batch(element)).rows]


# Repair


def test_only_the_row_that_holds_a_bare_non_number_is_re_encoded():
    plain = b'{"x" : "NaN, Infinity and \\"-Infinity\\"", "y":  1.0e1}'
    result = decoded(
        batch(b'{"doc_id":1,"row":' + plain + b"}", b'{"doc_id":2,"row":{"a" : NaN, "b":[-Infinity,1.50]}}')
    )
    assert [plain, b'{"a":null,"b":[null,1.5]}'] == lines(result)
    assert frozenset({1}) == result.repaired


def test_only_the_row_that_holds_half_a_surrogate_pair_is_re_encoded():
    plain = b'{"a": "\\ud83d\\ude00 \\\\ud83d"}'
    damaged = b'{"a": "\\ud83d", "b": "x\\uDE00\\ud83d\\ud83d\\ude00"}'
    result = decoded(batch(b'{"doc_id":1,"row":' + plain + b"}", b'{"doc_id":2,"row":' + damaged + b"}"))
    assert [plain, '{"a":"\ufffd","b":"x\ufffd\ufffd\U0001f600"}'.encode()] == lines(result)
    assert frozenset({1}) == result.repaired


def test_a_fault_beside_a_row_leaves_the_row_verbatim():
    element = b'{"doc_id":"\\ud83d","row":{"a" : 1},"scores":{"m":NaN},"x":NaN}'
    result = decoded(batch(element))
    assert [("\ufffd", b'{"a" : 1}')] == [(sample.doc_id, bytes(sample.row)) for sample in result.rows]
    assert frozenset() == result.repaired


def test_a_row_that_msgspec_cannot_read_is_mended_byte_by_byte():
    result = decoded(batch(b'{"doc_id":1,"row":{"a": 1e999,\n"b": NaN,"c":"\\ud83d"}}'))
    assert ['{"a":1e999,"b":null,"c":"\ufffd"}'.encode()] == lines(result)
    assert frozenset({0}) == result.repaired


def test_numbers_too_big_for_a_double_stay_verbatim():
    row = b'{"a":1e999,"b":' + b"9" * 400 + b"}"
    assert [row] == lines(decoded(batch(b'{"doc_id":1,"row":' + row + b"}")))


def test_a_bad_row_beside_a_fault_is_rejected_and_the_others_mended():
    result = decoded(
        batch(b'{"doc_id":1,"row":{"a":NaN}}', b'{"doc_id":2,"row":NaN}', b'{"doc_id":3,"row":{"a": 1}}')
    )
    assert [b'{"a":null}', b'{"a": 1}'] == lines(result)
    assert [RejectedRow(index=1, identity=2, reason="row-not-an-object")] == result.rejected


@pytest.mark.parametrize("newline", [b"\n", b"\r", b"\r\n"])
def test_a_row_that_spans_lines_is_put_on_one_and_the_others_stay(newline):
    spanning = b'{%b "a" : 1.50,%b "b": "x\\n\\u00e9"}' % (newline, newline)
    result = decoded(batch(b'{"doc_id":1,"row":{"a" : 1}}', b'{"doc_id":2,"row":' + spanning + b"}"))
    assert [b'{"a" : 1}', b'{"a":1.50,"b":"x\\n\\u00e9"}'] == lines(result)
    assert frozenset() == result.repaired


def test_line_ends_of_unicode_are_no_newlines():
    row = '{"a" : "\u2028\u2029\u0085"}'.encode()
    assert [row] == lines(decoded(batch(b'{"doc_id":1,"row":' + row + b"}")))


def test_of_a_repeated_name_the_last_counts():
    value = batch(b'{"doc_id":1,"row":5,"row":{"a":1},"doc_id":2}')
    assert [(2, b'{"a":1}')] == [(sample.doc_id, bytes(sample.row)) for sample in decoded(value).rows]


def test_a_row_may_nest_deeper_than_what_is_decoded_at_close_out():
    row = b'{"a":' + b"[" * 600 + b"]" * 600 + b"}"
    assert [row] == lines(decoded(batch(b'{"doc_id":1,"row":' + row + b"}")))


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_a_report_as_deep_as_may_be_can_be_redacted_and_written_again(opening):
    depth = 127  # the event itself is the 128th level
    closing = {"[": "]", '{"a":': "}"}[opening] * (depth - 1)
    result = decoded(
        event("run_ended", report={"x": "@"}).replace(
            b'"@"', (opening * (depth - 1) + "1" + closing).encode()
        )
    )
    report = loads(result.report)
    assert report == json.loads(dump(redact(report)))
