"""The outbox: what was entered survives anything, and every errand is in one state."""

import errno
import os
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consumer.archive.lock import PusherLock
from consumer.archive.outbox import MIRROR_FACT, OUTBOX_FILE, Outbox, has_outbox
from consumer.archive.watch import OutboxWatch
from consumer.errors import StateError
from tests.observing import until


def enter(outbox, name, *, now=0.0, kind="archive", sha256="00"):
    outbox.enqueue(name, kind, run_id=f"run of {name}", status="complete", sha256=sha256, now=now)


def states(outbox):
    return {errand.results: errand.state for errand in outbox.all()}


def test_what_was_entered_is_there_after_opening_it_again_and_in_the_order_of_entering(tmp_path):
    outbox = Outbox(tmp_path)
    for moment, name in enumerate(("c", "a", "b")):
        enter(outbox, name, now=moment)
    again = Outbox(tmp_path)
    assert ["c", "a", "b"] == [errand.results for errand in again.due(5.0, limit=10)]
    assert ["c", "a"] == [errand.results for errand in again.due(5.0, limit=2)]
    [first, *_] = again.waiting()
    assert ("run of c", "complete", "00", "queued", 0.0, 0, "") == (
        first.run_id,
        first.status,
        first.sha256,
        first.state,
        first.queued_at,
        first.attempts,
        first.reason,
    )


def test_an_errand_that_is_entered_again_is_looked_at_again_and_a_dropped_one_is_not(tmp_path):
    outbox = Outbox(tmp_path)
    for name in "abc":
        enter(outbox, name)
    a, b, c = outbox.due(0.0, limit=10)
    outbox.archive([a], now=3.0)
    outbox.park([b], "no right", next_at=1000.0)
    assert 1 == outbox.drop(c.run_id)
    for name in "abc":
        enter(outbox, name, now=7.0, sha256="11")
    assert {"a": "queued", "b": "queued", "c": "dropped"} == states(outbox)
    assert [("a", 7.0, "11"), ("b", 0.0, "11")] == sorted(
        (errand.results, errand.queued_at, errand.sha256) for errand in outbox.due(7.0, limit=10)
    )


def test_what_is_put_off_or_parked_is_due_in_its_time_and_not_before(tmp_path):
    outbox = Outbox(tmp_path)
    enter(outbox, "a")
    enter(outbox, "b")
    a, b = outbox.due(0.0, limit=10)
    outbox.begin([a, b])
    assert [] == outbox.due(99.0, limit=10)
    outbox.put_off([a], "busy", next_at=10.0, counts=False)
    outbox.park([b], "refused", next_at=20.0)
    assert 10.0 == outbox.next_due_at()
    assert [] == outbox.due(9.9, limit=10)
    assert ["a"] == [errand.results for errand in outbox.due(10.0, limit=10)]
    assert ["a", "b"] == [errand.results for errand in outbox.due(20.0, limit=10)]
    assert {"a": (0, "busy"), "b": (1, "refused")} == {
        errand.results: (errand.attempts, errand.reason) for errand in outbox.waiting()
    }
    assert 1 == outbox.retry_parked(now=12.0)
    assert ["a", "b"] == [errand.results for errand in outbox.due(12.0, limit=10)]


def test_what_a_pusher_that_ended_was_at_is_queued_again(tmp_path):
    outbox = Outbox(tmp_path)
    enter(outbox, "a")
    outbox.begin(outbox.due(0.0, limit=1))
    assert 1 == Outbox(tmp_path).recover()
    [errand] = outbox.due(0.0, limit=1)
    assert (1, "the process that pushed it ended") == (errand.attempts, errand.reason)


def test_only_one_process_pushes_and_its_end_frees_the_lock(tmp_path):
    with PusherLock(tmp_path), pytest.raises(StateError, match="pushes from the outbox"):
        PusherLock(tmp_path)
    with PusherLock(tmp_path):
        pass


def test_a_damaged_outbox_is_kept_aside_and_begun_anew_by_its_worker_alone(tmp_path, caplog):
    outbox = Outbox(tmp_path)
    enter(outbox, "a")
    outbox.remember(MIRROR_FACT, "somewhere")
    outbox.close()
    path = tmp_path / OUTBOX_FILE
    path.write_bytes(b"\xff" * path.stat().st_size)
    with pytest.raises(StateError, match=r"is damaged: .* stop its worker and start it again"):
        Outbox(tmp_path)
    assert [path] == list(tmp_path.iterdir())
    again = Outbox(tmp_path, mend=True)
    assert {} == states(again)
    assert again.fact(MIRROR_FACT) is None
    assert has_outbox(tmp_path)
    assert b"\xff" in (tmp_path / f"{OUTBOX_FILE}.damaged").read_bytes()
    assert ["outbox_damaged"] == caplog.messages


def test_an_outbox_of_another_shape_counts_as_damaged(tmp_path):
    database = sqlite3.connect(tmp_path / OUTBOX_FILE)
    database.execute("CREATE TABLE errands (results TEXT PRIMARY KEY, state TEXT, next_at REAL)")
    database.commit()
    database.close()
    with pytest.raises(StateError, match="damaged"):
        Outbox(tmp_path)
    assert {} == states(Outbox(tmp_path, mend=True))


def test_what_is_read_does_not_wait_for_what_is_written(tmp_path):
    outbox = Outbox(tmp_path)
    enter(outbox, "a")
    other = sqlite3.connect(tmp_path / OUTBOX_FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    entering = threading.Thread(target=enter, args=(outbox, "b"))
    entering.start()
    until(outbox._lock.locked, "somebody who waits to write")
    assert {"a": "queued"} == states(outbox)
    assert outbox.has_work()
    assert entering.is_alive()
    other.execute("ROLLBACK")
    other.close()
    entering.join()
    assert {"a", "b"} == set(states(outbox))


def test_what_took_too_long_again_and_again_is_tried_ever_later(tmp_path):
    outbox = Outbox(tmp_path)
    enter(outbox, "a")
    waits = []
    now = 0.0
    for _ in range(9):
        outbox.begin(outbox.due(now, limit=1))
        assert 1 == outbox.put_off_overdue(now=now)
        [errand] = outbox.waiting()
        waits.append(errand.next_at - now)
        now += waits[-1]
    assert [60.0, 120.0, 240.0] == waits[:3]
    assert waits == sorted(waits)
    assert 3600.0 == waits[-1]


def test_files_that_are_to_go_are_known_until_they_are_gone_or_the_run_is_entered_again(tmp_path):
    outbox = Outbox(tmp_path)
    enter(outbox, "a")
    enter(outbox, "b")
    outbox.archive(outbox.due(0.0, limit=2), now=1.0, clear=True)
    again = Outbox(tmp_path)
    a, b = again.in_state("clearing")
    assert again.has_work()
    enter(again, "b", now=2.0)
    again.finish_clearing(a)
    again.finish_clearing(b)
    assert {"a": "archived", "b": "queued"} == states(again)
    assert {"a": 1.0, "b": 1.0} == {errand.results: errand.done_at for errand in again.all()}
    enter(again, "b", now=3.0, sha256="other")
    assert {"a": 1.0, "b": None} == {errand.results: errand.done_at for errand in again.all()}


def test_while_another_process_writes_the_wait_ends_in_an_error_of_the_disk_and_nothing_is_dropped(tmp_path):
    outbox = Outbox(tmp_path, timeout_s=0.05)
    enter(outbox, "a")
    other = sqlite3.connect(tmp_path / OUTBOX_FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(OSError, match="locked") as refusal:
        enter(outbox, "b")
    assert errno.EIO == refusal.value.errno
    assert {"a": "queued"} == states(outbox)  # readers do not wait
    other.execute("ROLLBACK")
    other.close()
    enter(outbox, "b")
    assert {"a", "b"} == set(states(outbox))


def test_a_full_disk_is_an_error_that_a_worker_waits_out(tmp_path):
    outbox = Outbox(tmp_path)
    [(pages,)] = outbox._db.execute("PRAGMA page_count").fetchall()
    outbox._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(OSError, match="full") as refusal:
        outbox.enter_missing([(f"{number:0200d}", "r", "complete", "0") for number in range(1000)], now=0.0)
    assert {} == states(outbox)
    assert errno.ENOSPC == refusal.value.errno


def test_who_watches_sees_what_waits_for_how_long_and_what_came_of_it(tmp_path):
    watch = OutboxWatch(tmp_path, now=lambda: 100.0)
    assert watch() is None
    outbox = Outbox(tmp_path)
    for moment, name in enumerate("abcd"):
        enter(outbox, name, now=10.0 * moment)
    a, b, c, _ = outbox.due(100.0, limit=4)
    outbox.archive([a], now=50.0)
    outbox.park([b], "no", next_at=1000.0)
    outbox.begin([c])
    outbox.count("archived")
    outbox.count("retried", 3)
    reading = watch()
    assert {"archived": 1, "parked": 1, "pushing": 1, "queued": 1} == reading.depth
    assert (90.0, {"archived": 1, "retried": 3}) == (reading.oldest_age_s, reading.pushes)
    outbox.archive([b, c, *outbox.due(100.0, limit=4)], now=60.0)
    assert 0.0 == watch().oldest_age_s


ENTERING = """
import sys
from pathlib import Path
from consumer.archive.outbox import Outbox

outbox = Outbox(Path(sys.argv[1]))
for number in range(10**6):
    outbox.enqueue(f"{number}", "archive", run_id="r", status="complete", sha256="0", now=float(number))
    if number % 3 == 0:
        outbox.begin(outbox.find([f"{number}"]).values())
    print(number, flush=True)
"""


def test_whatever_had_been_entered_when_it_was_killed_is_there(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", ENTERING, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as entering:
        for line in entering.stdout:
            if int(line) >= 50:
                os.kill(entering.pid, signal.SIGKILL)
                break
        told = max([50, *(int(line) for line in entering.stdout if line.endswith("\n"))])
    outbox = Outbox(tmp_path)
    found = {int(name): state for name, state in states(outbox).items()}
    assert set(range(told + 1)) <= set(found) <= set(range(told + 2))
    assert {"pushing" if number % 3 == 0 else "queued" for number in range(told + 1)} == set(found.values())
    assert all(found[number] == ("pushing" if number % 3 == 0 else "queued") for number in range(told + 1))


class OutboxMachine(RuleBasedStateMachine):
    """The outbox against a dictionary, opened anew at any time."""

    def __init__(self):
        super().__init__()
        self.outbox = Outbox(None)
        self.now = 0.0
        self.plain = {}
        self.reopened = 0

    @rule(name=st.sampled_from("abcde"))
    def enter(self, name):
        self.now += 1
        enter(self.outbox, name, now=self.now)
        known = self.plain.get(name)
        if known is None or known[0] in {"queued", "parked", "archived"}:
            since = self.now if known is None or known[0] == "archived" else known[2]
            self.plain[name] = ("queued", self.now, since)

    @rule(names=st.lists(st.tuples(st.sampled_from("abcdef")), unique=True))
    def find_again(self, names):
        entered = [(name, f"run of {name}", "complete", "00") for (name,) in names]
        new = [name for (name,) in names if name not in self.plain]
        assert len(new) == self.outbox.enter_missing(entered, now=self.now)
        self.plain |= dict.fromkeys(new, ("queued", self.now, self.now))

    @precondition(lambda self: self.due())
    @rule(data=st.data(), wait=st.floats(0, 5), end=st.sampled_from(["archive", "put off", "park", "killed"]))
    def push(self, data, wait, end):
        due = self.outbox.due(self.now, limit=10)
        batch = data.draw(st.lists(st.sampled_from(due), min_size=1, unique=True))
        self.outbox.begin(batch)
        for errand in batch:
            _, next_at, since = self.plain[errand.results]
            moved = {
                "archive": ("archived", next_at, since),
                "put off": ("queued", self.now + wait, since),
                "park": ("parked", self.now + wait, since),
                "killed": ("queued", next_at, since),
            }
            self.plain[errand.results] = moved[end]
        if end == "archive":
            self.outbox.archive(batch, now=self.now)
        elif end == "put off":
            self.outbox.put_off(batch, "later", next_at=self.now + wait)
        elif end == "park":
            self.outbox.park(batch, "no", next_at=self.now + wait)
        else:
            assert len(batch) == self.outbox.recover()

    @rule(name=st.sampled_from("abcde"))
    def drop(self, name):
        known = self.plain.get(name)
        may = known is not None and known[0] in {"queued", "parked"}
        assert int(may) == self.outbox.drop(f"run of {name}")
        if may:
            self.plain[name] = ("dropped", *known[1:])

    @rule()
    def retry(self):
        self.outbox.retry_parked(now=self.now)
        for name, (state, _, since) in self.plain.items():
            if state == "parked":
                self.plain[name] = ("queued", self.now, since)

    @rule(step=st.floats(0, 10))
    def time_passes(self, step):
        self.now += step

    def due(self):
        return {
            name
            for name, (state, next_at, _) in self.plain.items()
            if state in {"queued", "parked"} and next_at <= self.now
        }

    @invariant()
    def is_as_the_dictionary_says(self):
        assert {name: known[0] for name, known in self.plain.items()} == states(self.outbox)
        assert self.due() == {errand.results for errand in self.outbox.due(self.now, limit=100)}
        waiting = [known[2] for known in self.plain.values() if known[0] not in {"archived", "dropped"}]
        assert min(waiting, default=None) == self.outbox.oldest_at()
        depth = self.outbox.depth()
        assert len(self.plain) == sum(depth.values())


TestOutboxMachine = OutboxMachine.TestCase
TestOutboxMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
