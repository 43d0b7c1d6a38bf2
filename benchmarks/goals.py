"""The goals, and whether the figures reach them.

A goal whose figure was not measured, or with fewer rows or runs than it names, is open. Why one is missed is
for people to say: they do in ``benchmarks/remarks.toml``, by the goal's key.
"""

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

REMARKS = Path(__file__).parent / "remarks.toml"

Results = Mapping[str, Mapping[str, Any]]
"""Benchmark to what its JSON file holds."""

Judged = tuple[str, bool]
"""What was measured, and whether it reaches the goal."""

CLOSING_MB, RESIDENT_MB, VISIBLE_MS = 200, 300, 300
SINGLE, BATCHED = "1KB-single", "1KB-by-20"


class Verdict(NamedTuple):
    """One goal; `is_met` is None where it is open."""

    key: str
    goal: str
    measured: str
    is_met: bool | None
    remark: str


class TooSmall(Exception):  # noqa: N818 - it is no error
    """What was measured is less than the goal speaks of."""


def _insist(found: int, least: int, what: str) -> None:
    if found < least:
        raise TooSmall(f"measured with {found:,} {what} only")


def _entry(results: Results, load: str, contender: str) -> Mapping[str, Any]:
    entries = results["throughput"]["loads"][load]
    found: Mapping[str, Any] = next(one for one in entries if one["contender"] == contender)
    if contender == "evalsink":
        # A load of 2,000,000, of which those read at once with the first are not counted.
        _insist(found["rows"], 1_900_000, "rows")
    return found


def _cpu(one: Mapping[str, Any]) -> float:
    seconds: float = one["cpu_s_per_million_rows"]["median"]
    return seconds


def _single(results: Results) -> Judged:
    ratio = _entry(results, SINGLE, "evalsink")["rows_per_s_to_bare"]["median"]
    return f"{ratio:.2f}", ratio >= 0.8


def _ahead(results: Results, load: str) -> Judged:
    entries = results["throughput"]["loads"][load]
    peers = [one for one in entries if one["is_equal_work"] and not one["contender"].startswith("evalsink")]
    if not peers:
        raise TooSmall("no peer was measured")
    best = min(peers, key=_cpu)
    ratio = _cpu(best) / _cpu(_entry(results, load, "evalsink"))
    return f"{ratio:.2f} of the best, {best['contender']}", ratio > 1


def _batched(results: Results) -> Judged:
    bare = _entry(results, SINGLE, "bare loop")["rows_per_s"]["median"]
    ratio = _entry(results, BATCHED, "evalsink")["rows_per_s"]["median"] / bare
    return f"{ratio:.2f}", ratio >= 2


def _closing(results: Results) -> Mapping[str, Any]:
    _insist(results["closeout"]["rows"], 1_000_000, "rows")
    found: Mapping[str, Any] = next(one for one in results["closeout"]["ways"] if one["way"] == "evalsink")
    return found


def _closing_time(results: Results) -> Judged:
    ratio = _closing(results)["seconds_to_copy"]["median"]
    return f"{ratio:.2f}", ratio <= 1.3


def _closing_memory(results: Results) -> Judged:
    peak = _closing(results)["peak_mb"]
    return f"{peak:.0f} MB", peak <= CLOSING_MB


def _most_runs(results: Results) -> Mapping[str, Any]:
    found: Mapping[str, Any] = max(results["open_runs"]["runs"], key=lambda one: one["runs"])
    _insist(found["runs"], 1000, "runs")
    return found


def _runs_memory(results: Results) -> Judged:
    peak = _most_runs(results)["peak_mb"]
    return f"{peak:.0f} MB", peak <= RESIDENT_MB


def _runs_throughput(results: Results) -> Judged:
    ratio = _most_runs(results)["rows_per_s_to_fewest"]["median"]
    return f"{ratio:.2f}", ratio >= 0.85


def _spools(results: Results) -> list[Mapping[str, Any]]:
    spools: list[Mapping[str, Any]] = results["restart"]["spools"]
    _insist(min(one["rows"] for one in spools), 10_000_000, "rows")
    return spools


def _rows_memory(results: Results) -> Judged:
    spools = _spools(results)
    peaks = [one["peak_mb"] for one in spools]
    peaks += [one["closing"]["peak_mb"] for one in spools if "closing" in one]
    return f"{max(peaks):.0f} MB, their close-out included", max(peaks) <= RESIDENT_MB


def _restart(results: Results) -> Judged:
    slowest = max(one["first_poll_s"]["median"] for one in _spools(results))
    return f"{slowest:.2f} s", slowest <= 2


def _visible(results: Results) -> Judged:
    _insist(results["visible"]["timed"], 50, "runs")
    p99 = results["visible"]["p99_ms"]
    return f"{p99:.0f} ms", p99 <= VISIBLE_MS


_GOALS: tuple[tuple[str, str, Callable[[Results], Judged]], ...] = (
    ("single", "single-row events of 1 KB, full work: rows/s ≥ 0.8 of the bare loop's", _single),
    (
        "peers-single",
        "single-row events: ahead of every peer that does equal work, in rows per CPU second",
        lambda results: _ahead(results, SINGLE),
    ),
    (
        "peers-batched",
        "20-row events: the same",
        lambda results: _ahead(results, BATCHED),
    ),
    ("batched", "20-row events: rows/s ≥ 2 times the bare loop's records/s on single-row events", _batched),
    ("closeout", "close-out of 1,000,000 rows: ≤ 1.3 of `cp` + `sync` + `sha256sum`", _closing_time),
    ("closeout-memory", "close-out of 1,000,000 rows: peak memory ≤ 200 MB", _closing_memory),
    ("runs-memory", "resident memory at 1,000 open runs ≤ 300 MB", _runs_memory),
    ("rows-memory", "resident memory at 10,000,000 rows ≤ 300 MB", _rows_memory),
    ("visible", "end event to visible results, 10,000-row run, under load: p99 ≤ 300 ms", _visible),
    ("restart", "restart to first poll with a spool of 10,000,000 rows: ≤ 2 s", _restart),
    ("runs-throughput", "throughput at 1,000 open runs ≥ 0.85 of that at 1", _runs_throughput),
)


def judge(results: Results, remarks: Mapping[str, str]) -> list[Verdict]:
    """All goals."""
    verdicts = []
    for key, goal, ask in _GOALS:
        is_met: bool | None = None
        try:
            measured, is_met = ask(results)
        except (KeyError, StopIteration):
            measured = "not measured"
        except TooSmall as reason:
            measured = str(reason)
        verdicts.append(Verdict(key, goal, measured, is_met, remarks.get(key, "")))
    return verdicts


def remarks() -> dict[str, str]:
    """What people say to goals that were missed, by key."""
    return tomllib.loads(REMARKS.read_text("utf-8")) if REMARKS.exists() else {}
