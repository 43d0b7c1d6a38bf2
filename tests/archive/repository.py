"""A repository in memory: runs with files, whose card is made as a pusher makes it."""

import hashlib
import json
from pathlib import Path

import msgspec

from consumer.archive import card, columns, listing
from consumer.report import metrics as figures
from schemas.metrics import MetricRow
from schemas.names import run_files

_decode = msgspec.json.Decoder(MetricRow).decode_lines


def run_of(
    run_id="r",
    *,
    model="org/m",
    date="20260101_000000",
    harness="lmms-eval",
    status="complete",
    tasks=None,
    results=None,
    **more,
):
    """Path to content of a run's files; `tasks`: name to rows, each an object or the bytes of a line."""
    files = run_files(run_id=run_id, model_name=model, date=date, harness=harness)
    place = f"{files.folder}/{{}}" if files.folder else "{}"
    found, entries = {}, {}
    for task, rows in (tasks or {}).items():
        content = b"".join(
            (row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode()) + b"\n"
            for row in rows
        )
        entries[task] = {
            "file": files.samples(task),
            "rows": len(rows),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        found[place.format(files.samples(task))] = content
    document = {
        "results": {task: {"acc,none": 0.5} for task in tasks or {}} if results is None else results,
        "model_name": model,
        **more,
        "evalsink": {"run_id": run_id, "status": status, "tasks": entries},
    }
    content = json.dumps(document).encode()
    path = place.format(files.results)
    found[path] = content
    sha256 = hashlib.sha256(content).hexdigest()
    found[place.format(files.metrics)] = figures.render(document, path, sha256)
    return found


def figures_of(files):
    """Path to rows of the metrics files that can be read."""
    found = {}
    for run in listing.runs(files):
        if run.metrics is not None:
            try:
                found[run.metrics] = _decode(files[run.metrics])
            except msgspec.MsgspecError:
                continue
    return found


def card_of(files, *, known=None, here=None, repo_id="org/evals", branch="main"):
    """The card of a repository that holds `files`.

    `known`: the columns that the card before it tells; `here`: paths whose content is at hand, all if None.
    """
    runs, rows = listing.runs(files), figures_of(files)
    kinds = {}
    for path in card.samples_listed(runs, rows):
        if here is None or path in here:
            kinds[path] = columns.scan(files[path].splitlines(keepends=True))
        elif known is not None and path in known:
            kinds[path] = known[path]
    return card.render(
        repo_id=repo_id, branch=branch, runs=runs, metrics=rows, columns=kinds, sizes=sizes_of(files)
    )


def sizes_of(files):
    """Path to bytes, as a listing tells them."""
    return {path: len(content) for path, content in files.items()}


def write(files, folder: Path):
    """The repository as a folder, its card in it."""
    for path, content in {**files, "README.md": card_of(files)}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder
