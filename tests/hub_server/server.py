"""The Hub over HTTP on loopback: `with HubServer() as hub: HfApi(endpoint=hub.endpoint, token=GOOD_TOKEN)`.

Owns sockets and threads. Invariants: the port is the hub's for its whole life, also while it is `down()`; every request is
in `requests` before anything is done about it; a hook or handler that fails answers 501, which no
client tries again, and is raised by `close`: a broken test does not look like a broken Hub.

Ugliest corner: a connection is cut by closing its socket under `http.server` with a linger time of zero, which sends RST.
"""

import contextlib
import http.server
import os
import re
import socket
import struct
import sys
import threading
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub_server.exchange import Answer, Refusal, Request, json_answer
from tests.hub_server.faults import Cut, CutBody, Effect, Hang, Point, Respond
from tests.hub_server.hub import Hub
from tests.hub_server.routes import find

_READ_BYTES = 1 << 16


class HubServer(Hub):
    """A running Hub: see `Hub` for what a test may do to it."""

    def __init__(self, *, port: int = 0, **options: Any) -> None:
        """It does not listen yet; its address is known. `options` are those of `Hub`."""
        super().__init__(**options)
        # Bound for good but never listening, it keeps the port from everybody else while the Hub is down.
        self._claim = socket.socket()
        self._claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._claim.bind(("127.0.0.1", port))
        self.port: int = self._claim.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.failures: list[Exception] = []
        """What hooks and handlers raised."""
        self._server: _Server | None = None

    def up(self) -> None:
        """Listen. Does nothing when it does already."""
        if self._server is None:
            self._server = _Server(self)
            self._server.start()

    def down(self) -> None:
        """Refuse connections and cut those that are open, until `up()`. What is stored stays."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def close(self) -> None:
        """Down for good; what hangs is let go.

        Raises:
            Exception: what a hook or handler raised first.
        """
        self.down()
        self.faults.release()
        self._claim.close()
        if self.failures:
            raise self.failures[0]

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except Exception:
            if error is None:
                raise  # else what the test says comes first


class _Server(http.server.ThreadingHTTPServer):
    """The listening socket, and the connections that are open."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, hub: HubServer) -> None:
        self.hub = hub
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", hub.port), _Exchange)

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, args=(0.01,), name="hub", daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        with self._lock:
            left = list(self._open)
        for connection in left:
            reset(connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no failure."""
        error = sys.exception()
        if isinstance(error, Exception) and not isinstance(error, OSError):
            self.hub.failures.append(error)


class _GoneError(ConnectionError):
    """The connection was cut, by us or by the client."""


class _Exchange(http.server.BaseHTTPRequestHandler):
    """One connection and its requests, one after the other."""

    server: _Server
    protocol_version = "HTTP/1.1"
    server_version = "hub-for-tests"
    sys_version = ""
    wbufsize = 1 << 16  # head and body leave in one piece
    disable_nagle_algorithm = True

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            super().handle()

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is http.server's
        """Nothing is printed."""

    def do_GET(self) -> None:
        hub = self.server.hub
        address = urlsplit(self.path)
        route = find(self.command, address.path)
        request = Request(
            method=self.command,
            path=unquote(address.path),
            raw_path=address.path,
            query=parse_qs(address.query, keep_blank_values=True),
            headers={name.lower(): value for name, value in self.headers.items()},
            step=route[0].step if route else "unknown",
        )
        hub.requests.append(request)
        try:
            answer = self._answer(hub, request, route)
        except _GoneError:
            raise
        except Exception as error:  # noqa: BLE001 - a test's hook may raise anything; `close` raises it again
            hub.failures.append(error)
            answer = json_answer({"error": f"the Hub for tests failed: {error!r}"}, 501)
        finally:
            request.body = b""
        request.status = answer.status
        self._send(answer)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_GET  # noqa: N815 - http.server's names

    def _answer(self, hub: HubServer, request: Request, route: Any) -> Answer:
        effect = hub.faults.take(request, "body")
        self._read_body(request, effect.after_bytes if isinstance(effect, CutBody) else None)
        hub.hooks.run(request, "before")
        if (instead := self._strike(hub, request, "before")) is not None:
            return instead
        if route is None:
            return json_answer({"error": f"this Hub does not know {request.method} {request.path}"}, 404)
        try:
            answer: Answer = route[0].handler(hub, request, route[1])
        except Refusal as error:
            return error.answer
        hub.hooks.run(request, "after")
        instead = self._strike(hub, request, "after")
        return answer if instead is None else instead

    def _strike(self, hub: HubServer, request: Request, at: Point) -> Answer | None:
        effect: Effect | None = hub.faults.take(request, at)
        if isinstance(effect, Respond):
            return effect.answer
        if isinstance(effect, Cut):
            self._cut()
        if isinstance(effect, Hang):
            effect.gate.pass_through()
        return None

    def _read_body(self, request: Request, cut_after: int | None) -> None:
        body = bytearray()
        if "chunked" in request.headers.get("transfer-encoding", ""):
            pieces = iter(self._chunk, b"")
        else:
            length = int(request.headers.get("content-length", 0))
            pieces = iter(lambda: self._read(min(_READ_BYTES, length - len(body))), b"")
        for piece in pieces:
            body += piece
            request.body_bytes = len(body)
            if cut_after is not None and len(body) >= cut_after:
                self._cut()
        if cut_after is not None:
            self._cut()  # the body was shorter
        request.body = bytes(body)

    def _read(self, count: int) -> bytes:
        if not count:
            return b""
        try:
            data = self.rfile.read(count)
        except OSError as error:
            raise _GoneError("the client went away") from error
        if len(data) < count:
            raise _GoneError("the client went away")
        return data

    def _chunk(self) -> bytes:
        size = int(re.split(rb"[;\r\n]", self._line())[0], 16)
        data = self._read(size)
        self._line()
        return data

    def _line(self) -> bytes:
        try:
            line = self.rfile.readline(80)
        except OSError as error:
            raise _GoneError("the client went away") from error
        if not line:
            raise _GoneError("the client went away")
        return line

    def _cut(self) -> None:
        self.close_connection = True
        reset(self.connection)
        raise _GoneError("cut on purpose")

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers:
            # A header cannot hold a line break; nor can the Hub's, which sends the message in the body alone then.
            if "\n" not in value and value.isascii():
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)
        self.wfile.flush()


def reset(connection: socket.socket) -> None:
    """Close with RST, whatever is buffered; a thread that waits for input on it wakes up."""
    with contextlib.suppress(OSError):  # closed already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RD)
        # `close()` would wait for the files made of the socket.
        os.close(connection.detach())
