"""From staged files to published ones: linked without overwriting, the results JSON last.

Invariants: a published name stands for a whole, synced file; the results JSON appears after everything it
counts; what is there already is never replaced. Refuses a name taken by other bytes (`DeterminismError`):
both are kept, somebody looks.
"""

import contextlib
import hashlib
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from consumer.errors import DeterminismError
from consumer.filesystem import Disk
from schemas.names import PARTIAL_FOLDER, hash8

STAGING_FOLDER = ".evalsink"
"""Below the output folder, so that links stay on one file system; no reader's glob finds what lies in it."""

_COMPARE_BYTES = 1 << 20
_ABANDONED_S = 7 * 86_400


class Staging:
    """Files on their way into the output folder. One per close-out."""

    def __init__(self, output: Path, worker: str, *, disk: Disk) -> None:
        self._output = output
        self._folder = staging_folder(output, worker) / uuid.uuid4().hex
        self._disk = disk
        self._files: list[tuple[Path, Path]] = []
        self._folder.mkdir(parents=True)

    def add(self, relative: str, write: Callable[[BinaryIO], object]) -> None:
        """Stage the file that will be published at `relative` to the output folder."""
        staged = self._folder / f"{uuid.uuid4().hex}.tmp"
        with staged.open("wb") as file:
            write(file)
        self._disk.sync_path(staged)
        self._files.append((staged, self._output / relative))

    def drop_last(self) -> None:
        """Do not publish the file added last."""
        staged, _ = self._files.pop()
        staged.unlink()

    def publish(self) -> None:
        """Link all of them, in the order they were added.

        Raises:
            DeterminismError: a name is taken by other bytes. What was linked before it stays.
        """
        for staged, target in self._files:
            self._disk.make_folder(target.parent)
            if not self._disk.link_file(staged, target) and not _equal(staged, target):
                raise DeterminismError(
                    f"{target} exists with other bytes than this log gives; it is kept as it is. "
                    "Compare the two, remove the wrong one, and start the worker again."
                )

    def place_provisionally(self) -> None:
        """Move all of them below ``partial/``, the results JSON last, over whatever is there."""
        for staged, target in self._files:
            place = self._output / PARTIAL_FOLDER / target.relative_to(self._output)
            place.parent.mkdir(parents=True, exist_ok=True)
            staged.replace(place)

    def discard(self) -> None:
        """Remove the staged names; published files stay."""
        self._disk.remove_tree(self._folder)


def staging_folder(output: Path, worker: str) -> Path:
    """Where `worker` stages; emptied when it starts."""
    return output / STAGING_FOLDER / hashlib.sha256(worker.encode()).hexdigest()[:16]


def remove_provisional(output: Path, run_id: str) -> None:
    """Remove what a run has below ``partial/``, its results JSON first; nothing there is fine."""
    mark = f"-{hash8(run_id)}"
    folder = output / PARTIAL_FOLDER
    if folder.is_symlink():
        return  # others may write to the output folder; what lies behind their links is not ours to remove
    found = [path for path in folder.rglob(f"*{mark}*") if path.is_file()] if folder.is_dir() else []
    for path in sorted(found, key=lambda path: path.suffix != ".json"):
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others of the model may lie there
            path.parent.rmdir()
            folder.rmdir()


def sweep_staging(output: Path, worker: str, *, disk: Disk, now_s: float) -> None:
    """Remove what this worker staged, and what others left there long ago. No close-out may be running."""
    base = output / STAGING_FOLDER
    if base.is_symlink():
        base.unlink()  # not ours: what lies behind it must not be swept
    disk.remove_tree(staging_folder(output, worker))
    for folder in base.iterdir() if base.is_dir() else ():
        with contextlib.suppress(OSError):  # its owner may be removing it too
            if now_s - folder.stat().st_mtime > _ABANDONED_S:
                disk.remove_tree(folder)
    with contextlib.suppress(OSError):  # others stage there
        base.rmdir()


def _equal(one: Path, other: Path) -> bool:
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as left, other.open("rb") as right:
        while content := left.read(_COMPARE_BYTES):
            if content != right.read(len(content)):
                return False
    return True
