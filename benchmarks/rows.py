"""Rows and events of the load: what lmms-eval's would be, of a chosen size. Equal calls give equal bytes.

A row has the keys that lmms-eval writes, in its order, text in many scripts, and a size that varies by half
around the one asked for. They come from a pool that is far larger than lz4's window of 64 KiB, each task of
each run beginning elsewhere in it, so that rows are no copies of their neighbours. They share phrases: lz4
makes a fifth of them, as it does of real outputs of lmms-eval and lm-eval on the whole.
"""

import functools
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msgspec import Raw, Struct

from consumer.demo.phrases import LANGUAGES, SIGNS
from schemas.events import Aggregate, RunEnded, Sample, Samples, Score, encode

POOL_BYTES = 16 * 1024 * 1024
"""Of distinct rows; what is drawn from it differs in doc_id alone."""

_STEP = 7919  # primes that divide no pool's size: neighbours are never alike
_STRIDE = 104729
_PHRASE_WORDS = 5
_OPENING = b'{"doc_id":%d,'
_TEXT = (
    "the picture shows two people in front of a building with a red sign behind them which of the following "
    "is true about what can be seen on the left choose an option letter from the given choices directly "
    "because therefore image video frame second number street market child bicycle train platform window"
)


class Shape(Struct, frozen=True):
    """What a load looks like.

    Attributes:
        rows: Rows of all runs together.
        row_bytes: Mean size of a row's JSON.
        batch: Rows of one event.
        runs: Runs, all open at a time.
        tasks: Tasks of each run.
    """

    rows: int
    row_bytes: int = 1000
    batch: int = 1
    runs: int = 16
    tasks: int = 4

    @property
    def name(self) -> str:
        """Names topics; equal shapes hold equal records."""
        return f"bench.{self.rows}x{self.row_bytes}.by-{self.batch}.runs-{self.runs}x{self.tasks}"

    @property
    def events(self) -> int:
        """How many ``samples`` events it takes."""
        return sum(-(-rows // self.batch) for rows in self.rows_of_tasks())

    def rows_of_tasks(self) -> list[int]:
        """Rows of each task, run by run."""
        places = self.runs * self.tasks
        return [self.rows // places + (place < self.rows % places) for place in range(places)]

    def run_ids(self) -> list[str]:
        """Names of its runs."""
        return [f"run-{run:04d}" for run in range(self.runs)]


class Keyed(NamedTuple):
    """One record to send."""

    role: str
    key: str
    value: bytes


def task_name(number: int) -> str:
    """Names a task."""
    return f"bench_task_{number}"


class Pool:
    """Rows to draw from."""

    def __init__(self, row_bytes: int, *, seed: int = 1) -> None:
        chance = random.Random(seed)  # noqa: S311 - the same load each time
        count = max(64, POOL_BYTES // row_bytes)
        self._tails = [_tail(chance, row_bytes) for _ in range(count)]
        self._scores: list[dict[str, Score]] = [{"acc": float(chance.random() < 0.6)} for _ in range(count)]

    def sample(self, doc_id: int, task: int) -> Sample:
        """The element of an event for a document of task number `task`, counted through all runs."""
        place = (doc_id * _STEP + task * _STRIDE) % len(self._tails)
        return Sample(doc_id, Raw(_OPENING % doc_id + self._tails[place]), self._scores[place])


@functools.cache
def pool_of(row_bytes: int) -> Pool:
    """The pool of a size, made once."""
    return Pool(row_bytes)


def _tail(chance: random.Random, row_bytes: int) -> bytes:
    size = chance.uniform(0.5, 1.5) * row_bytes
    language = chance.choice(LANGUAGES)
    thing, colour = chance.choice(language.things)
    texts = [language.question.format(thing), chance.choice(SIGNS)]
    row = (
        f'"target":"{colour}","filtered_resps":"%s",'
        f'"token_counts":[{{"output_tokens":{chance.randrange(900)}}}],'
        f'"doc_hash":"{chance.getrandbits(256):064x}","acc":1.0,"input":"<image>%s"}}'
    )
    missing = int(size) - len((row % (colour, " ".join(texts))).encode()) - len(_OPENING)
    # Most of an answer is phrases that others use too; numbers in between compress badly.
    known, words = _TEXT.split(), []
    while missing > 0:
        start = chance.randrange(len(known) - _PHRASE_WORDS)
        phrase = " ".join(known[start : start + _PHRASE_WORDS])
        words.append(phrase if chance.random() < 0.9 else str(chance.randrange(10**6)))
        missing -= len(words[-1]) + 1
    third = len(words) // 3
    answer, question = " ".join([colour, *words[:third]]), " ".join([*texts, *words[third:]])
    return (row % (answer, question)).encode()


def samples(shape: Shape, run_ids: Sequence[str] | None = None) -> Iterator[Keyed]:
    """All ``samples`` events, those of all runs and tasks interleaved, each task's in order.

    Args:
        shape: The load.
        run_ids: Other names for its runs.
    """
    pool = pool_of(shape.row_bytes)
    chance = random.Random(2)  # noqa: S311 - the same load each time
    names = run_ids or shape.run_ids()
    left = shape.rows_of_tasks()
    starts = [0] * len(left)
    # All take turns, in another order each time round, as many processes would.
    order = [place for place, rows in enumerate(left) if rows]
    while order:
        chance.shuffle(order)
        for place in order:
            run, task = divmod(place, shape.tasks)
            ids = range(starts[place], min(left[place], starts[place] + shape.batch))
            starts[place] = ids.stop
            batch = [pool.sample(doc_id, place) for doc_id in ids]
            yield Keyed("samples", names[run], encode(Samples(names[run], task_name(task), batch)))
        order = [place for place in order if starts[place] < left[place]]


def shuffled(shape: Shape, *, duplicates: float) -> Iterator[Keyed]:
    """The same of a load of one run, its rows in random order, a share of them twice with equal bytes."""
    assert shape.runs == 1, "a load of one run"
    chance = random.Random(3)  # noqa: S311 - the same load each time
    pool = pool_of(shape.row_bytes)
    [run_id] = shape.run_ids()
    for task, rows in enumerate(shape.rows_of_tasks()):
        ids = [*range(rows), *chance.sample(range(rows), round(rows * duplicates))]
        chance.shuffle(ids)
        for start in range(0, len(ids), shape.batch):
            batch = [pool.sample(doc_id, task) for doc_id in ids[start : start + shape.batch]]
            yield Keyed("samples", run_id, encode(Samples(run_id, task_name(task), batch)))


def ends(shape: Shape, run_ids: Sequence[str] | None = None) -> Iterator[Keyed]:
    """Of each run its aggregates, then its end event."""
    rows = shape.rows_of_tasks()
    for run, run_id in enumerate(run_ids or shape.run_ids()):
        places = [run * shape.tasks + task for task in range(shape.tasks)]
        counts = {task_name(task): rows[place] for task, place in enumerate(places) if rows[place]}
        for task in counts:
            results = Raw(b'{"alias":"%b","acc,none":0.6}' % task.encode())
            yield Keyed("aggregates", run_id, encode(Aggregate(run_id, task, results)))
        report = Raw(b'{"model_name":"org/model-%d","date":"20260101_000000"}' % run)
        ended = RunEnded(run_id, samples=counts, aggregates=list(counts), report=report)
        yield Keyed("samples", run_id, encode(ended))
