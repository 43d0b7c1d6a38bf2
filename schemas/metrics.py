"""One row for each figure of a run: the lines of ``{stem}_metrics.jsonl``.

Owns: the row, its columns and their order, and the bytes of a file of them. Invariants: every row has every
column, null where there is nothing, and scalars only, so that files of all runs and models load as one table
without inference; numbers are finite; every run has at least one row.

File format: JSON Lines in UTF-8, strict and compact, one row a line, each ended.
"""

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from schemas.events import Harness
from schemas.results import RunStatus


class MetricRow(Struct, frozen=True):
    """One metric of a task under one filter.

    A task without a metric has one row with `metric` null, a run without a task one with `task` null.

    Attributes:
        run_id: The run; null for one that evalsink did not close.
        status: ``complete``, ``incomplete`` or ``failed``; null for a run that evalsink did not close.
        harness: Who evaluated.
        model_name: As the harness was given it.
        model: Folder of the model; empty where there is none.
        date: The stamp in the file names, as the harness spells it.
        task: As the harness names it.
        filter: The harness's filter; null where the key in ``results`` names none.
        metric: As the harness names it.
        value: The figure. Null if it is no finite number.
        value_json: What ``results`` holds, as compact JSON, where `value` does not say it exactly: text,
            objects, lists, whole numbers beyond a double. Null otherwise, and where there is nothing.
        stderr: The harness's standard error; null for its ``N/A``.
        stderr_clt: Standard error by the central limit theorem, likewise.
        stderr_clustered: Standard error over clusters, likewise.
        expected_accuracy: EA of documents answered several times; null where the harness has none.
        consensus_accuracy: CA, likewise.
        internal_variance: IV, likewise.
        consistency_rate: CR, likewise.
        higher_is_better: Direction of the metric; null if nobody said.
        n_shot: Number of examples in the prompt.
        version: Version of the task.
        group: The task is a group of tasks: its figures sum up those of others.
        samples: Documents evaluated, as the harness says.
        samples_total: Documents that the task has; more than `samples` where the evaluation was limited.
        rows: Lines of the samples file; null for a run that evalsink did not close.
        samples_file: The task's samples file, relative to the output folder; null without one.
        samples_sha256: Its hash, hex; null for a run that evalsink did not close.
        results_file: The run's results JSON, relative to the output folder.
        results_sha256: Its hash, hex.
        task_hash: The harness's own hash over the task's documents.
        git_hash: The harness's commit.
        harness_version: The harness's version.
        model_source: The harness's model type.
    """

    run_id: str | None
    status: RunStatus | None
    harness: Harness
    model_name: str
    model: str
    date: str
    task: str | None
    filter: str | None
    metric: str | None
    value: float | None = None
    value_json: str | None = None
    stderr: float | None = None
    stderr_clt: float | None = None
    stderr_clustered: float | None = None
    expected_accuracy: float | None = None
    consensus_accuracy: float | None = None
    internal_variance: float | None = None
    consistency_rate: float | None = None
    higher_is_better: bool | None = None
    n_shot: int | None = None
    version: str | None = None
    group: bool = False
    samples: int | None = None
    samples_total: int | None = None
    rows: int | None = None
    samples_file: str | None = None
    samples_sha256: str | None = None
    results_file: str = ""
    results_sha256: str = ""
    task_hash: str | None = None
    git_hash: str | None = None
    harness_version: str | None = None
    model_source: str | None = None


_encode = msgspec.json.Encoder().encode


def encode_rows(rows: Iterable[MetricRow]) -> bytes:
    """The bytes of a file."""
    return b"".join(_encode(row) + b"\n" for row in rows)
