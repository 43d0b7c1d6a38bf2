"""Small evaluations on disk, and what goes over the wire for them, for the tests of this folder."""

import json
from pathlib import Path

import msgspec

from consumer.publish.arrangement import Arrangement
from consumer.publish.outputs import find_outputs
from consumer.publish.publication import Publication, prepare
from schemas.events import Event, RunEnded, Samples

STAMP = "20260102_030405"
ISO = "2026-01-02T03-04-05.678901"


def results(**more):
    return {
        "results": {"mme": {"alias": "mme", "acc,none": 0.5}},
        "date": STAMP,
        "model_name": "org/m",
    } | more


def lines(count, **more):
    return [{"doc_id": i, "target": "א", "acc": float(i % 2), **more} for i in range(count)]


def write_lmms(folder: Path, document, tasks, *, stamp=STAMP) -> Path:
    """An lmms-eval run; rows are dicts or the bytes of a line."""
    folder.mkdir(parents=True, exist_ok=True)
    for task, rows in tasks.items():
        write_rows(folder / f"{stamp}_samples_{task}.jsonl", rows)
    path = folder / f"{stamp}_results.json"
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False))
    return path


def write_lm(folder: Path, document, tasks, *, stamp=ISO) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for task, rows in tasks.items():
        write_rows(folder / f"samples_{task}_{stamp}.jsonl", rows)
    path = folder / f"results_{stamp}.json"
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False))
    return path


def write_rows(path: Path, rows) -> None:
    path.write_bytes(b"".join(as_line(row) + b"\n" for row in rows))


def as_line(row) -> bytes:
    return row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode()


def publication(path: Path, *, shards=1, batch_size=20, seed=None, duplicate=0.0, run_id=None) -> Publication:
    """The only run at `path`, ready to be sent."""
    [output] = find_outputs(path).outputs
    return prepare(output, shards=shards, arrangement=Arrangement(batch_size, seed, duplicate), run_id=run_id)


def events(prepared: Publication) -> list[Event]:
    return [msgspec.json.decode(message.value, type=Event) for message in prepared.messages()]


def of_type(kind, all_events):
    return [event for event in all_events if isinstance(event, kind)]


def sent_rows(all_events):
    """(task, filter, doc_id, row bytes, shard) of every row sent, in order."""
    return [
        (event.task, event.filter, sample.doc_id, bytes(sample.row), event.shard)
        for event in of_type(Samples, all_events)
        for sample in event.samples
    ]


def report(all_events):
    """The report of shard 0's end, decoded."""
    [end] = [event for event in of_type(RunEnded, all_events) if event.shard == 0]
    return json.loads(bytes(end.report))
