"""Parcels: what one run puts into which repository, by its results JSON.

Owns: which files a published run consists of, where they go, and the names of repositories. Invariants: the
path of a file in a repository is its path below the output folder; the results JSON is the last of them.
Refuses a run whose results JSON is gone, or is another one than was entered into the outbox.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from consumer.filesystem import files_below
from consumer.settings import Hub
from schemas.names import PARTIAL_FOLDER, files_of_results, hash8, relative_paths
from schemas.results import Evalsink, RunStatus

_REPO_NAME_MAX = 96

Source = Path | bytes
"""A file's content: where it lies, or itself."""


class ParcelError(Exception):
    """The run's files are not, or no longer, what the outbox knows of."""


class Parcel(Struct, frozen=True):
    """The files of one run.

    Attributes:
        results: Path of the results JSON, which names the run in the outbox and in a repository.
        run_id: The run; the path again for one that evalsink did not close.
        files: Path in the repository to content: everything but samples, the results JSON last.
        samples: The samples files likewise.
        metrics: Which of `files` is the one with a row a metric; it goes wherever anything of the run goes.
        hashes: Path to sha256 (hex), where that is known.
        folder: Model folder, "" where the files lie directly in the output folder.
    """

    results: str
    run_id: str
    files: Mapping[str, Source]
    samples: Mapping[str, Source]
    metrics: str
    hashes: Mapping[str, str]
    folder: str

    def into(self, repo: str, hub: Hub) -> dict[str, Source]:
        """What of it goes into `repo`."""
        results_repo, samples_repo = repositories(self.folder, hub)
        chosen: dict[str, Source] = {}
        if repo == samples_repo:
            chosen |= self.samples
            chosen[self.metrics] = self.files[self.metrics]
        if repo == results_repo:
            chosen |= self.files
        return chosen

    def bytes_of(self, *, largest: int | None = None) -> int:
        """Bytes of its files, or of those that are not larger than `largest`."""
        every = (*self.files.values(), *self.samples.values())
        sizes = [one.stat().st_size if isinstance(one, Path) else len(one) for one in every]
        return sum(size for size in sizes if largest is None or size <= largest)


class _Published(Struct, frozen=True):
    """The part of a results JSON that is looked at."""

    evalsink: Evalsink


def pack(
    output: Path,
    results: str,
    *,
    sha256: str,
    render: Callable[[Mapping[str, Any], str, str], bytes] | None = None,
) -> Parcel:
    """The parcel of a run that evalsink published.

    Args:
        output: Output folder.
        results: Path of the results JSON below it.
        sha256: Its hash when it was entered into the outbox, hex.
        render: Makes the metrics file of a run that was published before there were any.

    Raises:
        ParcelError: it or a file that it counts is not there, has changed, or lies elsewhere.
    """
    path = output / results
    try:
        content = path.read_bytes()
        own = msgspec.json.decode(content, type=_Published).evalsink
    except (OSError, ValueError, msgspec.DecodeError, RecursionError) as error:
        raise ParcelError(f"{path} cannot be read: {error}") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ParcelError(f"{path} has other bytes than when it was closed")
    folder, _, name = results.rpartition("/")
    files = files_of_results(name, folder=folder)
    if files is None:
        raise ParcelError(f"{path} is not named like a results JSON")
    table, metrics = relative_paths(folder, [files.table, files.metrics])
    entries = {}
    for task, entry in own.tasks.items():
        if entry.file is not None:
            # A results JSON is a file like any other: it must not name what lies elsewhere.
            if entry.file != files.samples(task):
                raise ParcelError(f"{path} names {entry.file!r} as samples file of task {task!r}")
            [place] = relative_paths(folder, [entry.file])
            entries[place] = entry
    sources: dict[str, Source] = {name: output / name for name in (table, metrics, results)}
    if render is not None and not (output / metrics).exists():
        sources[metrics] = _rendered(render, content, results, sha256)
    parcel = Parcel(
        results=results,
        run_id=own.run_id,
        files=sources,
        samples={name: output / name for name in entries},
        metrics=metrics,
        hashes={results: sha256, **{name: entry.sha256 or "" for name, entry in entries.items()}},
        folder=folder,
    )
    check_files(parcel, output)
    for name, entry in entries.items():
        if (output / name).stat().st_size != entry.bytes:
            raise ParcelError(f"{output / name} has another size than its results JSON says")
    return parcel


def _rendered(
    render: Callable[[Mapping[str, Any], str, str], bytes], content: bytes, results: str, sha256: str
) -> bytes:
    try:
        return render(json.loads(content), results, sha256)
    except (ValueError, RecursionError) as error:
        raise ParcelError(f"{results} is no strict JSON: {error}") from error


def check_files(parcel: Parcel, root: Path) -> None:
    """Every file of a parcel is one, and lies below `root`.

    Raises:
        ParcelError: one is gone, or a link leads elsewhere.
    """
    inside = root.resolve()
    for source in (*parcel.samples.values(), *parcel.files.values()):
        if isinstance(source, Path):
            if not source.is_file():
                raise ParcelError(f"{source} is gone")
            if not source.resolve().is_relative_to(inside):
                raise ParcelError(f"{source} is a link to what lies elsewhere")


def find_published(output: Path) -> Iterator[tuple[str, str, RunStatus, str]]:
    """(results, run_id, status, sha256) of every run that evalsink published below `output`."""
    for path in sorted(files_below(output, skip_denied=True)):
        relative = path.relative_to(output)
        if files_of_results(path.name) is None:
            continue
        if relative.parts[0].startswith(".") or relative.parts[0] == PARTIAL_FOLDER:
            continue
        try:
            content = path.read_bytes()
            own = msgspec.json.decode(content, type=_Published).evalsink
            relative.as_posix().encode()  # names that are no text are none of ours
        except (OSError, ValueError, msgspec.DecodeError, RecursionError):
            continue  # somebody else's
        yield relative.as_posix(), own.run_id, own.status, hashlib.sha256(content).hexdigest()


def place_of(hub: Hub) -> str:
    """Says where runs are archived: two places that differ in this are two."""
    return " ".join((hub.repo, hub.samples_repo or hub.repo, hub.branch, hub.endpoint))


def mirror_of(output: Path, hub: Hub) -> str:
    """Says what is archived where."""
    return f"{hub.runs} of {output} in {place_of(hub)}"


def repositories(folder: str, hub: Hub) -> tuple[str, str]:
    """Where results and samples of a model's runs go; the same twice where they are not kept apart."""
    results = _named(hub.repo, folder)
    return results, _named(hub.samples_repo, folder) if hub.samples_repo else results


def _named(template: str, folder: str) -> str:
    """`template` with the model's folder in it, made a name that the Hub takes.

    The Hub's rules: letters, digits, ``-``, ``_`` and ``.``, at most 96 of them, no ``--`` nor ``..``, none
    of ``-.`` at the ends, no ``.git`` at the end. A folder that cannot stand as it is gets 8 hex of its hash.
    """
    if "{model}" not in template:
        return template
    space, _, name = template.partition("/")
    room = _REPO_NAME_MAX - len(name.replace("{model}", ""))
    safe = re.sub(r"[-.]{2,}", "-", re.sub(r"[^A-Za-z0-9._-]", "-", folder)).strip("-.")
    if safe != folder or len(safe) > room or safe.endswith(".git") or not safe:
        safe = f"{safe[: room - 9].rstrip('-.')}-{hash8(folder)}".strip("-.")
    filled = re.sub(r"[-.]{2,}", "-", name.replace("{model}", safe))
    return f"{space}/{filled}"
