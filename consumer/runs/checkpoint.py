"""The checkpoint: which prefix of the log the spool holds, durably. Written off the poll thread.

Order, and why: the spool is flushed and the state captured (poll thread); the file system is synced; the
checkpoint file is replaced at once. So a checkpoint never names a byte that is not durable. On start a longer
spool file is cut to what the checkpoint says; a shorter one, or anything that cannot be read, drops the local
state: the log rebuilds it.
"""

import fcntl
import os
import shutil
import uuid
from pathlib import Path

import msgspec

from consumer.errors import StateError
from consumer.filesystem import Disk
from consumer.runs.spool import spool_files
from consumer.telemetry.logs import logger
from schemas.state import CHECKPOINT_FORMAT, Checkpoint, PartitionState, RunState

CHECKPOINT_FILE = "checkpoint.json"
LOCK_FILE = "lock"
WORKER_FILE = "worker-id"

_log = logger(__name__)


class StateLock:
    """The state folder's lock: one process at a time. Held until the process ends."""

    def __init__(self, state: Path) -> None:
        # Events lie here as they came, with whatever secrets are in them. Who makes the folder before us
        # decides who else may look.
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._descriptor = os.open(state / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise StateError(
                f"another process uses the state folder {state}; give each worker its own --state"
            ) from error

    def release(self) -> None:
        """Give it up."""
        os.close(self._descriptor)


def worker_id(state: Path, disk: Disk) -> str:
    """Names the worker that has this state folder: two on different hosts may have it at the same path."""
    path = state / WORKER_FILE
    if not path.exists():
        disk.replace_file(path, uuid.uuid4().hex.encode())
    return path.read_text("ascii")


def capture(group: str, topic_ids: dict[str, str], partitions: dict[int, PartitionState]) -> bytes:
    """The checkpoint of this moment, encoded; the spool must be flushed."""
    return msgspec.json.encode(
        Checkpoint(
            group=group, topic_ids=topic_ids, partitions=[partitions[number] for number in sorted(partitions)]
        )
    )


def write(state: Path, content: bytes, disk: Disk) -> None:
    """Make the spool and then the checkpoint durable.

    Raises:
        OSError: the old checkpoint stands.
    """
    disk.sync_tree(state)
    disk.replace_file(state / CHECKPOINT_FILE, content)


def load(state: Path, *, group: str, topic_ids: dict[str, str], disk: Disk) -> dict[int, PartitionState]:
    """The partitions that the state folder holds, its files cut to what the checkpoint names.

    Whatever is not whole is dropped, and folders that no run owns are removed.

    Args:
        state: State folder, locked.
        group: Consumer group; the state of another group is dropped.
        topic_ids: Topic to UUID as the broker has it now; a topic that was made anew drops the state.
        disk: The disk.
    """
    checkpoint = _read(state / CHECKPOINT_FILE)
    partitions: dict[int, PartitionState] = {}
    if checkpoint is not None and checkpoint.group != group:
        _log.warning("state_dropped", reason="another group", group=checkpoint.group)
    elif checkpoint is not None and checkpoint.topic_ids != topic_ids:
        _log.warning("state_dropped", reason="other topics, or topics made anew")
    elif checkpoint is not None:
        for partition in checkpoint.partitions:
            folder = state / "runs" / str(partition.partition)
            if all(_is_whole(folder, run, disk) for run in partition.runs.values()):
                partitions[partition.partition] = partition
            else:
                _log.warning("state_dropped", reason="spool damaged", partition=partition.partition)
    _remove_strangers(state / "runs", partitions)
    return partitions


def _read(path: Path) -> Checkpoint | None:
    try:
        checkpoint = msgspec.json.decode(path.read_bytes(), type=Checkpoint)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, ValueError) as error:
        _log.warning("state_dropped", reason=f"checkpoint unreadable: {error}")
        return None
    if checkpoint.format != CHECKPOINT_FORMAT:
        _log.warning("state_dropped", reason=f"checkpoint of format {checkpoint.format}")
        return None
    return checkpoint


def _is_whole(folder: Path, run: RunState, disk: Disk) -> bool:
    if Path(run.folder).name != run.folder:
        return False  # its files would lie, and be cut, somewhere else
    for path, length in spool_files(folder / run.folder, run):
        if length < 0:
            return False
        size = path.stat().st_size if path.exists() else 0
        if size < length:
            return False
        if size > length:
            disk.truncate(path, length)
    return True


def _remove_strangers(runs: Path, partitions: dict[int, PartitionState]) -> None:
    for folder in runs.iterdir() if runs.is_dir() else ():
        state = partitions.get(int(folder.name)) if folder.name.isdigit() else None
        known = {run.folder for run in state.runs.values()} if state else set()
        for run in folder.iterdir() if folder.is_dir() else ():
            if run.name not in known:
                shutil.rmtree(run, ignore_errors=True)
