"""A partition that is assigned but could not be started yet is work: no idleness ends the worker over it."""

from types import SimpleNamespace

from consumer.errors import BrokerAwayError
from consumer.intake.source import Assigned
from consumer.settings import Settings
from consumer.worker import Worker


class AwaySource:
    """Assigned one partition by a broker that then does not answer."""

    def __init__(self):
        self.noted = [Assigned(frozenset({0}))]

    def poll(self):
        return []

    def assignments(self):
        noted, self.noted = self.noted, []
        return noted

    def ends(self, partitions):
        if partitions:
            raise BrokerAwayError("away")
        return {}


def nothing(*_args, **_named):
    return []


def test_a_worker_whose_start_is_put_off_is_not_idle():
    now = [0.0]
    closing = SimpleNamespace(
        is_busy=lambda _owned: False,
        advance=nothing,
        take_closed=nothing,
        take_damaged=nothing,
        has_abandoned=lambda: False,
        number=lambda _owned: 0,
        blocked={},
    )
    worker = Worker(
        Settings(),
        source=AwaySource(),
        book=SimpleNamespace(partitions={}, spool=SimpleNamespace(flush=nothing)),
        outbound=SimpleNamespace(pending=0),
        dead_letters=None,
        receipts=None,
        closing=closing,
        expiry=SimpleNamespace(look=nothing, is_reading=lambda: False),
        saving=SimpleNamespace(advance=nothing),
        topic_ids={},
        clock=lambda: now[0],
    )
    idle = []
    for _ in range(3):
        worker.tick()
        idle.append(worker._idle_for())
        now[0] += 10
    assert [0.0, 0.0, 0.0] == idle
