"""docs/PERFORMANCE.md and its plots, from the JSON files of the benchmarks and nothing else.

    python -m benchmarks.report

Equal figures give equal bytes; a test compares. What was not measured is left out.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import goals, plots
from benchmarks.goals import Results
from benchmarks.measuring import RESULTS

DOCS = Path(__file__).parents[1] / "docs"
PAGE = "PERFORMANCE.md"
PLOTS = "performance"
BENCHMARKS = ("throughput", "closeout", "open_runs", "visible", "restart", "crash")
LOADS = {
    "1KB-single": "Rows of 1 KB, one an event",
    "1KB-by-20": "Rows of 1 KB, 20 an event",
    "8KB-single": "Rows of 8 KB, one an event",
    "1KB-one-run": "Rows of 1 KB, one an event, all of one run",
}
_VERDICTS = {True: "met", False: "**missed**", None: "open"}

_HEAD = """\
# Performance

Written by `make performance-docs` from the figures in `benchmarks/results/`; how they are measured stands in
[benchmarks/README.md](../benchmarks/README.md). Figures depend on the machine: what can be compared is what
was measured in one run, so most are ratios. Where there is a range, it is the lowest and the highest of the
rounds, after their median.
"""


def load(folder: Path) -> dict[str, dict[str, Any]]:
    """What was measured."""
    paths = {name: folder / f"{name}.json" for name in BENCHMARKS}
    return {name: json.loads(path.read_text("utf-8")) for name, path in paths.items() if path.exists()}


def render(results: Results, remarks: Mapping[str, str]) -> dict[str, str]:
    """File names below ``docs/`` and what they hold."""
    sections = [_HEAD, _machines(results), _goals(results, remarks)]
    files: dict[str, str] = {}
    for name, section in (
        ("throughput", _throughput),
        ("crash", _crash),
        ("closeout", _closeout),
        ("open_runs", _open_runs),
        ("visible", _visible),
        ("restart", _restart),
    ):
        if name in results:
            text, plot = section(results[name])
            sections.append(text)
            if plot:
                files[f"{PLOTS}/{name.replace('_', '-')}.svg"] = plot
    return {PAGE: "\n".join(sections), **files}


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; the first column is text, the others are figures."""
    lines = [" | ".join(head), "|".join(["---"] + ["---:"] * (len(head) - 1))]
    lines += [" | ".join(map(str, row)) for row in rows]
    return "".join(f"| {line} |\n" if number != 1 else f"|{line}|\n" for number, line in enumerate(lines))


def spread(figure: Mapping[str, float], digits: int = 2) -> str:
    """A median and its range."""
    low, median, high = (f"{figure[name]:,.{digits}f}" for name in ("low", "median", "high"))
    return median if low == high else f"{median} ({low} to {high})"


def _machines(results: Results) -> str:
    if not results:
        return "Nothing has been measured yet: `make bench`.\n"
    rows = []
    for name, found in results.items():
        machine = found["machine"]
        size = f"{machine['cores']} cores, {machine['memory_gb']} GB"
        system = f"Linux {machine['kernel']}, Python {machine['python']}"
        rows.append(
            [name.replace("_", " "), found["date"], machine["cpu"], size, system, machine["load_before"]]
        )
    packages = next(iter(results.values()))["machine"]["packages"]
    versions = ", ".join(f"{name} {version}" for name, version in packages.items())
    head = ["benchmark", "date", "processor", "size", "system", "load before"]
    return f"{table(head, rows)}\nVersions: {versions}. The broker runs on the same machine.\n"


def _goals(results: Results, remarks: Mapping[str, str]) -> str:
    verdicts = goals.judge(results, remarks)
    rows = [(one.goal, one.measured, _VERDICTS[one.is_met]) for one in verdicts]
    text = "## Goals\n\n" + table(["goal", "measured", ""], rows)
    said = [f"- {one.goal.strip()}: {one.remark}\n" for one in verdicts if one.remark]
    return text + ("\n" + "".join(said) if said else "")


def _titled(one: Mapping[str, Any]) -> str:
    return f"{one['contender']} {one['version']}"


def _throughput(found: Mapping[str, Any]) -> tuple[str, str]:
    text = """\
## Throughput

Equal work is: decode each event, append its rows to a file for each task, commit every two seconds. Rows/s
run from the first records to the last commit; CPU seconds count all threads, joining the group included.

![Rows per CPU second](performance/throughput.svg)
"""
    panels = []
    for name, entries in found["loads"].items():
        head = ["", "rows/s", "of the bare loop", "CPU s per million rows", "peak MB"]
        rows = [
            [
                _titled(one),
                spread(one["rows_per_s"], 0),
                spread(one["rows_per_s_to_bare"]) if "rows_per_s_to_bare" in one else "",
                spread(one["cpu_s_per_million_rows"]),
                f"{one['peak_mb']:,.0f}",
            ]
            for one in entries
        ]
        text += f"\n### {LOADS[name]}\n\n{table(head, rows)}"
        speeds = {one["contender"]: 1e6 / one["cpu_s_per_million_rows"]["median"] for one in entries}
        bars = [
            plots.Bar(contender, speed, f"{speed:,.0f}", contender.startswith("evalsink"))
            for contender, speed in sorted(speeds.items(), key=lambda one: -one[1])
        ]
        panels.append(plots.Panel(LOADS[name], bars))
    first = next(iter(found["loads"].values()))
    text += "\nWhat each does with a record:\n\n"
    text += "".join(f"- {one['contender']}: {one['work']}\n" for one in first)
    return text, plots.bars("Rows per CPU second", panels)


def _crash(found: Mapping[str, Any]) -> tuple[str, str]:
    rows = [
        [_titled(one), *(f"{one[name]:,}" for name in ("missing", "twice", "cut_lines"))]
        for one in found["contenders"]
    ]
    options = found["options"]
    text = f"""\
## One SIGKILL

{found["rows"]:,} rows, {found["batch"]} an event, killed at {options["kill_at"]:.0%} of them and started
again; rows counted in the output. All were set to commit every {options["commit_s"]} s and flush before that,
so none should lose rows; what was written after the last commit comes twice. A line is cut where half of it
was written.

"""
    return text + table(["", "rows missing", "rows twice", "lines cut"], rows), ""


def _closeout(found: Mapping[str, Any]) -> tuple[str, str]:
    names = {"copy": "cp + sync + sha256sum", "evalsink": "evalsink", "lmms-eval": "lmms-eval"}
    ways = found["ways"]
    rows = [
        [
            names[one["way"]],
            spread(one["seconds"]),
            spread(one["seconds_to_copy"]) if "seconds_to_copy" in one else "",
            f"{one['cpu_s']:.2f}",
            f"{one['peak_mb']:,.0f}",
        ]
        for one in ways
    ]
    medians = {one["way"]: one["seconds"]["median"] for one in ways}
    size = f"{found['rows']:,} rows, {found['bytes'] / 1e6:,.0f} MB"
    panel = plots.Panel(
        f"{size}: seconds",
        [plots.Bar(names[way], value, f"{value:.2f} s", way == "evalsink") for way, value in medians.items()],
        (medians["copy"] * 1.3, "goal: 1.3 of the copy") if "copy" in medians else None,
    )
    text = f"""\
## Close-out

One run of {size}, shuffled, {found["duplicates"]:.0%} of them twice: from the spool to published files,
sorted, each row once, hashed and synced. lmms-eval's `save_results_samples` has all rows in memory, and
neither syncs nor hashes.

![Close-out](performance/closeout.svg)

"""
    head = ["", "seconds", "of the copy", "CPU s", "peak MB"]
    return text + table(head, rows), plots.bars("Close-out", [panel])


def _open_runs(found: Mapping[str, Any]) -> tuple[str, str]:
    text = f"## Open runs and workers\n\n{found['rows']:,} rows of 1 KB in events of 20.\n"
    plot = ""
    if runs := found.get("runs"):
        rows = [
            [
                f"{one['runs']:,}",
                spread(one["rows_per_s"], 0),
                spread(one["rows_per_s_to_fewest"]),
                spread(one["cpu_s_per_million_rows"]),
                f"{one['peak_mb']:,.0f}",
            ]
            for one in runs
        ]
        head = ["open runs", "rows/s", "of that with the fewest", "CPU s per million rows", "peak MB"]
        text += f"\n![Open runs](performance/open-runs.svg)\n\n{table(head, rows)}"
        speeds = [(_runs(one), one["rows_per_s"]["median"]) for one in runs]
        peaks = [(_runs(one), one["peak_mb"]) for one in runs]
        panels = [
            plots.Panel("rows per second", _own_bars(speeds)),
            plots.Panel(
                "peak resident memory, MB",
                _own_bars(peaks),
                (goals.RESIDENT_MB, f"goal: {goals.RESIDENT_MB}"),
            ),
        ]
        plot = plots.bars("Open runs", panels)
    if workers := found.get("workers"):
        figures = ("rows_per_s_to_one", "cpu_s_per_million_rows")
        rows = [
            [str(one["workers"]), spread(one["rows_per_s"], 0), *(spread(one[name]) for name in figures)]
            for one in workers
        ]
        text += "\n" + table(["workers", "rows/s", "of one", "CPU s per million rows"], rows)
        text += "\nWorkers and broker share the cores.\n"
    return text, plot


def _runs(one: Mapping[str, Any]) -> str:
    return f"{one['runs']:,} run{'' if one['runs'] == 1 else 's'}"


def _own_bars(values: Sequence[tuple[str, float]]) -> list[plots.Bar]:
    return [plots.Bar(label, value, f"{value:,.0f}", is_ours=True) for label, value in values]


def _visible(found: Mapping[str, Any]) -> tuple[str, str]:
    text = f"""\
## From the end event to visible results

{found["timed"]} runs of {found["rows_of_a_run"]:,} rows, while the worker read
{found["rows_per_s_meanwhile"]:,} rows/s: from Kafka's acknowledgement of the end event to the results JSON.
p50 {found["p50_ms"]:.0f} ms, p99 {found["p99_ms"]:.0f} ms, highest {found["max_ms"]:.0f} ms.

![End event to visible results](performance/visible.svg)
"""
    plot = plots.steps(
        "End event to visible results: share of runs",
        found["all_ms"],
        unit="milliseconds",
        goal=goals.VISIBLE_MS,
        marks=(50, 99),
    )
    return text, plot


def _restart(found: Mapping[str, Any]) -> tuple[str, str]:
    rows = [
        [
            f"{one['rows']:,} rows in {_runs(one)}",
            spread(one["first_poll_s"]),
            spread(one["first_row_s"]),
            f"{one['peak_mb']:,.0f}",
            f"{one['closing']['peak_mb']:,.0f}" if "closing" in one else "",
        ]
        for one in found["spools"]
    ]
    text = f"""\
## Restart

From the start of the process, imports included; rows of {found["row_bytes"]:,} bytes.

"""
    head = ["spool", "seconds to first poll", "seconds to first new row", "peak MB", "peak MB, closing it"]
    return text + table(head, rows), ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--docs", type=Path, default=DOCS)
    options = parser.parse_args()
    for name, content in render(load(options.results), goals.remarks()).items():
        path = options.docs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8")
        print(path)


if __name__ == "__main__":
    main()
