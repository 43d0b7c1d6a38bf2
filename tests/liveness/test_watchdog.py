"""The watchdog: it ends a process whose loop stands still, and no other."""

import itertools
import queue
import subprocess
import sys
import threading

from consumer.liveness import EXIT_STUCK, Watchdog
from tests.hand_over.processes import ROOT
from tests.observing import until

SHORT_S = 0.02

STANDS_STILL = """
import threading
from consumer.liveness import Watchdog
with Watchdog(lambda: 1, 0.05):
    threading.Event().wait(120)
"""


def test_a_loop_that_stands_still_is_ended_with_a_look_at_where_it_stands(capfd):
    ended = queue.Queue()
    with Watchdog(lambda: 7, SHORT_S, end=ended.put):
        assert EXIT_STUCK == ended.get(timeout=60)
    assert "most recent call first" in capfd.readouterr().err
    assert ended.empty()


def test_a_loop_that_moves_is_left_alone():
    ended, turns, looks = queue.Queue(), itertools.count(), itertools.count()
    seen = []
    with Watchdog(lambda: seen.append(next(looks)) or next(turns), SHORT_S, end=ended.put):
        until(lambda: len(seen) >= 10, "ten looks")
    assert ended.empty()


def test_a_loop_that_moved_and_then_stands_still_is_ended():
    ended, looks = queue.Queue(), itertools.count(1)
    seen = []

    def turns():
        seen.append(next(looks))
        return min(seen[-1], 5)

    with Watchdog(turns, SHORT_S, end=ended.put):
        assert EXIT_STUCK == ended.get(timeout=60)
    assert [1, 2, 3, 4, 5, 6] == seen


def test_a_watchdog_ends_with_what_it_watches_however_long_its_time():
    before = threading.active_count()
    with Watchdog(lambda: 0, 3600):
        assert before + 1 == threading.active_count()
    assert before == threading.active_count()


def test_the_process_itself_is_ended():
    done = subprocess.run(
        [sys.executable, "-c", STANDS_STILL],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )
    assert EXIT_STUCK == done.returncode
    assert "most recent call first" in done.stderr
