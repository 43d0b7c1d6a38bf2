"""Open runs as another thread may see them: copies, made by the poll thread when somebody asked.

Invariants: what is taken out is a copy that nobody changes; the spool files hold at least what it says, since
it is made when they are flushed; nobody asking costs one look a turn; however many ask, a copy is made at
most every `SHOW_EVERY_S`.
"""

import threading
from collections.abc import Callable, Iterable, Sequence

import msgspec
from msgspec import Struct

from schemas.state import PartitionState

SHOW_EVERY_S = 1.0

_decoder = msgspec.msgpack.Decoder(list[PartitionState])


class View(Struct, frozen=True):
    """What was there `at_s` by the window's clock."""

    at_s: float
    partitions: Sequence[PartitionState]


class Window:
    """Between the poll thread (`show`) and everybody else (`look`)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._asked = False
        self._shown: tuple[float, bytes] | None = None

    def show(self, partitions: Callable[[], Iterable[PartitionState]]) -> None:
        """Copy what there is if somebody asked. The spool is flushed."""
        if not self._asked:
            return
        if self._shown is not None and self._clock() - self._shown[0] < SHOW_EVERY_S:
            return
        content = msgspec.msgpack.encode(list(partitions()))
        with self._changed:
            self._asked = False
            self._shown = (self._clock(), content)
            self._changed.notify_all()

    def look(self, timeout_s: float) -> View | None:
        """What was shown within the last `SHOW_EVERY_S`, waiting for it if need be.

        Where nothing new comes in time: what was shown last; None if nothing ever was.
        """

        def is_fresh() -> bool:
            return self._shown is not None and self._clock() - self._shown[0] < SHOW_EVERY_S

        with self._changed:
            if not is_fresh():
                before = self._shown
                self._asked = True
                self._changed.wait_for(lambda: self._shown is not before, timeout_s)
            shown = self._shown
        return None if shown is None else View(shown[0], _decoder.decode(shown[1]))
