"""Observations into metrics: counted as they come, and read off when somebody scrapes.

Invariants: an observer's failure never fails the work (`Guarded`): it is logged once and counted. A turn of
the loop costs per record little more than a sum, and nothing per row. Of partitions that are no longer owned
nothing is exposed. Series that are known beforehand exist from the start.

Two threads meet here: the poll thread writes, a scrape reads. What they share is either prometheus-client's,
which locks, or is replaced as a whole.
"""

import bisect
import importlib.metadata
import itertools
import operator
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import prometheus_client
from msgspec import Struct
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from consumer import observations
from consumer.filesystem import room
from consumer.observations import Observation, Observe, Standing
from consumer.telemetry import catalog
from consumer.telemetry.catalog import Metric
from consumer.telemetry.logs import logger
from consumer.vocabulary import OutboxReading, Record, TopicPartition

_log = logger(__name__)

_PLACE = operator.itemgetter(0, 1)
_TIMESTAMP = operator.itemgetter(3)
_VALUE = operator.itemgetter(5)


class Guarded:
    """An observer that cannot fail. Called by any thread."""

    def __init__(self, observe: Observe) -> None:
        self._observe = observe
        self._told = False
        self.failures = 0

    def __call__(self, observation: Observation) -> None:
        """Hand it on."""
        try:
            self._observe(observation)
        except Exception as error:  # noqa: BLE001 - whatever it is, the work goes on
            self.failures += 1
            if not self._told:
                self._told = True
                _log.warning(
                    "observer_failed",
                    observation=type(observation).__name__,
                    reason=f"{type(error).__name__}: {error}",
                    hint="metrics are too low from here on; said once",
                )


class Sources(Struct, frozen=True):
    """What is asked at a scrape rather than told.

    Attributes:
        turns: Turns of the loop so far.
        is_ready: Whether ``/readyz`` would say so.
        failures: Observations that could not be counted.
        folders: Name to folder whose file system is watched.
        outbox: How the outbox stands; None without one.
    """

    turns: Callable[[], int]
    is_ready: Callable[[], bool]
    failures: Callable[[], int]
    folders: Mapping[str, Path]
    outbox: Callable[[], OutboxReading | None]


class Metrics:
    """All metrics of one worker."""

    def __init__(self, topics: Sequence[str], *, now_s: Callable[[], float] = time.time) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # as it comes
        self.registry = CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self.registry)
        prometheus_client.PlatformCollector(registry=self.registry)
        prometheus_client.GCCollector(registry=self.registry)
        self._now_s = now_s
        records, size = self._counter(catalog.RECORDS), self._counter(catalog.READ_BYTES)
        self._records = {topic: records.labels(topic) for topic in topics}
        self._bytes = {topic: size.labels(topic) for topic in topics}
        self._rows = self._counter(catalog.ROWS)
        self._repaired = self._counter(catalog.REPAIRED_ROWS)
        self._scoreless = self._counter(catalog.SCORELESS_ROWS)
        self._rejected = self._counter(catalog.REJECTED_ROWS)
        self._replayed = self._counter(catalog.REPLAYED)
        self._letters = self._counters(catalog.DEAD_LETTERS)
        self._rebalances = self._counters(catalog.REBALANCES)
        self._closed = self._counters(catalog.RUNS_CLOSED)
        self._published_rows = self._counter(catalog.PUBLISHED_ROWS)
        self._published_bytes = self._counter(catalog.PUBLISHED_BYTES)
        self._duplicates = self._counter(catalog.DUPLICATE_ROWS)
        self._conflicts = self._counter(catalog.CONFLICTING_ROWS)
        self._superseded = self._counter(catalog.SUPERSEDED_ROWS)
        self._failed = self._counters(catalog.CLOSE_OUTS_FAILED)
        self._checkpoints = self._counters(catalog.CHECKPOINTS)
        self._commits = self._counters(catalog.COMMITS)
        self._close_out = self._histogram(catalog.CLOSE_OUT)
        self._checkpoint = self._histogram(catalog.CHECKPOINT)
        self._committed_at_s = now_s()
        self._disk_held = False
        self._ages = _Ages(catalog.EVENT_AGE)
        self._counted = observations.Counts()
        self._read_ms: dict[TopicPartition, int] = {}
        self._standing: Standing | None = None
        self._by_kind: dict[type[Observation], Callable[[Any], None]] = {
            observations.Turned: self._turned,
            observations.Standing: self._stand,
            observations.Buried: lambda one: self._letters(one.reason).inc(),
            observations.Closed: self._close,
            observations.CloseOutFailed: lambda one: self._failed(one.reason).inc(),
            observations.Checkpointed: self._checkpointed,
            observations.CommitEnded: self._commit_ended,
            observations.Rebalanced: lambda one: self._rebalances(one.change).inc(),
            observations.DiskHeld: self._hold_for_disk,
        }
        self.registry.register(_AtScrape(self._families))

    @property
    def standing(self) -> Standing | None:
        """How the worker stood when it last told; None before its loop began."""
        return self._standing

    @property
    def last_commit_s(self) -> float:
        """When Kafka last took a commit."""
        return self._committed_at_s

    @property
    def disk_held(self) -> bool:
        """Whether reading is held because the disk is full."""
        return self._disk_held

    def watch(self, sources: Sources) -> None:
        """Expose what is asked at a scrape."""
        self.registry.register(_AtScrape(_Asked(sources).families))

    def observe(self, observation: Observation) -> None:
        """Count it."""
        self._by_kind[type(observation)](observation)

    def _hold_for_disk(self, held: observations.DiskHeld) -> None:
        self._disk_held = held.waiting

    def _checkpointed(self, checkpointed: observations.Checkpointed) -> None:
        self._checkpoints(checkpointed.outcome).inc()
        if checkpointed.outcome == "written":
            self._checkpoint.observe(checkpointed.seconds)

    def _commit_ended(self, ended: observations.CommitEnded) -> None:
        self._commits("accepted" if ended.accepted else "refused").inc()
        if ended.accepted:
            self._committed_at_s = self._now_s()

    def _turned(self, turned: observations.Turned) -> None:
        now_ms = self._now_s() * 1000
        # In order per topic-partition, so there are few groups, and each is summed up in C.
        for key, group in itertools.groupby(turned.records, _PLACE):
            records: Sequence[Record] = list(group)
            place = TopicPartition(*key)
            self._records[place.topic].inc(len(records))
            self._bytes[place.topic].inc(sum(map(len, filter(None, map(_VALUE, records)))))
            self._ages.add(now_ms, list(map(_TIMESTAMP, records)))
            self._read_ms[place] = records[-1].timestamp
        counted, counts = self._counted, turned.counts
        for counter, before, now in (
            (self._rows, counted.rows, counts.rows),
            (self._repaired, counted.repaired, counts.repaired),
            (self._scoreless, counted.scores_dropped, counts.scores_dropped),
            (self._rejected, counted.rejected, counts.rejected),
            (self._replayed, counted.replayed, counts.replayed),
        ):
            if now != before:
                counter.inc(now - before)
        counted.rows, counted.repaired = counts.rows, counts.repaired
        counted.scores_dropped, counted.rejected = counts.scores_dropped, counts.rejected
        counted.replayed = counts.replayed

    def _stand(self, standing: Standing) -> None:
        # Where nothing was read yet, waiting began when the partition came.
        now_ms = int(self._now_s() * 1000)
        self._read_ms = {place: self._read_ms.get(place, now_ms) for place in standing.lag}
        self._standing = standing
        if not standing.owned:
            self._committed_at_s = self._now_s()  # nothing to commit is nothing outstanding

    def _close(self, closed: observations.Closed) -> None:
        self._closed(closed.status).inc()
        self._published_rows.inc(closed.rows)
        self._published_bytes.inc(closed.size)
        self._duplicates.inc(closed.duplicates)
        self._conflicts.inc(closed.conflicts)
        self._superseded.inc(closed.superseded)
        self._close_out.observe(closed.seconds)

    def _families(self) -> Iterator[Family]:
        """What is computed at the scrape, from what the worker told last."""
        yield self._ages.family()
        yield _gauge(catalog.LAST_COMMIT, {(): self._committed_at_s})
        yield _gauge(catalog.WAITING_FOR_DISK, {(): int(self._disk_held)})
        standing, read_ms, now_ms = self._standing, self._read_ms, self._now_s() * 1000
        if standing is None:
            return

        def age_s(since_ms: int | None) -> float:
            return 0.0 if since_ms is None else max(0.0, now_ms - since_ms) / 1000

        yield _gauge(catalog.OWNED_PARTITIONS, {(): len(standing.owned)})
        yield _gauge(catalog.WAITING_PARTITIONS, {(): len(standing.waiting)})
        lag = {(place.topic, str(place.partition)): place for place in standing.lag}
        yield _gauge(catalog.LAG_RECORDS, {key: standing.lag[place] for key, place in lag.items()})
        yield _gauge(
            catalog.LAG_SECONDS,
            {key: age_s(read_ms.get(place)) if standing.lag[place] else 0.0 for key, place in lag.items()},
        )
        yield _gauge(catalog.OPEN_RUNS, {(): standing.open_runs})
        yield _gauge(catalog.CLOSING_RUNS, {(): standing.closing})
        yield _gauge(catalog.BLOCKED_RUNS, _by(catalog.BLOCKED_RUNS, standing.blocked))
        yield _gauge(catalog.OLDEST_RUN, {(): age_s(standing.opened_ms)})
        yield _gauge(catalog.IDLE_RUN, {(): age_s(standing.seen_ms)})
        yield _gauge(catalog.UNACKNOWLEDGED, {(): standing.unacknowledged})

    def _counter(self, metric: Metric) -> Counter:
        names = [label.name for label in metric.labels]
        return Counter(metric.name, metric.help, names, registry=self.registry)

    def _counters(self, metric: Metric) -> Callable[[str], Counter]:
        [label] = metric.labels
        made = self._counter(metric)
        children = {value: made.labels(value) for value in label.values}
        return lambda value: children.get(value) or made.labels(value)

    def _histogram(self, metric: Metric) -> Histogram:
        return Histogram(metric.name, metric.help, buckets=metric.buckets, registry=self.registry)


class _Ages:
    """A histogram that takes in many values at a time; prometheus-client's takes one, at a microsecond."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._lock = threading.Lock()
        self._counts = [0] * (len(metric.buckets) + 1)
        self._sum_s = 0.0

    def add(self, now_ms: float, timestamps_ms: Sequence[int]) -> None:
        """Take in the ages of records."""
        oldest, newest = self._bucket(now_ms - min(timestamps_ms)), self._bucket(now_ms - max(timestamps_ms))
        with self._lock:
            # A clock behind Kafka's makes no negative ages: a sum must not fall.
            self._sum_s += max(0.0, now_ms * len(timestamps_ms) - sum(timestamps_ms)) / 1000
            if oldest == newest:  # nearly always
                self._counts[oldest] += len(timestamps_ms)
            else:
                for timestamp_ms in timestamps_ms:
                    self._counts[self._bucket(now_ms - timestamp_ms)] += 1

    def family(self) -> Family:
        """What came so far."""
        with self._lock:
            counts, sum_s = list(self._counts), self._sum_s
        bounds = [*map(str, map(float, self._metric.buckets)), "+Inf"]
        family = HistogramMetricFamily(self._metric.name, self._metric.help)
        family.add_metric([], list(zip(bounds, itertools.accumulate(counts), strict=True)), sum_s)
        return family

    def _bucket(self, age_ms: float) -> int:
        return bisect.bisect_left(self._metric.buckets, age_ms / 1000)


class _Asked:
    """What is asked at a scrape."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._version = importlib.metadata.version("evalsink")
        self._asking = threading.Lock()
        self._rooms: dict[tuple[str, ...], tuple[int, int]] = {}

    def families(self) -> Iterator[Family]:
        """Read them all."""
        sources = self._sources
        yield _counter(catalog.LOOP_TURNS, {(): sources.turns()})
        yield _counter(catalog.OBSERVER_FAILURES, {(): sources.failures()})
        yield _gauge(catalog.READY, {(): int(sources.is_ready())})
        yield _gauge(catalog.BUILD, {(self._version,): 1})
        rooms = self._look_at_disks()
        yield _gauge(catalog.DISK_FREE, {folder: free for folder, (free, _) in rooms.items()})
        yield _gauge(catalog.DISK_SIZE, {folder: size for folder, (_, size) in rooms.items()})
        if (outbox := sources.outbox()) is not None:
            yield _gauge(catalog.OUTBOX_RUNS, _by(catalog.OUTBOX_RUNS, outbox.depth))
            yield _gauge(catalog.OUTBOX_AGE, {(): outbox.oldest_age_s})
            yield _counter(catalog.PUSHES, _by(catalog.PUSHES, outbox.pushes))

    def _look_at_disks(self) -> Mapping[tuple[str, ...], tuple[int, int]]:
        # A network disk that is gone holds whoever asks: one scrape, while others get what was last seen.
        if self._asking.acquire(blocking=False):
            try:
                found = {(name,): room(folder) for name, folder in self._sources.folders.items()}
                self._rooms = {name: one for name, one in found.items() if one is not None}
            finally:
                self._asking.release()
        return self._rooms


class _AtScrape(Collector):
    """A collector of one function."""

    def __init__(self, families: Callable[[], Iterable[Family]]) -> None:
        self._families = families

    def collect(self) -> Iterable[Family]:
        return self._families()


def _by(metric: Metric, values: Mapping[str, int]) -> Mapping[tuple[str, ...], int]:
    [label] = metric.labels
    return {(value,): values.get(value, 0) for value in label.values}


def _gauge(metric: Metric, values: Mapping[tuple[str, ...], float]) -> Family:
    family = GaugeMetricFamily(metric.name, metric.help, labels=[label.name for label in metric.labels])
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _counter(metric: Metric, values: Mapping[tuple[str, ...], float]) -> Family:
    family = CounterMetricFamily(metric.name, metric.help, labels=[label.name for label in metric.labels])
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family
