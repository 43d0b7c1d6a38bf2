"""A small HTTP server for those who watch: a table of paths, each a function of the request.

Invariants: it never holds the worker. Its threads are daemons, and bounded (`CONNECTIONS_MAX`); whoever
holds a connection for longer than others want one is cut off, so slow and hostile clients only hurt
themselves; no request is longer than a few lines; one answer a connection. Refused: every path that is not in
the table (404), every method but GET and HEAD (405). A route that fails is a 500, and is logged.

A page over all runs is another entry of the table.
"""

import contextlib
import gzip
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct
from prometheus_client.exposition import choose_encoder, gzip_accepted
from prometheus_client.registry import Collector

from consumer.telemetry.logs import logger

CONNECTIONS_MAX = 16
"""A few scrapers, probes and people at a time."""

SILENCE_MAX_S = 5.0
"""Longest wait for a client's next byte, or for room to send it one."""

HOLD_MIN_S = 2.0
"""So long nobody is cut off for others."""

_GZIP_MIN_BYTES = 1024

_log = logger(__name__)


class Request(Struct, frozen=True):
    """What a route is asked. `headers`: names in lower case."""

    path: str
    query: str
    headers: Mapping[str, str]


class Response(Struct, frozen=True):
    """What it answers."""

    body: bytes
    content_type: str
    status: int = 200
    headers: Mapping[str, str] = {}


Route = Callable[[Request], Response]


def as_json(value: Any, status: int = 200) -> Response:
    """A JSON answer, which nobody may keep."""
    body = msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
    return Response(body, "application/json; charset=utf-8", status, {"Cache-Control": "no-store"})


def exposition(registry: Collector) -> Route:
    """``/metrics``: the text format, or OpenMetrics for who asks for it; packed if that is accepted."""

    def expose(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        body = encode(registry)
        headers = {"Vary": "Accept, Accept-Encoding"}
        if len(body) >= _GZIP_MIN_BYTES and gzip_accepted(request.headers.get("accept-encoding", "")):
            body = gzip.compress(body, compresslevel=1)
            headers["Content-Encoding"] = "gzip"
        return Response(body, content_type, 200, headers)

    return expose


class _Handler(BaseHTTPRequestHandler):
    """One connection: one request, one answer."""

    server: "_Server"
    timeout = SILENCE_MAX_S
    server_version = "evalsink"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Answer without the body."""
        self._answer(with_body=False)

    def _refuse(self) -> None:
        self._send(Response(b"only GET and HEAD\n", "text/plain", 405, {"Allow": "GET, HEAD"}))

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = _refuse  # noqa: N815 - http.server's

    def _answer(self, *, with_body: bool) -> None:
        target = urlsplit(self.path)
        route = self.server.routes.get(target.path)
        if route is None:
            self._send(Response(b"not found\n", "text/plain", 404), with_body=with_body)
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            response = route(Request(target.path, target.query, headers))
        except Exception as error:  # noqa: BLE001 - a page that fails is no reason for a traceback
            _log.warning("http_failed", path=target.path, reason=f"{type(error).__name__}: {error}")
            response = Response(b"failed; the log says why\n", "text/plain", 500)
        self._send(response, with_body=with_body)

    def _send(self, response: Response, *, with_body: bool = True) -> None:
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(response.body)

    def log_message(self, *_arguments: Any) -> None:
        """Scrapes are no events of interest."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 32

    def __init__(self, family: socket.AddressFamily, address: Any, routes: Mapping[str, Route]) -> None:
        self.address_family = family
        self.routes = routes
        self._held: dict[Any, float] = {}
        self._cut_off: set[Any] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind, without asking a name server who we are, as `HTTPServer` would."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "evalsink", self.server_address[1]

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 - the library's signature
        """Take a connection in; if there are too many, the longest held one makes room or this one goes."""
        now = time.monotonic()
        with self._lock:
            if len(self._cut_off) >= CONNECTIONS_MAX:
                return False  # their threads have not ended yet
            if len(self._held) >= CONNECTIONS_MAX:
                oldest, since = min(self._held.items(), key=lambda held: held[1])
                if now - since < HOLD_MIN_S:
                    return False
                del self._held[oldest]
                self._cut_off.add(oldest)
                # Its thread wakes up with an error, and ends.
                with contextlib.suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)
            self._held[request] = now
        return True

    def shutdown_request(self, request: Any) -> None:
        """A connection ends."""
        with self._lock:
            self._held.pop(request, None)
            self._cut_off.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nobody's concern."""


class PortTakenError(OSError):
    """The address cannot be had."""


class Exporter:
    """The server on its thread. A context manager; bound when made, so that a taken port shows at once."""

    def __init__(self, host: str, port: int, routes: Mapping[str, Route]) -> None:
        try:
            family, _, _, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            self._server = _Server(family, address, routes)
        except OSError as error:
            raise PortTakenError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="http", daemon=True
        )

    @property
    def url(self) -> str:
        """Where it is."""
        host, port = str(self._server.server_address[0]), self._server.server_port
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
