"""The lock of whoever pushes from an outbox: one process at a time, until it ends."""

import fcntl
import os
from pathlib import Path
from typing import Self

from consumer.errors import StateError

LOCK_FILE = "pusher.lock"


class PusherLock:
    """Held by the one process that pushes from an outbox, until it ends."""

    def __init__(self, state: Path, *, wait: bool = False) -> None:
        """Take it.

        Args:
            state: State folder.
            wait: Wait for who has it; else refuse.

        Raises:
            StateError: another process has it, and `wait` is False.
        """
        self._descriptor = os.open(state / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise StateError(f"a worker pushes from the outbox in {state} by itself") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
