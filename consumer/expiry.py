"""Runs to which nothing comes any more: shown provisionally after a grace time, given up after a longer one.

Giving up is not done here, it is written into the log: a `run_expired` to the run's partition, to the samples
topic first, and to the aggregates topic only once the samples cut is decided. It takes effect when it is read
back, at its own offset, and only if nothing came before it: no clock, and no zombie, ever overrules a record.

Idleness is the wall clock against the Kafka time of the run's last record, so that it outlives restarts. A
producer whose clock runs behind by a day is given up early; until the decision is read, its next record voids
it.
"""

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor, Future

import msgspec
from msgspec import Struct

from consumer.errors import SpoolError
from consumer.intake.outbound import Outbound
from consumer.runs import lifecycle
from consumer.runs.book import RunBook
from consumer.runs.closeout import ClosedRun, Tools, publish_provisionally
from consumer.runs.publication import remove_provisional
from consumer.settings import Settings
from consumer.telemetry.logs import logger
from schemas.events import RunExpired, encode
from schemas.state import RunState

LOOK_EVERY_S = 1.0
ASK_AGAIN_AFTER_S = 60.0

_log = logger(__name__)


class _Asked(Struct, frozen=True):
    """A `run_expired` that was sent: on which state of the run, and when."""

    last: int
    at_s: float


class Expiry:
    """Watches the open runs of owned partitions. One thread, but for the jobs."""

    def __init__(
        self,
        settings: Settings,
        book: RunBook,
        tools: Tools,
        outbound: Outbound,
        *,
        executor: Executor,
        clock: Callable[[], float],
        now_ms: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._book = book
        self._tools = tools
        self._outbound = outbound
        self._executor = executor
        self._clock = clock
        self._now_ms = now_ms
        self._looked_at = clock()
        self._shown: dict[tuple[int, str], Mapping[str, int]] = {}
        self._asked: dict[tuple[int, str, str], _Asked] = {}
        self._jobs: dict[tuple[int, str], Future[ClosedRun]] = {}

    def is_reading(self) -> bool:
        """A provisional publication may still be reading spool files."""
        return bool(self._jobs)

    def look(self, at_end: Callable[[], Collection[int]], owned: Collection[int]) -> None:
        """Look for runs that are due, now and then.

        Args:
            at_end: Owned partitions that are read to their end; asked only if a run is due.
            owned: Partitions owned.
        """
        self._reap()
        if self._clock() - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = self._clock()
        due = [
            (partition, run)
            for partition in owned
            for run in self._book.partitions[partition].runs.values()
            if not lifecycle.is_settled(run) and self._idle_s(run) >= self._settings.grace_s
        ]
        self._forget_gone(owned)
        early = [partition for partition in owned if self._book.partitions[partition].early_expiries]
        if not due and not early:
            return
        ready = at_end()
        for partition in early:
            if partition in ready:
                # What a worker expired stood in the log before: it is not open now, so no worker wrote this.
                self._book.partitions[partition].early_expiries.clear()
        for partition, run in due:
            if partition in ready:
                if run.shards and any(state.end is not None for state in run.shards.values()):
                    self._show(partition, run)
                if self._idle_s(run) >= self._patience_s(run):
                    self._give_up(partition, run)

    def _idle_s(self, run: RunState) -> float:
        return (self._now_ms() - run.seen_ms) / 1000

    def _patience_s(self, run: RunState) -> float:
        """A run whose every shard has spoken its last word, one of them a failure, is not waited for."""
        ends = [state.end for state in run.shards.values()]
        spoken = len(ends) == run.num_shards and all(end is not None for end in ends)
        if spoken and any(end is not None and end.status == "failed" for end in ends):
            return self._settings.grace_s
        return self._settings.silence_s

    def _show(self, partition: int, run: RunState) -> None:
        key = (partition, run.run_id)
        if self._shown.get(key) == run.last or key in self._jobs:
            return
        self._shown[key] = dict(run.last)
        # The job works on a copy: the run stays open, and its files may grow.
        copy = msgspec.json.decode(msgspec.json.encode(run), type=RunState)
        self._jobs[key] = self._executor.submit(
            publish_provisionally, self._book.spooled(partition, copy), self._tools
        )

    def _give_up(self, partition: int, run: RunState) -> None:
        topics = self._settings.topics
        topic = topics.samples if run.samples_cut is None else topics.aggregates
        last = run.last.get(topic, -1)
        key = (partition, run.run_id, topic)
        asked = self._asked.get(key)
        if asked is not None and asked.last == last and self._clock() - asked.at_s < ASK_AGAIN_AFTER_S:
            return
        reason = f"no record for {self._idle_s(run):.0f} s"
        self._outbound.send(
            topic,
            key=run.run_id.encode(),
            value=encode(RunExpired(run.run_id, last=last, reason=reason)),
            partition=partition,
        )
        self._asked[key] = _Asked(last, self._clock())
        _log.warning("run_given_up", run_id=run.run_id, topic=topic, partition=partition, reason=reason)

    def _reap(self) -> None:
        for key, job in list(self._jobs.items()):
            if not job.done():
                continue
            del self._jobs[key]
            run = self._book.find(*key)
            if run is None or lifecycle.is_settled(run):
                # It was overtaken: what it placed after the run's own close-out cleaned up is removed again.
                remove_provisional(self._tools.output, key[1])
            try:
                shown = job.result()
            except (OSError, SpoolError) as error:
                self._shown.pop(key, None)
                _log.error("provisional_failed", run_id=key[1], reason=str(error))
                continue
            _log.warning("run_shown_provisionally", run_id=key[1], status=shown.status, results=shown.results)

    def _forget_gone(self, owned: Collection[int]) -> None:
        def is_open(partition: int, run_id: str) -> bool:
            return partition in owned and self._book.find(partition, run_id) is not None

        self._shown = {key: last for key, last in self._shown.items() if is_open(*key)}
        self._asked = {key: asked for key, asked in self._asked.items() if is_open(*key[:2])}
