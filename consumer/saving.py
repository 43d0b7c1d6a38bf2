"""From what was read to what is durable to what is committed: the one place where watermarks are made.

The way: capture the state (poll thread, spool flushed) -> dead letters sent so far acknowledged -> sync and
write the checkpoint (off the thread) -> commit offset and watermark -> remove folders that no checkpoint
lists any more.

Invariants: a watermark never passes the first record of a run without acknowledged receipt, nor a position
that is not in a durable checkpoint, nor a dead letter that is not acknowledged; a committed offset never
falls.
"""

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path

import msgspec
from msgspec import Struct

from consumer.errors import BrokerAwayError
from consumer.filesystem import Disk
from consumer.intake.outbound import Outbound
from consumer.intake.resume import Committed
from consumer.intake.source import CommitRefused, Source
from consumer.observations import Checkpointed, CommitEnded, Observe, unobserved
from consumer.runs import checkpoint
from consumer.runs.book import RunBook
from consumer.settings import Settings
from consumer.telemetry.logs import logger
from consumer.vocabulary import TopicPartition
from schemas.state import CommitMetadata

_log = logger(__name__)


class _Snapshot(Struct):
    """One checkpoint on its way."""

    content: bytes
    letters: int
    positions: dict[TopicPartition, int]
    watermarks: dict[TopicPartition, int]
    folders: list[Path]
    job: Future[float] | None = None


class Saving:
    """Checkpoints and commits of one worker. One thread, but for the writing."""

    def __init__(
        self,
        settings: Settings,
        book: RunBook,
        source: Source,
        outbound: Outbound,
        *,
        topic_ids: Mapping[str, str],
        disk: Disk,
        executor: Executor,
        clock: Callable[[], float],
        observe: Observe = unobserved,
    ) -> None:
        self._settings = settings
        self._book = book
        self._source = source
        self._outbound = outbound
        self._topic_ids = dict(topic_ids)
        self._disk = disk
        self._executor = executor
        self._clock = clock
        self._observe = observe
        self._floors: dict[TopicPartition, int] = {}
        self._garbage: list[Path] = []
        self._snapshot: _Snapshot | None = None
        self._saved_at = clock()
        self._durable = b""

    def start(self, partition: int, committed: Mapping[str, int]) -> None:
        """A partition was taken over: commits below `committed` (per topic) would go backwards."""
        for topic in self._topic_ids:
            self._floors[TopicPartition(topic, partition)] = committed.get(topic, 0)

    def remove_later(self, folder: Path) -> None:
        """Remove a run's folder once a durable checkpoint no longer lists it."""
        self._garbage.append(folder)

    def advance(self, owned: Collection[int], *, may_remove: bool, force: bool = False) -> None:
        """Move the checkpoint on as far as it goes without waiting.

        Args:
            owned: Partitions owned: only their offsets are committed.
            may_remove: No close-out reads spool files.
            force: Begin one now, however short ago the last was.

        Raises:
            BrokerError: a dead letter was refused for good, or this member was replaced.
        """
        snapshot = self._snapshot
        if snapshot is None:
            if not force and self._clock() - self._saved_at < self._settings.checkpoint_interval_s:
                return
            try:
                snapshot = self._snapshot = self._capture(owned)
            except BrokerAwayError as error:
                self._saved_at = self._clock()
                _log.warning("checkpoint_put_off", reason=str(error))
                return
        if snapshot.job is None:
            if self._outbound.acknowledged() < snapshot.letters:
                return
            if snapshot.content == self._durable:
                self._observe(Checkpointed("unchanged"))
                self._finish(snapshot, owned, may_remove=may_remove)
                return
            snapshot.job = self._executor.submit(self._write, snapshot.content)
        if snapshot.job.done():
            self._complete(snapshot, owned, may_remove=may_remove)

    def finish(self, owned: Collection[int], *, may_remove: bool) -> None:
        """Write and commit a last checkpoint, waiting at most `drain_timeout_s` for the disk.

        Raises:
            BrokerError: as `advance`.
        """
        for _ in range(2):  # the one on its way, then one of the last state
            self.advance(owned, may_remove=may_remove, force=True)
            if self._snapshot is not None and self._snapshot.job is not None:
                try:
                    self._snapshot.job.exception(self._settings.drain_timeout_s)
                except FutureTimeoutError:
                    _log.error("checkpoint_abandoned", after_s=self._settings.drain_timeout_s)
                    return
                self.advance(owned, may_remove=may_remove)

    def _capture(self, owned: Collection[int]) -> _Snapshot:
        positions: dict[TopicPartition, int] = {}
        watermarks: dict[TopicPartition, int] = {}
        for partition in owned:
            state = self._book.partitions[partition]
            for topic, position in self._source.position(partition).items():
                # The consumer's position also passes what is no record: markers and aborted transactions.
                state.positions[topic] = max(state.positions.get(topic, 0), position)
                place = TopicPartition(topic, partition)
                positions[place] = state.positions[topic]
                firsts = [run.first[topic] for run in state.runs.values() if topic in run.first]
                # Of runs still to be opened: who starts without our state has to meet these again.
                firsts += [
                    early.cut.offset
                    for noted in state.early_expiries.values()
                    for early in noted
                    if early.topic == topic
                ]
                watermarks[place] = min([positions[place], *firsts])
        garbage, self._garbage = self._garbage, []
        return _Snapshot(
            content=checkpoint.capture(self._settings.group, self._topic_ids, self._book.partitions),
            letters=self._outbound.sent,
            positions=positions,
            watermarks=watermarks,
            folders=garbage,
        )

    def _write(self, content: bytes) -> float:
        """Off the thread. Returns the seconds it took."""
        begun_at = self._clock()
        checkpoint.write(self._settings.state_path, content, self._disk)
        return self._clock() - begun_at

    def _complete(self, snapshot: _Snapshot, owned: Collection[int], *, may_remove: bool) -> None:
        assert snapshot.job is not None
        try:
            seconds = snapshot.job.result()
        except OSError as error:
            # The former checkpoint stands, and so do its folders; the next one is tried in due time.
            self._snapshot, self._saved_at = None, self._clock()
            self._garbage += snapshot.folders
            self._observe(Checkpointed("failed"))
            _log.error("checkpoint_failed", reason=str(error), state=self._settings.state)
            return
        self._durable = snapshot.content
        self._observe(Checkpointed("written", seconds))
        self._finish(snapshot, owned, may_remove=may_remove)

    def _finish(self, snapshot: _Snapshot, owned: Collection[int], *, may_remove: bool) -> None:
        """Commit what is durable, also when nothing is new: only a commit reveals that we were thrown out."""
        self._snapshot, self._saved_at = None, self._clock()
        self._commit(snapshot, owned)
        if not may_remove:
            self._garbage += snapshot.folders
            return
        for folder in snapshot.folders:
            self._disk.remove_tree(folder)

    def _commit(self, snapshot: _Snapshot, owned: Collection[int]) -> None:
        offsets = {}
        for place, watermark in snapshot.watermarks.items():
            if place.partition not in owned:
                continue
            state = self._book.partitions[place.partition]
            tainted_below = state.tainted_below.get(place.topic, 0)
            # Once the watermark has passed it, no run can be first seen below it any more.
            metadata = CommitMetadata(
                self._topic_ids[place.topic], watermark, tainted_below if tainted_below > watermark else 0
            )
            self._floors[place] = max(self._floors.get(place, 0), snapshot.positions[place])
            offsets[place] = Committed(self._floors[place], msgspec.json.encode(metadata).decode())
        if not offsets:
            return
        try:
            self._source.commit(offsets)
        except CommitRefused as error:
            self._observe(CommitEnded(accepted=False))
            _log.warning("commit_refused", reason=str(error))
        else:
            self._observe(CommitEnded(accepted=True))
