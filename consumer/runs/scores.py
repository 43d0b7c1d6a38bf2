"""Statistics of a task, recomputed from the scores of its published rows.

Owns: the formulas, equal to lmms-eval's to 1e-12, and where they are undefined (None, never NaN).
Invariants: a pure function of the samples in canonical order, on every machine (sums are `math.fsum`,
exactly rounded, in chunks of fixed size); memory is bounded, whatever the number of samples, metrics or
clusters: beyond `MAX_SERIES` further metrics are left out, beyond `MAX_CLUSTER_CELLS` clustered standard
errors are.

A score that is a list comes of k repeats. The sample's own score, for mean and standard errors, is then the
mean of its repeats; an empty list is no score. The four statistics of repeats are over the samples with
lists alone.

Sources: lmms-eval 0.7 ``api/metrics.py`` (``mean_stderr``, ``clustered_stderr``, ``expected_accuracy`` and
following), ``evaluator_utils.py`` (``calculate_clt_aggregate_metric``); for the clustered standard error
arXiv:2411.00640, equation 4.
"""

import hashlib
import math
from array import array
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.events import Cluster, Score

Numbers = npt.NDArray[np.float64]

Statistics = dict[str, dict[str, dict[str, int | float | None]]]
"""Filter to metric to statistic: ``n``, ``mean``, ``stderr_clt``, ``stderr_clustered``; of repeats also
``expected_accuracy``, ``consensus_accuracy``, ``internal_variance``, ``consistency_rate``. The names are
those of lmms-eval's result keys."""

MAX_SERIES = 1024
"""Pairs of filter and metric kept for one task."""

MAX_CLUSTER_CELLS = 500_000
"""Clusters times pairs of filter and metric, for one task: some 70 MB."""

_CHUNK = 1024
_LONG_NAME = 64
_REPEATS = ("expected_accuracy", "consensus_accuracy", "internal_variance", "consistency_rate")


def _sum(values: Iterable[float]) -> float:
    """The exactly rounded sum; NaN where it leaves the range of floats."""
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):
        return math.nan


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


class _Moments:
    """Count, sum and squared deviations of a stream of numbers; exactly rounded up to `_CHUNK` of them.

    Chunks are joined as in Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for
    computing sample variances", 1979.
    """

    def __init__(self) -> None:
        self._count = 0
        self._total = 0.0
        self._squares = 0.0
        self._chunk = array("d")

    def add(self, value: float) -> None:
        self._chunk.append(value)
        if len(self._chunk) == _CHUNK:
            self._count, self._total, self._squares = self.result()
            del self._chunk[:]

    def add_many(self, values: Numbers) -> None:
        start = 0
        while start < values.size:
            part = values[start : start + _CHUNK - len(self._chunk)]
            self._chunk.frombytes(part.tobytes())
            start += part.size
            if len(self._chunk) == _CHUNK:
                self._count, self._total, self._squares = self.result()
                del self._chunk[:]

    def result(self) -> tuple[int, float, float]:
        """Count, sum, and sum of squared deviations from the mean."""
        more = len(self._chunk)
        if not more:
            return self._count, self._total, self._squares
        total = _sum(self._chunk)
        mean = total / more
        with np.errstate(over="ignore", invalid="ignore"):  # `_sum` tells
            deviations = np.array(self._chunk) - mean
            squares = _sum((deviations * deviations).tolist())
        if not self._count:
            return more, total, squares
        count = self._count + more
        apart = mean - self._total / self._count
        return (
            count,
            _sum((self._total, total)),
            _sum((self._squares, squares, apart * apart * self._count * more / count)),
        )


class _Repeats:
    """The statistics of samples that were answered k times."""

    def __init__(self) -> None:
        self._scores = _Moments()
        self._variances = _Moments()
        self._samples = self._won = self._consistent = 0

    def add(self, scores: list[float]) -> None:
        self._samples += 1
        total = _sum(scores)
        self._won += total > len(scores) / 2  # a tie is lost
        self._consistent += len(set(scores)) == 1
        for score in scores:
            self._scores.add(score)
        if len(scores) > 1:
            mean = total / len(scores)
            squares = _sum((score - mean) * (score - mean) for score in scores)
            self._variances.add(squares / (len(scores) - 1))

    def result(self) -> dict[str, int | float | None]:
        count, total, _ = self._scores.result()
        questions, variance, _ = self._variances.result()
        values = (
            _finite(total / count),
            self._won / self._samples,
            _finite(variance / questions) if questions else None,
            self._consistent / self._samples,
        )
        return dict(zip(_REPEATS, values, strict=True))


class _Series:
    """The scores of one filter and metric."""

    def __init__(self) -> None:
        self.moments = _Moments()
        self.repeats: _Repeats | None = None
        # By cluster number: how many scores, and the sum of their distances from the first score of all,
        # which keeps digits where scores are large and alike.
        self._origin: float | None = None
        self._sizes = array("q")
        self._sums = array("d")

    def add(self, score: Score) -> float | None:
        """Take in a sample's score; its mean if it is a list, None if that is empty."""
        if isinstance(score, list):
            if not score:
                return None
            self.repeats = self.repeats or _Repeats()
            self.repeats.add(score)
            score = _sum(score) / len(score)
        self.moments.add(score)
        return score

    def add_to_cluster(self, number: int, score: float) -> int:
        """Count `score` in; by how many cells the memory grew."""
        if self._origin is None:
            self._origin = score
        new = max(0, number + 1 - len(self._sizes))
        self._sizes.extend([0] * new)
        self._sums.extend([0.0] * new)
        self._sizes[number] += 1
        self._sums[number] += score - self._origin
        return new

    def add_numbers(self, scores: Numbers, *, clustered: bool) -> int:
        """`add` and, if `clustered`, `add_to_cluster` number 0, for each of `scores`.

        Returns by how many cells it grew.
        """
        self.moments.add_many(scores)
        if not clustered:
            return 0
        new = self.add_to_cluster(0, float(scores[0]))
        assert self._origin is not None
        origin = self._origin
        with np.errstate(over="ignore", invalid="ignore"):
            # One after the other, from where the sum stands: numpy's `sum` adds in pairs.
            self._sums[0] = np.add.accumulate(np.append(self._sums[0], scores[1:] - origin))[-1]
        self._sizes[0] += scores.size - 1
        return new

    def forget_clusters(self) -> None:
        self._sizes, self._sums = array("q"), array("d")

    def result(self) -> dict[str, int | float | None]:
        count, total, squares = self.moments.result()
        return {
            "n": count,
            "mean": _finite(total / count),
            "stderr_clt": _finite(math.sqrt(squares / (count - 1) / count)) if count > 1 else None,
            "stderr_clustered": self._clustered(count, total, squares),
            **(self.repeats.result() if self.repeats else {}),
        }

    def _clustered(self, count: int, total: float, squares: float) -> float | None:
        # Number 0 is the cluster of all samples that have none; it is not one of two.
        if self._origin is None or sum(map(bool, self._sizes[1:])) <= 1:
            return None
        shift = total / count - self._origin
        deviations = (part - size * shift for size, part in zip(self._sizes, self._sums, strict=True))
        between = _sum(deviation * deviation for deviation in deviations)
        variance = squares / ((count - 1) * count) + (between - squares) / (count * count)
        return _finite(math.sqrt(max(variance, 0.0)))  # below 0 by rounding alone; NaN stays


class TaskScores:
    """Takes in a task's samples in canonical order and gives their statistics."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str], _Series] = {}
        self._numbers: dict[object, int] | None = {None: 0}
        self._cells = 0

    def add(self, filter_name: str, scores: Mapping[str, Score], cluster: Cluster = None) -> None:
        """Take in one sample: metric to score, or to the scores of its repeats."""
        for metric, score in scores.items():
            series = self._series.get((filter_name, metric)) or self._new_series(filter_name, metric)
            if series is None:
                continue
            value = series.add(score)
            if value is not None and self._numbers is not None:
                self._cells += series.add_to_cluster(self._number(self._numbers, cluster), value)
        if self._cells > MAX_CLUSTER_CELLS:
            self._forget_clusters()

    def add_columns(self, filter_name: str, columns: Mapping[str, Numbers]) -> None:
        """Take in samples in order, to the same end as one by one, at a fraction of the cost.

        Args:
            filter_name: Of all.
            columns: Metric to each sample's score: single numbers, of samples without a cluster.
        """
        for metric, values in columns.items():
            series = self._series.get((filter_name, metric)) or self._new_series(filter_name, metric)
            if series is not None:
                self._cells += series.add_numbers(values, clustered=self._numbers is not None)
        if self._cells > MAX_CLUSTER_CELLS:
            self._forget_clusters()

    def _new_series(self, filter_name: str, metric: str) -> _Series | None:
        if len(self._series) == MAX_SERIES:
            return None
        series = self._series[filter_name, metric] = _Series()
        return series

    def _forget_clusters(self) -> None:
        self._numbers, self._cells = None, 0
        for series in self._series.values():
            series.forget_clusters()

    def result(self) -> Statistics:
        """The statistics so far, filters and metrics in the order of their first sample."""
        statistics: Statistics = {}
        for (filter_name, metric), series in self._series.items():
            if series.moments.result()[0]:
                statistics.setdefault(filter_name, {})[metric] = series.result()
        return statistics

    @staticmethod
    def _number(numbers: dict[object, int], cluster: Cluster) -> int:
        """A cluster's number. By Python's equality, as in lmms-eval: 1 and 1.0 are one, 1 and "1" two."""
        key: object = cluster
        if isinstance(cluster, str) and len(cluster) > _LONG_NAME:
            key = hashlib.sha256(cluster.encode("utf-8", "surrogatepass")).digest()
        return numbers.setdefault(key, len(numbers))


def results_from_scores(task: str, statistics: Statistics) -> dict[str, Any]:
    """``results[task]`` for a task without aggregate: the means, in lmms-eval's key order.

    A standard error that is undefined is lmms-eval's ``"N/A"``; any other undefined statistic is None, where
    lmms-eval has NaN. ``stderr`` equals ``stderr_clt``, as it does for every metric that lmms-eval averages.
    """
    results: dict[str, Any] = {"alias": task}
    for filter_name, metrics in statistics.items():
        for metric, values in metrics.items():
            results[f"{metric},{filter_name}"] = values["mean"]
            for key in ("stderr", "stderr_clt", "stderr_clustered"):
                error = values["stderr_clt" if key == "stderr" else key]
                results[f"{metric}_{key},{filter_name}"] = "N/A" if error is None else error
            for key in _REPEATS:
                if key in values:
                    results[f"{metric}_{key},{filter_name}"] = values[key]
    return results


def disagreements(
    results: Mapping[str, Any], statistics: Statistics, tolerance: float = 1e-6
) -> list[dict[str, Any]]:
    """Where the mean of the rows' scores is not what the evaluator reported for that metric and filter.

    Compared is only what is a number on both sides. An evaluator that reports per cent agrees if a hundred
    times the mean does. A metric that is no mean (F1 of all answers, a sum) is reported too: that the
    number cannot be had from the rows' scores is what the reader should know.

    Args:
        results: ``results[task]`` as the evaluator sent it.
        statistics: `TaskScores.result` of the same task.
        tolerance: Relative to the larger of the two, absolute below 1.

    Returns:
        One entry for each difference: ``filter``, ``metric``, ``aggregate``, ``mean``.
    """
    found = []
    for filter_name, metrics in statistics.items():
        for metric, values in metrics.items():
            mean, aggregate = values["mean"], results.get(f"{metric},{filter_name}")
            if mean is None or isinstance(aggregate, bool) or not isinstance(aggregate, int | float):
                continue
            if not _agree(aggregate, mean, tolerance):
                found.append({"filter": filter_name, "metric": metric, "aggregate": aggregate, "mean": mean})
    return found


def _agree(aggregate: float, mean: float, tolerance: float) -> bool:
    try:
        return any(
            math.isclose(aggregate, scale * mean, rel_tol=tolerance, abs_tol=tolerance) for scale in (1, 100)
        )
    except OverflowError:  # an integer beyond any float
        return False
