"""The outbox as metrics see it."""

from collections.abc import Callable
from pathlib import Path

from consumer.archive.outbox import Outbox, has_outbox
from consumer.errors import StateError
from consumer.vocabulary import OutboxReading


class OutboxWatch:
    """How the outbox in a state folder stands, for who watches; from any thread, but one at a time."""

    def __init__(self, state: Path, *, now: Callable[[], float]) -> None:
        self._state = state
        self._now = now
        self._outbox: Outbox | None = None

    def __call__(self) -> OutboxReading | None:
        """None: there is none, or it cannot be read."""
        try:
            if self._outbox is None and has_outbox(self._state):
                self._outbox = Outbox(self._state)
            if self._outbox is None:
                return None
            oldest_at = self._outbox.oldest_at()
            return OutboxReading(
                self._outbox.depth(),
                0.0 if oldest_at is None else max(0.0, self._now() - oldest_at),
                self._outbox.outcomes(),
            )
        except (OSError, StateError):
            return None
