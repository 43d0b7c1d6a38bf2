"""Processes that die at any durable operation, and a disk that forgets what was not synced.

While `watching` is on, everything that changes a file system (`os.pwrite`, `os.link`, `os.replace`, `os.fsync`, …) asks the
process that does it first. That process may be killed there, before the operation or half way through it; from then on
nothing it does has any effect, whatever `finally` blocks still run. It may find no room, or take only a part of a write. Jobs
run on strands, which may stop between two operations and go on much later, as a thread of a process does that was stopped.

What is synced is known by `fsync` and `Disk.sync_tree` alone; `lose_power` gives back a state in which a file system may find
itself afterwards: names and bytes that were not synced are there, or not, or in part.

Invariants that are asserted here, at the operation that would break them: nothing published is ever replaced, changed or
removed; a results JSON gets its name after all it names, with its bytes, is durable.
"""

import contextlib
import errno
import hashlib
import json
import os
import random
import shutil
import threading
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from consumer.filesystem import Disk
from consumer.runs.publication import STAGING_FOLDER
from schemas.names import PARTIAL_FOLDER

RESULTS_END = "_results.json"

HALF = 0.5
UNTOUCHED = ("receipts.sqlite", "lock")
"""SQLite keeps its own promises, and what it loses is read again."""

_here = threading.local()

_REAL = {
    name: getattr(os, name)
    for name in ("pwrite", "link", "replace", "rename", "unlink", "rmdir", "mkdir", "truncate", "fsync")
}


class Killed(BaseException):
    """SIGKILL. No handler of the code under test may take it for an error."""


class Process:
    """What one process may still do. Its operations run inside `with process:`."""

    def __init__(self, storage: "Storage") -> None:
        self.storage = storage
        self.dead = False
        self.lives: int | None = None
        self.no_room = 0
        self.short_writes = 0
        self.operations = 0

    def __enter__(self) -> None:
        self._outer = getattr(_here, "process", None)
        _here.process = self

    def __exit__(self, *_: object) -> None:
        _here.process = self._outer

    def point(self) -> bool:
        """Before a durable operation. True: it is the last one, and may happen in part."""
        strand = getattr(_here, "strand", None)
        if strand is not None:
            strand.breathe()
        if self.dead:
            raise Killed
        self.operations += 1
        if self.lives is None:
            return False
        self.lives -= 1
        if self.lives < 0:
            self.die()
        return self.lives == 0

    def die(self) -> None:
        self.dead = True
        raise Killed

    def need_room(self, path: Any) -> None:
        if self.no_room:
            self.no_room -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


class Storage:
    """What of all folders is durable: bytes by inode, names by folder. And the watch over what is published."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.contents: dict[int, bytes] = {}
        self.names: dict[str, dict[str, int]] = {}
        self.linked: list[str] = []

    def note_sync(self, path: Path) -> None:
        if path.is_dir():
            self.names[str(path)] = _listing(path)
        elif path.exists():
            self.contents[path.stat().st_ino] = path.read_bytes()

    def note_sync_of_all(self, root: Path) -> None:
        for path in (root, *root.rglob("*")):
            self.note_sync(path)

    def is_durable(self, path: Path) -> bool:
        inode = path.stat().st_ino
        return (
            self.names.get(str(path.parent), {}).get(path.name) == inode
            and self.contents.get(inode) == path.read_bytes()
        )

    def is_published(self, path: Any) -> bool:
        try:
            relative = Path(os.fspath(path)).relative_to(self.output)
        except ValueError:
            return False
        return bool(relative.parts) and relative.parts[0] not in {STAGING_FOLDER, PARTIAL_FOLDER}

    def check_link(self, source: Path, target: Path) -> None:
        if not self.is_published(target):
            return
        content = source.read_bytes()
        assert self.contents.get(source.stat().st_ino) == content, f"{target} linked before it was synced"
        if not target.name.endswith(RESULTS_END) or target.exists():
            return
        own = json.loads(content)["evalsink"]
        stem = target.name.removesuffix(RESULTS_END)
        for name in (f"{stem}_results.md", f"{stem}_metrics.jsonl"):
            assert self.is_durable(target.with_name(name)), f"{name} not durable before the results JSON"
        for task in own["tasks"].values():
            if task["file"] is not None:
                samples = target.with_name(task["file"])
                assert self.is_durable(samples), f"{samples} not durable before the results JSON"
                found = samples.read_bytes()
                assert (task["bytes"], task["sha256"]) == (len(found), hashlib.sha256(found).hexdigest())
                assert task["rows"] == found.count(b"\n")
        self.linked.append(str(target))

    def lose_power(self, root: Path, dice: random.Random) -> None:
        """What is not synced below `root` is there, or is not, or in part."""
        self._lose_names(root, dice)
        self.note_sync_of_all(root)

    def _lose_names(self, folder: Path, dice: random.Random) -> None:
        now, durable = _listing(folder), self.names.get(str(folder), {})
        for name in sorted({*now, *durable}):
            path = folder / name
            before = durable.get(name)
            former = self.contents.get(before) if before is not None else None
            if name not in now:
                if former is not None and dice.random() < HALF:
                    path.write_bytes(former)  # that it was removed is forgotten
                continue
            if now[name] != before and dice.random() < HALF:
                if former is not None and path.is_file():
                    path.unlink()
                    path.write_bytes(former)  # that it was replaced is forgotten
                elif before is None:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                continue
            if path.is_dir():
                self._lose_names(path, dice)
            elif not name.startswith(UNTOUCHED):
                self._lose_bytes(path, dice)

    def _lose_bytes(self, path: Path, dice: random.Random) -> None:
        content = path.read_bytes()
        durable = self.contents.get(path.stat().st_ino, b"")
        if content == durable:
            return
        safe = next(
            (place for place, pair in enumerate(zip(content, durable, strict=False)) if pair[0] != pair[1]),
            min(len(content), len(durable)),
        )
        cut = dice.randint(safe, len(content))
        torn = dice.randint(safe, cut)
        left = dice.choice([content[:cut], content[:torn] + bytes(cut - torn)])
        if content and durable.startswith(content):
            left = dice.choice([left, durable])  # that it was cut off is forgotten
        with path.open("r+b") as file:
            file.truncate(0)
            file.write(left)


def _listing(folder: Path) -> dict[str, int]:
    with os.scandir(folder) as entries:
        return {entry.name: entry.inode() for entry in entries}


class TrackedDisk(Disk):
    """The real disk, but that `syncfs` is a note."""

    def sync_tree(self, root: Path) -> None:
        process = _here.process
        process.point()
        process.need_room(root)
        process.storage.note_sync_of_all(root)


def _pwrite(descriptor: int, content: Any, position: int) -> int:
    process = getattr(_here, "process", None)
    if process is None:
        return int(_REAL["pwrite"](descriptor, content, position))
    last = process.point()
    process.need_room(descriptor)
    half = memoryview(content)[: len(content) // 2 + 1]
    if last:
        _REAL["pwrite"](descriptor, half, position)
        process.die()
    if process.short_writes:
        process.short_writes -= 1
        return int(_REAL["pwrite"](descriptor, half, position))
    return int(_REAL["pwrite"](descriptor, content, position))


def _fsync(descriptor: int) -> None:
    process = getattr(_here, "process", None)
    if process is not None:
        process.point()
        process.need_room(descriptor)
        process.storage.note_sync(Path(f"/proc/self/fd/{descriptor}").readlink())


def _guarded(name: str, *, needs_room: bool) -> Any:
    real = _REAL[name]

    def guarded(*arguments: Any, **named: Any) -> Any:
        process = getattr(_here, "process", None)
        if process is not None:
            process.point()
            if needs_room:
                process.need_room(arguments[-1])
            storage = process.storage
            if name == "link":
                storage.check_link(Path(arguments[0]), Path(arguments[1]))
            elif name not in {"mkdir", "rmdir"} and "dir_fd" not in named:
                paths = arguments[:2] if name in {"replace", "rename"} else arguments[:1]
                assert not any(map(storage.is_published, paths)), (name, arguments)
        return real(*arguments, **named)

    return guarded


@contextlib.contextmanager
def watching() -> Any:
    """The calls of `os` that change a file system ask the process that makes them."""
    patched = {name: _guarded(name, needs_room=False) for name in ("unlink", "rmdir", "truncate")}
    patched |= {name: _guarded(name, needs_room=True) for name in ("link", "replace", "rename", "mkdir")}
    patched |= {"pwrite": _pwrite, "fsync": _fsync}
    for name, call in patched.items():
        setattr(os, name, call)
    try:
        yield
    finally:
        for name, call in _REAL.items():
            setattr(os, name, call)


class _Strand(threading.Thread):
    """One job; it runs only while whoever resumed it waits."""

    def __init__(self, process: Process, job: "Job") -> None:
        super().__init__(daemon=True)
        self.job = job
        self.error: BaseException | None = None
        self.has_ended = False
        self._process = process
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._allowance: int | None = None
        self.start()

    def resume(self, operations: int | None) -> bool:
        """Go on for so many operations (None: to the end). True once it has ended."""
        self._allowance = operations
        self._go.release()
        self._back.acquire()
        if self.error is not None:
            raise self.error
        return self.has_ended

    def breathe(self) -> None:
        if self._allowance is None:
            return
        self._allowance -= 1
        if self._allowance < 0:
            self._back.release()
            self._go.acquire()

    def run(self) -> None:
        self._go.acquire()
        _here.strand, _here.process = self, self._process
        try:
            self.job.run()
        except BaseException as error:  # noqa: BLE001 - it belongs to whom resumed the strand
            self.error = error
        finally:
            self.has_ended = True
            self._back.release()


class Job:
    """One call that was submitted."""

    def __init__(self, hands: "Hands", call: Any) -> None:
        self.call = call
        self.future: Future[Any] = _Awaited(hands)
        self.strand: _Strand | None = None

    def run(self) -> None:
        try:
            result = self.call()
        except AssertionError:
            raise  # found by what watches: nobody may take it for a close-out that failed
        except Exception as error:  # noqa: BLE001 - it belongs to whom asks for the result
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class _Awaited(Future[Any]):
    """Who waits for it has it done first: in one thread nobody else would."""

    def __init__(self, hands: "Hands") -> None:
        super().__init__()
        self._hands = hands

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if not self.done():
            self._hands.work()
        return super().exception(timeout)


class Hands(Executor):
    """Runs jobs when it is told to, and as far as it is told to."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.jobs: list[Job] = []

    def submit(self, call: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        self.jobs.append(Job(self, lambda: call(*arguments, **named)))
        return self.jobs[-1].future

    def work(self, operations: int | None = None, *, first: int = 0) -> None:
        """Go on with one job for so many operations, or with all of them to their ends."""
        jobs = (
            [self.jobs[first % len(self.jobs)]] if operations is not None and self.jobs else list(self.jobs)
        )
        for job in jobs:
            if job.strand is None:
                if not job.future.set_running_or_notify_cancel():
                    self.jobs.remove(job)
                    continue
                if operations is None:  # it will not stop half way: no thread is needed
                    job.run()
                    self.jobs.remove(job)
                    continue
                job.strand = _Strand(self._process, job)
            if job.strand.resume(operations):
                self.jobs.remove(job)

    def let_go(self) -> None:
        """End the strands of a process that died."""
        assert self._process.dead
        for job in self.jobs:
            if job.strand is not None and not job.strand.has_ended:
                with contextlib.suppress(Killed):
                    job.strand.resume(None)
                job.strand.join()
        self.jobs = []
