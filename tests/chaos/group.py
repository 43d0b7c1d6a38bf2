"""The workers of a chaos run, each in its place: a name, a disk of its own, and one process after the other.

Owns processes and disks. Where the machine lets us, a disk is a small tmpfs, which can be filled for real. Invariants:
what a worker says of its own end is read from its log; an end that nobody ordered and no fault explains is kept as a
difference; nothing outlives `close`.
"""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

from tests.acceptance.conftest import environment
from tests.chaos.life import VARIABLE
from tests.observing import pushing

DISK_BYTES = 96 << 20
_KILLED = -signal.SIGKILL

# Ends that some fault explains: away (3), a full disk at the stop (6), an orderly stop cut off (75), SIGTERM while starting.
EXPLAINED = {0, 3, 6, 75, 143, -signal.SIGTERM}


class Disk:
    """One worker's own disk."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        options = ["-o", f"size={DISK_BYTES}", "evalsink-chaos", str(folder)]
        mounted = subprocess.run(["mount", "-t", "tmpfs", *options], capture_output=True, check=False)
        self.is_small = mounted.returncode == 0
        self._ballast = folder / "ballast"

    @property
    def state(self):
        return self.folder / "state"

    def fill(self):
        """Until nothing fits any more."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1 << 20, 4096):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue

    def free(self):
        self._ballast.unlink(missing_ok=True)

    @property
    def is_full(self):
        return self._ballast.exists()

    def wipe(self):
        shutil.rmtree(self.state, ignore_errors=True)

    def close(self, *, keep):
        """Take it away; what it holds is copied beside it if it is to be kept."""
        self.free()
        if keep:
            shutil.copytree(self.folder, self.folder.with_name(f"{self.folder.name}-kept"))
        if self.is_small:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)
        shutil.rmtree(self.folder, ignore_errors=True)


class Place:
    """A worker's place in the group."""

    def __init__(self, name, folder, arguments, settings):
        self.name = name
        self.disk = Disk(folder / name)
        self.log = folder / f"{name}.log"
        self._folder = folder
        self._arguments, self._settings = arguments, settings
        self.process = None
        self.is_stopped = False
        self.is_leaving = False
        self._seen = 0

    @property
    def runs(self):
        return self.process is not None

    def start(self, *, member="", kill_at="", more=()):
        """A new life; `member`: its group_instance_id, "" for none."""
        settings = dict(self._settings)
        if member:
            settings["EVALSINK_GROUP_INSTANCE_ID"] = member
        if kill_at:
            settings[VARIABLE] = kill_at
        with self.log.open("ab") as log:
            self._seen = log.tell()
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.chaos.life",
                    *self._arguments,
                    "--state",
                    self.disk.state,
                    *more,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=environment(**settings),
            )
        self.is_stopped = self.is_leaving = False

    def said(self):
        """Log lines of this life."""
        content = self.log.read_bytes()[self._seen :]
        return [
            json.loads(line) for line in content.splitlines() if line.startswith(b"{") and line.endswith(b"}")
        ]

    def signal(self, number):
        self.process.send_signal(number)
        self.is_stopped = number == signal.SIGSTOP
        self.is_leaving |= number == signal.SIGTERM

    def kill(self):
        """SIGKILL; returns when nothing of it is left. False: it had ended by itself."""
        self.process.kill()
        code = self.process.wait()
        self.process = None
        self.is_stopped = False
        return code == _KILLED

    def pushers(self):
        return pushing(self.process.pid)


class Group:
    """All places."""

    def __init__(self, folder, names, arguments, settings):
        self.places = [Place(name, folder, arguments, settings) for name in names]
        self.ends = Counter()
        """How lives ended that nobody killed: exit code, as text, to number."""
        self.killed_at = Counter()
        """Named point to number of lives that ended there."""
        self.unexplained = []

    def reap(self):
        """Places whose process has ended by itself since the last call."""
        ended = []
        for place in self.places:
            if place.runs and (code := place.process.poll()) is not None:
                self._note(place, code)
                place.process = None
                ended.append(place)
        return ended

    def _note(self, place, code):
        if code == _KILLED:
            died = [line["at"] for line in place.said() if line["action"] == "chaos_killed"]
            if died:
                self.killed_at[died[-1]] += 1
                return
        self.ends[str(code)] += 1
        said = place.log.read_bytes()[place._seen :].decode(errors="replace")
        # A disk that is full when it starts is told and ends it; afterwards, it waits.
        full_at_start = (
            code == 1 and ("Errno 28" in said or "Errno 5]" in said) and '"partitions_assigned"' not in said
        )
        if code not in EXPLAINED and not full_at_start:
            tail = said[-2000:]
            self.unexplained.append(f"{place.name} ended with {code}: …{tail}")

    def stop(self, *, timeout_s=60):
        """SIGTERM to all, and wait for their ends."""
        for place in self.places:
            if place.runs:
                if place.is_stopped:
                    place.signal(signal.SIGCONT)
                place.signal(signal.SIGTERM)
        deadline = time.monotonic() + timeout_s
        while any(place.runs for place in self.places):
            self.reap()
            if time.monotonic() > deadline:
                self.unexplained += [f"{one.name} did not stop" for one in self.places if one.runs]
                for place in self.places:
                    if place.runs:
                        place.kill()
            time.sleep(0.05)

    def generations(self):
        """The group's generations in which a member was given partitions."""
        found = set()
        for place in self.places:
            if place.log.exists():
                for line in place.log.read_bytes().splitlines():
                    if b'"chaos_generation"' in line:
                        found.add(json.loads(line)["generation"])
        return found

    def errors(self):
        """Actions of log lines of level error, and how many; tracebacks too."""
        found = Counter()
        for place in self.places:
            for line in place.log.read_bytes().splitlines() if place.log.exists() else ():
                if b'"level":"error"' in line:
                    found[json.loads(line)["action"]] += 1
                elif line.startswith(b"Traceback"):
                    found["traceback"] += 1
        return found

    def close(self, *, keep):
        for place in self.places:
            if place.runs:
                place.kill()
            place.disk.close(keep=keep)
