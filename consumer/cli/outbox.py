"""``evalsink outbox``: what waits to be archived, since when and why."""

import sys
import time
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from consumer import settings
from consumer.archive.outbox import Errand, Outbox, has_outbox
from consumer.cli import options
from consumer.cli.text import duration, print_json, printable
from consumer.errors import UsageError

_PIPE_WIDTH = 10_000


@click.group(name="outbox", short_help="Show what waits to be archived.", invoke_without_command=True)
@click.option("--state", metavar="DIR", help="State folder of a worker. Default: state.")
@click.option("--all", "every", is_flag=True, help="Also what is archived or dropped.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@options.config()
@click.pass_context
def command(
    context: click.Context, state: str | None, *, every: bool, as_json: bool, config: Path | None
) -> None:
    """Show what waits to be archived on the Hub, since when, and why.

    May be called while the worker runs. STATE is queued (in its turn), pushing (on its way), parked (refused:
    tried again after hub.parked_retry_s, when the token changes, or by `evalsink push --retry-parked`),
    clearing (archived, its files here being removed), archived or dropped. KIND is archive (the run's files)
    or proposal (its figures, to the model's repository).

    \b
    Keys of --json: results, kind, run_id, status, sha256, state, queued_at, attempts, next_at, reason,
    done_at; times are seconds since the epoch.

    \b
    Example:
      evalsink outbox --state /var/lib/evalsink
      evalsink outbox --json | jq -r 'select(.state == "parked") | .run_id + ": " + .reason'
      evalsink outbox drop RUN_ID
    """  # noqa: D301 - click wants the control character, not the two letters
    chosen = settings.load(flags={"state": state}, config=config)
    context.obj = chosen.state_path
    if context.invoked_subcommand is not None:
        return
    outbox = _open(chosen.state_path)
    errands = outbox.all() if every else outbox.waiting()
    depth = outbox.depth()
    outbox.close()
    if as_json:
        for errand in errands:
            print_json(errand)
        return
    if errands:
        _print(errands)
    names = ("queued", "pushing", "parked", "archived", "dropped")
    click.echo(", ".join(f"{depth.get(name, 0):,} {name}" for name in names), err=True)


@command.command(name="drop")
@click.argument("run_id", metavar="RUN_ID")
@click.pass_obj
def drop(state: Path, run_id: str) -> None:
    """Give a run up for good: it is not pushed any more.

    Its files stay where they are. With the setting durable = "hub" its worker then writes the run's receipt,
    as if it had been archived.
    """
    outbox = _open(state)
    dropped = outbox.drop(run_id)
    outbox.close()
    if not dropped:
        raise UsageError(f"run {run_id!r} does not wait in the outbox in {state}")
    click.echo(f"dropped: {printable(run_id)}")


def _open(state: Path) -> Outbox:
    if not has_outbox(state):
        raise UsageError(f"no outbox in {state}: a worker with --hub-repo makes one; name its --state")
    return Outbox(state)


def _print(errands: list[Errand]) -> None:
    now = time.time()
    table = Table(box=None, pad_edge=False)
    table.add_column("RUN", overflow="fold")
    table.add_column("KIND", no_wrap=True)
    table.add_column("STATE", no_wrap=True)
    for heading in ("WAITS", "TRIES", "NEXT IN"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("WHY", overflow="fold")
    for errand in errands:
        is_over = errand.state in {"archived", "dropped"}
        table.add_row(
            Text(printable(errand.run_id)),
            errand.kind,
            errand.state,
            "-" if is_over else duration(max(0.0, now - errand.queued_at)),
            str(errand.attempts),
            "-" if is_over else duration(max(0.0, errand.next_at - now)),
            Text(printable(errand.reason)),
        )
    # A pipe has no width: rows must not be folded there.
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)
