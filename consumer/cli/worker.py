"""``evalsink worker``."""

import signal
from pathlib import Path
from types import FrameType

import click

from consumer import assembly, settings
from consumer.cli import options
from consumer.telemetry import logs


@click.command(short_help="Consume events into published runs.")
@options.brokers()
@click.option("--output", metavar="DIR", help="Where published runs appear. Default: output.")
@click.option(
    "--state",
    metavar="DIR",
    help="This worker's own folder: spool, checkpoint, receipts. One process each; losing it costs a replay. "
    "Default: state.",
)
@click.option(
    "--group", metavar="NAME", help="Consumer group. A second group rebuilds everything. Default: evalsink."
)
@click.option(
    "--exit-when-idle",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Exit 0 once everything is read and closed and nothing came for so long. Open runs stay open.",
)
@options.config()
def command(  # noqa: PLR0917 - click passes them by name
    brokers: str | None,
    output: str | None,
    state: str | None,
    group: str | None,
    exit_when_idle: float | None,
    config: Path | None,
) -> None:
    """Read events from Kafka and publish finished runs.

    While a run goes on, its rows can be followed: `tail -f STATE/runs/*/*/*.jsonl`. When its last event is
    in, its files appear in OUTPUT/MODEL/, the results JSON last. Stop with Ctrl-C or SIGTERM; start again any
    time, on this state folder or an empty
    one: the published files are the same.

    \b
    Example:
      evalsink worker --brokers kafka:9092 --output /data/runs --state /var/lib/evalsink
    """  # noqa: D301 - click wants the control character, not the two letters
    logs.configure()
    chosen = settings.load(
        flags={"brokers": brokers, "output": output, "state": state, "group": group}, config=config
    )
    with assembly.worker(chosen) as worker:

        def stop(_signal: int, _frame: FrameType | None) -> None:
            worker.stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        worker.run(exit_when_idle_s=exit_when_idle)
