"""What is published in a chaos run: evaluations of every kind, as records, each with what it stands for.

Owns the kinds, and the account of the producer: what a record adds to its run if the run takes it. Whether it does
is decided by where it comes to lie in the log.
"""

import heapq
import json
from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple

from msgspec import Raw
from msgspec.structs import replace

from consumer.demo.synthetic import SyntheticEvaluation
from schemas.events import Aggregate, RunEnded, Sample, Samples, encode
from tests.observing import Sending
from tests.worker.evaluation import Evaluation, sample

TASKS = ("mme", "gsm8k", "mmmu_val", "a/b", "é", "ocr bench", "maxm")
MODELS = ("org/small-7b", "org/large-70b", "other/model", "unnamed")
SHARE_TWICE = 0.06
SHARE_CONFLICTING = 0.02
NEVER_GOOD = 2


class Row(NamedTuple):
    """Whose row it is: task, filter, document."""

    task: str
    filter: str
    doc_id: Any


class Parcel(NamedTuple):
    """One record to send, and what it stands for.

    Attributes:
        sending: The record.
        run_id: The run it belongs to; "" for garbage.
        kind: ``rows``, ``lifecycle``, ``aggregate`` or ``garbage``.
        good: Its good rows.
        bad: Its rows that nobody can use.
    """

    sending: Sending
    run_id: str
    kind: str
    good: tuple[Row, ...] = ()
    bad: tuple[Row, ...] = ()


class Planned(NamedTuple):
    """One run: what it is, how long it takes, its parcels in the order of sending."""

    run_id: str
    kind: str
    complete: bool
    duration_s: float
    parcels: list[Parcel]


class Workload:
    """Makes runs without end. `dice` decides everything in them."""

    def __init__(self, topics, dice, *, duration_s, silent):
        self._topics = topics
        self._dice = dice
        self._duration_s = duration_s
        # Those that have to be given up take their time: not in a run that has none.
        kinds = {"plain": 10, "retried": 4, "bad rows": 3, "rows never good": 1, "demo": 1}
        kinds |= {"silent": 1, "failed": 1} if silent else {}
        self._kinds, self._weights = list(kinds), list(kinds.values())

    def runs(self) -> Iterator[Planned]:
        """One after the other."""
        # One of every kind first, so that a short run has them all.
        first = self._dice.sample(self._kinds, len(self._kinds))
        for number in count():
            kind = first[number] if number < len(first) else self._dice.choices(self._kinds, self._weights)[0]
            run_id = f"{kind}/{number}"
            make = self._demo if kind == "demo" else self._evaluation
            parcels = [
                *make(run_id, kind, number),
                *(self._garbage() for _ in range(self._dice.randint(0, 3))),
            ]
            duration_s = self._dice.uniform(0.2, 1.0) * self._duration_s
            # A bad row counts as its document, so a run with such may close before the good one comes.
            complete = kind in {"plain", "retried", "demo"}
            yield Planned(run_id, kind, complete, duration_s, parcels)

    def _evaluation(self, run_id, kind, number):
        dice = self._dice
        evaluation = Evaluation(
            run_id,
            tasks=[(name, dice.randint(8, 160)) for name in dice.sample(TASKS, dice.randint(1, 3))],
            shards=dice.randint(2, 6),
            batch=dice.randint(1, 8),
            text=dice.choice(["", "x" * 200, "א" * 700]),
        )
        events = list(evaluation.body())
        ends = [event for event in events if isinstance(event, RunEnded)] + [
            evaluation.ended(evaluation.shards - 1)
        ]
        events = [event for event in events if not isinstance(event, RunEnded)]
        events[0] = replace(
            events[0], model_name=dice.choice(MODELS), date=f"202601{1 + number % 28:02}_{number % 86400:06}"
        )
        batches = [event for event in events if isinstance(event, Samples)]
        events += dice.sample(batches, max(1, round(len(batches) * SHARE_TWICE)))
        events += [self._conflicting(event) for event in batches if dice.random() < SHARE_CONFLICTING]
        if kind == "retried":
            events, ends = self._retried(events, ends)
        elif kind == "silent":
            ends = ends[:-1]
        elif kind == "failed":
            ends = [*ends[:-1], replace(ends[-1], status="failed")]
        elif kind == "rows never good":
            [task, *_] = evaluation.tasks
            ends[0] = replace(ends[0], samples={**ends[0].samples, task: ends[0].samples[task] + NEVER_GOOD})
        parcels = [self._parcel(event) for event in (*events, *ends)]
        if kind in {"bad rows", "rows never good"}:
            parcels += self._bad_rows(evaluation, kind)
        dice.shuffle(parcels)
        if kind == "plain" and dice.random() < 0.3:
            # What comes after the run is closed, whenever that will be.
            parcels += [self._parcel(event) for event in dice.sample(batches, min(3, len(batches)))]
        return parcels

    def _conflicting(self, batch):
        """The batch again, with other bytes."""
        return replace(
            batch,
            samples=[replace(one, row=Raw(bytes(one.row)[:-1] + b', "again": 1}')) for one in batch.samples],
        )

    def _retried(self, events, ends):
        """Some shards failed half way and were started anew."""
        shards = {end.shard for end in ends}
        retried = {shard for shard in shards if self._dice.random() < 0.5} or {0}
        first, second = [], []
        for event in events:
            if isinstance(event, Samples) and event.shard in retried:
                if self._dice.random() < 0.6:
                    first.append(event)
                second.append(replace(event, attempt=1))
            elif isinstance(event, Aggregate) and 0 in retried:
                first.append(event)
                second.append(replace(event, attempt=1))
            else:
                first.append(event)
        again = [replace(end, attempt=1) if end.shard in retried else end for end in ends]
        failed = [replace(end, status="failed") for end in ends if end.shard in retried]
        return [*first, *second, *failed], again

    def _bad_rows(self, evaluation, kind):
        """Batches of which a row is no row; of some runs the documents come good as well."""
        [(task, documents), *_] = evaluation.tasks.items()
        # Of shard 0, whose counts they are in.
        mine = range(0, documents, evaluation.shards)
        never = [f"never-{one}" for one in range(NEVER_GOOD)]
        for doc_id in never if kind == "rows never good" else self._dice.sample(mine, 2):
            good = sample(self._dice.choice(mine))
            event = Samples(
                run_id=evaluation.run_id,
                task=task,
                samples=[Sample(doc_id=doc_id, row=Raw(b'"no object"')), good],
                shard=0,
                num_shards=evaluation.shards,
            )
            yield self._parcel(
                event, good=(Row(task, "none", good.doc_id),), bad=(Row(task, "none", doc_id),)
            )

    def _parcel(self, event, *, good=None, bad=()):
        sending = self._sending(event)
        if isinstance(event, Samples):
            rows = tuple(Row(event.task, event.filter, one.doc_id) for one in event.samples)
            return Parcel(sending, event.run_id, "rows", rows if good is None else good, bad)
        kind = "aggregate" if isinstance(event, Aggregate) else "lifecycle"
        return Parcel(sending, event.run_id, kind)

    def _sending(self, event):
        topic = self._topics.aggregates if isinstance(event, Aggregate) else self._topics.samples
        return Sending(topic, event.run_id.encode(), encode(event))

    def _demo(self, run_id, kind, number):
        """The synthetic evaluation: filters, half emojis, `NaN`, a torn batch, and garbage of its own."""
        demo = SyntheticEvaluation(seed=number, run_id=run_id)
        garbage = {one.value for one in demo._garbage}
        topics = {"samples": self._topics.samples, "aggregates": self._topics.aggregates}
        for one in demo.records():
            sending = Sending(topics[one.role], one.key, one.value)
            if one.value in garbage:
                yield Parcel(sending, "", "garbage")
                continue
            event = json.loads(one.value)
            if event["type"] != "samples":
                kind = "aggregate" if event["type"] == "aggregate" else "lifecycle"
                yield Parcel(sending, run_id, kind)
                continue
            rows = [
                (
                    isinstance(each["row"], dict),
                    Row(event["task"], event.get("filter", "none"), each["doc_id"]),
                )
                for each in event["samples"]
            ]
            yield Parcel(
                sending,
                run_id,
                "rows",
                tuple(row for is_good, row in rows if is_good),
                tuple(row for is_good, row in rows if not is_good),
            )

    def _garbage(self):
        topic = self._dice.choice([self._topics.samples, self._topics.aggregates])
        key = b"garbage-%d" % self._dice.randrange(40)
        value = self._dice.choice(
            [
                b"",
                None,
                b"{",
                b"\xff\xfe\x00",
                b"[" * 5000,
                b'{"type":"samples"}',
                b"null",
                self._dice.randbytes(60),
            ]
        )
        return Parcel(Sending(topic, key, value), "", "garbage")


def spread(runs, dice, *, every_s, is_over):
    """The parcels of all runs in the order of their times, as (seconds from the start, parcel, run).

    A run starts every `every_s` on average, until `is_over`; its parcels keep their order, and all of them come.
    """
    waiting: list[tuple[float, int, Parcel, Planned]] = []
    numbers = count()
    start_s = 0.0
    while not is_over():
        run = next(runs)
        start_s += dice.expovariate(1 / every_s)
        while waiting and waiting[0][0] <= start_s:
            at_s, _, parcel, planned = heapq.heappop(waiting)
            yield at_s, parcel, planned
        times = sorted(dice.uniform(0, run.duration_s) for _ in run.parcels)
        for at_s, parcel in zip(times, run.parcels, strict=True):
            heapq.heappush(waiting, (start_s + at_s, next(numbers), parcel, run))
    while waiting:
        at_s, _, parcel, planned = heapq.heappop(waiting)
        yield at_s, parcel, planned
