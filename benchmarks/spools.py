"""Spools as a worker would have them after reading a load, made without Kafka: for close-out and for restarts.

They go through the worker's own decoder, book and checkpoint, so they are what a worker writes, byte for byte; only
the reading is left out.
"""

import random
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.rows import Pool, Shape, ends
from consumer.filesystem import Disk
from consumer.intake.decode import Rejection, decode
from consumer.runs import checkpoint
from consumer.runs.book import RunBook
from consumer.runs.spool import Spool
from consumer.vocabulary import Record
from schemas.events import Samples, encode
from schemas.state import PartitionState

MOMENT_MS = 1_767_225_600_000
GROUP = "bench"
OPEN_FILES_MAX = 256


def shuffled(shape: Shape, *, duplicates: float, seed: int = 3) -> Iterator[tuple[str, bytes]]:
    """One run's ``samples`` events, its rows in random order, a share of them twice with equal bytes."""
    assert shape.runs == 1, "a load of one run"
    chance = random.Random(seed)  # noqa: S311 - the same load each time
    pool = Pool(shape.row_bytes)
    run_id = shape.run_id(0)
    for task, rows in enumerate(shape.rows_of_tasks()):
        ids = [*range(rows), *chance.sample(range(rows), round(rows * duplicates))]
        chance.shuffle(ids)
        for start in range(0, len(ids), shape.batch):
            batch = [pool.sample(doc_id) for doc_id in ids[start : start + shape.batch]]
            yield run_id, encode(Samples(run_id, shape.task(task), batch))


def build(
    state: Path,
    partitions: Mapping[int, Iterator[tuple[str, bytes]]],
    *,
    samples_topic: str,
    topic_ids: dict[str, str],
) -> dict[int, PartitionState]:
    """Put events into a new state folder as partitions of a log, and checkpoint it.

    Args:
        state: State folder.
        partitions: For each the keys and values of its records in the samples topic, from offset 0.
        samples_topic: Its name.
        topic_ids: UUIDs of all input topics; their positions are 0 where nothing was read.
    """
    spool = Spool(state, open_files_max=OPEN_FILES_MAX)
    book = RunBook(spool)
    for partition, records in partitions.items():
        offset = -1
        for offset, (key, value) in enumerate(records):
            put(book, Record(samples_topic, partition, offset, MOMENT_MS, key.encode(), value))
            if spool.is_full:
                spool.flush()
        positions = book.partitions[partition].positions
        positions.update(dict.fromkeys(topic_ids, 0) | {samples_topic: offset + 1})
    spool.flush()
    checkpoint.write(state, checkpoint.capture(GROUP, topic_ids, book.partitions), Disk())
    spool.close()
    return book.partitions


def put(book: RunBook, record: Record) -> None:
    """Take one record into a book, as the worker's loop does."""
    roles = ("aggregates",) if record.topic.endswith(".aggregates") else ("samples",)
    event = decode(record.value, record.key, roles[0])
    assert not isinstance(event, Rejection), event
    run = book.find(record.partition, event.run_id) or book.open(record, event.run_id)
    book.take(run, record, event, roles)
    book.settle(run, record)


def build_settled(state: Path, shape: Shape, *, duplicates: float) -> None:
    """A run of which everything has come, ready to be closed. Its topics are called ``samples`` and ``aggregates``."""
    spool = Spool(state, open_files_max=OPEN_FILES_MAX)
    book = RunBook(spool)
    offset = 0
    for key, value in shuffled(shape, duplicates=duplicates):
        put(book, Record("bench.samples", 0, offset, MOMENT_MS, key.encode(), value))
        offset += 1
        if spool.is_full:
            spool.flush()
    [(aggregates, end)] = ends(shape)
    for number, (key, value) in enumerate(aggregates):
        put(book, Record("bench.aggregates", 0, number, MOMENT_MS, key.encode(), value))
    put(book, Record("bench.samples", 0, offset, MOMENT_MS, end.key.encode(), end.value))
    spool.flush()
    checkpoint.write(state, checkpoint.capture(GROUP, {}, book.partitions), Disk())
    spool.close()
