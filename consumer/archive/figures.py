"""What the metrics files of a repository say of its runs, and the names it is loaded by. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from consumer.archive.listing import ListedRun
from schemas.metrics import MetricRow

Metrics: TypeAlias = Mapping[str, Sequence[MetricRow]]
"""Path of a metrics file to its rows."""

SPLITS_MAX = 1000
"""Of a configuration; the newest runs. ``datasets`` prepares every split of a configuration that it loads."""

RESULTS: Final = "results"
LATEST: Final = "latest"
ALL: Final = "train"
"""The name that ``datasets`` itself gives to the one split of files without any."""


def rows_of(run: ListedRun, metrics: Metrics) -> Sequence[MetricRow]:
    """The rows of a run; none where its metrics file could not be read."""
    return metrics.get(run.metrics, ()) if run.metrics is not None else ()


def _status(run: ListedRun, metrics: Metrics) -> str | None:
    return next((row.status for row in rows_of(run, metrics)), None)


def newest_of(runs: Iterable[ListedRun], metrics: Metrics) -> ListedRun:
    """The newest that is not known to be short; if all are, the newest."""
    return max(runs, key=lambda run: (_status(run, metrics) in ("complete", None), run.age))
