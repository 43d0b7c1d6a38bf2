"""`consumer.runs.scores`: worked cases, a naive reference, and what must hold for any scores at all.

The reference follows lmms-eval's formulas as they are written in its documentation and in arXiv:2411.00640, without
any of the streaming.
"""

import json
import math
import statistics
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.runs import scores as module
from consumer.runs.scores import TaskScores, disagreements, results_from_scores

TOLERANCE = 1e-12


def assert_close(expected, actual, tolerance=TOLERANCE):
    """Equal to the tolerance, relative and absolute; None is close to None alone."""
    assert list(expected) == list(actual)
    for name, value in expected.items():
        if value is None or actual[name] is None:
            assert value is actual[name], name
        else:
            assert math.isclose(value, actual[name], rel_tol=tolerance, abs_tol=tolerance), (
                name,
                value,
                actual[name],
            )


def recomputed(samples, clusters=None):
    """The statistics of one metric, from its scores (numbers, or lists of them) and their clusters."""
    task = TaskScores()
    for sample, cluster in zip(samples, clusters or [None] * len(samples), strict=True):
        task.add("none", {"acc": sample}, cluster)
    return task.result()["none"]["acc"]


def naive(samples, clusters):
    """What `recomputed` should be."""
    own = [sum(sample) / len(sample) if isinstance(sample, list) else sample for sample in samples]
    n = len(own)
    mean = sum(own) / n
    expected = {"n": n, "mean": mean, "stderr_clt": None, "stderr_clustered": None}
    if n > 1:
        expected["stderr_clt"] = statistics.stdev(own) / math.sqrt(n)
        if len({cluster for cluster in clusters if cluster is not None}) > 1:
            within = sum(
                2 * (own[i] - mean) * (own[j] - mean)
                for i, j in combinations(range(n), 2)
                if clusters[i] == clusters[j]
            )
            expected["stderr_clustered"] = math.sqrt(max(0, statistics.variance(own) / n + within / n**2))
    repeats = [sample for sample in samples if isinstance(sample, list)]
    if repeats:
        every = [score for sample in repeats for score in sample]
        variances = [statistics.variance(sample) for sample in repeats if len(sample) > 1]
        expected |= {
            "expected_accuracy": sum(every) / len(every),
            "consensus_accuracy": sum(sum(sample) > len(sample) / 2 for sample in repeats) / len(repeats),
            "internal_variance": sum(variances) / len(variances) if variances else None,
            "consistency_rate": sum(len(set(sample)) == 1 for sample in repeats) / len(repeats),
        }
    return expected


HALF = math.sqrt(1 / 12)  # of [1, 1, 0, 0]: sqrt(1/3) / sqrt(4)

WORKED = {
    "one number": ([0.25], None, {"n": 1, "mean": 0.25, "stderr_clt": None, "stderr_clustered": None}),
    "two equal numbers": (
        [2.0, 2.0],
        None,
        {"n": 2, "mean": 2.0, "stderr_clt": 0.0, "stderr_clustered": None},
    ),
    "half right": ([1, 1, 0, 0], None, {"n": 4, "mean": 0.5, "stderr_clt": HALF, "stderr_clustered": None}),
    "one cluster is none": (
        [1, 1, 0, 0],
        ["a", "a", "a", "a"],
        {"n": 4, "mean": 0.5, "stderr_clt": HALF, "stderr_clustered": None},
    ),
    "one cluster and samples without are none": (
        [1, 1, 0, 0],
        ["a", "a", None, None],
        {"n": 4, "mean": 0.5, "stderr_clt": HALF, "stderr_clustered": None},
    ),
    # Deviations are +-1/2. Per pair: (sum)^2 = 1, twice; sum of squares 1: 1/12 + (2 - 1)/16.
    "pairs that agree": (
        [1, 1, 0, 0],
        ["a", "a", "b", "b"],
        {"n": 4, "mean": 0.5, "stderr_clt": HALF, "stderr_clustered": math.sqrt(1 / 12 + 1 / 16)},
    ),
    # Per pair the deviations cancel: 1/12 + (0 - 1)/16.
    "pairs that differ": (
        [1, 0, 1, 0],
        [1, 1, 2, 2],
        {"n": 4, "mean": 0.5, "stderr_clt": HALF, "stderr_clustered": math.sqrt(1 / 12 - 1 / 16)},
    ),
    # None is a third cluster, of the last two: (1/2)^2 + (1/2)^2 + 1 - 1.
    "samples without cluster form one of their own": (
        [1, 1, 0, 0],
        ["a", "b", None, None],
        {"n": 4, "mean": 0.5, "stderr_clt": HALF, "stderr_clustered": math.sqrt(1 / 12 + 0.5 / 16)},
    ),
    # The case of the reference notes, seen with lmms-eval's own functions: .5 .5 .1667 .5.
    "repeats": (
        [[1, 1, 0], [0, 0, 0], [1, 1, 1], [1, 0, 0]],
        None,
        {
            "n": 4,
            "mean": 0.5,
            "stderr_clt": math.sqrt((1 / 36 + 1 / 4 + 1 / 4 + 1 / 36) / 3 / 4),
            "stderr_clustered": None,
            "expected_accuracy": 0.5,
            "consensus_accuracy": 0.5,
            "internal_variance": 1 / 6,
            "consistency_rate": 0.5,
        },
    ),
    "a tie is lost": (
        [[1, 0], [1, 1]],
        None,
        {
            "n": 2,
            "mean": 0.75,
            "stderr_clt": 0.25,
            "stderr_clustered": None,
            "expected_accuracy": 0.75,
            "consensus_accuracy": 0.5,
            "internal_variance": 0.25,
            "consistency_rate": 0.5,
        },
    ),
    "a single repeat has no variance": (
        [[1.0], [0.0]],
        None,
        {
            "n": 2,
            "mean": 0.5,
            "stderr_clt": 0.5,
            "stderr_clustered": None,
            "expected_accuracy": 0.5,
            "consensus_accuracy": 0.5,
            "internal_variance": None,
            "consistency_rate": 1.0,
        },
    ),
    "numbers beside repeats do not enter the repeats' statistics": (
        [[1, 0, 1], 0.0],
        None,
        {
            "n": 2,
            "mean": 1 / 3,
            "stderr_clt": 1 / 3,
            "stderr_clustered": None,
            "expected_accuracy": 2 / 3,
            "consensus_accuracy": 1.0,
            "internal_variance": 1 / 3,
            "consistency_rate": 0.0,
        },
    ),
    "an empty list is no score": (
        [[], 1.0, 0.0],
        None,
        {"n": 2, "mean": 0.5, "stderr_clt": 0.5, "stderr_clustered": None},
    ),
    "what overflows is undefined": (
        [1e308, 1e308, 1e308],
        ["a", "b", "b"],
        {"n": 3, "mean": None, "stderr_clt": None, "stderr_clustered": None},
    ),
    "a spread that overflows is undefined, its mean is not": (
        [1e300, -1e300],
        ["a", "b"],
        {"n": 2, "mean": 0.0, "stderr_clt": None, "stderr_clustered": None},
    ),
}


@pytest.mark.parametrize(("samples", "clusters", "expected"), WORKED.values(), ids=WORKED)
def test_worked_cases_come_out_to_twelve_digits(samples, clusters, expected):
    assert_close(expected, recomputed(samples, clusters))


scores = st.sampled_from([0.0, 1.0]) | st.floats(0, 1) | st.floats(-100, 100).map(lambda x: round(x, 3))
lists = st.lists(scores, min_size=1, max_size=4)
clustered = st.lists(st.tuples(scores | lists, st.none() | st.integers(0, 4)), min_size=1, max_size=40)


@given(clustered)
def test_any_scores_equal_the_naive_reference(pairs):
    samples, clusters = [list(column) for column in zip(*pairs, strict=True)]
    expected = naive(samples, clusters)
    actual = recomputed(samples, clusters)
    # The reference's own rounding, where deviations of a cluster cancel to nothing, is what limits the comparison.
    root = math.sqrt(TOLERANCE)
    error, expected_error = actual.pop("stderr_clustered"), expected.pop("stderr_clustered")
    assert_close(expected, actual)
    assert (expected_error is None) == (error is None)
    if error is not None and expected_error > root:
        assert error**2 == pytest.approx(expected_error**2, rel=1e-11, abs=1e-11)


@given(
    st.lists(
        st.floats(allow_nan=False, allow_infinity=False) | st.lists(st.floats(allow_nan=False)), max_size=6
    )
)
def test_every_statistic_is_a_number_or_none_and_strict_json(samples):
    task = TaskScores()
    for index, sample in enumerate(samples):
        task.add("none", {"acc": sample}, index % 3 or None)
    json.dumps(task.result(), allow_nan=False)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_many_chunks_give_what_one_sum_gives(offset):
    samples = [offset + (i * 7919 % 1000) / 1000 for i in range(10_000)]
    clusters = [i % 77 for i in range(10_000)]
    mean = math.fsum(samples) / len(samples)
    deviations = [sample - mean for sample in samples]
    squares = math.fsum(d * d for d in deviations)
    sums = [math.fsum(deviations[cluster::77]) for cluster in range(77)]
    n = len(samples)
    clustered_variance = squares / ((n - 1) * n) + (math.fsum(s * s for s in sums) - squares) / n**2
    expected = {
        "n": n,
        "mean": mean,
        "stderr_clt": math.sqrt(squares / (n - 1) / n),
        "stderr_clustered": math.sqrt(clustered_variance),
    }
    assert_close(expected, recomputed(samples, clusters), 1e-12 if offset == 0 else 1e-9)


def test_ones_and_zeros_have_exactly_the_mean_that_division_gives():
    samples = [float(i % 3 == 0) for i in range(5000)]
    assert sum(samples) / 5000 == recomputed(samples)["mean"]


def test_filters_and_metrics_keep_the_order_of_their_first_sample():
    task = TaskScores()
    task.add("strict", {"b": 1.0, "a": 0.0})
    task.add("flexible", {"a": 1.0})
    task.add("strict", {"c": []})
    expected = [("strict", ["b", "a"]), ("flexible", ["a"])]
    assert expected == [(name, list(metrics)) for name, metrics in task.result().items()]


def test_no_scores_give_no_statistics():
    assert {} == TaskScores().result()


def test_clusters_are_told_apart_by_value_and_long_names_by_all_of_it():
    long = "x" * 5000
    expected = recomputed([1, 1, 0, 0], ["a", "a", "b", "b"])
    assert expected == recomputed([1, 1, 0, 0], [long + "1", long + "1", long + "2", long + "2"])
    assert expected == recomputed([1, 1, 0, 0], [1, 1.0, "1", "1"])


def test_beyond_the_bound_on_clusters_only_the_clustered_error_is_undefined(monkeypatch):
    monkeypatch.setattr(module, "MAX_CLUSTER_CELLS", 3)
    expected = {"n": 4, "mean": 0.5, "stderr_clt": HALF, "stderr_clustered": None}
    assert_close(expected, recomputed([1, 1, 0, 0], [1, 2, 3, 4]))


def test_beyond_the_bound_on_metrics_further_ones_are_left_out(monkeypatch):
    monkeypatch.setattr(module, "MAX_SERIES", 2)
    task = TaskScores()
    task.add("none", {"a": 1.0, "b": 1.0, "c": 1.0})
    task.add("none", {"b": 0.0})
    assert {"a": 1, "b": 2} == {metric: values["n"] for metric, values in task.result()["none"].items()}


class TestResultsFromScores:
    def test_keys_come_in_lmms_evals_order_with_na_for_undefined_errors(self):
        task = TaskScores()
        for score in (1.0, 0.0):
            task.add("strict", {"acc": score})
        task.add("none", {"f1": 0.5})
        expected = {
            "alias": "mme",
            "acc,strict": 0.5,
            "acc_stderr,strict": 0.5,
            "acc_stderr_clt,strict": 0.5,
            "acc_stderr_clustered,strict": "N/A",
            "f1,none": 0.5,
            "f1_stderr,none": "N/A",
            "f1_stderr_clt,none": "N/A",
            "f1_stderr_clustered,none": "N/A",
        }
        actual = results_from_scores("mme", task.result())
        assert list(expected.items()) == list(actual.items())

    def test_repeats_bring_their_four_keys(self):
        task = TaskScores()
        task.add("none", {"acc": [1.0]})
        expected = {
            "acc_expected_accuracy,none": 1.0,
            "acc_consensus_accuracy,none": 1.0,
            "acc_internal_variance,none": None,
            "acc_consistency_rate,none": 1.0,
        }
        assert list(expected.items()) == list(results_from_scores("t", task.result()).items())[-4:]

    def test_a_task_without_scores_has_its_alias_alone(self):
        assert {"alias": "t"} == results_from_scores("t", {})


class TestDisagreements:
    STATISTICS = {"none": {"acc": {"n": 4, "mean": 0.75}}}  # noqa: RUF012 - never changed

    @pytest.mark.parametrize(
        "aggregate", [0.75, 0.7500001, 75.0, 75, 75.00001, None, "N/A", [], True, {"score": 1.0}]
    )
    def test_equal_means_hundredfold_means_and_what_is_no_number_agree(self, aggregate):
        assert [] == disagreements({"acc,none": aggregate}, self.STATISTICS)

    @pytest.mark.parametrize("aggregate", [0.74, 0.76, 7.5, 0, -0.75, 0.0075, 10**400])
    def test_another_number_is_named_with_both_values(self, aggregate):
        expected = [{"filter": "none", "metric": "acc", "aggregate": aggregate, "mean": 0.75}]
        assert expected == disagreements({"acc,none": aggregate}, self.STATISTICS)

    def test_a_metric_without_aggregate_or_without_mean_is_not_compared(self):
        statistics_of_task = {"none": {"acc": {"n": 1, "mean": None}, "other": {"n": 1, "mean": 1.0}}}
        assert [] == disagreements({"acc,none": 1.0}, statistics_of_task)
