"""``evalsink publish``: existing evaluation output into events."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from consumer.cli import options
from consumer.cli.text import printable, say
from consumer.errors import UsageError
from consumer.kafka_client import connect
from consumer.publish.arrangement import Arrangement
from consumer.publish.outputs import Output, find_outputs
from consumer.publish.producer import Sender
from consumer.publish.publication import Publication, prepare
from consumer.settings import load
from schemas.events import MAX_SHARDS

Advance = Callable[[int], None]


@click.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@options.brokers()
@click.option(
    "--shards",
    type=click.IntRange(1, MAX_SHARDS),
    default=1,
    show_default=True,
    help="Deal the documents to so many shards, as ranks of one job would.",
)
@click.option("--shuffle", metavar="SEED", type=int, help="Send rows, tasks and shards in a shuffled order.")
@click.option(
    "--duplicate",
    metavar="FRACTION",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="Send this fraction of the rows twice, as retries do.",
)
@click.option(
    "--run-id", metavar="ID", help="Name of the run. Default: derived from the content of its files."
)
@click.option(
    "--batch-size",
    metavar="N",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="Rows in one event.",
)
@options.config()
def command(  # noqa: PLR0917 - click passes them by name
    path: Path,
    brokers: str | None,
    shards: int,
    shuffle: int | None,
    duplicate: float,
    run_id: str | None,
    batch_size: int,
    config: Path | None,
) -> None:
    """Send existing lmms-eval or lm-eval output as events.

    PATH is a folder, searched for results files, or one results file. Every results file with the samples
    files beside it is a run. Rows are sent byte for byte; the original's date stays. The run ids go to
    stdout, one a line, each when the broker has acknowledged its run; everything else goes to stderr.

    Sending again is harmless: the same files have the same run id, and a run is closed once. After an
    interruption, send again with the same --shards.

    \b
    Example:
      evalsink topics --brokers 127.0.0.1:9092
      evalsink publish logs/ --brokers 127.0.0.1:9092 --shards 4 --shuffle 7 --duplicate 0.05
      evalsink worker --brokers 127.0.0.1:9092 --output out --state state --exit-when-idle 5
    """  # noqa: D301 - click wants a real backspace: it keeps the lines after it apart
    settings = load(flags={"brokers": brokers}, config=config)
    found = find_outputs(path)
    for notice in found.notices:
        say(notice)
    if run_id is not None and len(found.outputs) > 1:
        raise UsageError(
            f"--run-id names one run, but {path} holds {len(found.outputs)}: name one results file"
        )
    with Sender(connect(settings.brokers, settings.security), settings.topics) as sender:
        publications = _prepare(
            found.outputs,
            shards=shards,
            arrangement=Arrangement(batch_size, shuffle, duplicate),
            run_id=run_id,
        )
        sender.check_room(publications)
        for publication in publications:
            _send(sender, publication)
            click.echo(publication.run_id)  # click flushes


def _prepare(
    outputs: list[Output], *, shards: int, arrangement: Arrangement, run_id: str | None
) -> list[Publication]:
    # All are read through before the first is sent: a torn file is found while nothing has been done yet.
    size = sum(file.stat().st_size for output in outputs for file in output.samples.values())
    with _progress("reading", size) as advance:
        publications = [
            prepare(output, shards=shards, arrangement=arrangement, run_id=run_id, advance=advance)
            for output in outputs
        ]
    for notice in itertools.chain.from_iterable(publication.notices() for publication in publications):
        say(notice)
    return publications


def _send(sender: Sender, publication: Publication) -> None:
    rows = len(publication.table)
    with _progress(f"sending {printable(publication.run_id)}", rows) as advance:
        sender.send(publication, advance)
    say(
        f"sent {publication.run_id}: {rows} rows of {len(publication.table.documents)} task(s), "
        f"{publication.shards} shard(s), from {publication.output.results}"
    )


@contextmanager
def _progress(what: str, total: int) -> Iterator[Advance]:
    """A bar on a terminal; elsewhere nothing, the lines before and after say enough."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda step: progress.advance(task, step)
