"""The process that pushes, as the worker that started it sees it.

Why a process: an upload by Xet can hang where no time-out reaches it, and only a process can be ended from
outside; what it holds in memory, and what it makes of the interpreter, is not the poll thread's.

Invariants: it lives no longer than its worker (its standard input ends with us); it may be ended at any
moment; one that ends by itself is started again, ever more slowly. Its settings go through its standard
input, the token only ever through its environment or a file: the list of processes shows neither.
"""

import contextlib
import subprocess
import sys
import threading
import time
from typing import Self

import msgspec
from msgspec import Struct

from consumer.settings import Hub
from consumer.telemetry.logs import logger

RESTART_S = 1.0
RESTART_MAX_S = 15.0
_END_S = 2.0

_log = logger(__name__)


class Order(Struct, frozen=True):
    """What a pushing process is told: its folders, absolute, and the settings of the archive."""

    state: str
    output: str
    hub: Hub


class PusherProcess:
    """Keeps a pushing process alive. A context manager."""

    def __init__(self, order: Order) -> None:
        self._line = msgspec.json.encode(order) + b"\n"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="pusher", daemon=True)
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _keep(self) -> None:
        rest_s = RESTART_S
        while not self._over.is_set():
            started = time.monotonic()
            code = self._run()
            if self._over.is_set():
                return
            if time.monotonic() - started > RESTART_MAX_S:
                rest_s = RESTART_S
            _log.error("pusher_ended", code=code, again_in_s=rest_s)
            self._over.wait(rest_s)
            rest_s = min(rest_s * 2, RESTART_MAX_S)

    def _run(self) -> int | None:
        """One life of the process. Returns its exit code; None: it could not be started."""
        try:
            # -P: whatever lies in the working folder, this is our own module.
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "consumer.pushing"], stdin=subprocess.PIPE
            )
        except OSError as error:
            _log.error("pusher_not_started", reason=str(error))
            return None
        self.process = process
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.write(self._line)
            process.stdin.flush()
        ended = threading.Thread(target=process.wait, name="pusher-end", daemon=True)
        ended.start()
        while ended.is_alive() and not self._over.is_set():
            ended.join(0.1)
        with contextlib.suppress(OSError):
            process.stdin.close()  # by this it ends itself
        ended.join(_END_S)
        if ended.is_alive():
            process.kill()
            ended.join()
        return process.returncode
