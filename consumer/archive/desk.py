"""The worker's side of the outbox: runs are handed in here, and asked after.

Invariants: what was entered is on the disk when `enter` returns, so a receipt that follows cannot outlive it;
the poll thread is answered from what was last read, a moment ago; nothing here waits for the Hub.
"""

from collections.abc import Callable, Mapping

from consumer.archive.outbox import MIRROR_FACT, Errand, Outbox
from consumer.settings import Settings
from consumer.telemetry.logs import logger
from schemas.results import RunStatus

LOOK_EVERY_S = 0.25
_ASKED_AT_ONCE = 500

_log = logger(__name__)


class Desk:
    """One worker's. `enter` is for any thread, the rest for one."""

    def __init__(
        self,
        outbox: Outbox,
        settings: Settings,
        *,
        mirror: str,
        clock: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self._outbox = outbox
        self._mirror = mirror
        self._binds = settings.durable == "hub"
        self._every = self._binds or settings.hub.runs == "all"
        self._clock = clock
        self._now = now
        self._asked: dict[str, Errand | None] = {}
        self._looked_at = clock() - LOOK_EVERY_S
        self._is_busy = True

    def enter(self, results: str, *, run_id: str, status: RunStatus, sha256: str) -> None:
        """Hand in a published run, if such runs are archived.

        Raises:
            OSError: the disk; the run is not handed in.
        """
        if self._every or status == "complete":
            self._outbox.enqueue(
                results, "archive", run_id=run_id, status=status, sha256=sha256, now=self._now()
            )

    def is_durable(self, results: str) -> bool:
        """Whether a published run is where it has to be before its receipt is written."""
        if not self._binds:
            return True
        errand = self._look(results)
        if errand is None or errand.state not in {"clearing", "archived", "dropped"}:
            return False
        self._asked.pop(results, None)
        return True

    def is_parked(self, results: str) -> bool:
        """Whether it waits for somebody, as far as was last seen."""
        errand = self._asked.get(results)
        return errand is not None and errand.state == "parked"

    def is_busy(self) -> bool:
        """Whether anything is on its way to the Hub that time alone will bring there."""
        self._refresh()
        return self._is_busy

    def forget(self, results: str) -> None:
        """Nobody asks after that run any more."""
        self._asked.pop(results, None)

    def close(self) -> None:
        """Close the outbox."""
        self._outbox.close()

    def _look(self, results: str) -> Errand | None:
        self._asked.setdefault(results, None)
        self._refresh()
        return self._asked[results]

    def _refresh(self) -> None:
        if self._clock() - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = self._clock()
        names = list(self._asked)
        found: Mapping[str, Errand] = {}
        try:
            for start in range(0, len(names), _ASKED_AT_ONCE):
                found = {**found, **self._outbox.find(names[start : start + _ASKED_AT_ONCE])}
            self._is_busy = self._outbox.fact(MIRROR_FACT) != self._mirror or self._outbox.has_work()
        except OSError as error:
            _log.error("outbox_failed", reason=str(error))
            return  # what was last seen still stands
        self._asked = {name: found.get(name) for name in names}
