"""What is fuzzed: each reader of bytes that somebody else wrote, with whole examples of them and what must hold for any others.

A subject takes one input and returns; what it raises is a finding. What a reader promises to raise, its subject catches.
"""

import contextlib
import io
import json
import os
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from consumer.archive import card, columns, listing
from consumer.archive.outbox import OUTBOX_FILE, Outbox
from consumer.archive.parcels import ParcelError, find_published, pack
from consumer.errors import SpoolError, StateError, VerificationError
from consumer.filesystem import Disk
from consumer.intake.decode import decode
from consumer.intake.receipts import TABLE_FILE, Receipts, ReceiptTable
from consumer.intake.resume import Committed, decide, parse_metadata
from consumer.intake.source import TopicEnds
from consumer.report import metrics
from consumer.report.verify import read_run
from consumer.runs import checkpoint
from consumer.runs.index import ENTRY, count_distinct, decode_side, encode_side, pack_entry
from consumer.runs.lifecycle import TallyKey
from consumer.runs.samples import copy_samples
from consumer.runs.spool import TaskFiles, read_record
from schemas.names import files_of_results, model_folder, run_files, safe_component
from schemas.state import (
    Checkpoint,
    CommitMetadata,
    PartitionState,
    Receipt,
    RunState,
    Span,
    TaskState,
    TopicCut,
)


class Subject(NamedTuple):
    """A reader.

    `examples`: whole inputs, to be mutated. `take`: reads one. `share`: of the inputs, against those of the others.
    """

    examples: list[bytes]
    take: Callable[[bytes], object]
    share: int


EVENTS = [
    b'{"type":"run_started","run_id":"r","shard":1,"num_shards":4,"harness":"lm-eval","model_name":"org/m","date":"20260101_000000","tasks":{"t":2},"config":{"limit":null}}',
    b'{"type":"samples","run_id":"r","task":"t","filter":"none","samples":[{"doc_id":0,"row":{"doc_id":0,"acc":NaN},"scores":{"acc":1.0,"k":[1,0]},"cluster":"v"},{"doc_id":"b","row":{"x":"\\ud83d"}}]}',
    b'{"type":"aggregate","run_id":"r","task":"t","results":{"alias":"t","acc,none":0.5},"version":"Yaml","n_shot":0,"group":null}',
    b'{"type":"run_ended","run_id":"r","status":"failed","samples":{"t":2},"aggregates":["t"],"report":{"date":"20260101_000000"}}',
    b'{"type":"run_expired","run_id":"r","last":17,"reason":"idle"}',
]

RESULTS = json.dumps(
    {
        "results": {"t": {"alias": "t", "acc,none": 0.5, "acc_stderr,none": "N/A"}},
        "n-samples": {"t": {"original": 2, "effective": 2}},
        "config": {"model": "m"},
        "task_hashes": {"t": "00"},
        "model_name": "org/m",
        "evalsink": {
            "run_id": "r",
            "status": "complete",
            "why": [],
            "shards": 1,
            "tasks": {"t": {"file": "20260101_000000-454349e4_samples_t.jsonl", "rows": 1, "bytes": 13}},
        },
    },
    indent=2,
).encode()

RESULTS_NAME = "20260101_000000-454349e4_results.json"


class Folders:
    """A folder of the fuzzer's own, written anew for each input."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.outside = sorted(path.name for path in root.parent.iterdir())

    def fresh(self, name: str) -> Path:
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        return folder


def take_event(content: bytes) -> None:
    for role in ("samples", "aggregates", "both"):
        decode(content, b"r", role)
    decode(content, content[:8] or None, "both")


def take_name(content: bytes) -> None:
    """Whatever a producer calls things, what comes out is one component each, within its bytes."""
    text = content.decode("utf-8", "replace")
    for harness in ("lmms-eval", "lm-eval"):
        folder = model_folder(text, harness)
        files = run_files(run_id=text or "r", model_name=text, date=text, harness=harness)
        names = [files.results, files.table, files.metrics, files.samples(text)]
        for name in [*names, *([folder] if folder else [])]:
            is_one = "/" not in name and "\\" not in name and name not in {"", ".", ".."}
            assert is_one, name
            assert "\0" not in name, name
            assert len(name.encode()) <= 255, name
            assert not name.startswith("."), name
        assert os.path.normpath(f"o/{folder}/{files.results}").startswith("o/")
    safe_component(text)
    files_of_results(text)


def checkpoint_taker(folders: Folders) -> Callable[[bytes], None]:
    state = folders.fresh("checkpoint")

    def take(content: bytes) -> None:
        (state / checkpoint.CHECKPOINT_FILE).write_bytes(content)
        found = checkpoint.load(state, group="g", topic_ids={"s": "1"}, disk=Disk())
        assert all(isinstance(one, PartitionState) for one in found.values())
        assert {checkpoint.CHECKPOINT_FILE} >= {path.name for path in state.iterdir()} - {"runs"}

    return take


def index_taker(folders: Folders) -> Callable[[bytes], None]:
    folder = folders.fresh("index")
    files = TaskFiles(folder / "rows", folder / "index", folder / "side")
    files.rows.write_bytes(b"{}\n" * 4)

    def take(content: bytes) -> None:
        files.index.write_bytes(content)
        files.side.write_bytes(content[::-1])
        total = len(content) // ENTRY.itemsize
        with tempfile.TemporaryDirectory(dir=folder) as scratch, contextlib.suppress(SpoolError):
            count_distinct(files.index, total, [TallyKey(0, 0, 0)], scratch=Path(scratch, "a"))
            copy_samples(
                files,
                io.BytesIO(),
                total=total,
                ranks=[0, 1],
                attempts=[0, 0],
                harness="lmms-eval",
                scratch=Path(scratch, "b"),
                on_scores=lambda _rank, _side: None,
            )

    return take


def take_side(content: bytes) -> None:
    with contextlib.suppress(SpoolError):
        decode_side(content)


def log_taker(folders: Folders) -> Callable[[bytes], None]:
    path = folders.fresh("log") / "lifecycle.log"

    def take(content: bytes) -> None:
        path.write_bytes(content)
        with contextlib.suppress(SpoolError):
            read_record(path, Span(0, len(content)))

    return take


def receipt_taker(folders: Folders) -> Callable[[bytes], None]:
    table = ReceiptTable(folders.fresh("receipts"))
    reader = Receipts.__new__(Receipts)  # without a broker: what it reads is given
    reader._table, reader._group, reader._unsaved = table, "g", {}

    def take(content: bytes) -> None:
        reader._take(0, b"g/r", content)
        reader._take(0, content, content)
        reader._take(0, b"g/r", None)
        reader.find(0, "r")

    return take


def take_metadata(content: bytes) -> None:
    committed = Committed(5, content.decode("utf-8", "replace"))
    parse_metadata(committed, "1")
    decide(topic_ids={"s": "1"}, committed={"s": committed}, local={"s": 3}, ends={"s": TopicEnds(0, 10)})


def results_taker(folders: Folders) -> Callable[[bytes], None]:
    output = folders.fresh("output")
    (output / "org__m").mkdir(exist_ok=True)
    path = output / "org__m" / RESULTS_NAME
    (output / "org__m" / "20260101_000000-454349e4_samples_t.jsonl").write_bytes(b'{"doc_id":0}\n')

    def take(content: bytes) -> None:
        path.write_bytes(content)
        with contextlib.suppress(VerificationError):
            read_run(path)
        for results, _, _, sha256 in find_published(output):
            try:
                parcel = pack(output, results, sha256=sha256, render=metrics.render)
            except ParcelError:
                continue
            for source in parcel.samples.values():
                assert source.resolve().is_relative_to(output.resolve())

    return take


def take_metrics_row(content: bytes) -> None:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return
    if isinstance(document, dict):
        metrics.render(document, f"org__m/{RESULTS_NAME}", "00")


def take_card(content: bytes) -> None:
    card.remembered(content, {})
    columns.scan(content.splitlines(keepends=True))
    listing.runs(content.decode("utf-8", "replace").splitlines())


def outbox_taker(folders: Folders) -> Callable[[bytes], None]:
    state = folders.fresh("outbox")

    def take(content: bytes) -> None:
        for path in state.iterdir():
            path.unlink()
        (state / OUTBOX_FILE).write_bytes(content)
        with contextlib.suppress(StateError, OSError):
            Outbox(state).close()
        Outbox(state, mend=True).close()

    return take


def table_taker(folders: Folders) -> Callable[[bytes], None]:
    state = folders.fresh("table")

    def take(content: bytes) -> None:
        for path in state.iterdir():
            path.unlink()
        (state / TABLE_FILE).write_bytes(content)
        try:
            table = ReceiptTable(state)
        except OSError:
            return
        table.next_offset(0, "x")
        table.close()

    return take


def subjects(root: Path) -> dict[str, Subject]:
    """All of them, working below `root`."""
    folders = Folders(root)
    run = RunState("r", "r", tasks=[TaskState("t", ["none"])], first={"s": 0}, last={"s": 3})
    whole = Checkpoint("g", {"s": "1"}, [PartitionState(0, {"s": 4}, {"r": run})])
    receipt = Receipt("g", "r", "complete", TopicCut("1", 5), TopicCut("1", 2), "stem", "m/r.json", "00")
    entries = b"".join(
        pack_entry(7, index, index % 2, index % 2, 0, 0, 0, index, index * 3, b"{}", 0, 0)
        for index in range(4)
    )
    side = encode_side("text", {"acc": 1.0, "k": [1.0, 0.0]}, "cluster")
    database = sqlite3.connect(root / "empty.sqlite")
    database.execute("CREATE TABLE errands (results TEXT)")
    database.commit()
    database.close()
    empty = (root / "empty.sqlite").read_bytes()
    made = [Outbox(None)]
    made[0].close()
    return {
        "decode": Subject(EVENTS, take_event, 40),
        "names": Subject([b"org/model", b"../../etc", "日本/\u202e.json".encode()], take_name, 20),
        "checkpoint": Subject([msgspec.json.encode(whole)], checkpoint_taker(folders), 5),
        "index": Subject([entries], index_taker(folders), 4),
        "side": Subject([side], take_side, 8),
        "log": Subject([msgspec.json.encode(["s", 0, 1])], log_taker(folders), 3),
        "receipt": Subject([msgspec.json.encode(receipt)], receipt_taker(folders), 6),
        "commit metadata": Subject([msgspec.json.encode(CommitMetadata("1", 3))], take_metadata, 6),
        "results JSON": Subject([RESULTS], results_taker(folders), 3),
        "metrics": Subject([RESULTS], take_metrics_row, 3),
        "card": Subject(
            [b'---\nconfigs:\n- config_name: "a"\n---\n', b'{"a":1}\n{"b":[1,2]}\n'], take_card, 2
        ),
        "outbox": Subject([empty], outbox_taker(folders), 0),
        "receipts table": Subject([empty], table_taker(folders), 0),
    }
