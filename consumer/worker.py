"""The loop of one worker: poll, step, close, checkpoint, commit.

One thread polls and appends; copying and syncing happen off it.

Invariants: a partition's records are looked at only after its receipts were read and its start decided; what
is committed as watermark was first in a durable checkpoint, and every dead letter below it acknowledged;
commits happen here, never in a rebalance callback, and after every checkpoint even when nothing changed (only
a commit reveals that we were thrown out).
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from pathlib import Path

import msgspec
from msgspec import Struct

from consumer.closing import Closing
from consumer.filesystem import Disk
from consumer.intake.deadletters import DeadLetters
from consumer.intake.decode import Rejection, decode
from consumer.intake.outbound import Outbound
from consumer.intake.receipts import Receipts
from consumer.intake.resume import Committed, decide
from consumer.intake.source import Assigned, CommitRefused, Source
from consumer.runs import checkpoint
from consumer.runs.book import RunBook, role_of
from consumer.settings import Settings
from consumer.telemetry.logs import logger
from consumer.vocabulary import Record, Role, TopicPartition
from schemas.events import RunExpired
from schemas.state import CommitMetadata, Receipt

# Beyond this many dead letters and receipts on their way, reading waits for Kafka.
PENDING_MAX = 10_000

_log = logger(__name__)


class Counts(Struct):
    """What this process met since it started; for people, never for artefacts."""

    records: int = 0
    rows: int = 0
    dead_letters: int = 0
    replayed: int = 0
    closed: int = 0


class _Saving(Struct):
    """A checkpoint on its way to the disk."""

    content: bytes
    letters: int
    positions: dict[TopicPartition, int]
    watermarks: dict[TopicPartition, int]
    folders: list[Path]
    job: Future[None] | None = None


class Worker:
    """One member of the group with its local state."""

    def __init__(
        self,
        settings: Settings,
        *,
        source: Source,
        book: RunBook,
        outbound: Outbound,
        dead_letters: DeadLetters,
        receipts: Receipts,
        closing: Closing,
        topic_ids: Mapping[str, str],
        disk: Disk,
        executor: Executor,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._source = source
        self._book = book
        self._outbound = outbound
        self._dead_letters = dead_letters
        self._receipts = receipts
        self._closing = closing
        self._topic_ids = {topic: topic_ids.get(topic, "") for topic in settings.topics.inputs}
        self._disk = disk
        self._executor = executor
        self._clock = clock
        topics = settings.topics
        roles: dict[str, list[Role]] = {}
        roles.setdefault(topics.samples, []).append("samples")
        roles.setdefault(topics.aggregates, []).append("aggregates")
        self._roles = roles
        self._floors: dict[TopicPartition, int] = {}
        self._owned: set[int] = set()
        self._assigned_once = False
        self._dirty = False
        self._garbage: list[Path] = []
        self._saving: _Saving | None = None
        self._saved_at = clock()
        self._idle_since: float | None = None
        self._stop = False
        self.counts = Counts()

    def stop(self) -> None:
        """Ask the loop to end; safe in a signal handler."""
        self._stop = True

    def run(
        self, *, exit_when_idle_s: float | None = None, on_tick: Callable[[], None] | None = None
    ) -> None:
        """Work until `stop` or until idle; then save, commit and leave the group.

        Args:
            exit_when_idle_s: Seconds of idleness that end it; None: only `stop` does.
            on_tick: Called after every turn of the loop.

        Raises:
            EvalsinkError: what the operator must mend; nothing is lost.
        """
        while not self._stop:
            if self.tick():
                self._idle_since = None
            elif exit_when_idle_s is not None and self._idle_for() >= exit_when_idle_s:
                break
            if on_tick is not None:
                on_tick()
        self._drain()

    def tick(self) -> bool:
        """One turn of the loop. Returns True if records came."""
        records = self._source.poll()
        self._take_assignments()
        for record in records:
            if record.partition in self._owned:
                self._step(record)
        self._book.spool.flush()
        self._garbage += self._advance_closing()
        if records:
            self._dirty = True
        if self._outbound.pending > PENDING_MAX:
            self._outbound.flush(30)
        self._save()
        return bool(records)

    def _step(self, record: Record) -> None:
        """Take one record to where it belongs: a run, a dead letter, or a count."""
        self.counts.records += 1
        state = self._book.partitions[record.partition]
        state.positions[record.topic] = record.offset + 1
        roles = self._roles[record.topic]
        event = decode(record.value, record.key, roles[0] if len(roles) == 1 else "both")
        if isinstance(event, Rejection):
            self._bury(record, event.reason, event.detail)
            return
        run = self._book.find(record.partition, event.run_id)
        if run is None:
            receipt = self._receipts.find(record.partition, event.run_id)
            if receipt is not None:
                self._after_closing(record, receipt, role_of(event) if len(roles) > 1 else roles[0], event)
                return
            if isinstance(event, RunExpired):
                self.counts.replayed += 1
                return
            run = self._book.open(record, event.run_id)
            _log.info("run_opened", run_id=event.run_id, partition=record.partition)
        outcome = self._book.apply(run, record, event, roles)
        if outcome == "late":
            self._bury(record, "late")
            return
        rejected = getattr(event, "rejected", ())
        if rejected:
            self._bury(record, "bad-rows", rejected[0].reason, rejected)
        self.counts.rows += len(getattr(event, "rows", ()))

    def _after_closing(self, record: Record, receipt: Receipt, role: Role, event: object) -> None:
        """A record of a run that is closed: below its cut a replay, above it late."""
        cut = receipt.samples if role == "samples" else receipt.aggregates
        same_topic = cut.topic_id == self._topic_ids.get(record.topic, "")
        if isinstance(event, RunExpired) or (same_topic and record.offset <= cut.offset):
            self.counts.replayed += 1
        else:
            self._bury(record, "late")

    def _bury(self, record: Record, reason: str, detail: str = "", rows: tuple[object, ...] = ()) -> None:
        self._dead_letters.send(record, reason, detail, rows)  # type: ignore[arg-type]
        self.counts.dead_letters += 1
        _log.warning(
            "dead_letter",
            reason=reason,
            detail=detail,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
        )

    def _take_assignments(self) -> None:
        for change in self._source.assignments():
            if not isinstance(change, Assigned):
                self._owned -= change.partitions
                continue
            self._assigned_once = True
            for partition in sorted(change.partitions):
                self._start(partition)
            _log.info("partitions_assigned", partitions=sorted(change.partitions))

    def _start(self, partition: int) -> None:
        """Decide where a partition resumes and let it flow."""
        topics = self._settings.topics.inputs
        ends = self._source.ends([partition])
        local = self._book.partitions.get(partition)
        resume = decide(
            topic_ids=self._topic_ids,
            committed=self._source.committed(partition),
            local=local.positions if local is not None else None,
            ends={topic: ends[TopicPartition(topic, partition)] for topic in topics},
        )
        self._receipts.catch_up(partition)
        if not resume.keep_local:
            self._closing.forget(partition)
            self._garbage += self._book.drop_partition(partition)
        state = self._book.partitions[partition]
        for run in list(state.runs.values()):
            if self._receipts.find(partition, run.run_id) is not None:
                self._closing.forget_run(partition, run.run_id)
                self._garbage.append(self._book.drop_run(partition, run))
        state.positions.update(resume.start)
        for topic, end in resume.tainted_below.items():
            state.tainted_below[topic] = end
            _log.error("log_begins_above_start", topic=topic, partition=partition, tainted_below=end)
        for topic in topics:
            self._floors[TopicPartition(topic, partition)] = resume.committed.get(topic, 0)
        self._source.start(partition, resume.start)
        self._owned.add(partition)
        self._dirty = True

    def _advance_closing(self) -> list[Path]:
        for partition in self._owned:
            for run in self._book.settled(partition):
                self._closing.begin(partition, run)
        folders = self._closing.advance(self._owned)
        self.counts.closed += len(folders)
        if folders:
            self._dirty = True
        return folders

    def _save(self, *, force: bool = False) -> None:
        """Move the checkpoint on: capture, sync off this thread once its dead letters are durable, commit."""
        saving = self._saving
        if saving is None:
            if not force and self._clock() - self._saved_at < self._settings.checkpoint_interval_s:
                return
            saving = self._saving = self._capture()
        if saving.job is None:
            if self._outbound.acknowledged() < saving.letters:
                return
            saving.job = self._executor.submit(
                checkpoint.write, self._settings.state_path, saving.content, self._disk
            )
        if not saving.job.done():
            return
        self._saving = None
        saving.job.result()
        self._saved_at = self._clock()
        self._commit(saving)
        if not self._closing.is_reading():
            for folder in saving.folders:
                self._disk.remove_tree(folder)
        else:
            self._garbage += saving.folders

    def _capture(self) -> _Saving:
        for partition in self._owned:
            positions = self._book.partitions[partition].positions
            for topic, position in self._source.position(partition).items():
                positions[topic] = max(positions.get(topic, 0), position)
        watermarks = {}
        places = {}
        for partition in self._owned:
            state = self._book.partitions[partition]
            for topic, position in state.positions.items():
                place = TopicPartition(topic, partition)
                places[place] = position
                firsts = (run.first[topic] for run in state.runs.values() if topic in run.first)
                watermarks[place] = min(position, min(firsts, default=position))
        garbage, self._garbage = self._garbage, []
        self._dirty = False
        return _Saving(
            content=checkpoint.capture(self._settings.group, self._topic_ids, self._book.partitions),
            letters=self._outbound.sent,
            positions=places,
            watermarks=watermarks,
            folders=garbage,
        )

    def _commit(self, saving: _Saving) -> None:
        offsets = {}
        for place, watermark in saving.watermarks.items():
            if place.partition not in self._owned:
                continue
            metadata = CommitMetadata(self._topic_ids[place.topic], watermark)
            self._floors[place] = max(self._floors.get(place, 0), saving.positions[place])
            offsets[place] = Committed(self._floors[place], msgspec.json.encode(metadata).decode())
        try:
            self._source.commit(offsets)
        except CommitRefused as error:
            _log.warning("commit_refused", reason=str(error))

    def _idle_for(self) -> float:
        """Seconds since nothing is left to do: assigned, read to the ends, nothing closing."""
        if (
            not self._assigned_once
            or self._closing.is_busy()
            or self._outbound.pending
            or not self._is_at_end()
        ):
            self._idle_since = None
            return 0.0
        now = self._clock()
        if self._idle_since is None:
            self._idle_since = now
        return now - self._idle_since

    def _is_at_end(self) -> bool:
        ends = self._source.ends(self._owned)
        return all(
            position >= ends[TopicPartition(topic, partition)].end
            for partition in self._owned
            for topic, position in self._source.position(partition).items()
        )

    def _drain(self) -> None:
        """Save and commit what is there, and leave. Runs still closing close again at the next start."""
        self._outbound.flush(30)
        if self._saving is not None:
            self._finish_saving()
        self._save(force=True)
        if self._saving is not None:
            self._finish_saving()
        self._source.close()
        self._receipts.close()
        self._outbound.close()
        self._book.spool.close()

    def _finish_saving(self) -> None:
        self._save()
        if self._saving is not None and self._saving.job is not None:
            self._saving.job.exception()
            self._save()
