"""All benchmarks, one after the other: `make bench`, `make bench-full`, or --quick to see that they work.

    python -m benchmarks                    # within 40 minutes on 2 cores
    python -m benchmarks --full             # peers read as much as evalsink, 5 rounds, all rows of 1 KB
    python -m benchmarks --quick --results /tmp/results
    python -m benchmarks --only closeout

Each is a program of its own with a Kafka of its own. One that fails does not keep the others from running;
the exit status tells.
"""

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measuring import RESULTS

USUAL = {
    "throughput": ["--peers"],
    "closeout": [],
    "open_runs": [],
    "visible": ["--rows", "8000000"],
    "restart": ["--row-bytes", "200"],
    "crash": [],
}
FULL = {
    "throughput": ["--peers", "--peers-rows", "2000000", "--rounds", "5"],
    "closeout": ["--rounds", "5"],
    "open_runs": ["--rows", "2000000", "--rounds", "5"],
    "visible": ["--rows", "16000000", "--samples", "300"],
    "restart": ["--rounds", "5"],
    "crash": ["--rows", "4000000"],
}
QUICK = {
    "throughput": ["--peers", "--rows", "20000", "--peers-rows", "10000", "--rounds", "1"],
    "closeout": ["--rows", "2000", "--rounds", "1"],
    "open_runs": ["--rows", "20000", "--runs", "1", "10", "--rounds", "1"],
    "visible": ["--rows", "20000", "--samples", "1", "--idle-too"],
    "restart": ["--rows", "20000", "--runs", "10", "--rounds", "1"],
    "crash": ["--rows", "20000", "--only", "evalsink", "--only", "confluent-kafka"],
}


def status_of(command: Sequence[str]) -> int:
    """Run to the end; whatever ends us ends it in order, so that it can end what it started."""
    process = subprocess.Popen(command)
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--full", action="store_true")
    size.add_argument("--quick", action="store_true", help="sizes that tell nothing but that it works")
    parser.add_argument("--only", action="append", choices=list(USUAL))
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON files")
    options = parser.parse_args()
    if options.quick and options.results == RESULTS:
        parser.error("--quick needs --results: its figures are none")
    chosen = FULL if options.full else QUICK if options.quick else USUAL
    failed = []
    begun = time.monotonic()
    for name, arguments in chosen.items():
        if options.only and name not in options.only:
            continue
        sys.stderr.write(f"== {name} {' '.join(arguments)}\n")
        command = [sys.executable, "-m", f"benchmarks.{name}", "--results", str(options.results), *arguments]
        if status_of(command):
            failed.append(name)
        sys.stderr.write(f"== {name}: {(time.monotonic() - begun) / 60:.1f} minutes since the start\n")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
