"""The image's files as they lie there: the Dockerfile, what may get into a layer, and the health check."""

import os
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from consumer import settings
from tests.conftest import ROOT
from tests.kafka_harness.broker import free_ports

IMAGE = ROOT / "deploy" / "image"
DOCKERFILE = IMAGE / "Dockerfile"


def instructions(text):
    """Each instruction with its continuation lines as one, comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return [
        " ".join(one.split()) for one in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines() if one.strip()
    ]


def hadolint(path):
    """Exit code and what it said."""
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), "--no-color", path],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


# -- the Dockerfile ---------------------------------------------------------------------------------------------------


def test_hadolint_has_nothing_to_say_about_the_dockerfile():
    assert (0, "") == hadolint(DOCKERFILE)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("USER 10001:10001", "USRE 10001:10001"),
        ("USER 10001:10001", "USER root"),
        ('ENTRYPOINT ["evalsink"]', "ENTRYPOINT evalsink"),
        ("COPY --from=build /opt", "COPY --from=biuld /opt"),
        ("WORKDIR /data", "WORKDIR data"),
    ],
)
def test_hadolint_finds_a_slip_in_the_dockerfile(right, wrong, tmp_path):
    text = DOCKERFILE.read_text("utf-8")
    assert right in text
    (tmp_path / "Dockerfile").write_text(text.replace(right, wrong), "utf-8")
    assert 0 != hadolint(tmp_path / "Dockerfile")[0]


def test_the_base_is_an_exact_tag_or_a_digest():
    [base] = [
        one.partition("=")[2]
        for one in instructions(DOCKERFILE.read_text("utf-8"))
        if one.startswith("ARG BASE")
    ]
    assert re.fullmatch(r"python(:3\.\d+\.\d+-slim-\w+|@sha256:[0-9a-f]{64})", base)


def test_every_pip_call_takes_hashes_or_no_index():
    calls = [
        call
        for one in instructions(DOCKERFILE.read_text("utf-8"))
        if one.startswith("RUN ")
        for call in one.split("&&")
        if re.search(r"\bpip\b.* (install|wheel) ", call)
    ]
    assert len(calls) == 4
    for call in calls:
        assert "--no-deps" in call
        assert ("--require-hashes" in call) != ("--no-index" in call)


def test_each_variable_of_evalsink_in_the_image_is_a_setting():
    [environment] = [one for one in instructions(DOCKERFILE.read_text("utf-8")) if "EVALSINK_" in one]
    variables = dict(re.findall(r"(EVALSINK_\w+)=(\S*)", environment))
    given = settings.given(environ=variables)
    assert {"output": "/data", "state": "/var/lib/evalsink", "http": "0.0.0.0:9464"} == given
    assert len(variables) == len(given)


def test_just_what_the_dockerfile_copies_can_get_into_a_layer():
    """Else a token that lies about in a checkout is published with the image, or a copy fails."""
    copied = {
        source
        for one in instructions(DOCKERFILE.read_text("utf-8"))
        if one.startswith("COPY ") and "--from=" not in one
        for source in one.split()[1:-1]
    }
    rules = (ROOT / ".dockerignore").read_text("utf-8").split("\n")
    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    ignored = [rule for rule in rules if rule and rule[0] not in "!#"]
    assert copied == allowed
    assert ["*", "**/__pycache__"] == ignored
    for name in copied:
        assert (ROOT / name).exists()


@pytest.mark.parametrize("script", ["build", "base"])
def test_the_scripts_can_be_run_and_parsed(script):
    assert os.access(IMAGE / script, os.X_OK)
    subprocess.run(["bash", "-n", IMAGE / script], check=True)


@pytest.mark.parametrize("arguments", [["--help"], ["--tag"], ["--bsae", "x"]])
def test_a_wrong_call_of_the_build_script_builds_nothing_and_says_how_it_is_called(arguments):
    done = subprocess.run([IMAGE / "build", *arguments], capture_output=True, text=True, check=False)
    assert (2, "") == (done.returncode, done.stdout)
    assert "Usage: deploy/image/build" in done.stderr


# -- the health check -------------------------------------------------------------------------------------------------


def check_health(**environment):
    """Exit code and what it said, as the image runs it."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", IMAGE / "healthcheck.py"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    return done.returncode, done.stderr


@contextmanager
def answering(status):
    """A server that answers /healthz so, and nothing else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == "/healthz" else 418)
            self.end_headers()
            self.wfile.write(b"the loop stands still")

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])  # noqa: S104 - asked
def test_a_worker_that_says_it_is_well_is_healthy(host):
    with answering(200) as port:
        assert (0, "") == check_health(EVALSINK_HTTP=f"{host}:{port}")


def test_a_worker_that_stands_still_is_not_and_its_reason_is_told():
    with answering(503) as port:
        code, said = check_health(EVALSINK_HTTP=f"0.0.0.0:{port}")
    assert 1 == code
    assert "503 the loop stands still" in said


def test_nobody_there_is_not_healthy():
    [port] = free_ports(1)
    code, said = check_health(EVALSINK_HTTP=f"0.0.0.0:{port}")
    assert 1 == code
    assert "refused" in said
    assert "Traceback" not in said


def test_who_serves_nothing_is_healthy_while_it_lives():
    assert (0, "") == check_health(EVALSINK_HTTP="")


def test_a_proxy_is_not_asked():
    with answering(503) as proxy, answering(200) as port:
        proxies = {"http_proxy": f"http://127.0.0.1:{proxy}", "all_proxy": f"http://127.0.0.1:{proxy}"}
        assert (0, "") == check_health(EVALSINK_HTTP=f"127.0.0.1:{port}", **proxies)
