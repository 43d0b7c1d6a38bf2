"""Every metric there is, as one typed table; docs/METRICS.md is generated from it.

    python -m consumer.telemetry.catalog [--check]

Invariants: names begin with ``evalsink_``, units are base units and last in the name, counters end in
``_total``; every label has few values, known beforehand or bounded by what this worker owns. Never a run id,
a model or a task: the series of a worker are as many after a thousand runs as after one. ``--check`` writes
nothing and exits with 1 where the page is out of step.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct

PAGE = Path(__file__).parents[2] / "docs" / "METRICS.md"


class Label(Struct, frozen=True):
    """A label.

    Attributes:
        name: Its name.
        values: All its values, where they are known beforehand: each has a series from the start, so that
            the first increase is seen as one.
        bound: Else what bounds them.
    """

    name: str
    values: tuple[str, ...] = ()
    bound: str = ""


class Metric(Struct, frozen=True):
    """A metric.

    Attributes:
        part: Heading on the page.
        name: As it is exposed.
        kind: As Prometheus calls it.
        help: One sentence.
        labels: In order.
        buckets: Upper bounds of a histogram, the last (infinity) left out.
    """

    part: str
    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def unit(self) -> str:
        """The base unit that the name tells; empty for a plain number."""
        return next((unit for unit in ("seconds", "bytes") if unit in self.name.split("_")[-2:]), "")


_TOPIC = Label("topic", bound="the input topics")
_PARTITION = Label("partition", bound="partitions this worker owns; they go with them")

DEAD_LETTER_REASONS = (
    "empty",
    "not-json",
    "bad-utf8",
    "too-deep",
    "unknown-type",
    "bad-shard",
    "invalid",
    "wrong-topic",
    "key-mismatch",
    "bad-rows",
    "late",
    "unexpected",
)
"""docs/FORMATS.md says what each means."""

# -- reading ------------------------------------------------------------------------------------------------

_READING = "Reading"

RECORDS = Metric(_READING, "evalsink_records_total", "counter", "Records read.", (_TOPIC,))
READ_BYTES = Metric(_READING, "evalsink_read_bytes_total", "counter", "Bytes of their values.", (_TOPIC,))
ROWS = Metric(_READING, "evalsink_rows_total", "counter", "Rows taken into the spool.")
REPAIRED_ROWS = Metric(
    _READING,
    "evalsink_repaired_rows_total",
    "counter",
    "Rows taken in which NaN, Infinity or half an emoji was replaced.",
)
SCORELESS_ROWS = Metric(
    _READING,
    "evalsink_scores_dropped_rows_total",
    "counter",
    "Rows taken whose scores or cluster could not be read.",
)
REJECTED_ROWS = Metric(
    _READING, "evalsink_rejected_rows_total", "counter", "Elements of batches that held no usable row."
)
DEAD_LETTERS = Metric(
    _READING,
    "evalsink_dead_letters_total",
    "counter",
    "Records that could not be taken, by reason.",
    (Label("reason", DEAD_LETTER_REASONS),),
)
REPLAYED = Metric(
    _READING,
    "evalsink_replayed_records_total",
    "counter",
    "Records of runs that are closed already, read again and dropped.",
)
EVENT_AGE = Metric(
    _READING,
    "evalsink_event_age_seconds",
    "histogram",
    "From a record's Kafka time to its rows in the live JSONL.",
    buckets=(0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 86400),
)
LAG_RECORDS = Metric(
    _READING,
    "evalsink_lag_records",
    "gauge",
    "Offsets between what was applied and the end of the log as last heard.",
    (_TOPIC, _PARTITION),
)
LAG_SECONDS = Metric(
    _READING,
    "evalsink_lag_seconds",
    "gauge",
    "Age of the last record read where more are waiting, else 0.",
    (_TOPIC, _PARTITION),
)
OWNED_PARTITIONS = Metric(
    _READING, "evalsink_owned_partitions", "gauge", "Partition numbers that this worker reads."
)
WAITING_PARTITIONS = Metric(
    _READING,
    "evalsink_waiting_partitions",
    "gauge",
    "Partition numbers that were assigned and could not be started yet.",
)
REBALANCES = Metric(
    _READING,
    "evalsink_rebalances_total",
    "counter",
    "Times the group gave this worker partitions or took them.",
    (Label("change", ("assigned", "lost")),),
)

# -- runs ---------------------------------------------------------------------------------------------------

_RUNS = "Runs"

OPEN_RUNS = Metric(
    _RUNS, "evalsink_open_runs", "gauge", "Runs without receipt, those on their way out included."
)
CLOSING_RUNS = Metric(_RUNS, "evalsink_closing_runs", "gauge", "Runs on their way out.")
BLOCKED_RUNS = Metric(
    _RUNS,
    "evalsink_blocked_runs",
    "gauge",
    "Runs that cannot be published: other bytes bear their name, or their close-out crashed.",
    (Label("reason", ("determinism", "crash")),),
)
OLDEST_RUN = Metric(
    _RUNS,
    "evalsink_open_run_age_max_seconds",
    "gauge",
    "Age of the oldest open run, by the Kafka time of its first record; 0 without runs.",
)
IDLE_RUN = Metric(
    _RUNS,
    "evalsink_open_run_idle_max_seconds",
    "gauge",
    "Longest silence of an open run, by the Kafka time of its last record; 0 without runs.",
)
RUNS_CLOSED = Metric(
    _RUNS,
    "evalsink_runs_closed_total",
    "counter",
    "Runs published, by the status in their results JSON.",
    (Label("status", ("complete", "incomplete", "failed")),),
)
PUBLISHED_ROWS = Metric(_RUNS, "evalsink_published_rows_total", "counter", "Rows of published runs.")
PUBLISHED_BYTES = Metric(_RUNS, "evalsink_published_bytes_total", "counter", "Bytes of their samples files.")
DUPLICATE_ROWS = Metric(
    _RUNS,
    "evalsink_duplicate_rows_total",
    "counter",
    "Rows of published runs that came again with equal bytes.",
)
CONFLICTING_ROWS = Metric(
    _RUNS,
    "evalsink_conflicting_rows_total",
    "counter",
    "Rows of published runs that came again with other bytes, and lost.",
)
SUPERSEDED_ROWS = Metric(
    _RUNS,
    "evalsink_superseded_rows_total",
    "counter",
    "Rows of published runs that lost to a higher attempt of their shard.",
)
CLOSE_OUT = Metric(
    _RUNS,
    "evalsink_close_out_seconds",
    "histogram",
    "From the decision that a run is whole to its published results file.",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600),
)
CLOSE_OUTS_FAILED = Metric(
    _RUNS,
    "evalsink_close_outs_failed_total",
    "counter",
    "Close-outs that came to nothing, by what was in the way.",
    (Label("reason", ("disk", "determinism", "spool", "crash")),),
)

# -- state --------------------------------------------------------------------------------------------------

_STATE = "State"

CHECKPOINTS = Metric(
    _STATE,
    "evalsink_checkpoints_total",
    "counter",
    "Checkpoints, by outcome.",
    (Label("outcome", ("written", "unchanged", "failed")),),
)
CHECKPOINT = Metric(
    _STATE,
    "evalsink_checkpoint_seconds",
    "histogram",
    "Syncing the spool and writing one checkpoint.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30),
)
COMMITS = Metric(
    _STATE,
    "evalsink_commits_total",
    "counter",
    "Commits, by outcome; a refused one is asked for again.",
    (Label("outcome", ("accepted", "refused")),),
)
LAST_COMMIT = Metric(
    _STATE,
    "evalsink_last_commit_timestamp_seconds",
    "gauge",
    "When Kafka last took a commit, or there was last nothing to commit.",
)
UNACKNOWLEDGED = Metric(
    _STATE,
    "evalsink_unacknowledged_records",
    "gauge",
    "Dead letters and receipts that Kafka has not acknowledged yet.",
)
DISK_FREE = Metric(
    _STATE,
    "evalsink_disk_free_bytes",
    "gauge",
    "Room left for this user where the folder lies.",
    (Label("folder", ("state", "output")),),
)
DISK_SIZE = Metric(
    _STATE,
    "evalsink_disk_size_bytes",
    "gauge",
    "Size of the file system where the folder lies.",
    (Label("folder", ("state", "output")),),
)
WAITING_FOR_DISK = Metric(
    _STATE, "evalsink_waiting_for_disk", "gauge", "1 while reading is held because the disk is full."
)

# -- archive ------------------------------------------------------------------------------------------------

_ARCHIVE = "Archive"

OUTBOX_RUNS = Metric(
    _ARCHIVE,
    "evalsink_outbox_runs",
    "gauge",
    "Closed runs that are not archived yet.",
    (Label("state", ("queued", "pushing", "parked")),),
)
OUTBOX_AGE = Metric(
    _ARCHIVE,
    "evalsink_outbox_oldest_age_seconds",
    "gauge",
    "How long the oldest of them has been waiting; 0 without any.",
)
PUSHES = Metric(
    _ARCHIVE,
    "evalsink_pushes_total",
    "counter",
    "Pushes of runs to the Hub, by outcome.",
    (Label("outcome", ("archived", "retried", "parked")),),
)

# -- worker -------------------------------------------------------------------------------------------------

_WORKER = "Worker"

LOOP_TURNS = Metric(_WORKER, "evalsink_loop_turns_total", "counter", "Turns of the worker's loop.")
READY = Metric(_WORKER, "evalsink_ready", "gauge", "1 where /readyz answers 200.")
BUILD = Metric(
    _WORKER,
    "evalsink_build_info",
    "gauge",
    "Always 1; which evalsink this is.",
    (Label("version", bound="one"),),
)
OBSERVER_FAILURES = Metric(
    _WORKER,
    "evalsink_observer_failures_total",
    "counter",
    "Observations that could not be counted: these figures are too low.",
)

CATALOG: tuple[Metric, ...] = tuple(one for one in list(globals().values()) if isinstance(one, Metric))
"""All of them, in the order above."""

_INTRODUCTION = """\
# Metrics

What a worker exposes at `/metrics` (setting `http`, default <http://127.0.0.1:9464>), as text or OpenMetrics.
Generated from `consumer/telemetry/catalog.py` by `make generated`.

Counters count since the process started; after a crash what was not saved is read, and counted, again. No
metric has a run, a model or a task in its labels; per run there are `/runs`, `evalsink runs` and the log line
`run_closed`. Beside these there are prometheus-client's own `process_…` and `python_…`. A worker that is dead
tells nothing: watch the group's lag from outside too, with any exporter of Kafka's.

Alerts on these are in [deploy/prometheus/](../deploy/prometheus), what to do about them in
[RUNBOOK.md](RUNBOOK.md), dashboards in [deploy/grafana/](../deploy/grafana).
"""


def page() -> str:
    """docs/METRICS.md."""
    lines = [_INTRODUCTION]
    for part in dict.fromkeys(metric.part for metric in CATALOG):
        lines += [f"## {part}", ""]
        if part == _ARCHIVE:
            lines += ["Only where closed runs are pushed to the Hub.", ""]
        lines += ["| metric | kind | unit | labels | meaning |", "|---|---|---|---|---|"]
        for metric in CATALOG:
            if metric.part == part:
                cells = (f"`{metric.name}`", metric.kind, metric.unit, _labels(metric), _meaning(metric))
                lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _labels(metric: Metric) -> str:
    return "; ".join(
        f"`{label.name}`: {', '.join(f'`{value}`' for value in label.values) or label.bound}"
        for label in metric.labels
    )


def _meaning(metric: Metric) -> str:
    if not metric.buckets:
        return metric.help
    return f"{metric.help} Buckets: {', '.join(f'{bound:g}' for bound in metric.buckets)}."


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or check it; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m consumer.telemetry.catalog", description="Generate docs/METRICS.md."
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if it is out of step")
    if not parser.parse_args(arguments).check:
        PAGE.write_text(page(), "utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text("utf-8") == page():
        return 0
    sys.stderr.write("docs/METRICS.md is out of step with the catalog; run: make generated\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
