"""The synthetic evaluation: four shards, five tasks, and what goes wrong on the way. Pure, deterministic.

Owns: the records, in the order of sending, and what a worker must make of them. The rows come shuffled, 5% of
them twice, each shard's end after its rows; among them lie records that no worker can use. Below 3 MiB, so
that it fits into one partition of the embedded broker.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw, Struct

from consumer.demo.statistics import metric_entries
from consumer.demo.tasks import REPAIRED, TASKS, Task
from consumer.vocabulary import Role
from schemas.events import Aggregate, Event, RunEnded, RunStarted, Sample, Samples, encode

SHARDS = 4
GROUP = "demo"
MODEL = "evalsink/demo-vl-7b"
DATE = "20260101_000000"

_BATCH = 10
_TWICE = 0.05


class DemoRecord(NamedTuple):
    """One record to send: which topic, its key, its value."""

    role: Role
    key: bytes | None
    value: bytes


class Facts(Struct, frozen=True):
    """What a worker must make of the records.

    Attributes:
        run_id: The one run; its status is ``complete``.
        shards: Its number of shards.
        rows: Task to its published rows.
        filters: Task to its filters, in the order of the published file.
        duplicates: Task to its rows that came twice, with equal bytes.
        repaired: Task to its rows that had to be mended; tasks without such are absent.
        results: ``results`` of the results JSON.
        dead_letters: Dead letters.
    """

    run_id: str
    shards: int
    rows: dict[str, int]
    filters: dict[str, list[str]]
    duplicates: dict[str, int]
    repaired: dict[str, int]
    results: dict[str, dict[str, Any]]
    dead_letters: int


class _Place(NamedTuple):
    task: Task
    filter: str
    doc_id: int

    @property
    def shard(self) -> int:
        return self.doc_id % SHARDS


class SyntheticEvaluation:
    """One synthetic evaluation; `seed` decides everything in it.

    Attributes:
        facts: What a worker must make of `records`.
    """

    def __init__(self, seed: int = 7, run_id: str = "evalsink-demo") -> None:
        self._seed, self._run_id = seed, run_id
        self._random = Random(seed)  # noqa: S311 - a show, not a secret
        places = [
            _Place(task, name, doc_id)
            for task in TASKS
            for name in task.filters
            for doc_id in range(task.documents)
        ]
        self._samples = {place: place.task.sample(seed, place.filter, place.doc_id) for place in places}
        self._twice = self._random.sample(places, round(len(places) * _TWICE))
        self._garbage = list(self._make_garbage())
        self.facts = Facts(
            run_id=run_id,
            shards=SHARDS,
            rows={task.name: task.documents * len(task.filters) for task in TASKS},
            filters={task.name: list(task.filters) for task in TASKS},
            duplicates=dict(Counter(place.task.name for place in self._twice)),
            repaired=dict(REPAIRED),
            results=self._results(),
            dead_letters=len(self._garbage) + 1,  # and the batch with a torn row
        )

    def records(self) -> Iterator[DemoRecord]:
        """The records in the order of sending; the same each time."""
        random = Random(self._seed)  # noqa: S311 - as above
        yield self._record(self._started())
        body: list[Event | DemoRecord] = [*self._batches(random), *self._garbage]
        random.shuffle(body)
        last = {event.shard: at for at, event in enumerate(body) if isinstance(event, Samples)}
        for at, event in enumerate(body):
            yield event if isinstance(event, DemoRecord) else self._record(event)
            for shard in range(SHARDS):
                if last[shard] == at:
                    if shard == 0:
                        yield from (self._record(self._aggregate(task)) for task in self.facts.results)
                    yield self._record(self._ended(shard))

    def _record(self, event: Event) -> DemoRecord:
        role: Role = "aggregates" if isinstance(event, Aggregate) else "samples"
        return DemoRecord(role, event.run_id.encode(), encode(event))

    def _started(self) -> RunStarted:
        return RunStarted(
            run_id=self._run_id,
            num_shards=SHARDS,
            harness="lmms-eval",
            model_name=MODEL,
            model_source="evalsink",
            date=DATE,
            tasks={task.name: task.documents for task in TASKS},
            config=_raw(
                {"model": "evalsink", "model_args": f"pretrained={MODEL}", "batch_size": 1, "limit": None}
            ),
        )

    def _batches(self, random: Random) -> Iterator[Samples]:
        order = [*self._samples, *self._twice]
        random.shuffle(order)
        filling: dict[tuple[str, str, int], list[Sample]] = defaultdict(list)
        torn = False
        for place in order:
            batch = filling[place.task.name, place.filter, place.shard]
            batch.append(self._samples[place])
            if len(batch) == _BATCH:
                if not torn:
                    # The document has a good row as well, so the run stays whole; the batch leaves a dead
                    # letter.
                    batch.append(Sample(doc_id=batch[0].doc_id, row=Raw(b'"a row that lost its braces"')))
                    torn = True
                yield self._batch(place.task.name, place.filter, place.shard, batch)
                del filling[place.task.name, place.filter, place.shard]
        for (task, name, shard), batch in filling.items():
            yield self._batch(task, name, shard, batch)

    def _batch(self, task: str, filter_name: str, shard: int, samples: list[Sample]) -> Samples:
        return Samples(
            run_id=self._run_id,
            task=task,
            samples=samples,
            shard=shard,
            num_shards=SHARDS,
            filter=filter_name,
        )

    def _results(self) -> dict[str, dict[str, Any]]:
        results: dict[str, dict[str, Any]] = {GROUP: {" ": " ", "alias": GROUP}}
        for task in TASKS:
            entries: dict[str, Any] = {"alias": f" - {task.name}"}
            for name in task.filters:
                samples = [self._samples[_Place(task, name, doc_id)] for doc_id in range(task.documents)]
                clusters = [None if sample.cluster is None else str(sample.cluster) for sample in samples]
                for metric in task.metrics:
                    scores = [sample.scores[metric] for sample in samples]
                    entries |= metric_entries(metric, name, scores, clusters)
            results[task.name] = entries
        return results

    def _aggregate(self, name: str) -> Aggregate:
        results = _raw(self.facts.results[name])
        task = next((task for task in TASKS if task.name == name), None)
        if task is None:
            return Aggregate(run_id=self._run_id, task=name, results=results)
        return Aggregate(
            run_id=self._run_id,
            task=name,
            results=results,
            config=_raw({"task": name, "output_type": "generate_until", "num_fewshot": 0}),
            version=_raw("Yaml"),
            n_shot=_raw(0),
            higher_is_better=_raw(dict.fromkeys(task.metrics, True)),
            n_samples=_raw({"original": task.documents, "effective": task.documents}),
        )

    def _ended(self, shard: int) -> RunEnded:
        counts = Counter(place.task.name for place in self._samples if place.shard == shard)
        if shard != 0:
            return RunEnded(run_id=self._run_id, shard=shard, num_shards=SHARDS, samples=dict(counts))
        rows = math.fsum(self.facts.rows.values())
        report = {
            "group_subtasks": {GROUP: [task.name for task in reversed(TASKS)]},
            "git_hash": "demo",
            "git_branch": None,
            "lmms_eval_version": "demo",
            "date": DATE,
            "throughput": {
                "total_gen_tokens": int(rows) * 8,
                "total_elapsed_time": rows / 40,
                "avg_speed": 320.0,
            },
            "usage": {},
            "system_instruction": None,
            "system_instruction_sha": None,
            "fewshot_as_multiturn": False,
            "chat_template": None,
            "chat_template_sha": None,
            "start_time": 1000.0,
            "end_time": 1000.0 + rows / 40,
            "total_evaluation_time_seconds": str(rows / 40),
        }
        return RunEnded(
            run_id=self._run_id,
            num_shards=SHARDS,
            samples=dict(counts),
            aggregates=list(self.facts.results),
            report=_raw(report),
        )

    def _make_garbage(self) -> Iterator[DemoRecord]:
        """Records that no worker can use, each a dead letter."""
        key = self._run_id.encode()
        sample = next(iter(self._samples.values()))
        task = TASKS[0].name
        run = {"run_id": self._run_id}
        yield DemoRecord("samples", key, b"this is not JSON")
        yield DemoRecord("samples", key, b"")
        yield DemoRecord("samples", key, _json({"type": "picnic", **run}))
        yield DemoRecord("samples", key, _json({"type": "samples", **run, "task": 5, "samples": []}))
        yield DemoRecord("samples", key, _json({"type": "run_ended", **run, "shard": 9, "num_shards": 4}))
        # Well-formed, but in the wrong place: under another run's key, and in the other topic.
        stray = Samples(run_id=self._run_id, task=task, samples=[sample], num_shards=SHARDS)
        yield DemoRecord("samples", b"somebody-else", encode(stray))
        yield DemoRecord("aggregates", key, encode(stray))


def _raw(value: object) -> Raw:
    return Raw(_json(value))


def _json(value: object) -> bytes:
    return msgspec.json.encode(value)
