"""One life of a worker in the chaos run: `evalsink worker`, in a process that can kill itself at a named point.

`python -m tests.chaos.life worker …`. The environment's CHAOS_KILL_AT names the point and the call that is the last
one: ``commit, after/3``. Nothing of it is in evalsink itself: the points wrap methods of a process that the chaos run
started. What dies here dies as by `kill -9`: no handler runs, no buffer is written.

With CHAOS_SMALL it sorts and counts even small runs in pieces on its disk, as it does large ones.

It also says which generation of the group it was given partitions in, so that rebalances can be counted.
"""

import ctypes
import json
import os
import signal
import sys
import threading

from consumer.archive.outbox import Outbox
from consumer.cli import main
from consumer.filesystem import Disk
from consumer.intake.deadletters import DeadLetters
from consumer.intake.group import GroupSource, _Parking
from consumer.intake.outbound import Outbound
from consumer.intake.receipts import Receipts
from consumer.runs import checkpoint, index, known, ordering
from consumer.runs.book import RunBook
from consumer.runs.publication import Staging
from consumer.runs.spool import Spool

VARIABLE = "CHAOS_KILL_AT"
SMALL = "CHAOS_SMALL"

_CALLS = {
    "spool flush": (Spool, "flush"),
    "run folder made": (Spool, "create"),
    "state loaded": (checkpoint, "load"),
    "checkpoint": (checkpoint, "write"),
    "file system sync": (Disk, "sync_tree"),
    "file replaced": (Disk, "replace_file"),
    "file synced": (Disk, "sync_path"),
    "file linked": (Disk, "link_file"),
    "folder made": (Disk, "make_folder"),
    "folder removed": (Disk, "remove_tree"),
    "run published": (Staging, "publish"),
    "staging removed": (Staging, "discard"),
    "run handed in": (Outbox, "enqueue"),
    "record sent": (Outbound, "send"),
    "dead letter": (DeadLetters, "send"),
    "receipt": (Receipts, "send"),
    "receipt remembered": (Receipts, "remember"),
    "receipts read": (Receipts, "catch_up"),
    "run forgotten": (RunBook, "drop_run"),
    "partition started": (GroupSource, "start"),
    "commit": (GroupSource, "commit"),
}
TORN = ("rows, torn", "checkpoint, torn")
POINTS = (*(f"{call}, {when}" for call in _CALLS for when in ("before", "after")), *TORN)

_lock = threading.Lock()


def _say(action, **fields):
    """One line past all buffers, and whole whatever else is being said."""
    os.write(2, json.dumps({"action": action, **fields}).encode() + b"\n")


class _Point:
    """Counts the calls, and kills at the last one."""

    def __init__(self, name, calls):
        self._name, self._left = name, calls

    def is_reached(self):
        with _lock:
            self._left -= 1
            return self._left == 0

    def pass_by(self):
        if self.is_reached():
            self.die()

    def die(self):
        _say("chaos_killed", at=self._name)
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()  # other threads go on for a moment; this one does not


def _wrap(owner, method, point, when):
    original = getattr(owner, method)

    def wrapped(*arguments, **named):
        if when == "before":
            point.pass_by()
        result = original(*arguments, **named)
        if when == "after":
            point.pass_by()
        return result

    setattr(owner, method, wrapped)


def _tear_rows(point):
    original = os.pwrite

    def pwrite(descriptor, content, position):
        if point.is_reached():
            original(descriptor, bytes(content)[: len(content) // 2], position)
            point.die()
        return original(descriptor, content, position)

    os.pwrite = pwrite


def _tear_checkpoint(point):
    original = Disk.replace_file

    def replace_file(self, path, content):
        if point.is_reached():
            path.with_name(path.name + ".tmp").write_bytes(content[: len(content) // 2])
            point.die()
        original(self, path, content)

    Disk.replace_file = replace_file


def _arm(wanted):
    name, _, calls = wanted.rpartition("/")
    point = _Point(name, int(calls))
    if name == "rows, torn":
        _tear_rows(point)
    elif name == "checkpoint, torn":
        _tear_checkpoint(point)
    else:
        call, _, when = name.rpartition(", ")
        _wrap(*_CALLS[call], point, when)


def _work_in_small_pieces():
    index.BUCKET_ENTRIES = known.BUCKET_ENTRIES = 60
    ordering.canonical_blocks.__kwdefaults__ |= {"chunk": 50, "block": 8}


def _tell_generations():
    original = _Parking.on_partitions_assigned

    def assigned(self, partitions):
        original(self, partitions)
        generation = self.consumer._coordinator._generation.generation_id
        _say("chaos_generation", generation=generation, partitions=len(partitions))

    _Parking.on_partitions_assigned = assigned


if __name__ == "__main__":
    # Started by the chaos run's main thread: whatever becomes of that, nobody is left behind.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    _tell_generations()
    if os.environ.get(SMALL):
        _work_in_small_pieces()
    if wanted := os.environ.get(VARIABLE):
        _arm(wanted)
    main(sys.argv[1:])
