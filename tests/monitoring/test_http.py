"""The server: its paths, its methods, and clients that mean no good."""

import contextlib
import gzip
import http.client
import logging
import socket
import threading

import pytest

from consumer.telemetry import exporter
from consumer.telemetry.exporter import Exporter, PortTakenError, Response, as_json
from tests.monitoring.conftest import Watched
from tests.observing import until


def fail(_request):
    raise RuntimeError("no")


@pytest.fixture
def serve(tmp_path):
    """A server with a few routes; asks it."""
    metrics = Watched(tmp_path).monitor.routes["/metrics"]
    routes = {
        "/metrics": metrics,
        "/json": lambda request: as_json({"query": request.query}),
        "/fails": fail,
    }
    with Exporter("127.0.0.1", 0, routes) as server:
        yield server


def port(server):
    return int(server.url.rpartition(":")[2])


def ask(server, path, method="GET", **headers):
    client = http.client.HTTPConnection("127.0.0.1", port(server), timeout=20)
    client.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = client.getresponse()
    body = answer.read()
    client.close()
    return answer, body


def test_a_path_is_answered_by_its_route_which_sees_the_query(serve):
    answer, body = ask(serve, "/json?a=1")
    assert (200, b'{\n  "query": "a=1"\n}\n') == (answer.status, body)
    assert "no-store" == answer.headers["Cache-Control"]


@pytest.mark.parametrize("path", ["/", "/metrics/", "/healthz", "/metrics/../json", "/%6ason", "/x" * 500])
def test_every_other_path_is_not_found(serve, path):
    assert 404 == ask(serve, path)[0].status


@pytest.mark.parametrize("path", ["/json", "/fails", "/nothing", "/metrics"])
def test_head_is_get_without_the_body(serve, path):
    get, body = ask(serve, path)
    head, nothing = ask(serve, path, "HEAD")
    assert b"" == nothing
    assert (get.status, get.headers["Content-Type"]) == (head.status, head.headers["Content-Type"])
    if path != "/metrics":  # a scrape differs from the next by the process's own figures
        assert str(len(body)) == head.headers["Content-Length"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(serve, method):
    answer, _ = ask(serve, "/json", method)
    assert (405, "GET, HEAD") == (answer.status, answer.headers["Allow"])


def test_metrics_are_text_or_openmetrics_packed_or_not_as_the_client_likes(serve):
    plain, text = ask(serve, "/metrics")
    assert plain.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert b"evalsink_rows_total 0.0" in text
    assert b"# EOF" not in text
    open_metrics, packed = ask(
        serve, "/metrics", Accept="application/openmetrics-text; version=1.0.0", Accept_Encoding="gzip"
    )
    assert open_metrics.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert "gzip" == open_metrics.headers["Content-Encoding"]
    assert gzip.decompress(packed).endswith(b"# EOF\n")


def test_a_route_that_fails_is_an_error_of_the_server_which_says_nothing_of_it(serve, caplog):
    with caplog.at_level(logging.WARNING, "consumer"):
        answer, body = ask(serve, "/fails")
    assert (500, False) == (answer.status, b"RuntimeError" in body)
    assert ["http_failed"] == [line.message for line in caplog.records]
    assert 200 == ask(serve, "/json")[0].status


@pytest.mark.parametrize(
    "line",
    [b"\x00\xff\xfe\r\n\r\n", b"GET\r\n\r\n", b"GET /json HTTP/9.9\r\n\r\n", b"A" * 200_000 + b"\r\n\r\n"],
)
def test_what_is_no_request_gets_an_error_and_harms_nobody(serve, line):
    with socket.create_connection(("127.0.0.1", port(serve)), timeout=20) as client:
        with contextlib.suppress(OSError):  # it may have answered and shut before the line was through
            client.sendall(line)
            client.shutdown(socket.SHUT_WR)
        answered = b""
        while piece := receive(client):
            answered += piece
    assert b" 200 " not in answered
    assert 200 == ask(serve, "/json")[0].status


def receive(client):
    try:
        return client.recv(4096)
    except ConnectionResetError:
        return b""


def threads():
    return sum("process_request" in thread.name for thread in threading.enumerate())


@pytest.fixture
def impatient(monkeypatch):
    """Nobody is spared when others come."""
    monkeypatch.setattr(exporter, "HOLD_MIN_S", 0.0)


def test_clients_that_say_nothing_are_cut_off_when_others_come(serve, impatient):
    slow = [socket.create_connection(("127.0.0.1", port(serve))) for _ in range(3 * exporter.CONNECTIONS_MAX)]
    try:
        for client in slow:
            client.sendall(b"GET /json HT")
        assert 200 == ask(serve, "/json")[0].status
        assert threads() <= 2 * exporter.CONNECTIONS_MAX
        assert b"" == receive(slow[0]), "the first one has been shut"
    finally:
        for client in slow:
            client.close()
    until(lambda: threads() == 0, "all of them ended")


def test_a_client_that_says_nothing_is_not_waited_for_long(serve, monkeypatch):
    monkeypatch.setattr(exporter._Handler, "timeout", 0.05)
    with socket.create_connection(("127.0.0.1", port(serve)), timeout=20) as client:
        assert b"" == receive(client)


def test_routes_that_hang_take_a_bounded_number_of_threads_and_let_go(impatient):
    free = threading.Event()

    def hang(_request):
        free.wait(60)
        return Response(b"", "text/plain")

    with Exporter("127.0.0.1", 0, {"/hangs": hang}) as server:
        clients = [
            socket.create_connection(("127.0.0.1", port(server))) for _ in range(5 * exporter.CONNECTIONS_MAX)
        ]
        for client in clients:
            try:
                client.sendall(b"GET /hangs HTTP/1.0\r\n\r\n")
            except OSError:
                continue  # turned away already
        until(lambda: threads() >= exporter.CONNECTIONS_MAX, "they hang")
        assert threads() <= 2 * exporter.CONNECTIONS_MAX
        free.set()
        until(lambda: threads() == 0, "they go")
        for client in clients:
            client.close()
        assert 200 == ask(server, "/hangs")[0].status


def test_an_address_that_is_taken_shows_when_the_server_is_made(serve):
    with pytest.raises(PortTakenError, match=rf"127\.0\.0\.1:{port(serve)}: Address already in use"):
        Exporter("127.0.0.1", port(serve), {})
    with pytest.raises(PortTakenError, match=r"no\.such\.host\.invalid"):
        Exporter("no.such.host.invalid", 0, {})


def test_a_port_is_free_again_at_once_after_its_server_ended():
    with Exporter("127.0.0.1", 0, {}) as server:
        taken = port(server)
        assert 404 == ask(server, "/")[0].status
    with Exporter("127.0.0.1", taken, {}) as server:
        assert 404 == ask(server, "/")[0].status


def test_it_listens_on_ipv6_too():
    try:
        server = Exporter("::1", 0, {"/json": lambda _: as_json(1)})
    except PortTakenError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with server:
        assert server.url.startswith("http://[::1]:")
        client = http.client.HTTPConnection("::1", port(server), timeout=20)
        client.request("GET", "/json")
        assert 200 == client.getresponse().status
        client.close()
