"""A small published run, written by hand: by the formulas, not by the code that is tested."""

import hashlib
import json
from pathlib import Path

import msgspec

from schemas.events import Harness
from schemas.metrics import MetricRow
from schemas.names import RunFiles, files_of_results, run_files
from schemas.results import Evalsink, TaskEntry

ROWS = {
    "mme": {
        "strict": [b'{"doc_id": %d, "doc_hash": "h%d", "acc": 1.0}' % (i, i) for i in range(10)],
        "flexible": [b'{"doc_id":%d,"doc_hash":"h%d","acc":0}' % (i, i) for i in (-5, 0, 2, 10, 300)],
    },
    "caf\u00e9/vqa": {
        "none": [
            b'{"doc_id": 7, "doc_hash": "a"}',
            '{"doc_id": "10", "doc_hash": "b", "input": "日本語\u2028"}'.encode(),
            b'{"doc_id": "9", "doc_hash": "c"}',
            '{"doc_id": "é", "doc_hash": "d"}'.encode(),
        ]
    },
    "no-doc-id": {"none": [b'{"doc_hash": "a"}', b'{"doc_hash": "b", "doc_id": 2.5}', b'{"doc_hash": "c"}']},
    "announced": {},
}
"""Task to filter to rows: integers ascending, then texts by their bytes."""

LM_EVAL_HASHES = b', "prompt_hash": "p", "target_hash": "t"}'


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def publish(
    output: Path,
    *,
    harness: Harness = "lmms-eval",
    rows=ROWS,
    run_id="run 1",
    model="org/a:model",
    status="complete",
    why=(),
) -> Path:
    """Write the files of a run; the path of its results JSON."""
    date = "20260102_030405" if harness == "lmms-eval" else "2026-01-02T03-04-05.678901"
    files = run_files(run_id=run_id, model_name=model, date=date, harness=harness)
    folder = output / files.folder
    folder.mkdir(parents=True, exist_ok=True)
    entries, hashes = {}, {}
    for task, filters in rows.items():
        lines = [row for rows_of_filter in filters.values() for row in rows_of_filter]
        doc_hashes = [json.loads(line)["doc_hash"] for line in lines]
        if harness == "lm-eval":
            lines = [line.removesuffix(b"}") + LM_EVAL_HASHES for line in lines]
        if not lines:
            entries[task] = TaskEntry()
            continue
        content = b"".join(line + b"\n" for line in lines)
        (folder / files.samples(task)).write_bytes(content)
        joined = (
            "".join(f"sample_{i}{doc_hash}" for i, doc_hash in enumerate(doc_hashes))
            if harness == "lmms-eval"
            else "".join(f"{doc_hash}pt" for doc_hash in doc_hashes)
        )
        hashes[task] = sha256(joined.encode())
        entries[task] = TaskEntry(
            file=files.samples(task),
            rows=len(lines),
            bytes=len(content),
            sha256=sha256(content),
            filters={name: len(rows_of_filter) for name, rows_of_filter in filters.items()},
        )
    own = Evalsink(run_id=run_id, status=status, why=list(why), shards=1, tasks=entries)
    results = {
        "results": {"mme": {"alias": "mme", "acc,strict": 1.0}},
        "n-shot": {"mme": 0},
        "task_hashes": hashes,
        "model_name": model,
        "evalsink": msgspec.to_builtins(own),
    }
    (folder / files.table).write_text("|Tasks|\n")
    path = folder / files.results
    write(path, results)
    write_metrics(path, files)
    return path


def write_metrics(path: Path, files: RunFiles) -> None:
    """The figures of the run whose results JSON is `path`: one for `mme`, none for its other tasks."""
    content = path.read_bytes()
    results = json.loads(content)
    own, model = results["evalsink"], files.folder
    lines = []
    for task in dict.fromkeys(["mme", *own["tasks"]]):
        entry = own["tasks"].get(task, {"rows": None, "file": None, "sha256": None})
        figure = ("strict", "acc", 1.0) if task == "mme" else (None, None, None)
        row = dict.fromkeys(MetricRow.__struct_fields__)
        row |= {"run_id": own["run_id"], "status": own["status"], "harness": files.harness}
        row |= {"model_name": results["model_name"], "model": model, "date": files.stem[:-9], "task": task}
        row |= dict(zip(("filter", "metric", "value"), figure, strict=True))
        row |= {"n_shot": 0 if task == "mme" else None, "group": False, "rows": entry["rows"]}
        row["samples_file"] = entry["file"] and str(Path(model) / entry["file"])
        row |= {"samples_sha256": entry["sha256"], "results_file": str(Path(model) / path.name)}
        row |= {"results_sha256": sha256(content), "task_hash": results["task_hashes"].get(task)}
        lines.append(json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    path.with_name(files.metrics).write_bytes(b"".join(lines))


def write(path: Path, results: dict) -> None:
    path.write_bytes(json.dumps(results, indent=2, ensure_ascii=False).encode())


def sign(path: Path) -> None:
    """Let the figures follow a results JSON that was edited."""
    files = files_of_results(path.name, folder=path.parent.name)
    assert files is not None
    write_metrics(path, files)


def samples(path: Path, task: str = "mme") -> Path:
    """The samples file of a task of the run whose results JSON is `path`."""
    return path.with_name(json.loads(path.read_bytes())["evalsink"]["tasks"][task]["file"])


def edit(path: Path, *keys: str, value: object) -> None:
    """Set what stands at `keys` in the results JSON."""
    results = place = json.loads(path.read_bytes())
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    write(path, results)


def set_rows(path: Path, lines: list[bytes], *, signed: bool, task: str = "mme") -> None:
    """Replace the lines of a samples file; `signed`: size, rows and sha256 in the results JSON follow."""
    content = b"".join(lines)
    samples(path, task).write_bytes(content)
    if signed:
        entry = {"rows": len(lines), "bytes": len(content), "sha256": sha256(content)}
        for key, value in entry.items():
            edit(path, "evalsink", "tasks", task, key, value=value)
