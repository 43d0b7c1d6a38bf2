"""When kafka-python asks for more: not for quiet partitions alone while records of busy ones are at hand.

The client asks each broker one thing at a time, for those partitions of which it holds no records. If it
holds some of all that are busy and asks for the quiet rest, the broker keeps that question for half a second
(``fetch_max_wait_ms``), since there is nothing to send. Meanwhile the held records are taken in a few
milliseconds, and then everybody waits: `poll` even before it looks at what came in just before (3.0.12). Of
our topics one is nearly always quiet, and a run lies in one partition: who caught up with a single large run
read it at a fifth of the pace, the slower the better its rows compress. Here the question waits until what is
held has been taken, unless another partition is known to have more.

This leans on names that kafka-python does not document; where they are not there, nothing changes.
"""

from collections.abc import Sequence
from typing import Any, Final

_NEEDED: Final = (
    "_send_fetches_async",
    "_fetchable_partitions",
    "_completed_fetches",
    "_next_partition_records",
    "_subscriptions",
)


def ask_in_time(fetcher: Any) -> None:
    """Have `fetcher`, kafka-python's, ask as said above."""
    if not all(hasattr(fetcher, name) for name in _NEEDED):
        return
    stock = fetcher._send_fetches_async  # noqa: SLF001 - see the module's docstring

    async def send() -> Sequence[Any]:
        # On the client's I/O thread, where answers come in: nothing comes in between. To let the stock one
        # find nothing to ask for is not enough: it forgets answers that came, and `poll` sleeps over them.
        if _holds_records(fetcher) and not any(
            _may_have_more(fetcher, partition)
            for partition in fetcher._fetchable_partitions()  # noqa: SLF001
        ):
            return ()
        sent: Sequence[Any] = await stock()
        return sent

    fetcher._send_fetches_async = send  # noqa: SLF001


def _holds_records(fetcher: Any) -> bool:
    return bool(fetcher._next_partition_records or fetcher._completed_fetches)  # noqa: SLF001


def _may_have_more(fetcher: Any, partition: Any) -> bool:
    state = fetcher._subscriptions.assignment.get(partition)  # noqa: SLF001
    if state is None:
        return False  # lost a moment ago
    is_unknown = state.highwater is None or state.position is None
    return is_unknown or bool(state.position.offset < state.highwater)
