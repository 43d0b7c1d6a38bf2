"""A run against a baseline: paired t tests over the scores of the rows that both have.

Owns: the test, which rows make a pair (same task, filter and doc_id; 1 and "1" differ), and the scale of what
is shown. Each metric and filter has a test of its own, where lmms-eval has one for each task.

Scale: difference, interval and the baseline's mean are on the scale of the run's own value, which is the mean
of its rows' scores or a hundred times that. A value that is neither (F1 of all answers, a sum, a score per
category) has no such scale: then they stay on the scale of the rows, and a note says so. lmms-eval mixes the
two, and shows a value of .48 against a baseline of 50 as -49.5%.

Undefined with fewer than two pairs. The distribution comes from mpmath: pure Python of 5 MB, where scipy
would bring 140 MB into every image for one function.

Sources: lmms-eval 0.7 ``api/metrics.py`` (``paired_ttest``), to which this is equal; arXiv:2411.00640,
section 4.2.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from mpmath import betainc, findroot, mpf, workdps
from msgspec import Struct

from consumer.report.row_scores import RowScores, read_scores, samples_file

CONFIDENCE = 0.95

_DIGITS = 25
# The quantile of one degree of freedom is 12.7, that of infinitely many 1.96.
_QUANTILE_BETWEEN = (1.9, 13)
# What rounding of a reported value hides: lmms-eval's tasks round to four or five digits.
_ROUNDED = 1e-4


class PairedTest(Struct, frozen=True):
    """What the pairs say.

    Attributes:
        pairs: How many.
        baseline: Mean of the baseline's scores in the pairs.
        difference: Mean of current minus baseline.
        stderr: Standard error of the difference.
        low: Lower end of the 95% confidence interval of the difference.
        high: Its upper end.
        p_value: Two-sided; 0 or 1 if all differences are equal.
    """

    pairs: int
    baseline: float
    difference: float
    stderr: float
    low: float
    high: float
    p_value: float

    def scaled(self, factor: float) -> "PairedTest":
        """The same test of scores that are `factor` times as large."""
        sizes = ("baseline", "difference", "stderr", "low", "high")
        return msgspec.structs.replace(self, **{name: getattr(self, name) * factor for name in sizes})


class Comparison(Struct, frozen=True):
    """A run against a baseline.

    Attributes:
        tests: Task to ``metric,filter`` to its test.
        notes: What a reader should know of them, one sentence each.
    """

    tests: dict[str, dict[str, PairedTest]]
    notes: list[str]


def paired_t_test(current: Iterable[float], baseline: Iterable[float]) -> PairedTest | None:
    """Test whether two series of scores, number i of each of the same document, have the same mean.

    Returns:
        None with fewer than two pairs.

    Raises:
        ValueError: the series are of different length.
    """
    pairs = list(zip(current, baseline, strict=True))
    count = len(pairs)
    if count < 2:  # noqa: PLR2004 - a variance needs two
        return None
    differences = [now - before for now, before in pairs]
    mean = math.fsum(differences) / count
    variance = math.fsum((difference - mean) ** 2 for difference in differences) / (count - 1)
    stderr = math.sqrt(variance / count)
    reach = _quantile(count - 1) * stderr
    return PairedTest(
        pairs=count,
        baseline=math.fsum(before for _, before in pairs) / count,
        difference=mean,
        stderr=stderr,
        low=mean - reach,
        high=mean + reach,
        p_value=_p_value(mean / stderr, count - 1) if stderr else float(mean == 0),
    )


def compare(
    current: Path, current_document: Mapping[str, Any], baseline: Path, baseline_document: Mapping[str, Any]
) -> Comparison:
    """Test every metric of every task that both runs have rows of.

    Args:
        current: Results JSON of the run; its samples files lie beside it.
        current_document: What stands in it.
        baseline: Results JSON of the baseline, likewise.
        baseline_document: What stands in it.

    Raises:
        EvalsinkError: a samples file cannot be read.
    """
    tests: dict[str, dict[str, PairedTest]] = {}
    notes: list[str] = []
    groups = _entries(current_document, "groups")
    others = _entries(baseline_document, "results")
    for task, values in _entries(current_document, "results").items():
        if task in groups or not any("," in key for key in values):  # a group may have no metric at all
            continue
        file = samples_file(current, current_document, task)
        other_file = samples_file(baseline, baseline_document, task)
        if file is None or other_file is None:
            absent = current if file is None else baseline
            notes.append(f"{task} is not compared: no samples file of it beside {absent}")
            continue
        tests[task], more = _compare_task(
            read_scores(file, current_document, task),
            read_scores(other_file, baseline_document, task),
            values,
            others.get(task, {}),
        )
        notes += [f"{task}{note}" for note in more]
    return Comparison(tests, notes)


def _compare_task(
    scores: RowScores, others: RowScores, values: Mapping[str, Any], other_values: Mapping[str, Any]
) -> tuple[dict[str, PairedTest], list[str]]:
    """The tests of a task by metric and filter, and notes to be completed with the task's name."""
    tests: dict[str, PairedTest] = {}
    notes = []
    for key, by_id in scores.items():
        other_by_id = others.get(key, {})
        both = by_id.keys() & other_by_id.keys()
        test = paired_t_test((by_id[doc_id] for doc_id in both), (other_by_id[doc_id] for doc_id in both))
        if test is None:
            continue
        alone = (len(by_id) - len(both), len(other_by_id) - len(both))
        if any(alone):
            notes.append(
                f" {key}: {len(both)} rows in pairs; {alone[0]} of this run and {alone[1]} of the baseline "
                "have no partner"
            )
        factor = _factor((values.get(key), by_id), (other_values.get(key), other_by_id))
        if factor is None:
            notes.append(
                f" {key}: Value is no mean of the rows' scores; Baseline, Diff and CI are means of rows"
            )
        tests[key] = test.scaled(factor or 1)
    return tests, notes or ([] if tests else [" is not compared: the rows of both have no score in common"])


def _factor(
    current: tuple[Any, Mapping[Any, float]], baseline: tuple[Any, Mapping[Any, float]]
) -> int | None:
    """What the mean of the rows' scores must be multiplied with to be the value; None if there is no such."""
    fitting = [factor for factor in (1, 100) if _agrees(*current, factor)]
    if len(fitting) > 1:  # of zero every multiple is zero: the baseline decides, if it can
        fitting = [factor for factor in fitting if _agrees(*baseline, factor)] or fitting
    return fitting[0] if fitting else None


def _agrees(value: Any, by_id: Mapping[Any, float], factor: int) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    mean = math.fsum(by_id.values()) / len(by_id)
    return math.isclose(value, factor * mean, rel_tol=0, abs_tol=factor * _ROUNDED)


def _entries(document: Mapping[str, Any], key: str) -> dict[str, Mapping[str, Any]]:
    entries = document.get(key)
    if not isinstance(entries, Mapping):
        return {}
    return {task: values for task, values in entries.items() if isinstance(values, Mapping)}


def _p_value(t: float, freedom: int) -> float:
    """How probable it is that Student's t is at least that far from 0, on either side."""
    return float(_tails(freedom)(t))


def _quantile(freedom: int) -> float:
    """The t within which `CONFIDENCE` of the distribution lies."""
    tails = _tails(freedom)
    with workdps(_DIGITS):
        return float(findroot(lambda t: tails(t) - (1 - CONFIDENCE), _QUANTILE_BETWEEN, solver="anderson"))


def _tails(freedom: int) -> Callable[[Any], Any]:
    def both_tails(t: Any) -> Any:
        with workdps(_DIGITS):
            x = freedom / (freedom + mpf(t) ** 2)
            return betainc(mpf(freedom) / 2, mpf(1) / 2, 0, x, regularized=True)

    return both_tails
