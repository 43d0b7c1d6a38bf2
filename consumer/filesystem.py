"""The disk as evalsink uses it, in one place, so that tests can own it.

Invariants: a file that bears its final name is whole and synced; a folder is synced after a name in it
changed. The functions raise `OSError` as the system gives it and leave what was there before.
"""

import contextlib
import ctypes
import errno
import functools
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path


def is_disk_full(error: OSError) -> bool:
    """The disk or a quota is full: what somebody frees comes back."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT}


def room(folder: Path) -> tuple[int, int] | None:
    """Bytes left for this user and bytes in all, where the folder lies; None where that cannot be said."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize


def open_files(wanted: int) -> int:
    """How many of `wanted` files may be held open: half of what the process may, once it may all it can."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ceiling = 2 * wanted if hard == resource.RLIM_INFINITY else min(hard, 2 * wanted)
    if resource.RLIM_INFINITY != soft < ceiling:
        with contextlib.suppress(OSError, ValueError):  # macOS names a hard limit that it does not grant
            resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, hard))
            soft = ceiling
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft // 2))


def files_below(root: Path, *, skip_denied: bool) -> Iterator[Path]:
    """Everything below `root` but folders, each folder's by name. Others may write there meanwhile.

    `Path.rglob` raises where a folder vanishes between its being seen and being entered, as the staging
    folders of close-outs do all the time.

    Args:
        root: Where to search.
        skip_denied: Pass over folders that this user may not enter (``lost+found``).

    Raises:
        OSError: another folder cannot be searched, or `root` is not there.
    """

    def refuse(error: OSError) -> None:
        vanished = isinstance(error, FileNotFoundError) and Path(error.filename) != root
        if not vanished and not (skip_denied and isinstance(error, PermissionError)):
            raise error

    for folder, folders, names in os.walk(root, onerror=refuse):
        folders.sort()
        yield from (Path(folder, name) for name in sorted(names))


@functools.cache
def _syncfs() -> Callable[[int], int] | None:
    # One syncfs for 1,000 files takes 10 ms where 1,000 fsyncs take 220 ms; glibc has it, Python does not
    # show it.
    try:
        call = ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError):
        return None
    call.argtypes, call.restype = [ctypes.c_int], ctypes.c_int
    return call


class Disk:
    """The real one."""

    def sync_tree(self, root: Path) -> None:
        """Make durable everything written below `root`."""
        if (syncfs := _syncfs()) is not None:
            descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
            try:
                if syncfs(descriptor) != 0:
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number), str(root))
            finally:
                os.close(descriptor)
            return
        for folder, _, names in os.walk(root):
            for name in names:
                self.sync_path(Path(folder, name))
            self.sync_path(Path(folder))

    def sync_path(self, path: Path) -> None:
        """Make one file or folder durable."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def replace_file(self, path: Path, content: bytes) -> None:
        """Put `content` at `path` at once and durably; what was there stays until then."""
        temporary = path.with_name(path.name + ".tmp")
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        self.sync_path(path.parent)

    def link_file(self, source: Path, target: Path) -> bool:
        """Give a synced file its final name without overwriting; False: the name is taken.

        Raises:
            OSError: also where the file system knows no hard links.
        """
        try:
            os.link(source, target)
            linked = True
        except FileExistsError:
            linked = False
        # Also if it was there: who linked it may have died before this.
        self.sync_path(target.parent)
        return linked

    def make_folder(self, path: Path) -> None:
        """Create `path` and its parents, durably."""
        missing = []
        while not path.is_dir():
            missing.append(path)
            path = path.parent
        for folder in reversed(missing):
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
            self.sync_path(folder.parent)

    def remove_tree(self, path: Path) -> None:
        """Remove a folder and all in it; absent is fine."""
        shutil.rmtree(path, ignore_errors=True)

    def truncate(self, path: Path, length: int) -> None:
        """Cut a file to `length` bytes."""
        os.truncate(path, length)
