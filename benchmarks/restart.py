"""How long a worker takes to read again after a restart, with a large spool, and what memory it needs.

    python -m benchmarks.restart                      # 10,000,000 rows in 1,000 open runs, and in one
    python -m benchmarks.restart --rows 100000 --rounds 1

The spool is written without Kafka, by the worker's own modules (`benchmarks.spools`). The log holds as many
records, of no content: they lie below the position and are not read. After each start a few new rows are sent
and read. Of the single run the end event is sent at last: its rows are counted and sorted and published, and
the memory is that of all this.
"""

import argparse
import json
import shutil
import sys
import time
import uuid
from itertools import cycle
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from benchmarks import broker, spools
from benchmarks.contenders import EVALSINK, command_of, environment
from benchmarks.measuring import Ran, run, settle_disk, spread, write
from benchmarks.rows import Keyed, Shape, ends, pool_of, task_name
from benchmarks.workers import until, working
from consumer.kafka_client import connect, topic_ids
from consumer.settings import Topics
from schemas.events import Samples, encode

NEW_ROWS = 1000
CLOSE_S = 600.0


def measure(bootstrap: str, folder: Path, shape: Shape, *, rounds: int, close: bool) -> dict[str, Any]:
    """Start a worker `rounds` times on one spool; with `close`, let its run end at last."""
    mark = uuid.uuid4().hex[:8]
    group = f"bench-{mark}"
    topics = broker.make_topics(bootstrap, f"bench.restart-{mark}")
    with broker.sending(bootstrap) as producer:
        for partition, count in spools.offsets(shape).items():
            for _ in range(count):
                producer.produce(topics.samples, b"{}", partition=partition)
                producer.poll(0)
    ids = topic_ids(connect(bootstrap), topics.inputs)
    output = folder / mark
    spools.build(output / "state", spools.Spec(shape, group=group, topics=topics, topic_ids=ids))
    settle_disk()
    starts = []
    for number in range(rounds):
        send_more(bootstrap, topics, shape, first=shape.rows + number * NEW_ROWS)
        told = environment(
            EVALSINK,
            bootstrap,
            replace(shape, rows=NEW_ROWS),
            topic=topics.samples,
            group=group,
            output=output,
        )
        ran = run(command_of(EVALSINK), log=folder / f"{mark}.log", environment=told)
        assert "state_dropped" not in (folder / f"{mark}.log").read_text("utf-8"), "the spool was whole"
        starts.append(ran)
        sys.stderr.write(
            f"restart round {number + 1}: {shape.rows:,} rows in {shape.runs} runs, first poll after "
            f"{_after(ran, 'ready'):.2f} s, first row {_after(ran, 'first'):.2f} s, {ran.peak_mb:.0f} MB\n"
        )
    found: dict[str, Any] = {
        "rows": shape.rows,
        "runs": shape.runs,
        "first_poll_s": spread([_after(one, "ready") for one in starts]),
        "first_row_s": spread([_after(one, "first") for one in starts]),
        "peak_mb": round(max(one.peak_mb for one in starts), 1),
    }
    if close:
        found["closing"] = close_all(bootstrap, topics, shape, group=group, folder=output)
    shutil.rmtree(output)
    return found


def _after(ran: Ran, moment: str) -> float:
    seconds: float = json.loads(ran.said)[moment]["at"] - ran.begun_at
    return seconds


def send_more(bootstrap: str, topics: Topics, shape: Shape, *, first: int) -> None:
    """Send `NEW_ROWS` rows to runs that are open, with doc_ids from `first`."""
    pool = pool_of(shape.row_bytes)
    runs = cycle(shape.run_ids())
    with broker.sending(bootstrap) as producer:
        for start in range(first, first + NEW_ROWS, 20):
            run_id = next(runs)
            batch = [pool.sample(doc_id, 0) for doc_id in range(start, start + 20)]
            event = Keyed("samples", run_id, encode(Samples(run_id, task_name(0), batch)))
            broker.send(producer, topics, [event])


def close_all(bootstrap: str, topics: Topics, shape: Shape, *, group: str, folder: Path) -> dict[str, float]:
    """Send the end events and wait for all results. Returns the worker's memory and the seconds it took."""
    with broker.sending(bootstrap) as producer:
        broker.send(producer, topics, ends(shape))
    with working(bootstrap, topics.samples, group=group, folder=folder) as worker:
        begun = time.monotonic()

        def are_published() -> bool:
            worker.look()
            return len(list((folder / "output").rglob("*_results.json"))) == shape.runs

        until(are_published, "all runs to be published", CLOSE_S)
        seconds = time.monotonic() - begun
        worker.stop()
        return {"seconds": round(seconds, 1), "peak_mb": round(worker.peak_mb, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--row-bytes", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=1000)
    broker.add_options(parser)
    options = parser.parse_args()
    many = Shape(rows=options.rows, row_bytes=options.row_bytes, batch=100, runs=options.runs)
    one = replace(many, runs=1, tasks=1)
    with broker.running(options.brokers) as bootstrap, broker.scratch() as folder:
        found = {
            "row_bytes": options.row_bytes,
            "spools": [
                measure(bootstrap, folder, shape, rounds=options.rounds, close=shape is one)
                for shape in (many, one)
            ],
        }
    print(write("restart", {"rounds": options.rounds}, found, into=options.results))


if __name__ == "__main__":
    main()
