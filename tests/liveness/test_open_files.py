"""How many spool files may be held open: as many as were asked for, but never all that the process may."""

import resource

import pytest

from consumer import filesystem

INFINITE = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("limits", "then", "may_be_open"),
    [
        ((1024, 20_000), (8192, 20_000), 4096),
        ((1024, 4096), (4096, 4096), 2048),
        ((1024, INFINITE), (8192, INFINITE), 4096),
        ((100_000, 200_000), (100_000, 200_000), 4096),
        ((INFINITE, INFINITE), (INFINITE, INFINITE), 4096),
        ((1, 1), (1, 1), 1),
    ],
)
def test_the_process_may_open_twice_as_many_as_are_held_open(monkeypatch, limits, then, may_be_open):
    now = [limits]
    monkeypatch.setattr(resource, "getrlimit", lambda _: now[0])
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: now.__setitem__(0, wanted))
    assert may_be_open == filesystem.open_files(4096)
    assert then == now[0]


def test_a_limit_that_the_system_does_not_raise_is_kept_to(monkeypatch):
    def refuse(_, wanted):
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, INFINITE))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert 128 == filesystem.open_files(4096)
