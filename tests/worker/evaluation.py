"""Small evaluations as events: every row written out, nothing random."""

import json
from collections import Counter
from itertools import count

from kafka.partitioner.default import murmur2
from msgspec import Raw
from msgspec.structs import replace

from schemas.events import Aggregate, RunEnded, RunStarted, Sample, Samples

MODEL = "org/model"
DATE = "20260102_030405"


def raw(value):
    return Raw(json.dumps(value).encode())


def row(doc_id, **more):
    return raw({"doc_id": doc_id, "target": "א", "acc": float(doc_id % 2), **more})


def sample(doc_id, **more):
    return Sample(doc_id=doc_id, row=row(doc_id, **more), scores={"acc": float(doc_id % 2)})


class Evaluation:
    """One run: documents dealt to shards like ranks, `batch` rows an event."""

    def __init__(self, run_id, *, tasks=(("mme", 24),), shards=2, batch=3, **row_fields):
        self.run_id, self.tasks, self.shards, self.batch = run_id, dict(tasks), shards, batch
        self.row_fields = row_fields

    def started(self):
        return RunStarted(
            run_id=self.run_id,
            num_shards=self.shards,
            harness="lmms-eval",
            model_name=MODEL,
            date=DATE,
            tasks=self.tasks,
            config=raw({"limit": None}),
        )

    def batches(self, shard):
        """The shard's samples events."""
        for task, documents in self.tasks.items():
            mine = [sample(doc_id, **self.row_fields) for doc_id in range(shard, documents, self.shards)]
            for start in range(0, len(mine), self.batch):
                yield Samples(
                    run_id=self.run_id,
                    task=task,
                    samples=mine[start : start + self.batch],
                    shard=shard,
                    num_shards=self.shards,
                )

    def aggregates(self, **more):
        for task, documents in self.tasks.items():
            mean = (documents // 2) / documents
            yield Aggregate(
                run_id=self.run_id,
                task=task,
                results=raw({"alias": task, "acc,none": mean, **more}),
                version=raw("Yaml"),
                n_shot=raw(0),
            )

    def ended(self, shard, **more):
        samples = Counter(
            {task: len(range(shard, documents, self.shards)) for task, documents in self.tasks.items()}
        )
        event = RunEnded(
            run_id=self.run_id,
            shard=shard,
            num_shards=self.shards,
            samples={task: rows for task, rows in samples.items() if rows},
            aggregates=list(self.tasks) if shard == 0 else [],
            report=raw({"git_hash": "abc", "date": DATE, "start_time": 1.0, "end_time": 2.0}),
        )
        return replace(event, **more)

    def body(self):
        """Everything but the last end."""
        yield self.started()
        for shard in range(self.shards):
            yield from self.batches(shard)
        yield from self.aggregates()
        for shard in range(self.shards - 1):
            yield self.ended(shard)

    def events(self):
        yield from self.body()
        yield self.ended(self.shards - 1)


def run_ids(partition, partitions=4, stem="run"):
    """Run ids whose records fall into one partition."""
    names = (f"{stem}-{number}" for number in count())
    return (name for name in names if (murmur2(name.encode()) & 0x7FFFFFFF) % partitions == partition)
