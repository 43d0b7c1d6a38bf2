"""The table of results that people read, byte for byte as lmms-eval prints it.

Owns: which rows and columns the table has, and how each value is written. pytablewriter, lmms-eval's own
library, draws it: it guesses types column by column and rewrites numbers ("0.4800" becomes "0.48"), which
nothing else reproduces. Invariants: the input is not changed; a value that is absent, empty or of an odd
type becomes ``N/A`` and never an error. Where lmms-eval's function raises (no ``n-shot``, a task that is no
object) this one goes on. Refused: a column that the results do not have.

One oddity is kept on purpose: the Diff column subtracts a baseline in percent from a value that often is a
fraction, as the original does. That is for comparisons which the harness stored. One that is handed in comes
from ``consumer.report.paired`` and takes the same columns: metric by metric, all on the scale of Value,
without per cent.

Source: lmms-eval 0.7 ``utils.make_table``; the Version column is that of lmms-eval 0.3 and of lm-eval.
"""

import unicodedata
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pytablewriter import MarkdownTableWriter
from pytablewriter.typehint import String

from consumer.errors import UsageError

if TYPE_CHECKING:  # the distributions behind it are for those who compare
    from consumer.report.paired import PairedTest

Column = Literal["results", "groups"]

ABSENT = "N/A"
_TITLES: dict[Column, str] = {"results": "Tasks", "groups": "Groups"}
_ARROWS: dict[Any, str] = {True: "↑", False: "↓"}

# Header to the suffix of its key in `results[task]`: `{metric}{suffix},{filter}`.
_ERRORS = {"Stderr": "_stderr", "Stderr_CLT": "_stderr_clt", "Stderr_Clustered": "_stderr_clustered"}
_REPEATS = {
    "EA": "_expected_accuracy",
    "CA": "_consensus_accuracy",
    "IV": "_internal_variance",
    "CR": "_consistency_rate",
}
_SUFFIXES = (*_ERRORS.values(), *_REPEATS.values())
_PAIRED = ("Baseline", "Diff", "CI", "P_Value")
_PAIRED_PREFIX = "paired_"
_SIGNIFICANT = 0.05

_THROUGHPUT_UNITS = {
    "total_gen_tokens": "tokens",
    "total_elapsed_time": "seconds",
    "avg_latency": "seconds/request",
    "avg_speed": "tokens/s",
}

# Controls, formats (direction marks), halves of surrogate pairs, private use, ends of lines.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


Tests = Mapping[str, Mapping[str, "PairedTest"]]
"""Task to ``metric,filter`` to its test against a baseline."""


def render(
    results: Mapping[str, Any],
    *,
    column: Column = "results",
    version_column: bool = False,
    tests: Tests | None = None,
) -> str:
    """A results JSON as a Markdown table, ending in a newline.

    Args:
        results: The results JSON, as lmms-eval, lm-eval or evalsink writes it.
        column: ``results`` for tasks, with the throughput below; ``groups`` for groups of tasks.
        version_column: Show each task's version, between its name and its filter.
        tests: Fill the columns of the comparison from these, not from what is stored.

    Raises:
        UsageError: `results` has no object `column`.
    """
    tasks = results.get(column)
    if not isinstance(tasks, Mapping):
        raise UsageError(f"the results JSON has no {column!r}")
    rows = [
        row
        if tests is None
        else row | _test_cells(tests.get(task, {}).get(f"{row['Metric']},{row['Filter']}"))
        for task, metrics in tasks.items()
        for row in _task_rows(results, task, metrics)
    ]
    always = ["Tasks", "Filter", "n-shot", "Metric", "Direction", "Value", "±", "Stderr"]
    if version_column:
        always.insert(1, "Version")
    optional = ["Stderr_CLT", "Stderr_Clustered", *_REPEATS, *_PAIRED]
    shown = always + [name for name in optional if any(row[name] != ABSENT for row in rows)]
    titles = {"Tasks": _TITLES[column], "Direction": "", "±": ""}
    # A sign that is put there stays there; by itself the library takes a plus away.
    types = [String if tests is not None and name in _PAIRED else None for name in shown]
    table = [[row[name] for name in shown] for row in rows]
    parts = [_markdown([titles.get(name, name) for name in shown], table, types)]
    if column == "results" and isinstance(throughput := results.get("throughput"), Mapping) and throughput:
        parts += ["Throughput Summary", _markdown(["Metric", "Value", "Unit"], _throughput_rows(throughput))]
    return "\n\n".join(parts)


def _markdown(headers: list[str], rows: list[list[Any]], types: Sequence[type | None] = ()) -> str:
    return str(MarkdownTableWriter(headers=headers, value_matrix=rows, type_hints=list(types)).dumps())


def _task_rows(results: Mapping[str, Any], task: str, metrics: object) -> Iterable[dict[str, Any]]:
    """One row, header to cell, for each metric and filter of a task that is not itself shown in a column."""
    if not isinstance(metrics, Mapping):
        return
    version = _entry(results, "versions", task)
    directions = _entry(results, "higher_is_better", task)
    shots = results.get("n-shot")
    paired = _paired_cells(metrics)
    for key in sorted(metrics):
        metric, _, filter_name = key.partition(",")
        value = metrics[key]
        if (
            key == "alias"
            or metric.endswith(_SUFFIXES)
            or metric.startswith(_PAIRED_PREFIX)
            or value in ([], {})
        ):
            continue
        direction = directions.get(metric) if isinstance(directions, Mapping) else None
        yield {
            "Tasks": metrics.get("alias", task),
            "Version": ABSENT if version is None else version,
            "Filter": filter_name,
            "n-shot": str(shots.get(task, " ") if isinstance(shots, Mapping) else " "),
            "Metric": metric,
            "Direction": _ARROWS.get(direction, "") if isinstance(direction, Hashable) else "",
            "Value": ABSENT if value in ("", None) else f"{value:.4f}" if isinstance(value, float) else value,
            "±": "±",
            **{
                header: _number("{:.4f}", metrics.get(f"{metric}{suffix},{filter_name}"))
                for header, suffix in (_ERRORS | _REPEATS).items()
            },
            **paired,
            "Diff": _difference(value, metrics.get("paired_baseline_score")),
        }


def _entry(results: Mapping[str, Any], key: str, task: str) -> Any:
    table = results.get(key)
    return table.get(task) if isinstance(table, Mapping) else None


def _number(template: str, *values: object) -> str:
    """`template` filled with `values`; N/A unless all are numbers, as which booleans count."""
    if not all(isinstance(value, int | float) for value in values):
        return ABSENT
    try:
        return template.format(*values)
    except OverflowError:  # an integer beyond any float
        return ABSENT


def _difference(value: object, baseline: object) -> str:
    if not isinstance(value, int | float) or not isinstance(baseline, int | float):
        return ABSENT
    try:
        return _number("{:+.1f}%", value - baseline)
    except OverflowError:
        return ABSENT


def _paired_cells(metrics: Mapping[str, Any]) -> dict[str, str]:
    """The cells of the comparison with a baseline that are the same on every row of a task."""
    return {
        "Baseline": str(metrics.get("paired_baseline") or ABSENT),
        "CI": _number("[{:+.1f}%, {:+.1f}%]", metrics.get("paired_ci_lower"), metrics.get("paired_ci_upper")),
        "P_Value": _probability(metrics.get("paired_pvalue")),
    }


def _test_cells(test: "PairedTest | None") -> dict[str, str]:
    if test is None:
        return dict.fromkeys(_PAIRED, ABSENT)
    return {
        "Baseline": _number("{:.4f}", test.baseline),
        "Diff": _number("{:+.4f}", test.difference),
        "CI": _number("[{:+.4f}, {:+.4f}]", test.low, test.high),
        "P_Value": _probability(test.p_value),
    }


def _probability(value: object) -> str:
    significant = isinstance(value, int | float) and value < _SIGNIFICANT
    return _number("{:.4f}*" if significant else "{:.4f}", value)


def _throughput_rows(throughput: Mapping[str, Any]) -> list[list[str]]:
    """Metric, value and unit: the known ones first, in their own order, then the others by name."""
    known = [name for name in _THROUGHPUT_UNITS if name in throughput]
    rows = []
    for name in [*known, *sorted(throughput.keys() - _THROUGHPUT_UNITS)]:
        value = throughput[name]
        cell = f"{value:.4f}" if isinstance(value, float) else str(value)
        rows.append([name, cell, _THROUGHPUT_UNITS.get(name, "varies")])
    return rows


def as_page(text: str) -> str:
    """`text`, tables of `render`, as a page of Markdown: names in it are text there, no HTML, image or link.

    The library that draws the tables has put each cell on one line and escaped what would end it. Tables
    whose names hold nothing of the kind stay byte for byte what they are.
    """
    shown = "".join(
        char if char == "\n" or unicodedata.category(char) not in _HIDDEN else "\N{REPLACEMENT CHARACTER}"
        for char in text
    )
    return shown.replace("<", "&lt;").replace("](", "]&#40;")
