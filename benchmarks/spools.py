"""Spools as a worker has them after reading a load, made without Kafka: for close-out and for restarts.

They go through the worker's own decoder, book and checkpoint, so they are what a worker writes, byte for
byte; only the reading is left out.

    python -m benchmarks.spools STATE SPEC    # as `build` does: what it needs shall be nobody's memory
"""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import msgspec
from msgspec import Struct

from benchmarks.broker import partition_of
from benchmarks.rows import Keyed, Shape, ends, samples, shuffled
from consumer.filesystem import Disk
from consumer.intake.decode import Rejection, decode
from consumer.runs import checkpoint
from consumer.runs.book import RunBook
from consumer.runs.spool import Spool
from consumer.settings import Settings, Topics
from consumer.vocabulary import Record, Role

_MOMENT_MS = 1_767_225_600_000


class Spec(Struct, frozen=True):
    """What lies in a spool.

    Attributes:
        shape: The load.
        group: Consumer group.
        topics: Names.
        topic_ids: UUIDs of the input topics.
        ended: The one run has ended; its rows came shuffled, a share `duplicates` of them twice.
        duplicates: See `ended`.
    """

    shape: Shape
    group: str = "bench"
    topics: Topics = Topics()
    topic_ids: dict[str, str] = {}
    ended: bool = False
    duplicates: float = 0.0

    def records(self) -> Iterable[Keyed]:
        """What the worker has read."""
        if not self.ended:
            return samples(self.shape)
        return chain(shuffled(self.shape, duplicates=self.duplicates), ends(self.shape))


def build(state: Path, spec: Spec) -> None:
    """Write the spool and its checkpoint into a new state folder, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.spools", str(state), msgspec.json.encode(spec).decode()]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[1])


def offsets(shape: Shape) -> Counter[int]:
    """How many records of the samples topic each partition holds."""
    run_ids = shape.run_ids()
    counts: Counter[int] = Counter()
    for place, rows in enumerate(shape.rows_of_tasks()):
        counts[partition_of(run_ids[place // shape.tasks])] += -(-rows // shape.batch)
    return counts


def _write(state: Path, spec: Spec) -> None:
    spool = Spool(state, open_files_max=Settings().open_files_max)
    book = RunBook(spool)
    read: Counter[tuple[str, int]] = Counter()
    for role, key, value in spec.records():
        topic, partition = getattr(spec.topics, role), partition_of(key)
        record = Record(topic, partition, read[topic, partition], _MOMENT_MS, key.encode(), value)
        read[topic, partition] += 1
        _apply(book, record, "samples" if role == "samples" else "aggregates")
        if spool.is_full:
            spool.flush()
    for state_of in book.partitions.values():
        state_of.positions = {topic: read[topic, state_of.partition] for topic in spec.topics.inputs}
    spool.flush()
    checkpoint.write(state, checkpoint.capture(spec.group, spec.topic_ids, book.partitions), Disk())
    spool.close()


def _apply(book: RunBook, record: Record, role: Role) -> None:
    event = decode(record.value, record.key, role)
    assert not isinstance(event, Rejection), event
    run = book.find(record.partition, event.run_id) or book.open(record, event.run_id)
    book.apply(run, record, event, (role,))


if __name__ == "__main__":
    _write(Path(sys.argv[1]), msgspec.json.decode(sys.argv[2], type=Spec))
