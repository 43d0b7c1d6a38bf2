"""One single-node KRaft Kafka as a child process.

Owns the JVM and its data folder. Invariant: no JVM outlives its owner. `stop` and `kill` reap it; an owner
that dies without them (SIGKILL, Ctrl-C in the wrong moment) takes it along, because the kernel kills the JVM
with its parent. The JVM is in a session of its own, so that a Ctrl-C meant for pytest lets pytest end it in
order.

Trade-off: the kernel's signal follows the *thread* that started the JVM. Start brokers from the main thread.
"""

import base64
import os
import random
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.kafka_harness.jars import HARNESS, HarnessError, ensure_jars, java

START_TIMEOUT_S = 90
STOP_TIMEOUT_S = 30
STARTED = b"Kafka Server started"

# PR_SET_PDEATHSIG survives exec, so a few lines of Python that become Java do without preexec_fn, which is
# not safe (and warns) in a process with threads. The parent may be gone before the call: then nobody would be
# left to tell.
_BECOME_JAVA = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""

# Small and quick to start: one broker among test processes on two cores, not a server.
_JVM = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:ActiveProcessorCount=1")


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, from below the kernel's range for outgoing connections.

    A port of that range could be taken by any connection while the broker is down between `kill` and `start`. Each
    process of a test session (`-n`) has a thousand of its own, so that none takes what another is about to use.
    """
    process = os.environ.get("PYTEST_XDIST_WORKER", "")  # as "gw3"
    first = 21_000 + int(process.removeprefix("gw")) % 11 * 1000 if process else 20_000
    with ExitStack() as held:
        ports: list[int] = []
        while len(ports) < count:
            port = random.randrange(first, first + 1000)
            taken = held.enter_context(socket.socket())
            try:
                taken.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
        return ports


def answers(port: int) -> bool:
    """Whether somebody listens on this port of loopback."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class RealKafka:
    """A broker: `with RealKafka(folder) as kafka: … kafka.bootstrap …`.

    Topics are not created by use, group rebalances start without delay, and a data folder can be started
    again, by this object (`restart`, or `kill` then `start`) or by a later one with the same folder and port.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        controller_port: int | None = None,
        properties: Mapping[str, str] | None = None,
        outlive: bool = False,
    ) -> None:
        """Nothing is started yet.

        Args:
            folder: Its own folder: configuration, log, data. Made if it is not there.
            port: For clients; a free one if not given.
            controller_port: For the controller in the same process; a free one if not given.
            properties: Broker settings that add to or replace those of `server_properties`.
            outlive: Leave the JVM running when this process ends (`make kafka`).
        """
        ports = free_ports(2)
        self.folder = folder.absolute()
        self.port = port or ports[0]
        self.controller_port = controller_port or ports[1]
        self._properties = dict(properties or {})
        self._outlive = outlive
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """Address for clients."""
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """What the broker printed, of all starts."""
        return self.folder / "broker.log"

    @property
    def pid(self) -> int:
        """Process id of the JVM."""
        return self._running().pid

    def server_properties(self) -> dict[str, str]:
        """The broker's configuration."""
        listeners = f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port}"
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self.controller_port}",
            "listeners": listeners,
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "log.dirs": str(self.folder / "data"),
            "num.partitions": "4",
            "auto.create.topics.enable": "false",
            "offsets.topic.num.partitions": "1",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "log.segment.bytes": str(128 * 1024 * 1024),
            # After `kill` the new process must wait out the dead one's session: 9 s by default.
            "broker.session.timeout.ms": "2000",
            "broker.heartbeat.interval.ms": "250",
            "num.network.threads": "2",
            "num.io.threads": "2",
            **self._properties,
        }

    def start(self) -> Self:
        """Start it and return when it serves clients.

        Raises:
            HarnessError: Java missing, port taken, or the broker gave up; its last words are in the message.
        """
        assert self._process is None, "already started"
        if answers(self.port):
            raise HarnessError(f"port {self.port} of 127.0.0.1 is taken by another process")
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "server.properties"
        config.write_text(
            "".join(f"{name}={value}\n" for name, value in self.server_properties().items()), "utf-8"
        )
        if not (self.folder / "data" / "meta.properties").exists():
            cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            # A leading dash would read as an option.
            cluster_id = "e" + cluster_id[1:]
            format_ = self._java("kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(config))
            done = subprocess.run(
                format_, capture_output=True, text=True, check=False, timeout=START_TIMEOUT_S
            )
            if done.returncode:
                raise HarnessError(f"Kafka could not format {self.folder}:\n{done.stdout}{done.stderr}")
        seen = self.log.stat().st_size if self.log.exists() else 0
        command = self._java("kafka.Kafka", str(config))
        if not self._outlive:
            command = [sys.executable, "-I", "-S", "-c", _BECOME_JAVA, str(os.getpid()), *command]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )
        try:
            self._await_started(seen)
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """End it in order; by force when that takes too long. Does nothing when it is not running."""
        if self._process is None:
            return
        self.resume()
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL, as a power cut would; the data folder stays. Does nothing when it is not running."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Stop in order and start again on the same ports and data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT: undo `pause`."""
        self._running().send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise HarnessError("the broker is not running")
        return self._process

    def _java(self, *arguments: str) -> list[str]:
        jars = ensure_jars()
        command = java()
        assert command is not None, "ensure_jars refuses without Java"
        logging = f"-Dlog4j2.configurationFile={HARNESS / 'log4j2.properties'}"
        logs = f"-Dkafka.logs.dir={self.folder / 'logs'}"
        return [command, *_JVM, logging, logs, "-cp", f"{jars}/*", *arguments]

    def _await_started(self, seen: int) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            with self.log.open("rb") as log:
                log.seek(seen)
                said = log.read()
            if STARTED in said:
                return
            ended = self._running().poll()
            if ended is not None or time.monotonic() > deadline:
                why = (
                    f"did not start within {START_TIMEOUT_S} s"
                    if ended is None
                    else f"ended with status {ended}"
                )
                tail = "\n".join(said.decode(errors="replace").splitlines()[-15:])
                raise HarnessError(f"Kafka {why}; {self.log} ends:\n{tail}")
            time.sleep(0.05)
