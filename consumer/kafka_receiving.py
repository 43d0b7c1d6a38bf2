"""Reading from a broker's socket: a good piece at a time, where kafka-python asks for 4 KB.

Each piece costs the client's I/O thread a turn at the interpreter, for which it waits while the worker's own
thread computes: at 4 KB a fetch of 4 MB arrives long after it was needed (benchmarks: a fifth of the rows a
second). This leans on a name that kafka-python does not document, so `larger` gives its own class back
where that is not there. Under TLS nothing changes: a TLS record holds 16 KB at most.
"""

import contextlib
from typing import Any, Final

PIECE_BYTES: Final = 256 * 1024


def larger(stock: Any) -> Any:
    """kafka-python's `stock` transport, reading up to `PIECE_BYTES` at a time."""
    if not hasattr(stock, "_sock_recv") or issubclass(stock, _Larger):
        return stock
    return type("LargerTransport", (_Larger, stock), {})


class _Larger:
    """In front of a transport; whatever is not plain data is left to that one."""

    _sock: Any

    def _sock_recv(self) -> tuple[bytes, Exception | None]:
        with contextlib.suppress(OSError):
            received: bytes = self._sock.recv(PIECE_BYTES)
            if received:
                return received, None
        # Nothing there, closed, or broken: asked once more, the socket tells it to who knows what it means.
        told: tuple[bytes, Exception | None] = super()._sock_recv()  # type: ignore[misc]  # the stock class's
        return told
