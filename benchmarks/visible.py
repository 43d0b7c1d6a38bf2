"""How soon after its end event a run's results are visible, while the worker drains a backlog at full speed.

    python -m benchmarks.visible                          # 100 runs of 10,000 rows, 4,000,000 rows of backlog
    python -m benchmarks.visible --rows 200000 --samples 3

Three of four partitions hold the backlog, of runs that do not end. The runs that are timed lie in the fourth:
their rows are sent while the worker drains, and once all but the last event have reached the spool, the last
event, the aggregate and the end event. The clock runs from Kafka's acknowledgement of the end event to the
moment the results JSON can be seen, looked for every 2 ms. A run counts only if backlog was left afterwards.
"""

import argparse
import functools
import math
import sys
import time
import uuid
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from confluent_kafka import Message, Producer

from benchmarks import broker
from benchmarks.measuring import write
from benchmarks.rows import Shape, ends, pool_of, samples
from benchmarks.workers import Offsets, Working, until, working
from consumer.settings import Topics
from schemas.names import run_files

LOOK_S = 0.002
BACKLOG_PARTITIONS = (0, 1, 2)
TIMED_PARTITION = 3
TIMED = Shape(rows=10_000, batch=20, runs=1, tasks=1)


class Timed:
    """A run that is timed, and its events."""

    def __init__(self, run_id: str) -> None:
        *self.rows, self.last = samples(TIMED, [run_id])
        *self.aggregates, self.end = ends(TIMED, [run_id])
        self.run_id = run_id
        files = run_files(
            run_id=run_id, model_name="org/model-0", date="20260101_000000", harness="lmms-eval"
        )
        self.results = Path(files.folder, files.results)

    def is_spooled(self, worker: Working) -> bool:
        """All of `rows` are in the worker's spool."""
        found = list(worker.folder.glob(f"state/runs/*/{self.run_id}-*/*.jsonl"))
        return sum(path.stat().st_size for path in found) == spooled_bytes()


@functools.cache
def spooled_bytes() -> int:
    """Size of a timed run's rows in the spool without those of the last event."""
    pool = pool_of(TIMED.row_bytes)
    return sum(len(pool.sample(doc_id, 0).row) + 1 for doc_id in range(TIMED.rows - TIMED.batch))


def time_run(producer: Producer, topics: Topics, run: Timed, worker: Working) -> float:
    """Send one run. Returns the seconds from its end event's acknowledgement to its results."""
    broker.send(producer, topics, run.rows)
    producer.flush()
    until(lambda: run.is_spooled(worker), f"the rows of {run.run_id}", every_s=0.01)
    broker.send(producer, topics, [run.last, *run.aggregates])
    producer.flush()
    acknowledged: list[float] = []

    def note(error: object, _: Message) -> None:
        assert error is None, error
        acknowledged.append(time.monotonic())

    producer.produce(topics.samples, run.end.value, run.end.key, on_delivery=note)
    producer.flush()
    results = worker.folder / "output" / run.results
    until(results.exists, f"the results of {run.run_id}", every_s=LOOK_S)
    return time.monotonic() - acknowledged[0]


def measure(
    bootstrap: str, folder: Path, *, backlog: Shape, wanted: int, idle_too: bool = False
) -> dict[str, Any]:
    """Time runs until there are as many as wanted or, but for `idle_too`, the backlog is drained."""
    mark = uuid.uuid4().hex[:8]
    topics = broker.make_topics(bootstrap, f"bench.visible-{mark}")
    with broker.sending(bootstrap) as producer:
        names = [broker.names_in(partition, "backlog") for partition in BACKLOG_PARTITIONS]
        run_ids = list(islice(chain.from_iterable(zip(*names, strict=True)), backlog.runs))
        broker.send(producer, topics, samples(backlog, run_ids))
    took: list[float] = []
    timed = broker.names_in(TIMED_PARTITION, "timed")
    with (
        broker.sending(bootstrap) as producer,
        Offsets(bootstrap, topics.samples, f"group-{mark}") as offsets,
        working(bootstrap, topics.samples, group=f"group-{mark}", folder=folder / mark) as worker,
    ):
        # Nothing is committed before the first checkpoint: by then it reads at full speed.
        until(lambda: offsets.left(*BACKLOG_PARTITIONS) < backlog.events, "the worker to read")
        while len(took) < wanted:
            seconds = time_run(producer, topics, Timed(next(timed)), worker)
            if not idle_too and not offsets.left(*BACKLOG_PARTITIONS):
                break
            took.append(seconds)
        left = offsets.left(*BACKLOG_PARTITIONS)
        told = worker.stop()
    if not took:
        raise SystemExit("the backlog was drained before a run was timed: more --rows, please")
    sys.stderr.write(f"visible: {len(took)} runs timed, {left * backlog.batch:,} rows of backlog left\n")
    read = told["read"]["at"] - told["first"]["at"]
    return {
        "rows_of_a_run": TIMED.rows,
        "timed": len(took),
        "p50_ms": round(percentile(took, 50) * 1000, 1),
        "p99_ms": round(percentile(took, 99) * 1000, 1),
        "max_ms": round(max(took) * 1000, 1),
        "all_ms": sorted(round(one * 1000, 1) for one in took),
        "rows_per_s_meanwhile": round(told["rows"] / read),
    }


def percentile(values: Sequence[float], rank: int) -> float:
    """The least value that `rank` per cent of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(rank / 100 * len(ordered)) - 1)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=4_000_000, help="of the backlog")
    parser.add_argument("--samples", type=int, default=100, help="runs to time")
    parser.add_argument("--idle-too", action="store_true", help="go on when the backlog is drained")
    broker.add_options(parser)
    options = parser.parse_args()
    backlog = Shape(rows=options.rows, batch=20, runs=12)
    with broker.running(options.brokers) as bootstrap, broker.scratch() as folder:
        found = measure(bootstrap, folder, backlog=backlog, wanted=options.samples, idle_too=options.idle_too)
    print(write("visible", {"rows": options.rows, "idle_too": options.idle_too}, found, into=options.results))


if __name__ == "__main__":
    main()
