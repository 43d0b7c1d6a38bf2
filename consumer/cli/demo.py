"""``evalsink demo``: the whole way on one machine, on the embedded broker, and what it left behind."""

import json
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.tree import Tree

from consumer import assembly
from consumer.broker.embedded import EmbeddedBroker, ensure_topics
from consumer.demo.synthetic import Facts, SyntheticEvaluation
from consumer.errors import EvalsinkError, VerificationError
from consumer.intake.outbound import Outbound
from consumer.kafka_client import connect
from consumer.observations import Counts
from consumer.report.table import render
from consumer.report.verify import find_results, read_run, verify_run
from consumer.settings import Settings
from consumer.telemetry import logs
from consumer.worker import Worker  # noqa: TC001 - one way to import, whatever for

DEFAULT_OUTPUT = Path("demo-output")
"""Git-ignored, and made anew each time; a folder that the user names is never emptied."""

_IDLE_S = 1.0
_LOOK_S = 0.05


@click.command(name="demo")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help=f"Where the run is published. Default: {DEFAULT_OUTPUT}, made anew.",
)
def command(output: Path | None) -> None:
    """Walk the whole way on an embedded broker: nothing but this machine is needed.

    A synthetic evaluation (4 shards, 5 tasks, one with two filters, one answered several times) is sent
    shuffled, 5% of its rows twice, with garbage in between. A worker makes a published run of it. Shown are
    the table, the files, what became of every record, and a verification of all hashes.
    """
    if output is None:
        output = DEFAULT_OUTPUT
        shutil.rmtree(output, ignore_errors=True)
    console = Console()
    evaluation = SyntheticEvaluation()
    records = list(evaluation.records())
    with tempfile.TemporaryDirectory(prefix="evalsink-demo-") as folder, EmbeddedBroker() as broker:
        log = Path(folder, "worker.log")
        settings = Settings(brokers=broker.bootstrap, output=str(output), state=str(Path(folder, "state")))
        topics = settings.topics
        ensure_topics(broker.bootstrap, (*topics.inputs, topics.receipts, topics.dead_letters))
        console.print(
            f"Embedded broker at [bold]{broker.bootstrap}[/], run [bold]{evaluation.facts.run_id}[/]"
        )
        with log.open("w") as stream, _bars(console) as bars:
            logs.configure(stream=stream)
            outbound = Outbound(connect(broker.bootstrap))
            sending = bars.add_task("events sent", total=len(records))
            for record in records:
                topic = topics.samples if record.role == "samples" else topics.aggregates
                outbound.send(topic, key=record.key, value=record.value)
                bars.advance(sending)
            outbound.flush(30)
            outbound.close()
            counts = _work(settings, bars, len(records))
    console.print()
    [path] = find_results([output])
    results = json.loads(path.read_bytes())
    click.echo(render(results, version_column=True))
    console.print(_tree(output))
    click.echo(_account(results, counts.dead_letters))
    _check(evaluation.facts, results, counts.dead_letters)
    run = read_run(path)
    assert run is not None
    verify_run(run)
    click.echo(f"verified: every hash, count and identity of {run.rows:,} rows in {path}")
    click.echo(f"\nTry: evalsink table {path}\n     evalsink verify {output}\n     evalsink --help")


def _work(settings: Settings, bars: Progress, total: int) -> Counts:
    """Run a worker on a thread of its own until it is idle, and show how far it is."""
    reading = bars.add_task("records read", total=total)
    closing = bars.add_task("runs closed", total=1)
    running: list[Worker] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            with assembly.worker(settings) as worker:
                running.append(worker)
                worker.run(exit_when_idle_s=_IDLE_S)
        except BaseException as error:  # noqa: BLE001 - handed to the main thread
            failed.append(error)

    thread = threading.Thread(target=work, name="worker", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_LOOK_S)
        for worker in running:
            bars.update(reading, completed=worker.counts.records)
            bars.update(closing, completed=worker.counts.closed)
    if failed:
        raise failed[0]
    if running[0].counts.closed != 1:
        raise EvalsinkError(f"the demo's run did not close: {running[0].counts}")
    return running[0].counts


def _tree(output: Path) -> Tree:
    tree = Tree(f"[bold]{output}/[/]")
    for folder in sorted(
        path for path in output.iterdir() if path.is_dir() and not path.name.startswith(".")
    ):
        branch = tree.add(f"{folder.name}/")
        for file in sorted(folder.iterdir()):
            branch.add(f"{file.name}  [dim]{decimal(file.stat().st_size)}[/]")
    return tree


def _account(results: dict[str, Any], dead_letters: int) -> str:
    tasks = results["evalsink"]["tasks"].values()
    total = {
        name: sum(task[name] for task in tasks) for name in ("rows", "duplicates", "conflicts", "repaired")
    }
    return (
        f"\n{total['rows']:,} rows published, {total['duplicates']} duplicates counted, "
        f"{total['conflicts']} conflicts, {total['repaired']} rows repaired, {dead_letters} dead letters; "
        f"status {results['evalsink']['status']}"
    )


def _check(facts: Facts, results: dict[str, Any], dead_letters: int) -> None:
    """What was published is what was sent.

    Raises:
        VerificationError: it is not.
    """
    own = results["evalsink"]
    expected = {
        "status": "complete",
        "rows": facts.rows,
        "duplicates": {task: facts.duplicates.get(task, 0) for task in facts.rows},
        "repaired": {task: facts.repaired.get(task, 0) for task in facts.rows},
        "filters": facts.filters,
        "results": facts.results,
        "dead letters": facts.dead_letters,
    }
    found = {
        "status": own["status"],
        **{
            name: {task: entry[name] for task, entry in own["tasks"].items() if entry["rows"]}
            for name in ("rows", "duplicates", "repaired")
        },
        "filters": {task: list(entry["filters"]) for task, entry in own["tasks"].items() if entry["rows"]},
        "results": results["results"],
        "dead letters": dead_letters,
    }
    for name, value in expected.items():
        if found[name] != value:
            raise VerificationError(f"the demo's {name}: expected {value}, found {found[name]}")


@contextmanager
def _bars(console: Console) -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        yield progress
