"""One worker over the simulated Kafka: put together as `consumer.assembly` does it, but for clients, threads and time."""

import contextlib
import random
import sqlite3
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import msgspec

from consumer import assembly
from consumer.closing import Closing
from consumer.expiry import Expiry
from consumer.intake.deadletters import DeadLetters
from consumer.intake.outbound import Outbound
from consumer.intake.receipts import Receipts, ReceiptTable
from consumer.runs import checkpoint
from consumer.runs.book import RunBook
from consumer.runs.publication import sweep_staging
from consumer.runs.spool import Spool
from consumer.saving import Saving
from consumer.settings import Settings
from consumer.worker import Worker
from schemas.state import Checkpoint
from tests.proof.cluster import Cluster, Producer, Reader, Source
from tests.proof.mortality import Hands, Process, TrackedDisk

GROUP = "group"
GRACE_S, ABANDON_AFTER_S, LOST_STATE_KEEP_S = 100.0, 1000.0, 300.0


class _Table(ReceiptTable):
    """Finds no room when the disk has none."""

    def __init__(self, state: Path, process: Process) -> None:
        self._process = process
        super().__init__(state)

    def add(self, *arguments: Any) -> None:
        self._need_room()
        super().add(*arguments)

    def advance(self, *arguments: Any) -> None:
        self._need_room()
        self._process.point()
        super().advance(*arguments)

    def commit(self) -> None:
        self._process.point()
        super().commit()

    def _need_room(self) -> None:
        try:
            self._process.need_room("receipts")
        except OSError as error:
            raise sqlite3.OperationalError("database or disk is full") from error


class Member:
    """A process that works for the group; every call of it runs inside `with member.process`."""

    def __init__(self, cluster: Cluster, folder: Path, output: Path, name: str) -> None:
        self.cluster, self.folder, self.name = cluster, folder, name
        self.output = output
        self.state = folder / "state"
        self.process = Process(cluster.storage)
        self.source = Source(cluster, self.process, name)
        self.loses_power = False
        self.hands, self.scribe = Hands(self.process), Hands(self.process)
        self.desk: Any = None
        self._lock: Any = None
        self.table: Any = None
        self.spool: Any = None
        self.producer: Any = None

    def start(self, *, keeps_all: bool = True) -> "Member":
        """As a process does that starts. `keeps_all`: nobody touched its disk, so nothing may be lost of it."""
        settings = Settings(
            group=GROUP,
            output=str(self.output),
            state=str(self.state),
            topics=self.cluster.topics,
            checkpoint_interval_s=1.0,
            open_files_max=4,
            grace_s=GRACE_S,
            abandon_after_s=ABANDON_AFTER_S,
            lost_state_keep_s=LOST_STATE_KEEP_S,
        )
        disk = TrackedDisk()
        ids = self.cluster.ids
        self._lock = checkpoint.StateLock(self.state)
        settings.output_path.mkdir(parents=True, exist_ok=True)
        worker_name = checkpoint.worker_id(self.state, disk)
        sweep_staging(settings.output_path, worker_name, disk=disk, now_s=time.time())
        self.spool = Spool(self.state, open_files_max=settings.open_files_max)
        partitions = checkpoint.load(self.state, group=GROUP, topic_ids=ids, disk=disk)
        if keeps_all and (path := self.state / checkpoint.CHECKPOINT_FILE).exists():
            # Whenever it was killed, and whatever power was lost: a checkpoint names nothing that is not there.
            saved = msgspec.json.decode(path.read_bytes(), type=Checkpoint)
            assert {one.partition for one in saved.partitions} == partitions.keys(), "local state was lost"
        book = RunBook(self.spool, partitions)
        connection: Any = SimpleNamespace(
            settings={"cluster": self.cluster, "process": self.process}, embedded=False
        )
        with mock.patch("consumer.intake.outbound.KafkaProducer", Producer):
            outbound = Outbound(connection)
        self.producer = outbound._producer
        dead_letters = DeadLetters(outbound, topic=settings.topics.dead_letters, topic_ids=ids)
        self.table = _Table(self.state, self.process)
        with mock.patch("consumer.intake.receipts.KafkaConsumer", Reader):
            receipts = Receipts(
                connection, outbound, self.table, group=GROUP, topic=settings.topics.receipts, topic_id="r"
            )
        tools = assembly.tools(settings, worker_name, disk)
        self.closing = Closing(
            book,
            tools,
            outbound,
            dead_letters,
            receipts,
            group=GROUP,
            topics=settings.topics,
            topic_ids=ids,
            executor=self.hands,
            clock=self._clock,
            desk=self.desk,
        )
        self.worker = Worker(
            settings,
            source=self.source,
            book=book,
            outbound=outbound,
            dead_letters=dead_letters,
            receipts=receipts,
            closing=self.closing,
            expiry=Expiry(
                settings,
                book,
                tools,
                outbound,
                executor=self.hands,
                clock=self._clock,
                now_ms=lambda: int(self.cluster.now_s * 1000),
            ),
            saving=Saving(
                settings,
                book,
                self.source,
                outbound,
                topic_ids=ids,
                disk=disk,
                executor=self.scribe,
                clock=self._clock,
            ),
            topic_ids=ids,
            clock=self._clock,
        )
        self.book, self.outbound = book, outbound
        return self

    def tick(self, records_max: int, dice: random.Random) -> bool:
        self.source.records_max, self.source.dice = records_max, dice
        return self.worker.tick()

    def stop(self) -> None:
        """An orderly stop; close-outs that have not begun are dropped, others end first."""
        self.worker._drain()
        self.hands.jobs = [job for job in self.hands.jobs if job.strand is not None]
        self.hands.work()
        self.process.dead = True

    def undisturb(self) -> None:
        """Nothing happens to it any more."""
        self.process.lives, self.process.no_room, self.process.short_writes = None, 0, 0
        self.source.asleep, self.source.refusals, self.source.away = "", 0, 0

    def let_go(self) -> None:
        """What the kernel does for a process that is gone."""
        self.process.dead = True
        self.hands.let_go()
        self.scribe.let_go()
        if self.spool is not None:
            self.spool.close()
        if self.table is not None:
            with contextlib.suppress(sqlite3.Error):
                self.table._db.rollback()
            self.table._db.close()
        if self._lock is not None:
            with contextlib.suppress(OSError):
                self._lock.release()

    def is_at_rest(self) -> bool:
        """Owns what it is given, has read all of it, and nothing is on its way."""
        worker = self.worker
        ends = self.cluster.ends
        return (
            not self.source.pending
            and not worker._gained
            and not self.hands.jobs
            and not self.scribe.jobs
            and not self.outbound.pending
            and not self.closing.is_busy(worker._owned)
            and all(
                position >= ends.get((topic, partition), 0)
                for partition in worker._owned
                for topic, position in self.source.position(partition).items()
            )
        )

    def open_runs(self) -> list[str]:
        worker = self.worker
        return [run_id for one in worker._owned for run_id in self.book.partitions[one].runs]

    def _clock(self) -> float:
        return self.cluster.now_s
