"""``evalsink rebuild``: a run closed again from the log."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from consumer import assembly, settings
from consumer.cli import options
from consumer.cli.text import printable
from consumer.errors import EvalsinkError
from consumer.filesystem import Disk
from consumer.intake.replay import Advance, Replay, open_replay
from consumer.kafka_client import connect
from consumer.rebuild import Rebuilt, rebuild

_SAID = {"new": "published", "identical": "identical", "differs": "replaced"}


@click.command(name="rebuild", short_help="Close a run again from the log.")
@click.argument("run_id", metavar="RUN_ID")
@options.brokers()
@click.option("--output", metavar="DIR", help="Where the run is published. Default: output.")
@click.option("--in-place", is_flag=True, help="Replace published files that differ from what the log gives.")
@options.config()
def command(
    run_id: str, brokers: str | None, output: str | None, *, in_place: bool, config: Path | None
) -> None:
    """Read the log again and close one run anew.

    Both input topics are read to their present ends, all partitions of them, and only this run's records are
    kept; while it works it needs room for the run below OUTPUT. Nothing is written to Kafka, and workers may
    go on. A line for each file says "published", "identical" or, with --in-place, "replaced".

    Exit code 1, and nothing is changed: the log holds no such run, or not enough to close it (what is missing
    is named), or published files have other bytes and --in-place was not given. Where the log no longer
    begins at offset 0, the run is marked incomplete (tainted), as a worker would that starts now; such a one
    is published where there is nothing, but never replaces anything.

    \b
    Example:
      evalsink rebuild r1 --brokers kafka:9092 --output /tmp/again
      evalsink rebuild r1 --brokers kafka:9092 --output /data/runs --in-place
    """  # noqa: D301 - click wants the control character, not the two letters
    chosen = settings.load(flags={"brokers": brokers, "output": output}, config=config)
    tools = assembly.tools(chosen, f"rebuild-{uuid.uuid4().hex}", Disk())
    connection = connect(chosen.brokers, chosen.security)
    try:
        with open_replay(connection, chosen.topics.inputs) as replay, _progress(replay) as advance:
            rebuilt = rebuild(run_id, replay, chosen, tools, in_place=in_place, advance=advance)
    except OSError as error:
        raise EvalsinkError(f"not rebuilt, since writing below --output failed: {error}") from error
    _report(rebuilt, chosen.output_path)


def _report(rebuilt: Rebuilt, output: Path) -> None:
    if rebuilt.tainted:
        click.echo(
            "the log no longer holds its own beginning: the run may be short and is marked tainted", err=True
        )
    for number in rebuilt.strays:
        click.echo(f"partition {number} holds records of the run too; they belong to none", err=True)
    for name, verdict in rebuilt.files.items():
        click.echo(f"{_SAID[verdict]:<9}  {printable(str(output / name))}")
    closed = rebuilt.closed
    click.echo(f"{closed.status}: {closed.rows:,} rows, results sha256 {closed.sha256}", err=True)


@contextmanager
def _progress(replay: Replay) -> Iterator[Advance]:
    """A bar on a terminal, over the offsets of both topics."""
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
        task = progress.add_task("reading the log", total=replay.total)
        yield lambda step: progress.advance(task, step)
