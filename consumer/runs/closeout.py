"""From a settled run in the spool to its published files. Runs off the poll thread.

The way: fields -> aggregates -> per task the samples file -> status -> results JSON, table and figures ->
publication. All of it is a function of the run's records up to its cuts; nothing of host, clock or worker
enters.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from msgspec import UNSET, Struct
from msgspec.structs import replace

from consumer.filesystem import Disk
from consumer.runs.account import TaskCopy, entry, judge
from consumer.runs.aggregates import Chosen, choose
from consumer.runs.fields import RunFields, collect, loads, start_ms
from consumer.runs.index import ENTRY, Sides, decode_scores, decode_sides
from consumer.runs.lifecycle import counting_ends
from consumer.runs.publication import Staging, remove_provisional
from consumer.runs.results_json import Times, assemble, dump, filter_order
from consumer.runs.samples import Copied, copy_samples
from consumer.runs.scores import TaskScores, disagreements, results_from_scores
from consumer.runs.spool import SpooledRun, read_record
from consumer.vocabulary import Record
from schemas.events import Aggregate
from schemas.names import PARTIAL_FOLDER, RunFiles, relative_paths, run_files
from schemas.results import OWN_KEY, Evalsink, RunStatus
from schemas.state import Cut

_END_OF_LOG = 2**63 - 1


class Tools(Struct, frozen=True):
    """What close-out is given by the assembly.

    Attributes:
        decode: An accepted record into its event, repairs included.
        render_table: A results JSON into the table for people.
        render_metrics: A results JSON, its path relative to the output folder and its sha256 into the rows
            of figures for programs.
        disk: The disk.
        output: Output folder.
        worker: Names this worker's staging folder.
    """

    decode: Callable[[Record], Any]
    render_table: Callable[[dict[str, Any]], str]
    render_metrics: Callable[[dict[str, Any], str, str], bytes]
    disk: Disk
    output: Path
    worker: str


class ClosedRun(Struct, frozen=True):
    """A published run.

    Attributes:
        status: As in its results JSON.
        stem: Of its file names.
        results: Results JSON, relative to the output folder.
        sha256: Of the results JSON, hex.
        rows: Published rows of all tasks.
        size: Bytes of the samples files.
        duplicates: Rows of all tasks that came again with equal bytes.
        conflicts: Rows that came again with other bytes, and lost.
        superseded: Rows of a lower attempt that lost.
    """

    status: RunStatus
    stem: str
    results: str
    sha256: str
    rows: int
    size: int
    duplicates: int = 0
    conflicts: int = 0
    superseded: int = 0


def close_out(spooled: SpooledRun, tools: Tools) -> ClosedRun:
    """Publish a settled run.

    Raises:
        DeterminismError: a file of another content bears a name of this run.
        SpoolError: the spool is damaged.
        OSError: the disk; nothing is lost, the run can be closed again.
    """
    staging = Staging(tools.output, tools.worker, disk=tools.disk)
    try:
        closed = _compose(spooled, tools, staging)
        staging.publish()
    finally:
        staging.discard()
    remove_provisional(tools.output, spooled.run.run_id)
    return closed


def publish_provisionally(spooled: SpooledRun, tools: Tools) -> ClosedRun:
    """Publish what there is of an open run below ``partial/``, as if nothing more came.

    A former version is replaced. Outside promise P1: it depends on how far a worker had read.

    Args:
        spooled: A copy of the run's state, which nobody else changes; the spool files may grow meanwhile.
        tools: As for `close_out`.

    Raises:
        OSError: the disk.
    """
    run = spooled.run
    if run.samples_cut is None:
        run.samples_cut = Cut(_END_OF_LOG, run.seen_ms, expired=True)
    run.aggregates_cut = run.aggregates_cut or Cut(_END_OF_LOG)
    staging = Staging(tools.output, tools.worker, disk=tools.disk)
    try:
        closed = _compose(spooled, tools, staging)
        remove_provisional(tools.output, run.run_id)
        staging.place_provisionally()
    finally:
        staging.discard()
    if (tools.output / closed.results).exists():
        # Another worker closed the run meanwhile; what it cleaned up came back with this.
        remove_provisional(tools.output, run.run_id)
    return replace(closed, results=f"{PARTIAL_FOLDER}/{closed.results}")


def _compose(spooled: SpooledRun, tools: Tools, staging: Staging) -> ClosedRun:
    """Stage all of a run's files, the results JSON last."""
    run = spooled.run
    fields = collect(run, lambda span: read_record(spooled.log, span), tools.decode)
    files = run_files(
        run_id=run.run_id, model_name=fields.model_name, date=fields.date, harness=fields.harness
    )
    chosen = choose(run, lambda span: read_record(spooled.log, span))
    aggregates: dict[str, Aggregate] = {
        task: tools.decode(read_record(spooled.log, record.span))
        for task, record in chosen.winners.items()
        if record is not None
    }
    tasks = [
        _copy_task(
            spooled,
            number,
            fields,
            files=files,
            aggregate=aggregates.get(task.name),
            staging=staging,
        )
        for number, task in enumerate(run.tasks)
    ]
    results = _results(spooled, fields, chosen, aggregates, tasks)
    content = dump(results)
    sha256 = hashlib.sha256(content).hexdigest()
    table_path, metrics_path, results_path = relative_paths(
        files.folder, [files.table, files.metrics, files.results]
    )
    table = tools.render_table(results).encode()
    metrics = tools.render_metrics(results, results_path, sha256)
    staging.add(table_path, lambda file: file.write(table))
    staging.add(metrics_path, lambda file: file.write(metrics))
    staging.add(results_path, lambda file: file.write(content))
    return ClosedRun(
        status=results[OWN_KEY]["status"],
        stem=files.stem,
        results=results_path,
        sha256=sha256,
        rows=sum(task.copied.rows for task in tasks),
        size=sum(task.copied.size for task in tasks),
        duplicates=sum(task.copied.duplicates for task in tasks),
        conflicts=sum(task.copied.conflicts for task in tasks),
        superseded=sum(task.copied.superseded for task in tasks),
    )


def _copy_task(
    spooled: SpooledRun,
    number: int,
    fields: RunFields,
    *,
    files: RunFiles,
    aggregate: Aggregate | None,
    staging: Staging,
) -> TaskCopy:
    run, task = spooled.run, spooled.run.tasks[number]
    results = _keys_of(aggregate)
    filters = filter_order(results, task.filters)
    ranks = [filters.index(name) for name in task.filters]
    attempts = [run.shards[shard].attempt if shard in run.shards else 0 for shard in range(run.num_shards)]
    scores = TaskScores()

    def on_scores(rank: int, sides: Sides) -> None:
        columns = decode_scores(sides)
        if columns is not None:
            scores.add_columns(filters[rank], columns)
            return
        for _, values, cluster in decode_sides(sides):
            if values:
                scores.add(filters[rank], values, cluster)

    copied = Copied()

    def write(target: BinaryIO) -> None:
        nonlocal copied
        copied = copy_samples(
            spooled.tasks[number],
            target,
            total=task.index // ENTRY.itemsize,
            ranks=ranks,
            attempts=attempts,
            harness=fields.harness,
            scratch=spooled.scratch,
            on_scores=on_scores,
        )

    name = files.samples(task.name)
    staging.add(relative_paths(files.folder, [name])[0], write)
    if not copied.rows:
        staging.drop_last()
    return TaskCopy(task.name, name, filters, copied, scores)


def _keys_of(aggregate: Aggregate | None) -> Any:
    return loads(aggregate.results) if aggregate is not None else None


def _results(
    spooled: SpooledRun,
    fields: RunFields,
    chosen: Chosen,
    aggregates: Mapping[str, Aggregate],
    tasks: Sequence[TaskCopy],
) -> dict[str, Any]:
    run = spooled.run
    assert run.samples_cut is not None
    status, why = judge(spooled, chosen, {task.name: task.copied for task in tasks})
    copies = {task.name: task for task in tasks}
    stated: dict[str, int] = {}
    for _, _, end in counting_ends(run):
        for task, count in end.samples.items():
            stated[task] = stated.get(task, 0) + count
        for task in end.aggregates:
            stated.setdefault(task, 0)
    every = sorted({*copies, *stated, *fields.tasks}, key=str.encode)
    entries = {
        task: entry(
            copies.get(task), stated.get(task, 0), fields.tasks.get(task), complete=status == "complete"
        )
        for task in every
    }
    recomputed = {task.name: task.scores.result() for task in tasks if task.copied.rows}
    recomputed = {task: scores for task, scores in sorted(recomputed.items()) if scores}
    without = sorted(
        (task.name for task in tasks if task.copied.rows and task.name not in aggregates), key=str.encode
    )
    own = Evalsink(
        run_id=run.run_id,
        status=status,
        why=why,
        shards=run.num_shards,
        tasks=entries,
        aggregates_superseded=chosen.superseded,
        aggregates_duplicates=chosen.duplicates,
        scores=recomputed or UNSET,
        disagreements=[
            {"task": task, **difference}
            for task, scores in recomputed.items()
            if task in aggregates
            for difference in disagreements(_keys_of(aggregates[task]), scores)
        ],
    )
    return assemble(
        fields,
        aggregates,
        computed={task: results_from_scores(task, recomputed.get(task, {})) for task in without},
        task_hashes={
            task.name: task.copied.task_hash for task in _in_order(tasks, aggregates) if task.copied.rows
        },
        documents={task.name: max(task.copied.filters.values(), default=0) for task in tasks},
        times=Times(start=start_ms(run) / 1000, end=run.samples_cut.timestamp_ms / 1000),
        own=own,
    )


def _in_order(tasks: Sequence[TaskCopy], aggregates: Mapping[str, Aggregate]) -> list[TaskCopy]:
    places = {task: place for place, task in enumerate(aggregates)}
    return sorted(tasks, key=lambda task: (places.get(task.name, len(places)), task.name.encode()))
