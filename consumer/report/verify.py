"""Published runs checked against what their results JSON says of them.

Owns: finding published runs, and what a run's names and its key ``evalsink`` have to agree on;
``consumer.report.samples`` checks the samples files. Invariants: nothing is taken from the results JSON
that can be computed from the files; memory is bounded by one results JSON and one row. Refused, with the
first difference: a results JSON that is named like ours but cannot be read as ours, so that damage does not
pass for somebody else's file.

Not to be had from the files alone, hence not checked: the evaluator's aggregates, the counts of rows that
lost.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from itertools import zip_longest
from pathlib import Path
from typing import Any, NoReturn

import msgspec
from msgspec import UNSET, Struct

from consumer.errors import UsageError, VerificationError
from consumer.filesystem import files_below
from consumer.report.metrics import render
from consumer.report.samples import check_samples
from schemas.names import RunFiles, files_of_results, hash8, model_folder
from schemas.results import OWN_KEY, Evalsink

FORMAT = 1
"""Of the key ``evalsink``: the one version that is known here."""

_OUR_STEM = re.compile(r".-[0-9a-f]{8}$")

Advance = Callable[[int], None]


class PublishedRun(Struct, frozen=True):
    """A run as its results JSON describes it.

    Attributes:
        path: The results JSON.
        files: How its files are named; the folder is that of `path`.
        own: The key ``evalsink``.
        task_hashes: Task to the harness's hash.
        model_name: As the harness was given it.
        results: All of the results JSON.
        sha256: Of its bytes, hex.
    """

    path: Path
    files: RunFiles
    own: Evalsink
    task_hashes: dict[str, str]
    model_name: str
    results: dict[str, Any]
    sha256: str

    @property
    def rows(self) -> int:
        """Rows of all tasks."""
        return sum(entry.rows for entry in self.own.tasks.values())

    @property
    def size(self) -> int:
        """Bytes of all samples files."""
        return sum(entry.bytes for entry in self.own.tasks.values())


def find_results(paths: Iterable[Path]) -> list[Path]:
    """Every file that is named like a results JSON: those given, and those in the folders given, by name.

    Raises:
        UsageError: a path that does not exist, or a file with another kind of name.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        inside: Iterable[Path] = (path,)
        if path.is_dir():
            inside = (
                file
                for file in files_below(path, skip_denied=True)
                if files_of_results(file.name) and file.is_file()
            )
        elif not path.is_file():
            raise UsageError(f"no such file or folder: {path}")
        elif not files_of_results(path.name):
            raise UsageError(f"{path}: a results JSON is named *_results.json or results_*.json")
        for file in sorted(inside):
            found.setdefault(file.resolve(), file)
    return list(found.values())


def read_run(path: Path) -> PublishedRun | None:
    """The run that the results JSON at `path` describes; None if evalsink did not write it.

    Raises:
        VerificationError: ours by name or content, but not readable as what we write.
    """
    files = files_of_results(path.name)
    assert files is not None, path
    try:
        content = path.read_bytes()
    except OSError as error:
        _differ(path, "file", "one that can be read", error.strerror)
    ours = bool(_OUR_STEM.search(files.stem))
    try:
        results = msgspec.json.decode(content)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        if ours or b'"evalsink"' in content:
            _differ(path, "content", "strict JSON in UTF-8", str(error))
        return None
    if not isinstance(results, dict) or OWN_KEY not in results:
        if ours:
            _differ(path, "content", f"an object with the key {OWN_KEY!r}", "none")
        return None
    _expect(path, "last key", OWN_KEY, list(results)[-1])
    return PublishedRun(
        path=path,
        files=files,
        own=_convert(path, results, OWN_KEY, Evalsink),
        task_hashes=_convert(path, results, "task_hashes", dict[str, str]),
        model_name=_convert(path, results, "model_name", str),
        results=results,
        sha256=hashlib.sha256(content).hexdigest(),
    )


def verify_run(run: PublishedRun, advance: Advance = lambda _: None) -> None:
    """Recompute every hash, count and identity of a run.

    Args:
        run: The run.
        advance: Told the bytes of samples files checked since the last call.

    Raises:
        VerificationError: the first difference.
    """
    path, own, folder = run.path, run.own, run.path.absolute().parent
    _expect(path, "format of the key evalsink", FORMAT, own.format)
    _expect(path, "end of the stem, from the run_id", f"-{hash8(own.run_id)}", run.files.stem[-9:])
    if model := model_folder(run.model_name, run.files.harness):
        _expect(path, "folder of the model", model, folder.name)
    _expect(path, "reasons named in why", own.status != "complete", bool(own.why))
    with_rows = {task for task, entry in own.tasks.items() if entry.rows}
    _expect_same(path, "tasks with a task hash", with_rows, run.task_hashes.keys())
    for task, entry in own.tasks.items():
        of_task = f"of task {task!r}"
        if own.status == "complete":
            _expect(path, f"missing rows {of_task} of a complete run", UNSET, entry.missing)
        _expect(path, f"rows of all filters {of_task}", entry.rows, sum(entry.filters.values()))
        _expect(
            path, f"filters without rows {of_task}", [], [name for name, n in entry.filters.items() if n < 1]
        )
        if not entry.rows:
            nothing = (entry.file, entry.bytes, entry.sha256)
            _expect(path, f"file, bytes and sha256 {of_task}", (None, 0, None), nothing)
            continue
        _expect(path, f"file {of_task}", run.files.samples(task), entry.file)
    listed = {entry.file for entry in own.tasks.values() if entry.file}
    _expect_same(path, "samples files beside it", listed, _samples_beside(folder, run.files.stem))
    _expect(path, "table beside it", True, (folder / run.files.table).is_file())
    for task, entry in own.tasks.items():
        if entry.file is not None:
            _expect_file(path.with_name(entry.file))
            check_samples(
                path.with_name(entry.file),
                entry,
                run.files.harness,
                task_hash=run.task_hashes[task],
                advance=advance,
            )
    _check_metrics(run)


def _check_metrics(run: PublishedRun) -> None:
    """The file of figures is exactly what the results JSON gives."""
    path = run.path.with_name(run.files.metrics)
    folder = model_folder(run.model_name, run.files.harness)
    _expect_file(path)
    expected = render(run.results, f"{folder}/{run.path.name}" if folder else run.path.name, run.sha256)
    try:
        found = path.read_bytes()
    except OSError as error:
        _differ(path, "file", f"{len(expected)} bytes", error.strerror)
    if found != expected:
        lines = zip_longest(expected.split(b"\n"), found.split(b"\n"))
        number, (wanted, line) = next(pair for pair in enumerate(lines, 1) if pair[1][0] != pair[1][1])
        _differ(path, f"line {number}", _shown(wanted), _shown(line))


def _shown(line: bytes | None) -> str:
    return "none" if line is None else repr(line.decode(errors="replace"))


def _expect_file(path: Path) -> None:
    """What is something else may have no end, or wait for somebody to write."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        _differ(path, "file", "one", "a pipe or a device: no file")


def _samples_beside(folder: Path, stem: str) -> set[str]:
    """Samples files of this stem, in the layout of either harness."""
    return {
        file.name
        for file in folder.iterdir()
        if file.name.endswith(".jsonl")
        and (
            file.name.startswith(f"{stem}_samples_")
            or (file.name.startswith("samples_") and file.name.endswith(f"_{stem}.jsonl"))
        )
    }


def _convert(path: Path, results: dict[str, Any], key: str, shape: type) -> Any:
    try:
        return msgspec.convert(results.get(key), shape)
    except msgspec.ValidationError as error:
        _differ(path, f"key {key!r}", "the shape that evalsink writes", str(error))


def _expect(path: Path, what: str, expected: object, found: object) -> None:
    if expected != found:
        _differ(path, what, expected, found)


def _expect_same(path: Path, what: str, expected: AbstractSet[str], found: AbstractSet[str]) -> None:
    """Name what only one of the two has."""
    _expect(path, what, sorted(expected - found), sorted(found - expected))


def _differ(path: Path, what: str, expected: object, found: object) -> NoReturn:
    raise VerificationError(f"{path}: {what}: expected {expected}, found {found}")
