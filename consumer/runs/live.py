"""Scores of open runs as they stand: read from the spool by who asks, at nobody else's cost.

The worker keeps no sums: they would cost at every row, and a restart would lose them. The index and the side
files hold every score, also of rows that came before a restart, so who asks reads on from where it was.

What is told is of rows as they came: a sample that came twice counts twice, and rows of an attempt that a
higher one will supersede count, until the run closes. `n` says how many rows are in it; after a long silence
it takes several questions to catch up. Refuses nothing: what cannot be read now is left out.
"""

import time
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
from msgspec import Struct

from consumer.errors import SpoolError
from consumer.runs.index import ENTRY, Flag, decode_side
from consumer.runs.scores import TaskScores
from consumer.runs.spool import task_files
from schemas.state import RunState, TaskState

CHUNK_ROWS = 5_000


class Score(Struct, frozen=True):
    """One metric so far.

    Attributes:
        n: Rows that had it.
        mean: Null where it cannot be told.
        stderr: Standard error of the mean (CLT); null for fewer than two rows.
    """

    n: int
    mean: float | None
    stderr: float | None


Scores = dict[str, dict[str, Score]]
"""Filter to metric to what there is."""


class LiveScores:
    """Remembers how far each open run was read. One thread at a time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tasks: dict[tuple[Path, int], tuple[int, TaskScores]] = {}

    def read(self, folder: Path, run: RunState, *, deadline: float) -> dict[str, Scores]:
        """Scores per task of the run in `folder`, read on until `deadline` by the clock."""
        found = {}
        for number, task in enumerate(run.tasks):
            done, scores = self._tasks.get((folder, number), (0, TaskScores()))
            total = task.index // ENTRY.itemsize
            while done < total and self._clock() < deadline:
                count = min(CHUNK_ROWS, total - done)
                try:
                    _read(folder, number, task, start=done, count=count, into=scores)
                except (OSError, SpoolError):
                    break
                done += count
            self._tasks[folder, number] = (done, scores)
            found[task.name] = {
                filter_name: {
                    metric: Score(int(values["n"] or 0), values["mean"], values["stderr_clt"])
                    for metric, values in metrics.items()
                }
                for filter_name, metrics in scores.result().items()
            }
        return found

    def keep(self, folders: Collection[Path]) -> None:
        """Forget all runs but those in these folders."""
        self._tasks = {key: one for key, one in self._tasks.items() if key[0] in folders}


def _read(folder: Path, number: int, task: TaskState, *, start: int, count: int, into: TaskScores) -> None:
    """Take in `count` rows from row `start` on, all of them or none."""
    files = task_files(folder, number, task.name)
    with files.index.open("rb") as index:
        index.seek(start * ENTRY.itemsize)
        entries = np.fromfile(index, dtype=ENTRY, count=count)
    if entries.size != count:
        raise SpoolError(f"{files.index} holds fewer rows than were received")
    entries = entries[(entries["side_len"] > 0) & ((entries["flags"] & int(Flag.REJECTED)) == 0)]
    if not entries.size:
        return
    # They lie one behind the other, those of rejected rows in between.
    first, last = entries[0], entries[-1]
    begin = int(first["side"])
    with files.side.open("rb") as side:
        side.seek(begin)
        content = side.read(int(last["side"]) + int(last["side_len"]) - begin)
    columns = (entries[name].tolist() for name in ("filter", "side", "side_len"))
    decoded = [
        (task.filters[filter_number], decode_side(content[position - begin : position - begin + length])[1])
        for filter_number, position, length in zip(*columns, strict=True)
    ]
    for filter_name, scores in decoded:
        if scores:
            into.add(filter_name, scores)
