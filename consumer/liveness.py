"""A process that ends: when its loop stands still, in bounded time when asked, at once when asked twice.

Ending at any moment is safe, since starting again is exactly-once; standing still is not: kafka-python 3.0
has a wait without a time-out (dpkp/kafka-python #3121), in which a worker would hold its partitions and do
nothing for ever.
"""

import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from consumer.telemetry.logs import logger
from consumer.worker import Worker

EXIT_STUCK = 70
EXIT_DRAIN_TIMEOUT = 75

_log = logger(__name__)


class Watchdog:
    """Ends the process if `turns` does not change for `timeout_s` seconds. A context manager."""

    def __init__(
        self, turns: Callable[[], int], timeout_s: float, *, end: Callable[[int], object] = os._exit
    ) -> None:
        self._turns = turns
        self._timeout_s = timeout_s
        self._end = end
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        seen = self._turns()
        while not self._over.wait(self._timeout_s):
            now = self._turns()
            if now == seen:
                _log.error("loop_stuck", after_s=self._timeout_s)
                faulthandler.dump_traceback(file=sys.__stderr__ or 2)
                self._end(EXIT_STUCK)
                return
            seen = now


def stop_on_signals(worker: Worker, drain_timeout_s: float) -> None:
    """SIGTERM and SIGINT stop the worker; one that takes too long, or a second signal, ends the process."""

    def overdue() -> None:
        _log.error("drain_timeout", after_s=drain_timeout_s)
        os._exit(0 if worker.is_drained else EXIT_DRAIN_TIMEOUT)

    def stop(number: int, _frame: FrameType | None) -> None:
        if worker.is_stopping:
            os._exit(128 + number)
        worker.stop()
        timer = threading.Timer(drain_timeout_s, overdue)
        timer.daemon = True
        timer.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
