"""The spool: the worker's own files of its open runs, written as records come.

Layout below the state folder::

    runs/{partition}/{run}/{nnn}-{task}.jsonl   rows in order of arrival: `tail -f` works
    runs/{partition}/{run}/{nnn}-{task}.index   consumer.runs.index
    runs/{partition}/{run}/{nnn}-{task}.side    text ids, scores, clusters
    runs/{partition}/{run}/lifecycle.log        raw lifecycle and aggregate records: u32 length, msgpack of
    Record

Invariants: lengths in `RunState` lead, files follow: bytes go to the position that the state names, so that a
write which failed or half succeeded is simply done again. At most `open_files_max` files are open, and no
more than half of what the process may open. Nothing is durable before `consumer.runs.checkpoint` says so;
the log is.
"""

import hashlib
import os
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import astuple

from consumer.errors import SpoolError
from consumer.filesystem import open_files
from consumer.runs import index
from consumer.runs.lifecycle import TallyKey
from consumer.vocabulary import Record
from schemas.names import safe_component
from schemas.state import RunState, Span, TaskState

_record_encoder = msgspec.msgpack.Encoder()
_record_decoder = msgspec.msgpack.Decoder(Record)

LOG_FILE = "lifecycle.log"

BUFFER_BYTES_MAX = 8 * 1024 * 1024
"""Bytes held back for larger writes. Appending never writes by itself: so it cannot fail half way."""


class TaskFiles(Struct, frozen=True):
    """Paths of one task's spool files."""

    rows: Path
    index: Path
    side: Path


def run_folder_name(run_id: str) -> str:
    """A folder name for a run: readable, and 16 hex of its hash so that no crafted name meets another's."""
    return f"{safe_component(run_id, max_bytes=80)}-{hashlib.sha256(run_id.encode()).hexdigest()[:16]}"


def task_files(folder: Path, number: int, name: str) -> TaskFiles:
    """Paths of the task's files in a run's folder."""
    stem = f"{number:03d}-{safe_component(name)}"
    return TaskFiles(folder / f"{stem}.jsonl", folder / f"{stem}.index", folder / f"{stem}.side")


def spool_files(folder: Path, run: RunState) -> Iterator[tuple[Path, int]]:
    """Every file of a run and the length that its state names."""
    yield folder / LOG_FILE, run.log
    for number, task in enumerate(run.tasks):
        yield from zip(
            astuple(task_files(folder, number, task.name)), (task.rows, task.index, task.side), strict=True
        )


class _Pieces(Struct):
    """Bytes held back for one file, and where in it they go."""

    path: Path
    position: int
    chunks: list[bytes | memoryview]


class _Held(Struct, frozen=True):
    """What is held back for one task; `files` keeps the number by which it is found its own."""

    files: TaskFiles
    rows: _Pieces
    entries: _Pieces
    sides: _Pieces


class Spool:
    """Appends to and reads from the files of open runs. One thread."""

    def __init__(self, root: Path, *, open_files_max: int) -> None:
        self.root = root
        self._open_files_max = open_files(open_files_max)
        # Ordered: to find the first of a plain dict takes ever longer the more firsts were removed before.
        self._open: OrderedDict[Path, int] = OrderedDict()
        self._held: dict[int, _Held] = {}
        self._held_records: dict[Path, _Pieces] = {}
        self._held_bytes = 0
        self._tasks: dict[Path, dict[int, TaskFiles]] = {}

    def folder(self, partition: int, run: RunState) -> Path:
        """Where the run's files lie."""
        return self.root / "runs" / str(partition) / run.folder

    def create(self, partition: int, run: RunState) -> None:
        """Make the run's folder."""
        self.folder(partition, run).mkdir(parents=True)

    def task_files(self, partition: int, run: RunState, number: int) -> TaskFiles:
        """Paths of task `number`."""
        folder = self.folder(partition, run)
        tasks = self._tasks.setdefault(folder, {})
        if number not in tasks:
            tasks[number] = task_files(folder, number, run.tasks[number].name)
        return tasks[number]

    def log_path(self, partition: int, run: RunState) -> Path:
        """Path of the run's lifecycle log."""
        return self.folder(partition, run) / LOG_FILE

    def append_rows(
        self,
        files: TaskFiles,
        task: TaskState,
        *,
        rows: Sequence[bytes | memoryview],
        entries: Sequence[bytes],
        sides: Sequence[bytes | memoryview],
        ends: tuple[int, int, int],
    ) -> None:
        """Append a batch to a task's three files.

        Args:
            files: The task's files.
            task: Its state, whose lengths move on.
            rows: Pieces for its rows, newlines included.
            entries: Pieces for its index.
            sides: Pieces for its side file.
            ends: How long rows, index and side file are with them.
        """
        # By the object's own number, which it keeps while it is held: hashing three paths costs more than the
        # rest.
        held = self._held.get(id(files))
        if held is None:
            held = self._held[id(files)] = _Held(
                files,
                _Pieces(files.rows, task.rows, []),
                _Pieces(files.index, task.index, []),
                _Pieces(files.side, task.side, []),
            )
        held.rows.chunks += rows
        held.entries.chunks += entries
        held.sides.chunks += sides
        self._held_bytes += sum(ends) - task.rows - task.index - task.side
        task.rows, task.index, task.side = ends

    def append_record(self, partition: int, run: RunState, record: Record) -> Span:
        """Append a raw record to the run's log."""
        content = _record_encoder.encode(record)
        span = Span(run.log + 4, len(content))
        framed = len(content).to_bytes(4, "little") + content
        path = self.log_path(partition, run)
        if path not in self._held_records:
            self._held_records[path] = _Pieces(path, run.log, [])
        self._held_records[path].chunks.append(framed)
        self._held_bytes += len(framed)
        run.log += len(framed)
        return span

    def read_record(self, partition: int, run: RunState, span: Span) -> Record:
        """A record of the run's log."""
        self.flush()
        return read_record(self.log_path(partition, run), span)

    def count_distinct(
        self, partition: int, run: RunState, keys: Collection[TallyKey]
    ) -> Mapping[TallyKey, int]:
        """Distinct samples per key, from the indexes."""
        self.flush()
        counts: dict[TallyKey, int] = {}
        for number in {key.task for key in keys}:
            counts |= index.count_distinct(
                self.task_files(partition, run, number).index,
                run.tasks[number].index // index.ENTRY.itemsize,
                [key for key in keys if key.task == number],
                scratch=self.folder(partition, run) / "scratch",
            )
        return counts

    @property
    def is_full(self) -> bool:
        """So much is held back that it should be flushed."""
        return self._held_bytes > BUFFER_BYTES_MAX

    def flush(self) -> None:
        """Hand everything to the operating system.

        Raises:
            OSError: what could not be written is kept; calling again writes it to the same place.
        """
        for number, held in list(self._held.items()):
            for pieces in (held.rows, held.sides, held.entries):
                self._write(pieces)
            del self._held[number]
        for path, pieces in list(self._held_records.items()):
            self._write(pieces)
            del self._held_records[path]
        self._held_bytes = 0

    def drop(self, partition: int, run: RunState) -> None:
        """Close the run's files and forget what was not written. The folder stays."""
        self._forget(self.folder(partition, run))

    def close(self) -> None:
        """Close all files. Does not flush."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def _write(self, pieces: _Pieces) -> None:
        """Write what is held; what fails is held still, what is written is not."""
        if not pieces.chunks:
            return
        content = pieces.chunks[0] if len(pieces.chunks) == 1 else b"".join(pieces.chunks)
        descriptor, position, done = self._descriptor(pieces.path), pieces.position, 0
        while done < len(content):
            done += os.pwrite(descriptor, content[done:] if done else content, position + done)
        pieces.position += done
        pieces.chunks.clear()

    def _descriptor(self, path: Path) -> int:
        descriptor = self._open.get(path)
        if descriptor is None:
            while len(self._open) >= self._open_files_max:
                os.close(self._open.popitem(last=False)[1])
            descriptor = self._open[path] = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        return descriptor

    def _forget(self, folder: Path) -> None:
        tasks = self._tasks.pop(folder, {}).values()
        for path in (folder / LOG_FILE, *chain.from_iterable(map(astuple, tasks))):
            if (descriptor := self._open.pop(path, None)) is not None:
                os.close(descriptor)
        for files in tasks:
            self._held.pop(id(files), None)
        self._held_records.pop(folder / LOG_FILE, None)


class SpooledRun(Struct, frozen=True):
    """A settled run and where its files lie.

    Attributes:
        partition: Of the input topics.
        run: Its state; nobody changes it any more.
        scratch: Folder for sorting, this close-out's own.
        tasks: Files per task number.
        log: Its lifecycle log.
    """

    partition: int
    run: RunState
    scratch: Path
    tasks: Sequence[TaskFiles]
    log: Path


def read_record(log: Path, span: Span) -> Record:
    """The record at `span` of a run's log file.

    Raises:
        SpoolError: it holds something else there.
    """
    with log.open("rb") as file:
        file.seek(span.position)
        content = file.read(span.length)
    try:
        return _record_decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SpoolError(f"{log} does not hold what its index names: {error}") from error
