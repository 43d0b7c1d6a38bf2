"""What the synthetic evaluator makes of scores: entries of ``results`` in lmms-eval's key forms and order.

The formulas are lmms-eval's (mean, central limit and clustered standard error, the four of repeats), written
down here a second time on purpose: a demo that asked the worker's own code would agree with it by
construction.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

Score = float | list[float]


def metric_entries(
    metric: str, filter_name: str, scores: Sequence[Score], clusters: Sequence[str | None]
) -> dict[str, Any]:
    """The entries of one (metric, filter) of ``results[task]``.

    Args:
        metric: Its name.
        filter_name: Likewise.
        scores: One a document; a list holds k repeats, of which the mean counts. Two documents at least.
        clusters: One a document, all None where there are none.
    """
    means = [math.fsum(score) / len(score) if isinstance(score, list) else score for score in scores]
    n = len(means)
    mean = math.fsum(means) / n
    squares = math.fsum((value - mean) ** 2 for value in means)
    clt = math.sqrt(squares / (n - 1) / n)
    clustered: float | str = "N/A"
    if any(cluster is not None for cluster in clusters):
        deviations: dict[str | None, float] = defaultdict(float)
        for value, cluster in zip(means, clusters, strict=True):
            deviations[cluster] += value - mean
        between = math.fsum(deviation**2 for deviation in deviations.values()) - squares
        clustered = math.sqrt(squares / ((n - 1) * n) + between / n**2)
    entries: dict[str, Any] = {
        f"{metric},{filter_name}": mean,
        f"{metric}_stderr,{filter_name}": clt,
        f"{metric}_stderr_clt,{filter_name}": clt,
        f"{metric}_stderr_clustered,{filter_name}": clustered,
    }
    repeats = [score for score in scores if isinstance(score, list)]
    if repeats:
        entries |= {f"{metric}_{name},{filter_name}": value for name, value in _stability(repeats).items()}
    return entries


def _stability(repeats: Sequence[list[float]]) -> dict[str, float]:
    flat = [score for scores in repeats for score in scores]
    variances = [
        math.fsum((score - math.fsum(scores) / len(scores)) ** 2 for score in scores) / (len(scores) - 1)
        for scores in repeats
    ]
    return {
        "expected_accuracy": math.fsum(flat) / len(flat),
        "consensus_accuracy": sum(sum(scores) > len(scores) / 2 for scores in repeats) / len(repeats),
        "internal_variance": math.fsum(variances) / len(variances),
        "consistency_rate": sum(len(set(scores)) == 1 for scores in repeats) / len(repeats),
    }
