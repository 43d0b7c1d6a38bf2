"""Who is measured, and how each is started: a small program, in an environment of its own.

Equal work means: decode each event with msgspec, append its rows to a file for each task, commit. What a
contender does less or more says its entry.
"""

import importlib.metadata
import json
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

from msgspec import Struct

from benchmarks.broker import HOME
from benchmarks.measuring import Ran, run, settle_disk
from benchmarks.rows import Shape
from tests.kafka_harness.broker import free_ports

PEERS = Path(__file__).parent / "peers"


class Contender(Struct, frozen=True):
    """One of those who are measured.

    Attributes:
        name: As tables name it.
        program: File in ``benchmarks/peers``.
        lock: Its locked requirements there, without ".lock"; none: it runs in the project's environment.
        package: Whose version tables name.
        work: What it does with a record, for tables.
        is_equal: It does all of the equal work.
    """

    name: str
    program: str
    lock: str
    package: str
    work: str
    is_equal: bool = True


BARE = Contender(
    "bare loop", "bare_loop.py", "kafka-python", "kafka-python", "counts and throws away", is_equal=False
)
EVALSINK = Contender(
    "evalsink",
    "evalsink_worker.py",
    "",
    "evalsink",
    "decodes, checks UTF-8, indexes with crc and scores, appends, checkpoints with sync, commits",
)
CONTENDERS = (BARE, EVALSINK)


def python_of(contender: Contender) -> str:
    """The Python of the contender's environment."""
    return python_at(contender.lock) if contender.lock else sys.executable


def python_at(name: str) -> str:
    """The Python of the environment of ``peers/{name}.lock``, built if it is not there or differs."""
    lock = PEERS / f"{name}.lock"
    folder = HOME / f"venv-{name}"
    python, stamp = folder / "bin" / "python", folder / ".lock"
    if not stamp.exists() or stamp.read_bytes() != lock.read_bytes():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
        subprocess.run([*install, "--require-hashes", "-r", str(lock)], check=True)
        stamp.write_bytes(lock.read_bytes())
    return str(python)


def version_of(contender: Contender) -> str:
    """The version of what is measured."""
    if not contender.lock:
        return importlib.metadata.version(contender.package)
    ask = f"import importlib.metadata as m; print(m.version({contender.package!r}))"
    return subprocess.run(
        [python_of(contender), "-c", ask], check=True, capture_output=True, text=True
    ).stdout.strip()


class Measured(Struct, frozen=True):
    """One reading of a load by one contender.

    Attributes:
        rows: Rows it dealt with between its first records and the end.
        read_s: Seconds from the first records to the last row handed to the operating system.
        done_s: Seconds from the first records to the last commit.
        cpu_s: CPU seconds from being ready to the last commit, joining the group included.
        cpu_whole_s: CPU seconds of the whole process, its start and imports included.
        peak_mb: Highest resident memory.
    """

    rows: int
    read_s: float
    done_s: float
    cpu_s: float
    cpu_whole_s: float
    peak_mb: float

    @property
    def rows_per_s(self) -> float:
        """Through the last commit."""
        return self.rows / self.done_s

    @property
    def cpu_s_per_million(self) -> float:
        """CPU seconds that a million rows cost."""
        return self.cpu_s / self.rows * 1e6


def environment(
    contender: Contender, bootstrap: str, shape: Shape, *, topic: str, group: str, output: Path
) -> dict[str, str]:
    """What a contender's program is told."""
    told = {
        "BENCH_BROKERS": bootstrap,
        "BENCH_TOPIC": topic,
        "BENCH_GROUP": group,
        "BENCH_OUTPUT": str(output),
        "BENCH_RECORDS": str(-(-shape.rows // shape.batch)),
        "BENCH_ROWS": str(shape.rows),
        "BENCH_BATCH": str(shape.batch),
    }
    if contender is EVALSINK:
        told["BENCH_HTTP"] = f"127.0.0.1:{free_ports(1)[0]}"
    return told


def measure(contender: Contender, bootstrap: str, shape: Shape, *, topic: str, folder: Path) -> Measured:
    """Let a contender read a load from its beginning, in a group of its own, into a new folder.

    Args:
        contender: Who.
        bootstrap: The broker.
        shape: What the topic holds; a contender that is to read less of it gets one with fewer rows.
        topic: The filled topic.
        folder: For its output, which is removed, and its log, which stays.

    Raises:
        FailedError: it did not do its work.
    """
    mark = uuid.uuid4().hex[:8]
    output = folder / mark
    output.mkdir(parents=True)
    told = environment(contender, bootstrap, shape, topic=topic, group=f"bench-{mark}", output=output)
    settle_disk()
    try:
        ran = run(
            [python_of(contender), str(PEERS / contender.program)],
            log=folder / f"{mark}.log",
            environment=told,
        )
    finally:
        shutil.rmtree(output)
    return _judged(ran)


def _judged(ran: Ran) -> Measured:
    said: dict[str, Any] = json.loads(ran.said.splitlines()[-1])
    ready, first, read, done = (said[name] for name in ("ready", "first", "read", "done"))
    return Measured(
        rows=said["rows"] - said["rows_before_first"],
        read_s=read["at"] - first["at"],
        done_s=done["at"] - first["at"],
        cpu_s=done["cpu"] - ready["cpu"],
        cpu_whole_s=ran.cpu_s,
        peak_mb=ran.peak_mb,
    )
