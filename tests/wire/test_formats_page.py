"""docs/FORMATS.md is true: its examples are events, its names are those of the code."""

import hashlib
import json
import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from jsonschema import Draft202012Validator

from consumer.intake.decode import Reason, Rejection, decode
from consumer.intake.repair import MAX_DEPTH
from consumer.vocabulary import RowReason
from schemas import asyncapi, export
from schemas.events import MAX_ATTEMPT, MAX_SHARDS, Event, Sample, Samples
from schemas.metrics import MetricRow
from schemas.names import MAX_COMPONENT_BYTES, MAX_DATE_BYTES, stem
from schemas.results import Evalsink, TaskEntry

PAGE = (Path(__file__).parents[2] / "docs" / "FORMATS.md").read_text("utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


EXAMPLES = [line for block in blocks("jsonl") for line in block.splitlines()]
NAMED = set(re.findall(r"`([^`\n]+)`", PAGE))
"""What the page puts in backticks."""


@pytest.mark.parametrize("line", EXAMPLES)
def test_every_example_is_an_event_whose_rows_are_all_good(line):
    run_id = json.loads(line)["run_id"]
    role = "aggregates" if json.loads(line)["type"] == "aggregate" else "samples"
    event = decode(line.encode(), run_id.encode(), role)
    assert not isinstance(event, Rejection), event
    assert not getattr(event, "rejected", ())
    assert not getattr(event, "scores_dropped", ())


@pytest.mark.parametrize("line", EXAMPLES)
def test_every_example_fits_the_json_schema(line):
    schema = json.loads((export.FOLDER / "event.schema.json").read_bytes())
    Draft202012Validator(schema).validate(json.loads(line))


def test_there_is_an_example_of_every_event_and_none_has_an_unknown_field():
    tags = {struct.__struct_config__.tag: struct for struct in get_args(Event)}
    assert set(tags) == {json.loads(line)["type"] for line in EXAMPLES}
    for line in EXAMPLES:
        fields = json.loads(line)
        assert set(fields) - {"type"} <= set(tags[fields["type"]].__struct_fields__)


def test_every_field_of_every_event_is_on_the_page():
    fields = {field for struct in (*get_args(Event), Sample) for field in struct.__struct_fields__}
    assert set() == fields - NAMED


def test_every_reason_is_on_the_page():
    assert set() == {*get_args(Reason), *get_args(RowReason), "bad-rows", "late", "unexpected"} - NAMED


def test_every_header_of_a_dead_letter_is_on_the_page():
    [message] = [
        m for name, m in asyncapi.document({})["components"]["messages"].items() if name == "DeadLetter"
    ]
    assert set() == set(message["headers"]["properties"]) - NAMED


def test_every_field_of_the_key_evalsink_is_on_the_page():
    assert set() == {*Evalsink.__struct_fields__, *TaskEntry.__struct_fields__} - NAMED


def test_every_column_of_the_figures_is_on_the_page():
    assert set() == set(MetricRow.__struct_fields__) - NAMED


def test_the_example_of_the_key_evalsink_is_one():
    [block] = blocks("json")
    example = msgspec.json.decode(block, type=Evalsink, strict=True)
    assert json.loads(block) == msgspec.to_builtins(example)
    [batch] = [line for line in EXAMPLES if '"samples","run_id":"r1"' in line]
    rows = msgspec.json.decode(batch, type=Samples).samples
    content = b"".join(bytes(sample.row) + b"\n" for sample in rows)
    entry = example.tasks["mme"]
    assert f"{stem('20260101_000000', 'r1')}_samples_mme.jsonl" == entry.file
    assert (len(rows), len(content)) == (entry.rows, entry.bytes)
    assert hashlib.sha256(content).hexdigest() == entry.sha256


def test_the_limits_on_the_page_are_those_of_the_code():
    for number in (MAX_SHARDS, MAX_ATTEMPT, MAX_COMPONENT_BYTES, MAX_DATE_BYTES, MAX_DEPTH):
        assert f"{number:,}" in PAGE
