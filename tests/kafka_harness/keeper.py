"""One Kafka for all processes of a test session: who controls the session keeps it, who needs it asks.

Owns the broker from the first question to `close`. Invariants: it is started at most once, and only if somebody asks;
it outlives no keeper, for the thread that starts it lives as long as that (`broker` says why this matters); a process
that dies takes nothing from the others.
"""

import tempfile
import threading
from contextlib import suppress
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path

from tests.kafka_harness.broker import RealKafka
from tests.kafka_harness.jars import HarnessError


class Keeper:
    """Answers `ask` until it is closed."""

    def __init__(self) -> None:
        """Answers at once; nothing is started yet."""
        self._home = tempfile.TemporaryDirectory(prefix="evalsink-keeper-")
        self.address = f"{self._home.name}/socket"
        self._listener = Listener(self.address, family="AF_UNIX")
        self._kafka: RealKafka | None = None
        self._refusal = ""
        self._closing = False
        self._thread = threading.Thread(target=self._answer, name="kafka-keeper", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the broker, if there is one."""
        self._closing = True
        with suppress(OSError), Client(self.address, family="AF_UNIX"):
            pass  # it wakes the thread
        self._thread.join()
        self._home.cleanup()

    def _answer(self) -> None:
        try:
            while not self._closing:
                with suppress(OSError, EOFError), self._listener.accept() as asking:
                    self._tell(asking)
        finally:
            self._listener.close()
            if self._kafka is not None:
                self._kafka.stop()

    def _tell(self, asking: Connection) -> None:
        folder = Path(asking.recv())
        if self._kafka is None and not self._refusal:
            try:
                self._kafka = RealKafka(folder).start()
            except HarnessError as error:
                self._refusal = str(error)  # for all who ask: it would take each as long again
        asking.send((self._kafka.bootstrap if self._kafka else "", self._refusal))


def ask(address: str, folder: Path) -> str:
    """The broker's address for clients; it is started in `folder` if nobody asked before.

    Raises:
        HarnessError: It could not be started.
    """
    with Client(address, family="AF_UNIX") as keeper:
        keeper.send(str(folder))
        bootstrap, refusal = keeper.recv()
    if refusal:
        raise HarnessError(refusal)
    return bootstrap
