"""A command as process 1, as which a container runs it: the kernel gives its signals no default action."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import unavailable
from tests.hand_over.processes import environment
from tests.observing import until

AS_FIRST = ("unshare", "--pid", "--fork", "--kill-child")
# For who may not make a pid namespace without a user namespace around it.
AS_FIRST_OF_A_USER = ("unshare", "--user", "--map-root-user", *AS_FIRST[1:])


@pytest.fixture
def as_first():
    """What runs a command as process 1."""
    for prefix in (AS_FIRST, AS_FIRST_OF_A_USER):
        try:
            if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
                return prefix
        except FileNotFoundError:
            break
    return unavailable("this machine lets nobody make a pid namespace (unshare)")


@pytest.fixture
def mute_server():
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield "127.0.0.1:{1}".format(*server.getsockname())


def only_child(process):
    """The number of its child; None while there is none."""
    numbers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text("ascii").split()
    return int(numbers[0]) if numbers else None


def test_a_worker_that_is_process_1_and_waits_for_kafka_ends_by_the_first_sigterm(
    as_first, mute_server, tmp_path
):
    command = [sys.executable, "-m", "consumer", "worker", "--brokers", mute_server, "--http", "127.0.0.1:0"]
    log = tmp_path / "log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [*as_first, *command], stdout=said, stderr=said, cwd=tmp_path, env=environment()
        )
    try:
        until(lambda: b"http_listening" in log.read_bytes(), "its first line")
        # To the worker itself, from outside of its namespace, as an engine does.
        os.kill(only_child(process), signal.SIGTERM)
        assert 128 + signal.SIGTERM == process.wait(60)
        assert b"no Kafka answers" not in log.read_bytes()
    finally:
        process.kill()
        process.wait()
