"""``evalsink runs``: what a worker has open and what it closed last."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from consumer import settings
from consumer.cli import options
from consumer.cli.text import duration, print_json, printable, say
from consumer.overview import Overview, RunOverview, survey

_MISSING_SHOWN = 10
_PIPE_WIDTH = 10_000


@click.command(name="runs", short_help="Show open and recently closed runs.")
@click.option("--state", metavar="DIR", help="State folder of a worker. Default: state.")
@click.option("--output", metavar="DIR", help="Output folder of that worker. Default: output.")
@click.option(
    "--recent",
    metavar="N",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    help="Show so many of the runs that closed last.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@options.config()
def command(
    state: str | None, output: str | None, recent: int, *, as_json: bool, config: Path | None
) -> None:
    """Show the open runs in a worker's state folder, and those that closed last.

    May be called while the worker runs; what it shows is as old as the worker's last checkpoint. ROWS is
    received/expected: expected is what the ends state once all shards have ended, before that what the
    evaluator announced, else "?". A row sent twice counts twice until its shard has ended. IDLE is the time
    since the run's last record. The live files can be followed with `tail -f`.

    \b
    Keys of --json, each always there, null where it does not apply:
      run_id, partition
      status     open, closing, complete, incomplete or failed
      shards, ended (well; open runs)
      rows, expected
      missing    list of sentences: what an open run waits for, why a closed one is not complete
      tainted    open run whose beginning the log no longer held
      first_ms, last_ms      Kafka time of the first and last record (open)
      closed_ms  when the results JSON was written (closed)
      age_s, idle_s          seconds since first_ms or closed_ms; since last_ms
      results, sha256        path and hash of the results JSON (closed)
      tasks      list of {task, rows, expected, file}: live or published JSONL

    \b
    Example:
      evalsink runs --state /var/lib/evalsink --output /data/runs
      evalsink runs --json | jq -r 'select(.idle_s > 600).run_id'
    """  # noqa: D301 - click wants the control character, not the two letters
    chosen = settings.load(flags={"state": state, "output": output}, config=config)
    overview = survey(chosen.state_path, chosen.output_path, recent=recent, now_ms=round(time.time() * 1000))
    for notice in overview.notices:
        say(notice)
    if as_json:
        for run in overview.runs:
            print_json(run)
    elif overview.runs:
        _print(overview)
    if not overview.runs:
        click.echo(f"no runs in {chosen.state_path}", err=True)


def _print(overview: Overview) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("RUN", overflow="fold")
    table.add_column("STATUS", no_wrap=True)
    for heading in ("PARTITION", "SHARDS", "ROWS", "AGE", "IDLE"):
        table.add_column(heading, justify="right", no_wrap=True)
    for run in overview.runs:
        table.add_row(
            Text(printable(run.run_id)),
            run.status,
            str(run.partition),
            _of(run.ended, run.shards) if run.results is None else str(run.shards or "?"),
            _of(run.rows, run.expected) if run.results is None else _count(run.rows),
            duration(run.age_s),
            duration(run.idle_s),
        )
    # A pipe has no width: rows must not be folded there.
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)
    for run in overview.runs:
        click.echo(f"\n{printable(run.run_id)}")
        for line in _details(run):
            click.echo(f"  {printable(line)}")


def _details(run: RunOverview) -> Iterator[str]:
    """Lines below a run: what is missing, then its paths."""
    heading = "missing" if run.results is None else "why"
    yield from (f"{heading}: {sentence}" for sentence in run.missing[:_MISSING_SHOWN])
    if (more := len(run.missing) - _MISSING_SHOWN) > 0:
        yield f"{heading}: and {more} more, see --json"
    if run.results is not None:
        yield run.results
    else:
        yield from (task.file for task in run.tasks if task.file is not None)


def _of(part: int | None, whole: int | None) -> str:
    return f"{_count(part)}/{_count(whole)}"


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"
