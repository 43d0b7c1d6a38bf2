"""A cluster and workers that do nothing unless they are told to, for stories told step by step."""

import json
import random
from typing import Any

import msgspec

from tests.proof.authors import Author
from tests.proof.cluster import APART, Cluster
from tests.proof.members import Member
from tests.proof.mortality import Storage
from tests.proof.worker_group import deal

RUN, OTHER_RUN = "r0", "r2"
ROWS = {
    "type": "samples",
    "task": "mme",
    "filter": "none",
    "samples": [{"doc_id": number, "row": {"doc_id": number}} for number in range(3)],
    "shard": 0,
    "attempt": 0,
    "more_shards": 0,
}
END = {
    "type": "run_ended",
    "status": "ok",
    "aggregates": [],
    "counts": "all",
    "shard": 0,
    "attempt": 0,
    "more_shards": 0,
}
UNEXPECTED = {"type": "aggregate", "task": "mme", "results": {"acc,none": 1}, "shard": 0, "attempt": 0}


class Stage:
    """A cluster and workers that do nothing unless they are told to."""

    def __init__(self, folder):
        self.folder = folder
        self.output = folder / "output"
        self.output.mkdir()
        self.cluster = Cluster(APART, Storage(self.output))
        # The first and the last share a partition.
        self.author = Author(self.cluster, (RUN, "r1", OTHER_RUN))
        self.members = {}

    def send(self, *body, run=RUN):
        self.author.write(run, list(body), random.Random(1))

    def start(self, name="ann", desk: Any = None):
        member = self.members[name] = Member(self.cluster, self.folder / name, self.output, name)
        member.desk = desk
        with member.process:
            member.start()
        self.deal()
        return member

    def kill(self, name):
        self.members.pop(name).let_go()

    def deal(self, *owners):
        """All partitions to one of `owners` each, who are told; the others are told that they lost theirs."""
        deal(self.cluster, [self.members[name] for name in owners or self.members], random.Random(0))
        if owners:
            for name in self.members.keys() - set(owners):
                self.members[name].source.pending.append((self.cluster.generation, frozenset()))

    def tick(self, name="ann", *, jobs=True, saves=False, delivers=True, turns=3):
        member = self.members[name]
        with member.process:
            for _ in range(turns):
                member.tick(50, random.Random(0))
                if jobs:
                    member.hands.work()
                if saves:
                    member.scribe.work()
                if delivers:
                    member.producer.deliver(random.Random(0))
                self.cluster.now_s += 0.6
        return member

    def reasons(self):
        """Of the dead letters, by topic and offset."""
        found = {}
        for one in self.cluster.letters.values():
            headers = dict(one.headers)
            found[headers["topic"].decode(), int(headers["offset"])] = headers["reason"].decode()
        return found

    def watermarks(self):
        return {
            (place.topic, place.partition): msgspec.json.decode(one.metadata)["w"]
            for place, one in self.cluster.committed.items()
        }

    def receipts(self):
        """All that were written, again and again perhaps."""
        return [
            record.key
            for place, records in self.cluster.log.items()
            if place.topic == "receipts"
            for record in records
        ]

    def results(self):
        """Of the runs that are published, by run_id."""
        found = [json.loads(path.read_bytes()) for path in self.output.rglob("*_results.json")]
        return {one["evalsink"]["run_id"]: one["evalsink"] for one in found}


def handed_over(member):
    """Topics of what was handed to the network and not thanked for."""
    return [future.record[0] for future in member.producer.waiting]
