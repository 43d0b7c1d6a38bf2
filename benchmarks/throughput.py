"""How fast a load is read: evalsink, its peers, and a bare poll loop, in turns, on one broker.

    python -m benchmarks.throughput                                        # evalsink against the bare loop
    python -m benchmarks.throughput --only evalsink --rows 200000          # evalsink alone
    python -m benchmarks.throughput --peers                                # against all others too
    python -m benchmarks.throughput --brokers 127.0.0.1:9092 …             # a Kafka that stays: sent once

For each load (--load, may be given more than once; default: all three) every contender reads it --rounds
times, in turns: A B C, A B C. What a round shares, the machine's mood included, its ratios do not show.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from benchmarks import broker
from benchmarks.contenders import (
    BARE,
    CONTENDERS,
    EVALSINK,
    Contender,
    Measured,
    measure,
    prepare,
    version_of,
)
from benchmarks.measuring import FailedError, middle, spread, write
from benchmarks.rows import Shape

LOADS = {
    "1KB-single": Shape(rows=2_000_000),
    "1KB-by-20": Shape(rows=2_000_000, batch=20),
    "8KB-single": Shape(rows=250_000, row_bytes=8000),
    "1KB-one-run": Shape(rows=1_000_000, runs=1),
}
"""Those of 8 KB are as many bytes as the first two. All rows of one run lie in one partition."""


def compare(
    bootstrap: str,
    shape: Shape,
    contenders: Sequence[Contender],
    *,
    rounds: int,
    peers_rows: int,
    folder: Path,
) -> list[dict[str, Any]]:
    """Let all read a load in turns; one entry for each, ratios to the bare loop of the same round."""
    topic = broker.fill(bootstrap, shape).samples
    few = replace(shape, rows=min(shape.rows, peers_rows))
    found: dict[str, list[Measured]] = {one.name: [] for one in contenders}
    for number in range(rounds):
        for one in contenders:
            reads = shape if one in {BARE, EVALSINK} else few
            log = broker.fill(bootstrap, few, ended=True).samples if one.closes else topic
            measured = _measure_twice(one, bootstrap, reads, topic=log, folder=folder)
            found[one.name].append(measured)
            sys.stderr.write(
                f"{shape.name} round {number + 1}: {one.name:25} {measured.rows_per_s:>11,.0f} rows/s "
                f"{measured.cpu_s_per_million:8.2f} CPU s/M rows {measured.peak_mb:6.0f} MB\n"
            )
    return [_entry(one, found[one.name], found.get(BARE.name)) for one in contenders]


def _measure_twice(one: Contender, bootstrap: str, shape: Shape, *, topic: str, folder: Path) -> Measured:
    """Measure; what fails is tried once more, so that one accident does not cost all that was measured."""
    try:
        return measure(one, bootstrap, shape, topic=topic, folder=folder)
    except FailedError as error:
        sys.stderr.write(f"{one.name} failed and is tried again: {error}\n")
        return measure(one, bootstrap, shape, topic=topic, folder=folder)


def _entry(contender: Contender, own: Sequence[Measured], bare: Sequence[Measured] | None) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "contender": contender.name,
        "version": version_of(contender),
        "work": contender.work,
        "is_equal_work": contender.is_equal,
        "rows": own[0].rows,
        "rows_per_s": spread([one.rows_per_s for one in own], 0),
        "rows_per_s_until_read": spread([one.rows / one.read_s for one in own], 0),
        "cpu_s_per_million_rows": spread([one.cpu_s_per_million for one in own]),
        "cpu_s_whole": middle([one.cpu_whole_s for one in own]),
        "peak_mb": round(max(one.peak_mb for one in own), 1),
    }
    if bare:
        pairs = list(zip(own, bare, strict=True))
        entry["rows_per_s_to_bare"] = spread([one.rows_per_s / base.rows_per_s for one, base in pairs])
        entry["rows_per_cpu_s_to_bare"] = spread(
            [base.cpu_s_per_million / one.cpu_s_per_million for one, base in pairs]
        )
    return entry


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [one.name for one in CONTENDERS]
    parser.add_argument("--load", action="append", choices=list(LOADS), help="default: all")
    parser.add_argument(
        "--only", action="append", choices=names, help="these alone; without the bare loop no ratios"
    )
    parser.add_argument("--peers", action="store_true", help="the others too")
    parser.add_argument("--rows", type=int, help="of each load, instead of 2,000,000 (of 8 KB an eighth)")
    parser.add_argument("--peers-rows", type=int, default=500_000, help="that peers read of it")
    broker.add_options(parser)
    options = parser.parse_args()
    chosen = [
        one
        for one in CONTENDERS
        if (one.name in options.only if options.only else options.peers or one in {BARE, EVALSINK})
    ]
    for one in chosen:
        prepare(one)
    loads = {name: resized(LOADS[name], options.rows) for name in options.load or LOADS}
    with broker.running(options.brokers) as bootstrap, broker.scratch() as folder:
        found = {
            name: compare(
                bootstrap,
                shape,
                chosen,
                rounds=options.rounds,
                peers_rows=options.peers_rows,
                folder=folder,
            )
            for name, shape in loads.items()
        }
    print(write("throughput", {"rounds": options.rounds}, {"loads": found}, into=options.results))


def resized(shape: Shape, rows: int | None) -> Shape:
    """The same load with another number of rows, of 1 KB: larger ones are as many fewer."""
    return replace(shape, rows=max(shape.batch, rows * 1000 // shape.row_bytes)) if rows else shape


if __name__ == "__main__":
    main()
