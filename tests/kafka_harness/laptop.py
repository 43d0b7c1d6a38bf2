"""The broker of `make kafka`: it outlives the command that starts it, and is found again by its port.

Owns `.kafka/server-PORT/`, where `pid` names the JVM. A pid alone proves nothing (numbers are used again), so
the process's command line must name this folder too.
"""

import contextlib
import os
import signal
import time
from pathlib import Path

from tests.kafka_harness.broker import STOP_TIMEOUT_S, RealKafka, answers
from tests.kafka_harness.jars import HOME, HarnessError, ensure_jars


def folder_of(port: int) -> Path:
    """Where the broker of this port keeps everything."""
    return HOME / f"server-{port}"


def ports() -> list[int]:
    """Ports for which a broker was ever started here."""
    return sorted(int(folder.name.removeprefix("server-")) for folder in HOME.glob("server-*"))


def running(port: int) -> int | None:
    """Process id of the broker on this port, if it is ours and alive."""
    folder = folder_of(port)
    try:
        pid = int((folder / "pid").read_text("utf-8"))
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if f"{folder}{os.sep}".encode() in command else None


def start(port: int) -> str:
    """Start a broker, or find it running; returns what to tell the user.

    Raises:
        HarnessError: it cannot be started; the message says why.
    """
    if pid := running(port):
        return f"Kafka is already running on 127.0.0.1:{port} (pid {pid})"
    if answers(port):
        raise HarnessError(
            f"port {port} is taken by a process that `make kafka` did not start; "
            f"end it, or choose another port: make kafka KAFKA_PORT={port + 1}"
        )
    ensure_jars()
    kafka = RealKafka(folder_of(port), port=port, outlive=True).start()
    (folder_of(port) / "pid").write_text(f"{kafka.pid}\n", "utf-8")
    return (
        f"Kafka answers on 127.0.0.1:{port} (pid {kafka.pid}, log {kafka.log}); end it with: make kafka-stop"
    )


def stop(port: int) -> str:
    """Stop the broker of this port; its data stays. Returns what to tell the user."""
    pid = running(port)
    if pid is None:
        return f"no Kafka of ours is running on 127.0.0.1:{port}"
    deadline = time.monotonic() + STOP_TIMEOUT_S
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    while running(port):
        if time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    (folder_of(port) / "pid").unlink(missing_ok=True)
    return f"Kafka on 127.0.0.1:{port} stopped; its data stays until `make clean`"
