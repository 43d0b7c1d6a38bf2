"""Running evalsink workers and what can be seen of them from outside: their logs and the group's offsets."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import kafka
from msgspec import Struct

from benchmarks.broker import PARTITIONS
from benchmarks.contenders import EVALSINK, command_of, environment
from benchmarks.measuring import FailedError, look_at_memory, started
from benchmarks.rows import Shape

WAIT_S = 300.0
STOP_S = 60.0


class Working(Struct):
    """A worker that runs.

    Attributes:
        pid: Of its process.
        folder: Holds its ``state`` and, unless it has another, its ``output``.
        log: What it logs.
        peaks: Memory so far; `benchmarks.measuring.look_at_memory`.
    """

    pid: int
    folder: Path
    log: Path
    peaks: dict[int, int] = {}

    def partitions(self) -> list[int]:
        """Those it was given last."""
        lines = self.log.read_text("utf-8").splitlines()
        given = [json.loads(line) for line in lines if '"action":"partitions_assigned"' in line]
        partitions: list[int] = given[-1]["partitions"] if given else []
        return partitions

    def look(self) -> None:
        """Note its memory; `peak_mb` knows nothing of what came after the last look."""
        look_at_memory(self.pid, self.peaks)

    @property
    def peak_mb(self) -> float:
        """Highest resident memory up to the last look."""
        return sum(self.peaks.values()) / 1024

    def stop(self) -> dict[str, Any]:
        """End it in order. Returns what it tells (`stamps`)."""
        os.kill(self.pid, signal.SIGTERM)
        said = self.log.with_suffix(".out")
        until(lambda: said.read_text("utf-8").endswith("\n"), f"{self.log} to tell its figures", STOP_S)
        told: dict[str, Any] = json.loads(said.read_text("utf-8"))
        return told


@contextlib.contextmanager
def working(bootstrap: str, topic: str, *, group: str, folder: Path) -> Iterator[Working]:
    """A worker of a group that reads a topic until it is stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    told = environment(
        EVALSINK, bootstrap, Shape(rows=0), topic=topic, group=group, output=folder, endless=True
    )
    log = folder / "worker.log"
    with started(command_of(EVALSINK), log=log, environ={**os.environ, **told}) as process:
        yield Working(process.pid, folder, log)


class Offsets:
    """What a group has committed of a topic, and where that ends. A context manager."""

    def __init__(self, bootstrap: str, topic: str, group: str) -> None:
        self._consumer = kafka.KafkaConsumer(
            bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False
        )
        self._places = [kafka.TopicPartition(topic, number) for number in range(PARTITIONS)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def left(self, *partitions: int) -> int:
        """Offsets not committed yet; of all partitions if none are named."""
        places = [one for one in self._places if not partitions or one.partition in partitions]
        ends = self._consumer.end_offsets(places)
        return sum(ends[one] - (self._consumer.committed(one) or 0) for one in places)


def until(is_so: Callable[[], bool], what: str, timeout_s: float = WAIT_S, *, every_s: float = 0.05) -> None:
    """Wait for something that can be observed.

    Raises:
        FailedError: it did not come.
    """
    deadline = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline:
            raise FailedError(f"waited {timeout_s:.0f} s in vain for {what}")
        time.sleep(every_s)
