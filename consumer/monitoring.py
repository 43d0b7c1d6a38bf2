"""What a worker shows over HTTP: ``/metrics``, ``/healthz``, ``/readyz``, ``/runs``.

Invariants: the poll thread's state is never touched from here: numbers that it replaces, copies that it makes
(`consumer.runs.window`), and files. ``/healthz`` says one thing, whether the loop moves, and asks neither
Kafka nor the Hub nor the disk: a restart would mend none of them. ``/readyz`` says why not.

Refuses an address that was asked for and is not to be had; goes on without the default one.
"""

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from consumer.errors import UsageError
from consumer.observations import Observe, unobserved
from consumer.overview import RunOverview, open_runs, read_announced
from consumer.runs.live import LiveScores, Scores
from consumer.runs.window import Window
from consumer.settings import Settings
from consumer.telemetry.exporter import (
    Exporter,
    PortTakenError,
    Request,
    Response,
    Route,
    as_json,
    exposition,
)
from consumer.telemetry.logs import logger
from consumer.telemetry.observer import Guarded, Metrics, Sources
from consumer.vocabulary import OutboxReading
from consumer.worker import Worker
from schemas.state import RunState

UNCOMMITTED_MIN_S = 30.0
"""Without a commit for so long (or five checkpoints) a worker is not ready: what it reads is not kept."""

LOOK_TIMEOUT_S = 2.0
"""A turn of the loop is over by then, but for a broker that is away or a disk that is full."""

READING_MAX_S = 0.25
"""Of scores, for one answer of ``/runs``: it shares the interpreter with the worker."""

RATE_OVER_S = 60.0
MISSING_MAX = 20

_log = logger(__name__)


def no_outbox() -> OutboxReading | None:
    """Nothing is pushed."""
    return None


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``.

    Raises:
        UsageError: it is no such thing.
    """
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/\[\]@]+)):(\d{1,5})", text)
    if not found or int(found[3]) >= 1 << 16:
        raise UsageError(f'--http (EVALSINK_HTTP): {text!r} is not HOST:PORT, nor "" for no server')
    return found[1] or found[2], int(found[3])


class Monitor:
    """Everything around one worker that watches it."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._now_s = now_s
        self._address = parse_address(settings.http) if settings.http else None
        self._worker: Worker | None = None
        self._outbox: Callable[[], OutboxReading | None] = no_outbox
        self._made_at = clock()
        self._runs = OpenRuns(settings.state_path, clock=clock, now_s=now_s)
        self._metrics = Metrics(settings.topics.inputs, now_s=now_s)
        guarded = Guarded(self._metrics.observe)
        self.observe: Observe = guarded if self._address else unobserved
        self.window = self._runs.window
        self._metrics.watch(
            Sources(
                turns=lambda: self._worker.turns if self._worker else 0,
                is_ready=lambda: not self.reasons(),
                failures=lambda: guarded.failures,
                folders={"state": settings.state_path, "output": settings.output_path},
                outbox=lambda: self._outbox(),  # noqa: PLW0108 - it is set later
            )
        )

    @property
    def routes(self) -> Mapping[str, Route]:
        """All pages."""
        return {
            "/metrics": exposition(self._metrics.registry),
            "/healthz": lambda _: self._healthz(),
            "/readyz": lambda _: self._readyz(),
            "/runs": self._runs.page,
        }

    @contextlib.contextmanager
    def listening(self, *, insist: bool) -> Iterator[None]:
        """Serve meanwhile.

        Args:
            insist: Somebody chose the address.

        Raises:
            UsageError: they cannot have it.
        """
        exporter = None
        if self._address is not None:
            try:
                exporter = Exporter(*self._address, self.routes)
            except PortTakenError as error:
                if insist:
                    raise UsageError(
                        f'{error}; name another address with --http (EVALSINK_HTTP), or "" for none'
                    ) from error
                _log.warning(
                    "http_unavailable", reason=str(error), hint="--http HOST:PORT for another address"
                )
        with exporter or contextlib.nullcontext():
            if exporter is not None:
                _log.info("http_listening", url=exporter.url)
            yield

    def attach(self, worker: Worker, outbox: Callable[[], OutboxReading | None] = no_outbox) -> None:
        """The worker is built; its loop begins.

        Args:
            worker: It.
            outbox: How the outbox stands, asked at each scrape by a thread of the server: it may not wait.
        """
        self._worker, self._outbox = worker, outbox

    def reasons(self) -> list[str]:
        """Why the worker is not ready; nothing if it is."""
        worker = self._worker
        if worker is None:
            return ["starting: Kafka and the state folder are being looked at"]
        standing = self._metrics.standing
        found = []
        if worker.is_stopping:
            found.append("stopping")
        if (still_s := self._still_s()) >= self._patience_s:
            found.append(f"the loop has not moved for {still_s:.0f} s")
        if standing is None or not standing.assigned:
            found.append("the group has not assigned anything yet")
        elif standing.waiting:
            numbers = ", ".join(map(str, sorted(standing.waiting)))
            found.append(f"assigned but not started, Kafka does not answer: partitions {numbers}")
        if self._metrics.disk_held:
            found.append("the disk is full: reading is held")
        silent_s = self._now_s() - self._metrics.last_commit_s
        if silent_s > max(UNCOMMITTED_MIN_S, 5 * self._settings.checkpoint_interval_s):
            found.append(f"no commit for {silent_s:.0f} s: Kafka does not answer, or the disk does not")
        return found

    @property
    def _patience_s(self) -> float:
        # Before the watchdog ends the process, which takes from once to twice its time.
        return self._settings.watchdog_s / 2

    def _still_s(self) -> float:
        return self._clock() - (self._worker.turned_at if self._worker else self._made_at)

    def _healthz(self) -> Response:
        still_s = self._still_s()
        moves = still_s < self._patience_s
        loop = {
            "ok": moves,
            "turns": self._worker.turns if self._worker else 0,
            "still_s": round(still_s, 3),
            "limit_s": self._patience_s,
        }
        return as_json({"status": "ok" if moves else "stuck", "loop": loop}, 200 if moves else 503)

    def _readyz(self) -> Response:
        reasons = self.reasons()
        return as_json({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)


class LiveTask(Struct, frozen=True):
    """One task of an open run.

    Attributes:
        task: As producers spell it.
        rows: Received; those sent twice count twice until their shard has ended.
        expected: Rows that will be there in the end, null where nobody said.
        file: The live JSONL.
        scores: Filter to metric to mean and standard error of the rows so far.
    """

    task: str
    rows: int
    expected: int | None
    file: str | None
    scores: Scores


class OpenRuns:
    """The page ``/runs``."""

    def __init__(self, state: Path, *, clock: Callable[[], float], now_s: Callable[[], float]) -> None:
        self._state = state
        self._clock = clock
        self._now_s = now_s
        self.window = Window(clock)
        self._lock = threading.Lock()
        self._scores = LiveScores(clock)
        self._announced: dict[Path, tuple[int, Mapping[str, int]]] = {}
        self._rows: dict[Path, list[tuple[float, int]]] = {}
        self._answer: Response | None = None
        self._answered_at = 0.0

    def page(self, _request: Request) -> Response:
        """Answer; whoever comes while an answer is made gets the same."""
        came_at = self._clock()
        if not self._lock.acquire(timeout=2 * LOOK_TIMEOUT_S):
            return as_json({"error": "busy"}, 503)
        try:
            if self._answer is None or self._answered_at < came_at:
                self._answer = self._make()
                self._answered_at = self._clock()
            return self._answer
        finally:
            self._lock.release()

    def _make(self) -> Response:
        view = self.window.look(LOOK_TIMEOUT_S)
        if view is None:
            return as_json({"error": "the worker's loop has not shown its runs yet"}, 503)
        now_ms = int(self._now_s() * 1000)
        deadline = self._clock() + READING_MAX_S
        runs, folders = [], set()
        for overview, run in open_runs(
            self._state, view.partitions, now_ms=now_ms, announced=self._read_announced
        ):
            folder = self._state / "runs" / str(overview.partition) / run.folder
            folders.add(folder)
            scores = self._scores.read(folder, run, deadline=deadline)
            runs.append(_shown(overview, scores, self._rows_per_s(folder, overview, view.at_s)))
        self._scores.keep(folders)
        for remembered in (self._announced, self._rows):
            for folder in remembered.keys() - folders:
                del remembered[folder]
        return as_json({"as_of_s": round(self._clock() - view.at_s, 3), "runs": runs})

    def _read_announced(self, folder: Path, run: RunState) -> Mapping[str, int]:
        starts, tasks = self._announced.get(folder, (-1, {}))
        if starts != len(run.starts):
            tasks = read_announced(folder, run)
            self._announced[folder] = (len(run.starts), tasks)
        return tasks

    def _rows_per_s(self, folder: Path, overview: RunOverview, at_s: float) -> float | None:
        """Over the last minute, as far as somebody asked; null at the first question."""
        rows = overview.rows or 0
        seen = [one for one in self._rows.get(folder, []) if at_s - one[0] <= RATE_OVER_S]
        self._rows[folder] = [*seen, (at_s, rows)] if not seen or at_s - seen[-1][0] >= 1 else seen
        if not seen or at_s <= seen[0][0]:
            return None
        return round(max(0, rows - seen[0][1]) / (at_s - seen[0][0]), 3)


def _shown(overview: RunOverview, scores: Mapping[str, Scores], rows_per_s: float | None) -> dict[str, Any]:
    missing = overview.missing[:MISSING_MAX]
    if len(overview.missing) > MISSING_MAX:
        missing.append(f"and {len(overview.missing) - MISSING_MAX} more")
    kept = ("run_id", "partition", "status", "shards", "ended", "rows", "expected")
    times = ("tainted", "first_ms", "last_ms", "age_s", "idle_s")
    fields = asdict(overview)
    return {
        **{name: fields[name] for name in kept},
        "rows_per_s": rows_per_s,
        **{name: fields[name] for name in times},
        "missing": missing,
        "tasks": [
            LiveTask(one.task, one.rows, one.expected, one.file, scores.get(one.task, {}))
            for one in overview.tasks
        ],
    }
