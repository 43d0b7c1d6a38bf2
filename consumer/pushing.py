"""The pushing process, and the composition root of the archive: what a pusher is made of.

``python -m consumer.pushing`` is what a worker starts (`consumer.archive.process`): it reads its order from
standard input, drains the outbox until that input ends, and may be killed at any moment. ``evalsink push``
builds the same pusher for as long as there is something to do.

Invariant: huggingface_hub is imported only after the environment that it reads at its import was set.
"""

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from consumer.archive.lock import PusherLock
from consumer.archive.outbox import Errand, Outbox
from consumer.archive.parcels import Parcel, pack
from consumer.archive.process import Order
from consumer.errors import StateError
from consumer.report import metrics
from consumer.settings import Hub as HubSettings
from consumer.telemetry import logs

if TYPE_CHECKING:
    from consumer.archive.pusher import Pusher

EXIT_DISK = 1
EXIT_OVERDUE = 71

# How soon a run that was handed in is seen, and how often an idle outbox is looked at.
LOOK_EVERY_S = 1.0
_AFTER_DISK_ERROR_S = 5.0
_NICENESS = 5
_LAST_WORDS_S = 5.0

_log = logs.logger(__name__)


def make_pusher(
    settings: HubSettings,
    outbox: Outbox,
    output: Path,
    *,
    packing: Callable[[Errand], Parcel] | None = None,
    linger_s: float | None = None,
    overwrite: bool = False,
) -> "Pusher":
    """A pusher with the real Hub and the real time. One at a time in a process: its HTTP client is global."""
    _set_environment(settings)
    from consumer.archive.hub import Hub  # noqa: PLC0415 - after the environment is set
    from consumer.archive.pusher import Pusher  # noqa: PLC0415

    return Pusher(
        Hub(settings),
        outbox,
        settings,
        output,
        now=time.time,
        deadline=partial(_deadline, outbox),
        packing=packing or partial(pack_published, output),
        linger_s=linger_s,
        overwrite=overwrite,
    )


def pack_published(output: Path, errand: Errand) -> Parcel:
    """The parcel of a run in a worker's output folder.

    Raises:
        ParcelError: its files are not what was closed.
    """
    return pack(output, errand.results, sha256=errand.sha256, render=metrics.render)


def main() -> None:
    """Drain the outbox of the order on standard input until that ends."""
    logs.configure()
    # Ctrl-C on a terminal reaches the worker's whole group: the worker decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICENESS)
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    threading.Thread(target=_end_with, args=(sys.stdin.buffer,), daemon=True).start()
    state, output = Path(order.state), Path(order.output)
    try:
        with PusherLock(state, wait=True):
            outbox = Outbox(state)
            pusher = make_pusher(order.hub, outbox, output)
            outbox.recover()
            _push_for_ever(pusher)
    except (OSError, StateError) as error:
        # Full, damaged, or gone with its worker. Another one is started in its time; the thread above waits.
        _log.error("outbox_failed", reason=str(error), state=order.state)
        os._exit(EXIT_DISK)


def _push_for_ever(pusher: "Pusher") -> None:
    while True:
        try:
            pusher.rebuild()
            wait_s = pusher.turn()
        except OSError as error:
            _log.error("outbox_failed", reason=str(error))
            wait_s = _AFTER_DISK_ERROR_S
        time.sleep(LOOK_EVERY_S if wait_s is None else min(wait_s, LOOK_EVERY_S))


def _end_with(stream: BinaryIO) -> None:
    """End when the worker ends, or wants it: whatever is going on can be cut."""
    while stream.read(4096):
        pass
    os._exit(0)


@contextlib.contextmanager
def _deadline(outbox: Outbox, seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, _overdue, (outbox, seconds))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _overdue(outbox: Outbox, seconds: float) -> None:
    """End the process, whatever hangs; other runs come before this one next time."""
    _log.error("push_overdue", after_s=round(seconds))
    last = threading.Timer(_LAST_WORDS_S, os._exit, (EXIT_OVERDUE,))
    last.daemon = True
    last.start()
    with contextlib.suppress(OSError):
        outbox.put_off_overdue(now=time.time())
    os._exit(EXIT_OVERDUE)


def _set_environment(settings: HubSettings) -> None:
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    if settings.endpoint:
        # Besides HfApi's own parameter, which not all of the client heeds.
        os.environ["HF_ENDPOINT"] = settings.endpoint
    if not settings.xet:
        os.environ["HF_HUB_DISABLE_XET"] = "1"
    # Its warnings name addresses that are signed to upload; what they say is in our own lines.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


if __name__ == "__main__":
    main()
