"""How throughput and memory depend on the number of open runs, and on the number of workers.

    python -m benchmarks.open_runs                            # 1, 10, 100, 1,000 runs; 1 and 2 workers
    python -m benchmarks.open_runs --rows 100000 --rounds 1

Equal rows (--rows, of 1 KB, events of 20) are spread over more and more runs of four tasks each. Workers are
compared on a load that becomes visible at one moment, by the commit of a transaction, when all of them have
their partitions: else the first to come reads what the second one reads again.
"""

import argparse
import contextlib
import sys
import uuid
from pathlib import Path
from typing import Any

from benchmarks import broker
from benchmarks.contenders import EVALSINK, Measured, measure
from benchmarks.measuring import spread, write
from benchmarks.rows import Shape, samples
from benchmarks.workers import Offsets, until, working

RUNS = (1, 10, 100, 1000)
WORKERS = (1, 2)
TRANSACTION_MS = 600_000


def by_runs(
    bootstrap: str, folder: Path, *, rows: int, runs: tuple[int, ...], rounds: int
) -> list[dict[str, Any]]:
    """One entry for each number of runs, in turns; ratios to the first of the same round."""
    shapes = [Shape(rows=rows, batch=20, runs=number) for number in runs]
    topics = [broker.fill(bootstrap, shape).samples for shape in shapes]
    found: list[list[Measured]] = [[] for _ in shapes]
    for number in range(rounds):
        for shape, topic, own in zip(shapes, topics, found, strict=True):
            own.append(measured := measure(EVALSINK, bootstrap, shape, topic=topic, folder=folder))
            sys.stderr.write(
                f"open runs round {number + 1}: {shape.runs:5} runs {measured.rows_per_s:>11,.0f} rows/s "
                f"{measured.cpu_s_per_million:8.2f} CPU s/M rows {measured.peak_mb:6.0f} MB\n"
            )
    return [
        {
            "runs": shape.runs,
            "rows_per_s": spread([one.rows_per_s for one in own], 0),
            "cpu_s_per_million_rows": spread([one.cpu_s_per_million for one in own]),
            "peak_mb": round(max(one.peak_mb for one in own), 1),
            "rows_per_s_to_fewest": spread(
                [one.rows_per_s / base.rows_per_s for one, base in zip(own, found[0], strict=True)]
            ),
            "rows_per_cpu_s_to_fewest": spread(
                [
                    base.cpu_s_per_million / one.cpu_s_per_million
                    for one, base in zip(own, found[0], strict=True)
                ]
            ),
        }
        for shape, own in zip(shapes, found, strict=True)
    ]


def by_workers(bootstrap: str, folder: Path, *, rows: int, rounds: int) -> list[dict[str, Any]]:
    """One entry for each number of workers."""
    found: dict[int, list[dict[str, float]]] = {number: [] for number in WORKERS}
    for number in range(rounds):
        for workers in WORKERS:
            found[workers].append(one := read_together(bootstrap, folder, rows=rows, workers=workers))
            sys.stderr.write(
                f"workers round {number + 1}: {workers} workers {one['rows_per_s']:>11,.0f} rows/s\n"
            )
    return [
        {
            "workers": workers,
            "rows_per_s": spread([one["rows_per_s"] for one in rounds_], 0),
            "cpu_s_per_million_rows": spread([one["cpu_s_per_million_rows"] for one in rounds_]),
            "rows_per_s_to_one": spread(
                [
                    one["rows_per_s"] / base["rows_per_s"]
                    for one, base in zip(rounds_, found[WORKERS[0]], strict=True)
                ]
            ),
        }
        for workers, rounds_ in found.items()
    ]


def read_together(bootstrap: str, folder: Path, *, rows: int, workers: int) -> dict[str, float]:
    """Let some workers of one group read a load that appears at once."""
    mark = uuid.uuid4().hex[:8]
    shape = Shape(rows=rows, batch=20)
    topics = broker.make_topics(bootstrap, f"bench.workers-{mark}")
    transaction = {"transactional.id": mark, "transaction.timeout.ms": TRANSACTION_MS}
    with contextlib.ExitStack() as stack:
        producer = stack.enter_context(broker.sending(bootstrap, transaction))
        producer.init_transactions()
        producer.begin_transaction()
        broker.send(producer, topics, samples(shape))
        producer.flush()
        group = f"group-{mark}"
        running = [
            stack.enter_context(
                working(bootstrap, topics.samples, group=group, folder=folder / f"{mark}-{number}")
            )
            for number in range(workers)
        ]
        until(
            lambda: (
                sorted(map(len, (one.partitions() for one in running)))
                == [broker.PARTITIONS // workers] * workers
            ),
            "all workers to have their partitions",
        )
        producer.commit_transaction()
        offsets = stack.enter_context(Offsets(bootstrap, topics.samples, group))
        until(lambda: not offsets.left(), "all rows to be read")
        told = [one.stop() for one in running]
    read = sum(one["rows"] for one in told)
    assert read == rows, f"{read} rows were read instead of {rows}"
    seconds = max(one["read"]["at"] for one in told) - min(one["first"]["at"] for one in told)
    cpu_s = sum(one["read"]["cpu"] - one["first"]["cpu"] for one in told)
    return {"rows_per_s": rows / seconds, "cpu_s_per_million_rows": cpu_s / rows * 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, nargs="+", default=list(RUNS))
    parser.add_argument("--only", choices=["runs", "workers"])
    broker.add_options(parser)
    options = parser.parse_args()
    found: dict[str, Any] = {"rows": options.rows}
    with broker.running(options.brokers) as bootstrap, broker.scratch() as folder:
        if options.only != "workers":
            found["runs"] = by_runs(
                bootstrap, folder, rows=options.rows, runs=tuple(options.runs), rounds=options.rounds
            )
        if options.only != "runs":
            found["workers"] = by_workers(bootstrap, folder, rows=options.rows, rounds=options.rounds)
    print(write("open_runs", {"rounds": options.rounds}, found, into=options.results))


if __name__ == "__main__":
    main()
