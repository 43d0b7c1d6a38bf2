"""What is lost and what is doubled by one SIGKILL, counted in the output.

    python -m benchmarks.crash
    python -m benchmarks.crash --rows 50000 --only evalsink

Each contender reads a load whose runs end. Once a part of the rows is on the disk it is killed, started again
in the same way, and left alone until its output no longer grows. Then the output is read: evalsink's
published files, the peers' own. A line that is no JSON was cut: a killed process wrote half of it.
"""

import argparse
import contextlib
import os
import signal
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from benchmarks import broker
from benchmarks.contenders import (
    BARE,
    CONNECT,
    CONTENDERS,
    PUBLISHING,
    Contender,
    command_of,
    environment,
    prepare,
    version_of,
)
from benchmarks.measuring import started, write
from benchmarks.rows import Shape, task_name
from benchmarks.workers import until
from consumer.filesystem import files_below

KILL_AT = 0.4
"""Share of the rows' bytes that are on the disk when it is killed."""

QUIET_S = 8.0
"""Without growth for so long it is done: longer than any of them holds back rows."""

GROWTH_S = 60.0
COMMIT_S = 0.5
"""Between commits, or checkpoints, for all alike: the fast ones have read it all within a few seconds."""

SESSION_MS = 6000
"""How long a group waits for the dead member, for all alike."""


class _Row(Struct):
    doc_id: int


class _Samples(Struct, tag_field="type", tag="samples"):
    run_id: str
    task: str
    samples: list[_Row]


class _Ended(Struct, tag_field="type", tag="run_ended"):
    pass


class Counted(Struct):
    """Rows found in an output."""

    found: Counter[tuple[str, int]]
    cut: int = 0


def lines(path: Path) -> Iterator[bytes]:
    """Those of a JSONL file."""
    with path.open("rb") as file:
        yield from file


def of_tasks(output: Path, name: Callable[[Path], str]) -> Counted:
    """Rows in files that `name` tells the run and task of."""
    decode = msgspec.json.Decoder(_Row).decode
    counted = Counted(Counter())
    for path in sorted(output.rglob("*.jsonl")):
        if not (place := name(path)):
            continue
        for line in lines(path):
            try:
                counted.found[place, decode(line).doc_id] += 1
            except msgspec.DecodeError:
                counted.cut += 1
    return counted


def of_events(output: Path) -> Counted:
    """Rows in lines that are whole events."""
    decode = msgspec.json.Decoder(_Samples | _Ended).decode
    counted = Counted(Counter())
    for line in lines(output / "events.jsonl"):
        try:
            event = decode(line)
        except msgspec.DecodeError:
            counted.cut += 1
            continue
        for row in event.samples if isinstance(event, _Samples) else ():
            counted.found[f"{event.run_id}.{event.task}", row.doc_id] += 1
    return counted


def count(contender: Contender, output: Path, shape: Shape) -> dict[str, int]:
    """Compare what a contender wrote with what was sent."""
    if contender is CONNECT:
        counted = of_events(output)
    elif contender.is_ours:
        counted = of_tasks(output / "output", _published_place(shape))
    else:
        counted = of_tasks(output, lambda path: path.stem)
    expected = {
        (f"{run_id}.{task_name(task)}", doc_id)
        for run, run_id in enumerate(shape.run_ids())
        for task in range(shape.tasks)
        for doc_id in range(shape.rows_of_tasks()[run * shape.tasks + task])
    }
    return {
        "missing": len(expected - counted.found.keys()),
        "twice": sum(number - 1 for place, number in counted.found.items() if place in expected),
        "foreign": sum(number for place, number in counted.found.items() if place not in expected),
        "cut_lines": counted.cut,
    }


def _published_place(shape: Shape) -> Callable[[Path], str]:
    run_ids = {f"org__model-{run}": run_id for run, run_id in enumerate(shape.run_ids())}

    def place(path: Path) -> str:
        _, is_samples, task = path.stem.partition("_samples_")
        return f"{run_ids[path.parent.name]}.{task}" if is_samples else ""

    return place


def written(contender: Contender, output: Path) -> int:
    """Bytes of rows on the disk, on their way or done."""
    roots = [output / "state" / "runs", output / "output"] if contender.is_ours else [output]
    size = 0
    for root in roots:
        # Files and folders come and go meanwhile.
        for path in files_below(root, skip_denied=False) if root.is_dir() else ():
            with contextlib.suppress(FileNotFoundError):
                size += path.stat().st_size if path.suffix in {".jsonl", ".tmp"} else 0
    return size


def kill_once(contender: Contender, bootstrap: str, shape: Shape, topic: str, folder: Path) -> dict[str, Any]:
    """One contender's crash, counted."""
    mark = uuid.uuid4().hex[:8]
    output = folder / mark
    output.mkdir()
    told = environment(
        contender, bootstrap, shape, topic=topic, group=f"crash-{mark}", output=output, endless=True
    )
    environ = {**os.environ, **told, "BENCH_SESSION_MS": str(SESSION_MS), "BENCH_COMMIT_S": str(COMMIT_S)}
    command, log = command_of(contender), folder / f"{mark}.log"
    enough = KILL_AT * shape.rows * shape.row_bytes
    with started(command, log=log, environ=environ) as process:
        until(
            lambda: written(contender, output) >= enough,
            f"{contender.name} to write {enough:,.0f} bytes; its log is {log}",
            every_s=0.02,
        )
        # Files grow when they are flushed, and a commit follows: the kill comes between two of them.
        time.sleep(COMMIT_S / 2)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    at_kill = written(contender, output)
    with started(command, log=log, environ=environ):
        until(
            lambda: written(contender, output) != at_kill, f"{contender.name} to go on; see {log}", GROWTH_S
        )
        until_quiet(lambda: written(contender, output))
    found = count(contender, output, shape)
    sys.stderr.write(f"killed at {at_kill / 1e6:,.0f} MB: {contender.name:20} {found}\n")
    return {"contender": contender.name, "version": version_of(contender), **found}


def until_quiet(size: Callable[[], int]) -> None:
    """Wait until something no longer changes."""
    before, since = size(), time.monotonic()
    while time.monotonic() - since < QUIET_S:
        time.sleep(0.1)
        if (now := size()) != before:
            before, since = now, time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    killed = [PUBLISHING, *(one for one in CONTENDERS if not one.is_ours and one is not BARE)]
    names = {"evalsink": PUBLISHING} | {one.name: one for one in killed if one is not PUBLISHING}
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--only", action="append", choices=list(names))
    broker.add_options(parser)
    options = parser.parse_args()
    shape = Shape(rows=options.rows, batch=options.batch)
    chosen = {name: one for name, one in names.items() if not options.only or name in options.only}
    for one in chosen.values():
        prepare(one)
    with broker.running(options.brokers) as bootstrap, broker.scratch() as folder:
        topic = broker.fill(bootstrap, shape, ended=True).samples
        found = [
            {**kill_once(one, bootstrap, shape, topic, folder), "contender": name}
            for name, one in chosen.items()
        ]
    print(
        write(
            "crash",
            {"session_ms": SESSION_MS, "commit_s": COMMIT_S, "kill_at": KILL_AT},
            {"rows": shape.rows, "batch": shape.batch, "contenders": found},
            into=options.results,
        )
    )


if __name__ == "__main__":
    main()
