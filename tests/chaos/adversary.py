"""Who does the harm in a chaos run: one fault after the other, sometimes several at a time, until every target is met.

Runs on the main thread, which also starts every process: the kernel ends them with it. Eras of static and of dynamic
membership take turns, since members of both kinds must not mix: in a static era a killed worker is back in its place
within the session, so kills follow each other quickly; in a dynamic one each kill is a rebalance and a wait for the
dead member's session.

What is counted is what happened: a kill is a process that died of SIGKILL, a zombie one that was stopped for longer than
its session and woke up alive, a wiped disk one that held a state.
"""

import os
import signal
import time
from collections import Counter

from tests.chaos.life import POINTS
from tests.hub_server import CUT, Gate, Hang, proxy_page, rate_limited, retry_after, status

SESSION_S = 6.0
POINT_SHARE = 0.55
"""Lives that end at a named point, if they get that far."""

_STEPS = ("commit", "commit", "preupload", "tree", "info", "resolve", "create")

# Fault to its weight in a (static, dynamic) era.
_WEIGHTS = {
    "kill": (12, 8),
    "kill several": (2, 2),
    "zombie": (1, 1.5),
    "replaced": (0.6, 0),
    "leave": (1, 2),
    "wipe": (1.2, 0.7),
    "disk full": (1, 0.7),
    "hub": (4, 2),
    "pusher killed": (2, 1),
    "broker": (0.5, 0.35),
}
_WAIT_S = (2.2, 5.0)
"""Mean time between faults in a (static, dynamic) era."""


class Adversary:
    """Strikes a group, its broker and its Hub."""

    def __init__(self, group, kafka, hub, dice, *, era_s, static_first):
        self._group, self._kafka, self._archive, self._dice = group, kafka, hub, dice
        self._era_s = era_s
        self._static = static_first
        self._later = []
        self._replacing = None
        self.faults = Counter()

    def kills(self):
        """Workers that died of SIGKILL."""
        return self.faults["kill"] + sum(self._group.killed_at.values())

    def counted(self):
        """Everything that was survived, by kind."""
        found = Counter({name: number for name, number in self.faults.items() if name != "kill"})
        found["SIGKILL"] = self.kills()
        found["SIGKILL at a named point"] = sum(self._group.killed_at.values())
        found["rebalance"] = len(self._group.generations())
        return found

    def is_content(self, targets):
        """Every target is met."""
        counted = self.counted()
        return all(counted[name] >= number for name, number in targets.items())

    def strike(self, targets, *, at_least_s, at_most_s):
        """Go on until every target is met, but at least and at most so long."""
        started = era_began = looked = time.monotonic()
        for place in self._group.places[:-1]:
            self._start(place)
        next_at = started + self._wait_s() + 3
        while (now := time.monotonic()) - started < at_most_s:
            if now - looked > 1:
                looked = now
                if now - started >= at_least_s and self.is_content(targets):
                    break
            self._attend()
            if now - era_began > self._era_s:
                self._change_era()
                era_began = now
            if now >= next_at:
                self._strike_once(targets)
                next_at = time.monotonic() + self._wait_s()
            time.sleep(0.02)

    def calm_down(self):
        """Undo what is still being done, and give every place a worker."""
        self._archive.faults.clear()
        self._archive.faults.release()
        self._archive.up()
        self._later.sort(key=lambda one: one[0])
        while self._later:
            self._attend()
            time.sleep(0.02)
        for place in self._group.places:
            if place.runs and place.is_stopped:
                place.signal(signal.SIGCONT)
            place.disk.free()

    # -- what goes on ----------------------------------------------------------------------------------------

    def _wait_s(self):
        return self._dice.expovariate(1 / _WAIT_S[not self._static])

    def _in(self, seconds, action, *arguments):
        self._later.append((time.monotonic() + seconds, action, arguments))

    def _attend(self):
        """See to who has ended by itself, and to what is due."""
        for place in self._group.reap():
            if place is not self._replacing:
                self._in(self._dice.uniform(0, 2), self._start, place)
        for entry in [one for one in self._later if one[0] <= time.monotonic()]:
            self._later.remove(entry)
            _, action, arguments = entry
            action(*arguments)

    def _start(self, place, *, member=None):
        if place.runs:
            return
        point = ""
        if self._dice.random() < POINT_SHARE:
            point = f"{self._dice.choice(POINTS)}/{1 + int(self._dice.expovariate(0.25))}"
        if member is None:
            member = f"member-{place.name}" if self._static else ""
        place.start(member=member, kill_at=point)

    def _change_era(self):
        self._replacing = None
        self._later = [one for one in self._later if one[1] != self._start]
        self._finish_later()
        self._group.stop()
        self._static = not self._static
        self.faults["change of membership"] += 1
        for place in self._group.places[:-1]:
            self._start(place)

    def _finish_later(self):
        """Do at once what was to be done later: wake the stopped, free the disks."""
        later, self._later = self._later, []
        for _, action, arguments in later:
            action(*arguments)

    def _awake(self):
        return [one for one in self._group.places if one.runs and not one.is_stopped and not one.is_leaving]

    # -- the faults ------------------------------------------------------------------------------------------

    def _strike_once(self, targets):
        weights = {name: pair[not self._static] for name, pair in _WEIGHTS.items()}
        counted = self.counted()
        for name, target_name in {
            "zombie": "zombie",
            "wipe": "wiped disk",
            "disk full": "full disk",
            "broker": "broker restart",
        }.items():
            if counted[target_name] < targets.get(target_name, 0):
                weights[name] *= 2
            elif target_name in targets:
                weights[name] /= 3
        names = list(weights)
        [name] = self._dice.choices(names, list(weights.values()))
        awake = self._awake()
        if name in {"hub", "broker"}:
            getattr(self, f"_{name}")()
        elif awake:
            getattr(self, f"_{name.replace(' ', '_')}")(self._dice.choice(awake))

    def _kill(self, place):
        if place.kill():
            self.faults["kill"] += 1
        self._in(self._dice.choice([0, 0, self._dice.uniform(0, 3)]), self._start, place)

    def _kill_several(self, _place):
        for place in self._awake():
            self._kill(place)

    def _zombie(self, place):
        place.signal(signal.SIGSTOP)
        self._in(SESSION_S + self._dice.uniform(1, 5), self._wake, place, place.process)

    def _wake(self, place, process):
        if place.process is process and place.is_stopped and process.poll() is None:
            place.signal(signal.SIGCONT)
            self.faults["zombie"] += 1

    def _replaced(self, place):
        """Another process takes the stopped one's name in the group, with a disk of its own."""
        spare = self._group.places[-1]
        if spare.runs or self._replacing or place is spare:
            return
        place.signal(signal.SIGSTOP)
        self._replacing = spare
        self._start(spare, member=f"member-{place.name}")
        self._in(self._dice.uniform(4, 10), self._wake_replaced, place, place.process)

    def _wake_replaced(self, place, process):
        if place.process is process and process.poll() is None:
            place.signal(signal.SIGCONT)
            self.faults["static member replaced"] += 1
        # It ends by itself as soon as it knows; until then both have the name. Then it goes back to its place.
        self._in(self._dice.uniform(8, 12), self._end_replacing)

    def _end_replacing(self):
        spare, self._replacing = self._replacing, None
        if spare is not None and spare.runs and spare.kill():
            self.faults["kill"] += 1

    def _leave(self, place):
        place.signal(signal.SIGTERM)
        self.faults["left in order"] += 1

    def _wipe(self, place):
        if place.kill():
            self.faults["kill"] += 1
        if any(place.disk.state.glob("runs/*/*")):
            self.faults["wiped disk"] += 1
        place.disk.wipe()
        self._in(self._dice.uniform(0, 2), self._start, place)

    def _disk_full(self, place):
        if place.disk.is_full or not place.disk.is_small:
            return
        place.disk.fill()
        self.faults["full disk"] += 1
        self._in(self._dice.uniform(1, 8), place.disk.free)

    def _pusher_killed(self, place):
        for pid in place.pushers():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            self.faults["pusher killed"] += 1

    def _broker(self):
        if self._dice.random() < 0.5:
            self._kafka.kill()
            self._attend()
            self._kafka.start()
        else:
            self._kafka.restart()
        self.faults["broker restart"] += 1

    def _hub(self):
        faults = self._archive.faults
        kind = self._dice.choice(
            ["down", "hang", "away", "away", "after", "after", "cut", "limit", "refused"]
        )
        step = self._dice.choice(_STEPS)
        match kind:
            case "down":
                self._archive.down()
                self._in(self._dice.uniform(1, 6), self._archive.up)
            case "hang":
                gate = Gate()
                faults.add(step, Hang(gate))
                self._in(self._dice.uniform(2, 12), gate.open)
            case "away":
                faults.add(
                    step, self._dice.choice([status(500), status(503), proxy_page(502), proxy_page(200)])
                )
            case "after":
                # Done, and the client does not hear of it.
                faults.add("commit", self._dice.choice([status(500), CUT]), at="after")
            case "cut":
                faults.add(step, CUT)
            case "limit":
                faults.add(step, self._dice.choice([rate_limited(2), retry_after(2), retry_after(1, 503)]))
            case "refused":
                faults.add("commit", status(403, "not now"))
        self.faults[f"Hub: {kind}"] += 1
