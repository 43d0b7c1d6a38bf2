"""Who is measured, and how each is started: a small program in ``peers/``, in an environment of its own.

Equal work means: decode each event with msgspec, append its rows to a file for each task, and commit every
two seconds what was handed to the operating system before. What one does less or more says its entry.
"""

import importlib.metadata
import json
import sys
import uuid
from itertools import islice
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from benchmarks.environments import PEERS, connect_jars, connect_version, python_at, version_at
from benchmarks.measuring import FailedError, empty, run, settle_disk
from benchmarks.rows import Shape, samples
from tests.kafka_harness.broker import free_ports
from tests.kafka_harness.jars import java

_ENOUGH = 0.95
"""Of the bytes that are expected: they are estimated, and more than there are would never come."""

ENDLESS = 2**62
"""Records for a contender that goes on until it is ended."""


class Contender(Struct, frozen=True):
    """One of those who are measured.

    Attributes:
        name: As tables name it.
        program: File in ``peers/``.
        lock: Its locked requirements there, without ".lock"; none: it runs in the project's environment.
        package: Whose version tables name.
        work: What it does with a record, for tables.
        is_equal: It does all of the equal work.
        closes: Its load has end events, and it is done when the results of all runs are published.
    """

    name: str
    program: str
    lock: str
    package: str
    work: str = "equal work"
    is_equal: bool = True
    closes: bool = False

    @property
    def is_ours(self) -> bool:
        """It is evalsink."""
        return self.package == "evalsink"


BARE = Contender(
    "bare loop",
    "bare_loop.py",
    "kafka-python",
    "kafka-python",
    "counts records, throws them away",
    is_equal=False,
)
EVALSINK = Contender(
    "evalsink",
    "evalsink_worker.py",
    "",
    "evalsink",
    "equal work, and: checks UTF-8, crc and index of each row, scores, synced checkpoints, metrics",
)
PUBLISHING = replace(
    EVALSINK,
    name="evalsink, runs published",
    closes=True,
    work="the same, and: sorts, removes duplicates, hashes, syncs and publishes all runs",
)
CONNECT = Contender(
    "Kafka Connect",
    "connect_file.py",
    "",
    "connect-file",
    "FileStreamSink: events as they stand, into one file",
    is_equal=False,
)
PEER_CONTENDERS = (
    Contender("confluent-kafka", "confluent.py", "confluent", "confluent-kafka"),
    Contender("aiokafka", "aiokafka_getmany.py", "aiokafka", "aiokafka"),
    Contender("bytewax", "bytewax_flow.py", "bytewax", "bytewax", "equal work, offsets in its own store"),
    Contender("Quix Streams", "quix.py", "quixstreams", "quixstreams"),
    Contender(
        "FastStream", "faststream_batch.py", "faststream", "faststream", "equal work, commits each batch"
    ),
    CONNECT,
)
CONTENDERS = (BARE, EVALSINK, PUBLISHING, *PEER_CONTENDERS)


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


def prepare(contender: Contender) -> None:
    """Build what it runs in, so that no measurement has to."""
    if contender is CONNECT:
        connect_jars()
    elif contender.lock:
        python_at(contender.lock)


def command_of(contender: Contender) -> list[str]:
    """What starts it."""
    python = python_at(contender.lock) if contender.lock else sys.executable
    return [python, str(PEERS / contender.program)]


def version_of(contender: Contender) -> str:
    """The version of what is measured."""
    if contender is CONNECT:
        return connect_version()
    if contender.is_ours:
        return importlib.metadata.version("evalsink")
    return version_at(contender.lock, contender.package)


def environment(
    contender: Contender,
    bootstrap: str,
    shape: Shape,
    *,
    topic: str,
    group: str,
    output: Path,
    endless: bool = False,
) -> dict[str, str]:
    """What a contender's program is told; `endless`: to go on until it is ended."""
    records = -(-shape.rows // shape.batch)
    told: dict[str, object] = {
        "BROKERS": bootstrap,
        "TOPIC": topic,
        "GROUP": group,
        "OUTPUT": output,
        "RECORDS": ENDLESS if endless else records,
        "ROWS": ENDLESS if endless else shape.rows,
        "BATCH": shape.batch,
    }
    if contender.is_ours:
        told["HTTP"] = f"127.0.0.1:{free_ports(1)[0]}"
        told["CLOSED"] = shape.runs if contender.closes and not endless else 0
    if contender is CONNECT:
        told["LIBS"], told["JAVA"] = connect_jars(), java()
        told["BYTES"] = ENDLESS if endless else int(_ENOUGH * records * _line_bytes(shape))
    return {f"BENCH_{name}": str(value) for name, value in told.items()}


def _line_bytes(shape: Shape) -> int:
    """Mean size of an event and its newline."""
    sizes = [len(event.value) + 1 for event in islice(samples(shape), 1000)]
    return sum(sizes) // len(sizes)


def measure(contender: Contender, bootstrap: str, shape: Shape, *, topic: str, folder: Path) -> Measured:
    """Let a contender read a load from its beginning, in a group of its own, into a new folder.

    Args:
        contender: Who.
        bootstrap: The broker.
        shape: What the topic holds; a contender that is to read less of it gets one with fewer rows.
        topic: The filled topic.
        folder: For its output, which is emptied, and its log, which stays.

    Raises:
        FailedError: it did not do its work.
    """
    mark = uuid.uuid4().hex[:8]
    output = folder / mark
    output.mkdir(parents=True)
    told = environment(contender, bootstrap, shape, topic=topic, group=f"bench-{mark}", output=output)
    settle_disk()
    try:
        ran = run(command_of(contender), log=folder / f"{mark}.log", environment=told)
    finally:
        empty(output)
    said: dict[str, Any] = json.loads(ran.said.splitlines()[-1])
    if said["rows"] <= said["rows_before_first"]:
        raise FailedError("all rows came with the first poll: more rows, please")
    ready, first, read, done = (said[name] for name in ("ready", "first", "read", "done"))
    return Measured(
        rows=said["rows"] - said["rows_before_first"],
        read_s=read["at"] - first["at"],
        done_s=done["at"] - first["at"],
        cpu_s=done["cpu"] - ready["cpu"],
        cpu_whole_s=ran.cpu_s,
        peak_mb=ran.peak_mb,
    )
