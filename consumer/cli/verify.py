"""``evalsink verify``: published runs checked against their own results JSON."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from consumer.cli.text import printable, say
from consumer.errors import UsageError
from consumer.report.verify import Advance, PublishedRun, find_results, read_run, verify_run


@click.command(name="verify")
@click.argument("paths", metavar="PATH…", nargs=-1, required=True, type=click.Path(path_type=Path))
def command(paths: tuple[Path, ...]) -> None:
    """Recompute every hash, count and identity of published runs.

    PATH is a results JSON of evalsink, or a folder, searched for them. Every run that is as it says gets a
    line; the first difference ends the command with exit code 1 and is named on stderr: file, expected,
    found. Results of other programs in a folder are skipped, and named. Nothing to verify: exit code 2.

    \b
    Example:
      evalsink verify output/
    """  # noqa: D301 - click wants the control character, not the two letters
    runs = rows = size = 0
    for path in find_results(paths):
        run = read_run(path)
        if run is None:
            say(f"{path}: not written by evalsink, skipped")
            continue
        with _progress(run) as advance:
            verify_run(run, advance)
        amount = _amount(len(run.own.tasks), "task", run.rows, run.size)
        click.echo(f"{printable(str(path))}: {run.own.status}, {amount}")
        runs, rows, size = runs + 1, rows + run.rows, size + run.size
    if not runs:
        raise UsageError(f"no run of evalsink in {', '.join(map(str, paths))}: nothing was verified")
    click.echo(f"verified: {_amount(runs, 'run', rows, size)}")


def _amount(count: int, unit: str, rows: int, size: int) -> str:
    return f"{count} {unit}{'s' * (count != 1)}, {rows:,} row{'s' * (rows != 1)}, {decimal(size)}"


@contextmanager
def _progress(run: PublishedRun) -> Iterator[Advance]:
    """A bar on stderr while a run is read, if that is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    # Standard output is not redirected: it may be a pipe, and nothing is printed while the bar is there.
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
        task = progress.add_task(printable(run.path.name), total=run.size)
        yield lambda step: progress.advance(task, step)
