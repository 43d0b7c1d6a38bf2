"""What a contender tells of itself, on one line of stdout: when it was ready, began, and was done.

Needs nothing but Python: every contender imports it in an environment of its own. CPU seconds are of this
process, all its threads, and of children that have ended.

- ready: everything is imported and connected; the next step reads.
- first: the first records are there, and nothing was done with them yet. Joining the group is over.
- read:  the last record was dealt with; all rows are in the operating system's hands.
- done:  and what was read is committed.
"""

import json
import os
import resource
import sys
import time


class Stamps:
    """Rows and records so far, and the moments."""

    def __init__(self) -> None:
        self.moments: dict[str, dict[str, float]] = {}
        self.rows_before_first = 0

    def mark(self, name: str) -> None:
        """This is the moment called `name`."""
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        cpu = sum(one.ru_utime + one.ru_stime for one in used)
        self.moments[name] = {"at": time.monotonic(), "cpu": cpu}

    def first(self, rows_before: int = 0) -> None:
        """The first records are there, `rows_before` of them dealt with; later calls do nothing."""
        if "first" not in self.moments:
            self.rows_before_first = rows_before
            self.mark("first")

    def tell(self, rows: int) -> None:
        """Print it all. `done` is now, if it was not marked."""
        if "done" not in self.moments:
            self.mark("done")
        told = {"rows": rows, "rows_before_first": self.rows_before_first, **self.moments}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


def wanted() -> tuple[str, str, str, str, int]:
    """What every contender is told: brokers, topic, group, output folder, records to read."""
    values = {
        name: os.environ[f"BENCH_{name}"] for name in ("BROKERS", "TOPIC", "GROUP", "OUTPUT", "RECORDS")
    }
    return values["BROKERS"], values["TOPIC"], values["GROUP"], values["OUTPUT"], int(values["RECORDS"])


def commit_every_s() -> float:
    """Between two commits: as often as evalsink writes a checkpoint, if nothing else was asked for."""
    return float(os.environ.get("BENCH_COMMIT_S", "2"))


def session_ms() -> int:
    """The session time-out asked for, and so how long a group waits for a killed member; 0: its own."""
    return int(os.environ.get("BENCH_SESSION_MS", "0"))
