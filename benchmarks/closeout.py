"""What publishing a finished run costs, against copying its bytes and against lmms-eval's writing.

    python -m benchmarks.closeout                       # 1,000,000 rows of 1 KB, shuffled, 5% of them twice
    python -m benchmarks.closeout --rows 100000 --only evalsink

In turns, --rounds times, all from a warm page cache:

- copy: `cp`, `sync` and `sha256sum` of the published samples file: what the disk and the hash cost alone.
- evalsink: from the spool, sorted, each sample once, hashed, synced, with results JSON, table and figures.
- lmms-eval: `save_results_samples` of its wheel. It has all rows in memory, neither syncs nor hashes, and
  opens the file for each row.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from msgspec import Struct

from benchmarks import broker, spools
from benchmarks.environments import PEERS, python_at
from benchmarks.measuring import middle, run, settle_disk, spread, write
from benchmarks.rows import Shape

DUPLICATES = 0.05
GROUP = "bench"
WAYS = ("copy", "evalsink", "lmms-eval")


class Took(Struct, frozen=True):
    """One way, once."""

    seconds: float
    cpu_s: float
    peak_mb: float


def copy(folder: Path, samples: Path) -> Took:
    """`cp`, `sync` and `sha256sum`, start of the three programs included."""
    script = 'cp "$1" "$2" && sync && sha256sum "$2"'
    ran = run(["sh", "-c", script, "-", str(samples), str(folder / "copy")], log=folder / "copy.log")
    return Took(ran.seconds, ran.cpu_s, ran.peak_mb)


def evalsink(folder: Path) -> Took:
    """Close-out alone, in a process that has its imports behind it."""
    program = str(PEERS / "evalsink_closeout.py")
    return _timed([sys.executable, program, str(folder / "state"), str(folder / "output"), GROUP], folder)


def lmms_eval(folder: Path, samples: Path) -> Took:
    """Its method alone, the rows in memory before."""
    program = str(PEERS / "lmms_eval_writer.py")
    return _timed([python_at("lmms-eval"), program, str(samples), str(folder / "lmms")], folder)


def _timed(command: list[str], folder: Path) -> Took:
    ran = run(command, log=folder / "closeout.log")
    said: dict[str, Any] = json.loads(ran.said.splitlines()[-1])
    first, read = said["first"], said["read"]
    return Took(read["at"] - first["at"], read["cpu"] - first["cpu"], ran.peak_mb)


def measure(folder: Path, shape: Shape, *, ways: list[str], rounds: int) -> dict[str, Any]:
    """Let all ways take turns; figures for each."""
    spools.build(folder / "state", spools.Spec(shape, group=GROUP, ended=True, duplicates=DUPLICATES))
    settle_disk()
    evalsink(folder)  # warms the page cache, and is what the others copy
    published = folder / "published"
    (folder / "output").rename(published)
    [samples] = published.rglob("*_samples_*.jsonl")
    found: dict[str, list[Took]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in ways:
            settle_disk()
            if way == "copy":
                took = copy(folder, samples)
            elif way == "evalsink":
                took = evalsink(folder)
            else:
                took = lmms_eval(folder, samples)
            found[way].append(took)
            for leftover in ("copy", "output", "lmms"):
                path = folder / leftover
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            sys.stderr.write(
                f"close-out round {number + 1}: {way:10} {took.seconds:7.2f} s {took.cpu_s:7.2f} CPU s "
                f"{took.peak_mb:7.0f} MB\n"
            )
    copied = found.get("copy")
    return {
        "rows": shape.rows,
        "duplicates": DUPLICATES,
        "bytes": samples.stat().st_size,
        "ways": [
            {
                "way": way,
                "seconds": spread([one.seconds for one in took]),
                "cpu_s": middle([one.cpu_s for one in took]),
                "peak_mb": round(max(one.peak_mb for one in took), 1),
                **(
                    {
                        "seconds_to_copy": spread(
                            [one.seconds / base.seconds for one, base in zip(took, copied, strict=True)]
                        ),
                        "cpu_to_copy": spread(
                            [one.cpu_s / base.cpu_s for one, base in zip(took, copied, strict=True)]
                        ),
                    }
                    if copied
                    else {}
                ),
            }
            for way, took in found.items()
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--row-bytes", type=int, default=1000)
    parser.add_argument("--only", action="append", choices=WAYS)
    broker.add_options(parser)
    options = parser.parse_args()
    shape = Shape(rows=options.rows, row_bytes=options.row_bytes, batch=20, runs=1, tasks=1)
    ways = [way for way in WAYS if way in (options.only or WAYS)]
    with broker.scratch() as folder:
        found = measure(folder, shape, ways=ways, rounds=options.rounds)
    print(write("closeout", {"rounds": options.rounds}, found, into=options.results))


if __name__ == "__main__":
    main()
