"""Memory and open files of one worker with many runs open at a time, or with one large run, on a real Kafka.

    python -m benchmarks.many_runs --runs 1000 --tasks 3 --rows 200
    python -m benchmarks.many_runs --runs 1 --tasks 1 --rows 2000000

Prints one JSON object: rows, seconds, highest resident memory and open files of the worker, runs closed. The
runs are interleaved, so that all are open until the last end events come.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from confluent_kafka import Producer
from msgspec import Raw

from schemas.events import Aggregate, RunEnded, Sample, Samples, encode
from tests.kafka_harness.broker import RealKafka

LOOK_S = 0.1


def events(options: argparse.Namespace) -> Iterator[tuple[str, str, bytes]]:
    """(topic, run_id, value) of all events, interleaved."""
    chance = random.Random(1)  # noqa: S311 - the same load each time
    tasks = [f"task_{number}" for number in range(options.tasks)]
    batches = [
        (f"run-{run}", task, start)
        for run in range(options.runs)
        for task in tasks
        for start in range(0, options.rows, options.batch)
    ]
    chance.shuffle(batches)
    answer = "".join(chance.choices("abcdefghijklmnop ", k=options.row_bytes)).encode()
    row = b'{"doc_id":%d,"target":"B","filtered_resps":"%b","acc":1.0,"input":"question"}'
    for run_id, task, start in batches:
        ids = range(start, min(options.rows, start + options.batch))
        samples = [Sample(doc_id, Raw(row % (doc_id, answer)), {"acc": 1.0}) for doc_id in ids]
        yield "eval.samples", run_id, encode(Samples(run_id, task, samples))
    for run in range(options.runs):
        run_id = f"run-{run}"
        for task in tasks:
            results = Raw(b'{"alias":"%b","acc,none":1.0}' % task.encode())
            yield "eval.aggregates", run_id, encode(Aggregate(run_id, task, results))
        ended = RunEnded(run_id, samples=dict.fromkeys(tasks, options.rows), aggregates=tasks)
        yield "eval.samples", run_id, encode(ended)


def send(bootstrap: str, options: argparse.Namespace) -> None:
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "compression.type": "lz4",
            "linger.ms": 20,
            "partitioner": "murmur2_random",
        }
    )
    for topic, run_id, value in events(options):
        while True:
            try:
                producer.produce(topic, value, run_id.encode())
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()


def watch(process: subprocess.Popen[bytes]) -> tuple[int, int]:
    """Highest resident memory (MB) and number of open files until the process ends."""
    memory = files = 0
    folder = Path("/proc", str(process.pid))
    while process.poll() is None:
        try:
            status = (folder / "status").read_text()
            memory = max(memory, *(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line))
            files = max(files, len(list((folder / "fd").iterdir())))
        except (OSError, TypeError):
            break
        time.sleep(LOOK_S)
    return memory // 1024, files


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=3)
    parser.add_argument("--rows", type=int, default=200, help="rows of each task")
    parser.add_argument("--batch", type=int, default=20, help="rows of one event")
    parser.add_argument("--row-bytes", type=int, default=900)
    options = parser.parse_args()
    evalsink = [sys.executable, "-m", "consumer"]
    with tempfile.TemporaryDirectory() as folder, RealKafka(Path(folder, "kafka")) as kafka:
        subprocess.run(
            [*evalsink, "topics", "--brokers", kafka.bootstrap, "--partitions", "4"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        send(kafka.bootstrap, options)
        output, state = Path(folder, "output"), Path(folder, "state")
        started = time.monotonic()
        with Path(folder, "worker.log").open("wb") as log:
            worker = subprocess.Popen(
                [
                    *evalsink,
                    "worker",
                    "--brokers",
                    kafka.bootstrap,
                    "--output",
                    str(output),
                    "--state",
                    str(state),
                    "--exit-when-idle",
                    "0.5",
                ],
                stderr=log,
            )
            memory, files = watch(worker)
        if worker.wait() != 0:
            sys.exit(Path(folder, "worker.log").read_text()[-2000:])
        print(
            json.dumps(
                {
                    "runs": options.runs,
                    "rows": options.runs * options.tasks * options.rows,
                    "seconds": round(time.monotonic() - started, 1),
                    "resident_mb_max": memory,
                    "open_files_max": files,
                    "runs_closed": len(list(output.rglob("*_results.json"))),
                }
            )
        )


if __name__ == "__main__":
    main()
