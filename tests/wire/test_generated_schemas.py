"""The files in schemas/generated/: in step with the Structs, true of real events, and false of bad ones."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from jsonschema import Draft202012Validator

from consumer.intake.decode import Rejection, decode
from schemas import export
from schemas.events import Aggregate, RunEnded, RunExpired, RunStarted, Sample, Samples, encode
from schemas.metrics import MetricRow
from schemas.results import Evalsink, TaskEntry
from schemas.state import CommitMetadata, Receipt, TopicCut

ROOT = Path(__file__).parents[2]

EVENTS = [
    RunStarted(run_id="r"),
    RunStarted(
        run_id="r",
        shard=3,
        num_shards=4,
        harness="lm-eval",
        model_name="org/m",
        tasks={"mme": 2},
        config=msgspec.Raw(b'{"limit": null}'),
    ),
    Samples(run_id="r", task="mme", samples=[]),
    Samples(
        run_id="r",
        task="mme",
        filter="strict",
        samples=[
            Sample(
                doc_id=0,
                row=msgspec.Raw(b'{"acc": 1.0}'),
                scores={"acc": 1.0, "k": [1, 0]},
                cluster="video-1",
            ),
            Sample(doc_id="b", row=msgspec.Raw(b"{}")),
        ],
    ),
    Aggregate(run_id="r", task="mme", results=msgspec.Raw(b'{"alias": "mme"}')),
    Aggregate(
        run_id="r",
        task="mme",
        results=msgspec.Raw(b"{}"),
        group=msgspec.Raw(b"null"),
        version=msgspec.Raw(b'"Yaml"'),
    ),
    RunEnded(run_id="r", status="failed", samples={"mme": 1}, aggregates=["mme"], report=msgspec.Raw(b"{}")),
    RunExpired(run_id="r", last=-1, reason="idle"),
]

REFUSED = [
    {},
    [],
    {"type": "samples"},
    {"type": "sample", "run_id": "r"},
    {"type": "run_ended", "run_id": ""},
    {"type": "run_ended", "run_id": "r", "shard": -1},
    {"type": "run_ended", "run_id": "r", "num_shards": 0},
    {"type": "run_ended", "run_id": "r", "status": "done"},
    {"type": "run_ended", "run_id": "r", "samples": {"t": -1}},
    {"type": "run_ended", "run_id": "r", "report": []},
    {"type": "run_started", "run_id": "r", "harness": "helm"},
    {"type": "run_started", "run_id": "r", "config": None},
    {"type": "aggregate", "run_id": "r", "task": "t"},
    {"type": "aggregate", "run_id": "r", "task": "t", "results": 1},
    {"type": "aggregate", "run_id": "r", "task": "t", "results": {}, "group": []},
    {"type": "run_expired", "run_id": "r"},
]

BAD_ROWS = [
    {"row": {}},
    {"doc_id": 1},
    {"doc_id": None, "row": {}},
    {"doc_id": True, "row": {}},
    {"doc_id": 1.5, "row": {}},
    {"doc_id": 2**63, "row": {}},
    {"doc_id": 1, "row": []},
    5,
]


def validator(name):
    return Draft202012Validator(json.loads((export.FOLDER / name).read_bytes()))


def test_the_generated_files_are_in_step_with_the_structs():
    assert export.main(["--check"]) == 0


def test_a_check_names_what_is_out_of_step_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export, "FOLDER", tmp_path / "generated")
    assert export.main([]) == 0
    changed, stray = export.FOLDER / "event.schema.json", export.FOLDER / "stray.json"
    changed.write_bytes(b"{}")
    stray.write_bytes(b"{}")
    assert export.main(["--check"]) == 1
    assert b"{}" == changed.read_bytes()
    assert ["event.schema.json", "stray.json"] == [
        line.split()[0] for line in capsys.readouterr().err.splitlines()
    ]
    assert export.main([]) == 0
    assert export.main(["--check"]) == 0
    assert not stray.exists()


@pytest.mark.parametrize("path", sorted(export.FOLDER.glob("*.schema.json")), ids=lambda path: path.name)
def test_every_schema_is_json_schema_2020_12_and_described(path):
    schema = json.loads(path.read_bytes())
    Draft202012Validator.check_schema(schema)
    assert "https://json-schema.org/draft/2020-12/schema" == schema["$schema"]
    for name, definition in schema["$defs"].items():
        assert definition["description"], name
        assert "Attributes:" not in definition["description"]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_events_as_we_encode_them_fit_the_schema_of_all_and_their_own(event):
    document = json.loads(encode(event))
    validator("event.schema.json").validate(document)
    validator(document["type"].replace("_", "-") + ".schema.json").validate(document)
    assert not isinstance(decode(encode(event), b"r", "both"), Rejection)


@pytest.mark.parametrize("document", REFUSED, ids=json.dumps)
def test_what_the_decoder_refuses_does_not_fit_the_schema(document):
    assert isinstance(decode(json.dumps(document).encode(), b"r", "both"), Rejection)
    assert not validator("event.schema.json").is_valid(document)


@pytest.mark.parametrize("element", BAD_ROWS, ids=json.dumps)
def test_a_row_the_decoder_rejects_does_not_fit_the_schema(element):
    document = {"type": "samples", "run_id": "r", "task": "t", "samples": [element]}
    assert [0] == [row.index for row in decode(json.dumps(document).encode(), b"r", "both").rejected]
    assert not validator("event.schema.json").is_valid(document)


def test_unknown_fields_fit_the_schema():
    validator("event.schema.json").validate({"type": "run_ended", "run_id": "r", "new": 1})


@pytest.mark.parametrize(
    ("name", "struct"),
    [
        (
            "evalsink.schema.json",
            Evalsink(
                run_id="r", status="complete", why=[], shards=1, tasks={"t": TaskEntry(missing=[(0, 3)])}
            ),
        ),
        (
            "metric-row.schema.json",
            MetricRow(
                run_id="r",
                status="complete",
                harness="lm-eval",
                model_name="org/m",
                model="org__m",
                date="d",
                task="t",
                filter=None,
                metric="acc",
                value=0.5,
            ),
        ),
        ("commit-metadata.schema.json", CommitMetadata(topic_id="", watermark=0)),
        (
            "receipt.schema.json",
            Receipt(
                group="g",
                run_id="r",
                status="failed",
                samples=TopicCut("", 1),
                aggregates=TopicCut("", -1),
                stem="d-00000000",
                results="m/d-00000000_results.json",
                sha256="0" * 64,
            ),
        ),
    ],
)
def test_durable_shapes_fit_their_schemas(name, struct):
    validator(name).validate(json.loads(msgspec.json.encode(struct)))
    assert not validator(name).is_valid({})


def test_the_asyncapi_document_refers_to_nothing_that_is_not_there():
    document = json.loads((export.FOLDER / "asyncapi.json").read_bytes())
    assert "3.0.0" == document["asyncapi"]

    def references(node):
        if isinstance(node, dict):
            yield from [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    found = set(references(document))
    assert found
    for reference in found:
        target = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]


def test_the_contract_needs_msgspec_and_the_standard_library_alone():
    code = (
        "import sys, schemas.events, schemas.names, schemas.results, schemas.state, schemas.export;"
        "print(*{name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    theirs = {name for name in run.stdout.split() if not name.startswith("_") and name != "sitecustomize"}
    # msgspec takes typing_extensions where it finds it.
    assert {"msgspec", "schemas"} == theirs - {"typing_extensions"}
