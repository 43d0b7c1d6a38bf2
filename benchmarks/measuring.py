"""One process watched from its start to its end: time, CPU, memory. And the machine it ran on.

Memory is the kernel's own high-water mark of resident pages (VmHWM), looked up until the process ends, the
sum over it and its children: `ru_maxrss` would carry over what the process that started it had.
"""

import contextlib
import datetime as dt
import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

LOOK_S = 0.02
TIMEOUT_S = 300.0
_LOAD_BEFORE = os.getloadavg()[0]
RESULTS = Path(__file__).parent / "results"


class FailedError(Exception):
    """A process that was measured did not do its work; the message holds its last words."""


class Ran(Struct, frozen=True):
    """A process that has ended.

    Attributes:
        begun_at: By the monotonic clock, which all processes share.
        seconds: From its start to its end.
        cpu_s: Of the process and its children, from start to end.
        peak_mb: Highest resident memory.
        said: What it printed.
    """

    begun_at: float
    seconds: float
    cpu_s: float
    peak_mb: float
    said: str


def run(command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None) -> Ran:
    """Run a command to its end.

    Raises:
        FailedError: its status is not 0, or it did not end within `TIMEOUT_S`.
    """
    environ = {**os.environ, **(environment or {})}
    begun = time.monotonic()
    with started(command, log=log, environ=environ) as process:
        peaks: dict[int, int] = {}
        while True:
            look_at_memory(process.pid, peaks)
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            if time.monotonic() - begun > TIMEOUT_S:
                raise FailedError(f"{' '.join(command)} did not end within {TIMEOUT_S:.0f} s; see {log}")
            time.sleep(LOOK_S)
        seconds = time.monotonic() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise FailedError(
            f"{' '.join(command)} ended with {process.returncode}:\n{log.read_text('utf-8')[-3000:]}"
        )
    said = log.with_suffix(".out").read_text("utf-8")
    return Ran(begun, seconds, usage.ru_utime + usage.ru_stime, sum(peaks.values()) / 1024, said)


@contextlib.contextmanager
def started(
    command: Sequence[str], *, log: Path, environ: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A process group of which nothing is left; stderr goes to `log`, stdout to a file beside it."""
    with log.open("ab") as errors, log.with_suffix(".out").open("wb") as said:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=errors, env=environ, process_group=0
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        if process.returncode is None:
            process.wait()


def look_at_memory(pid: int, peaks: dict[int, int]) -> None:
    """Note the high-water marks (KiB) of a process and of its children."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text("ascii", errors="replace")
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        if found:  # none: it has ended and nobody has asked for its status yet
            peaks[pid] = int(found[1])
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text("ascii").split():
                look_at_memory(int(child), peaks)


def middle(values: Sequence[float], digits: int = 3) -> float:
    """The median, rounded."""
    return round(statistics.median(values), digits)


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Of one figure over the rounds: its least, middle and greatest."""
    return {
        "low": round(min(values), digits),
        "median": middle(values, digits),
        "high": round(max(values), digits),
    }


def settle_disk() -> None:
    """Write out what others left to be written: it must not be charged to who comes next."""
    os.sync()


def empty(folder: Path) -> None:
    """Give the room of all files in `folder` back, but keep their names.

    Whoever makes a file on ext4 passes by every inode that was freed in the last half minute: with those of a
    thousand runs that costs the next one a millisecond a file.
    """
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            os.truncate(path, 0)


def machine() -> dict[str, Any]:
    """What a figure depends on. Nothing in it says whose machine it is."""
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text("ascii", errors="replace"))
    memory = re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text("ascii"))
    assert memory, "/proc/meminfo names MemTotal"
    packages = ("evalsink", "kafka-python", "msgspec", "numpy", "confluent-kafka", "lz4")
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(int(memory[1]) / 1024**2, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
        "load_before": round(_LOAD_BEFORE, 1),
    }


def write(name: str, options: Mapping[str, Any], found: Mapping[str, Any], *, into: Path = RESULTS) -> Path:
    """Put a benchmark's figures into its JSON file. Returns the file."""
    into.mkdir(parents=True, exist_ok=True)
    path = into / f"{name}.json"
    told = {
        "benchmark": name,
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": machine(),
        "options": dict(options),
        **found,
    }
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", "utf-8")
    temporary.replace(path)
    return path
