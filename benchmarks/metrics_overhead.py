"""What watching costs: throughput of one worker with metrics on and off, on a real Kafka.

    python -m benchmarks.metrics_overhead --rounds 7

The same log is read again and again, by workers of new groups that take turns: on, off, off, on … With
metrics on, a client of this process scrapes /metrics once a second, more often than any Prometheus; with
--look-at-runs it asks /runs as often, like somebody with that page open. Throughput is rows over the time
from the first record read to the last, without start and stop. Prints one JSON object: medians in rows per
second, and the median of the ratios of neighbours, by the clock, and by the poll thread's CPU time, which
other work on the machine disturbs less.
"""

import argparse
import contextlib
import json
import statistics
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.many_runs import send
from consumer import assembly
from consumer.intake.topics import arrange
from consumer.kafka_client import connect
from consumer.monitoring import Monitor
from consumer.settings import Settings, Topics
from tests.kafka_harness.broker import RealKafka, free_ports

ASK_EVERY_S = 1.0


@contextlib.contextmanager
def asking(address: str, paths: Sequence[str]) -> Iterator[list[int]]:
    """Somebody who asks. Yields the number of answers."""
    over, answers = threading.Event(), [0]

    def ask() -> None:
        while not over.wait(ASK_EVERY_S):
            for path in paths:
                with (
                    contextlib.suppress(OSError),
                    urllib.request.urlopen(f"http://{address}{path}", timeout=20) as answer,
                ):
                    answer.read()
                    answers[0] += 1

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        over.set()
        thread.join()


class Speed(NamedTuple):
    """Rows per second of wall clock, and per second of the poll thread's CPU time."""

    wall: float
    cpu: float


def read_all(bootstrap: str, folder: Path, rows: int, *, paths: Sequence[str]) -> Speed:
    """The speed of one worker over the whole log, asked for `paths`; without any, metrics are off."""
    mark = uuid.uuid4().hex[:8]
    settings = Settings(
        brokers=bootstrap,
        group=f"group-{mark}",
        output=str(folder / f"output-{mark}"),
        state=str(folder / f"state-{mark}"),
        http=f"127.0.0.1:{free_ports(1)[0]}" if paths else "",
    )
    monitor = Monitor(settings)
    with contextlib.ExitStack() as stack:
        stack.enter_context(monitor.listening(insist=True))
        worker = stack.enter_context(
            assembly.worker(settings, observe=monitor.observe, window=monitor.window)
        )
        monitor.attach(worker)
        answers = stack.enter_context(asking(settings.http, paths)) if paths else [1]
        while not worker.counts.rows:
            worker.tick()
        started, cpu, before = time.monotonic(), time.thread_time(), worker.counts.rows
        while worker.counts.rows < rows:
            worker.tick()
        seconds, cpu = time.monotonic() - started, time.thread_time() - cpu
        if not answers[0]:
            raise SystemExit("nobody was answered: more rows, please")
        return Speed((rows - before) / seconds, (rows - before) / cpu)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="pairs of on and off")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--tasks", type=int, default=2)
    parser.add_argument("--rows", type=int, default=4000, help="rows of each task")
    parser.add_argument("--batch", type=int, default=20, help="rows of one event")
    parser.add_argument("--row-bytes", type=int, default=900)
    parser.add_argument("--look-at-runs", action="store_true", help="ask /runs once a second too")
    options = parser.parse_args()
    asked = ("/metrics", "/runs") if options.look_at_runs else ("/metrics",)
    rows = options.runs * options.tasks * options.rows
    found: dict[bool, list[Speed]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder, RealKafka(Path(folder, "kafka")) as kafka:
        arrange(connect(kafka.bootstrap), Topics(), partitions=4)
        send(kafka.bootstrap, options)
        read_all(kafka.bootstrap, Path(folder), rows, paths=asked)  # warms caches; does not count
        for number in range(options.rounds):
            for watched in (True, False) if number % 2 else (False, True):
                paths = asked if watched else ()
                found[watched].append(read_all(kafka.bootstrap, Path(folder), rows, paths=paths))
    told: dict[str, object] = {"rows": rows, "batch": options.batch, "rounds": options.rounds, "asked": asked}
    for clock in Speed._fields:
        on, off = ([getattr(speed, clock) for speed in found[watched]] for watched in (True, False))
        ratios = [one / other for one, other in zip(on, off, strict=True)]
        told[f"rows_per_{clock}_s"] = {
            "on": round(statistics.median(on)),
            "off": round(statistics.median(off)),
        }
        told[f"ratio_{clock}"] = round(statistics.median(ratios), 3)
        told[f"ratio_{clock}_quartiles"] = [round(one, 3) for one in statistics.quantiles(ratios)]
    print(json.dumps(told))


if __name__ == "__main__":
    main()
