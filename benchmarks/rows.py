"""Rows and events of the load: what lmms-eval's would be, of a chosen size. Pure; equal calls give equal bytes.

A row has the keys that lmms-eval writes, in its order, text in many scripts, and a size that varies by half around
the one asked for. Texts come from a pool that is far larger than lz4's window of 64 KiB, so that they compress as
texts of an evaluation do (to about a half), and not as copies of each other.
"""

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msgspec import Raw, Struct

from consumer.demo.phrases import LANGUAGES, SIGNS
from schemas.events import Aggregate, RunEnded, Sample, Samples, encode

POOL_BYTES = 16 * 1024 * 1024
"""Of distinct rows; what is drawn from it differs in doc_id alone."""

_OPENING = b'{"doc_id":%d,'
_WORDS = (
    "the a picture shows two people in front of building with red sign behind them which of following is true about "
    "left right top bottom answer question choose option letter from given choices directly because therefore image "
    "video frame second number street market child bicycle train platform window table water light colour shape"
).split()


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

    def run_id(self, run: int) -> str:
        """Name of a run."""
        return f"run-{run:04d}"

    def task(self, task: int) -> str:
        """Name of a task."""
        return f"bench_task_{task}"


class Keyed(NamedTuple):
    """The key and value of one record."""

    key: str
    value: bytes


class Pool:
    """Rows to draw from."""

    def __init__(self, row_bytes: int, *, seed: int = 1) -> None:
        chance = random.Random(seed)  # noqa: S311 - the same load each time
        count = max(64, POOL_BYTES // row_bytes)
        self._tails = [_tail(chance, row_bytes) for _ in range(count)]
        self._scores = [{"acc": float(chance.random() < 0.6)} for _ in range(count)]  # noqa: PLR2004
        self._step = 7919  # a prime that divides no count: neighbours are never alike

    def row(self, doc_id: int) -> bytes:
        """The row of a document."""
        return _OPENING % doc_id + self._tails[doc_id * self._step % len(self._tails)]

    def sample(self, doc_id: int) -> Sample:
        """The same as an element of an event."""
        place = doc_id * self._step % len(self._tails)
        return Sample(doc_id, Raw(_OPENING % doc_id + self._tails[place]), self._scores[place])


def _tail(chance: random.Random, row_bytes: int) -> bytes:
    size = chance.uniform(0.5, 1.5) * row_bytes
    language = chance.choice(LANGUAGES)
    thing, colour = chance.choice(language.things)
    hashed = f"{chance.getrandbits(256):064x}"
    texts = [language.question.format(thing), chance.choice(SIGNS)]
    row = (
        f'"target":"{colour}","filtered_resps":"%s","token_counts":[{{"output_tokens":{chance.randrange(900)}}}],'
        f'"doc_hash":"{hashed}","acc":1.0,"input":"<image>%s"}}'
    )
    missing = int(size) - len((row % (colour, " ".join(texts))).encode()) - len(_OPENING)
    # Of 100 tokens of a model's answer, most are words, some are numbers that compress badly.
    words: list[str] = []
    while missing > 0:
        word = chance.choice(_WORDS) if chance.random() < 0.9 else str(chance.randrange(10**6))  # noqa: PLR2004
        words.append(word)
        missing -= len(word) + 1
    middle = len(words) // 3
    answer, question = " ".join([colour, *words[:middle]]), " ".join([*texts, *words[middle:]])
    return (row % (answer, question)).encode()


def samples(shape: Shape) -> Iterator[Keyed]:
    """All ``samples`` events, those of all runs and tasks interleaved, each task's in order."""
    pool = Pool(shape.row_bytes)
    chance = random.Random(2)  # noqa: S311 - the same load each time
    left = shape.rows_of_tasks()
    starts = [0] * len(left)
    # All take turns in an order of their own each time round, as many processes would.
    order = [place for place, rows in enumerate(left) if rows]
    while order:
        chance.shuffle(order)
        for place in order:
            run, task = divmod(place, shape.tasks)
            ids = range(starts[place], min(left[place], starts[place] + shape.batch))
            starts[place] = ids.stop
            run_id = shape.run_id(run)
            yield Keyed(run_id, encode(Samples(run_id, shape.task(task), [pool.sample(one) for one in ids])))
        order = [place for place in order if starts[place] < left[place]]


def ends(shape: Shape) -> Iterator[tuple[Sequence[Keyed], Keyed]]:
    """For each run its aggregates and its end event."""
    rows = shape.rows_of_tasks()
    for run in range(shape.runs):
        run_id = shape.run_id(run)
        counts = {shape.task(task): rows[run * shape.tasks + task] for task in range(shape.tasks)}
        counts = {task: count for task, count in counts.items() if count}
        aggregates = [
            Keyed(
                run_id, encode(Aggregate(run_id, task, Raw(b'{"alias":"%b","acc,none":0.6}' % task.encode())))
            )
            for task in counts
        ]
        report = Raw(b'{"model_name":"org/model-%d","date":"20260101_000000"}' % run)
        ended = RunEnded(run_id, samples=counts, aggregates=list(counts), report=report)
        yield aggregates, Keyed(run_id, encode(ended))
