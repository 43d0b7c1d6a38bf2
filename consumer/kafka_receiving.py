"""Reading from a broker's socket: a good piece at a time, where kafka-python asks for 4 KB.

Each piece lets go of the interpreter, for which the client's I/O thread competes with the worker's own. More
in one piece is better only so far: with 256 KiB fewer single-row events were read than with 4 KB, supposedly
because copying then lasts for long enough that the other thread wakes up and takes the turn.

This leans on a name that kafka-python does not document, so `larger` gives its own class back where that is
not there. Under TLS nothing changes: a TLS record holds 16 KB at most.
"""

import contextlib
from typing import Any, Final

PIECE_BYTES: Final = 64 * 1024


def larger(stock: Any) -> Any:
    """kafka-python's `stock` transport, reading up to `PIECE_BYTES` at a time."""
    if not hasattr(stock, "_sock_recv") or issubclass(stock, _Larger):
        return stock
    return type("LargerTransport", (_Larger, stock), {})


class _Larger:
    """In front of a transport; whatever is not plain data is left to that one."""

    _sock: Any

    def _sock_recv(self) -> tuple[bytes, Exception | None]:
        received: list[bytes] = []
        with contextlib.suppress(Exception):  # whatever it is, it comes again below
            # All that is there: to come back for more costs another turn.
            while piece := self._sock.recv(PIECE_BYTES):
                received.append(piece)
        if received:
            return b"".join(received), None
        # Nothing there, closed, broken or gone: asked once more, it is told to who knows what it means.
        told: tuple[bytes, Exception | None] = super()._sock_recv()  # type: ignore[misc]  # the stock class's
        return told
