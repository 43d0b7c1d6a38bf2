"""Who sends the events: operations of `tests.runs.logs`, written into the simulated log one piece after the other."""

import random
from typing import Any

from tests.proof.cluster import PARTITIONS, Cluster
from tests.runs.logs import TASKS, _stated, _totals
from tests.runs.oracle import compact

garbage = [
    (b"r0", b"not JSON"),
    (b"r0", b""),
    (b"r0", None),
    (None, b'{"type":"samples","run_id":"r0","task":"t","samples":[]}'),
    (b"r1", b'{"type":"run_ended","run_id":"r0"}'),
    (b"r0", b'{"type":"run_ended","run_id":"r0","shard":4,"num_shards":2}'),
    (b"r0", b'{"type":"telemetry","run_id":"r0"}'),
    (b"r0", b"[" * 5000),
]
"""Keys and values of records that are no event."""

_RESULTS = {"alias": "x", "acc,none": 0.5}


class Author:
    """All producers: they know what was sent, so that ends can count it, and remember it for the oracle."""

    def __init__(self, cluster: Cluster, runs: tuple[str, ...]) -> None:
        self._cluster = cluster
        self._partitions = {run: number % len(PARTITIONS) for number, run in enumerate(runs)}
        self._body: list[tuple[str, dict[str, Any]]] = []
        self._events: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        self.sent: dict[tuple[int, str, int], dict[str, Any]] = {}

    def write(self, run: str, body: list[dict[str, Any]], die: random.Random) -> None:
        """Operations; the ends among them may stand before the rows that they count."""
        self._body += [(run, one) for one in body]
        totals = _totals(self._body)
        for one in body:
            self._write_one(run, one, totals, die)

    def finish(self, run: str, body: list[dict[str, Any]], die: random.Random, *, shuffled: bool) -> None:
        """Operations, and what an orderly evaluation sends at its end."""
        mine = [one for name, one in self._body if name == run] + body
        sharded = [one for one in mine if "more_shards" in one]
        shards = max((one["shard"] + 1 + one["more_shards"] for one in sharded), default=1)
        finale: list[dict[str, Any]] = []
        for shard in range(shards):
            attempt = max((one["attempt"] for one in sharded if one["shard"] == shard), default=0)
            place = {"shard": shard, "attempt": attempt}
            named = die.sample(TASKS, die.choice([0, 0, 1, 2]))
            end = {"type": "run_ended", "status": "ok", "aggregates": named, "counts": "all"}
            finale.append({**end, "more_shards": 0, **place})
            finale += [{"type": "aggregate", "task": task, "results": _RESULTS, **place} for task in named]
        whole = body + finale
        if shuffled:
            die.shuffle(whole)
        self.write(run, whole, die)

    def repeat(self, run: str, die: random.Random) -> None:
        """Some of what was sent is sent again, as a producer does that heard no answer."""
        events = self._events.get(run, [])
        for topic, event in die.sample(events, min(len(events), 3)):
            self._append(run, topic, event)

    def _write_one(self, run: str, one: dict[str, Any], totals: Any, die: random.Random) -> None:
        topics = self._cluster.topics
        event = {"run_id": run, **one}
        kind = event["type"]
        role = event.pop("role", "aggregates" if kind == "aggregate" else "samples")
        topic = topics.aggregates if role == "aggregates" else topics.samples
        if "more_shards" in event:
            event["num_shards"] = event["shard"] + 1 + event.pop("more_shards")
        if kind == "run_ended":
            counts = totals.get((run, event["shard"], event["attempt"]), {})
            event["samples"] = _stated(event.pop("counts"), counts)
        if kind == "run_expired":
            if run not in self._events:
                return  # no worker can have written it
            of_topic = [
                offset
                for (partition, name, offset), sent in self.sent.items()
                if (partition, name, sent["run_id"]) == (self._partitions[run], topic, run)
                and sent["type"] != "run_expired"
            ]
            right = max(of_topic, default=-1)
            event["last"] = {"right": right, "earlier": max(right - 1, 0), "none": -1}[event["last"]]
        self._append(run, topic, event)
        if die.random() < 0.1:
            self._cluster.skip(topic, self._partitions[run], 1)

    def _append(self, run: str, topic: str, event: dict[str, Any]) -> None:
        partition = self._partitions[run]
        offset = self._cluster.append(topic, partition, run.encode(), compact(event))
        self.sent[partition, topic, offset] = event
        if event["type"] != "run_expired":
            self._events.setdefault(run, []).append((topic, event))
