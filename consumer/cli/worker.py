"""``evalsink worker``."""

import gc
import importlib.metadata
import time
from pathlib import Path

import click

from consumer import assembly, settings
from consumer.archive.watch import OutboxWatch
from consumer.cli import options
from consumer.errors import DeterminismError
from consumer.liveness import Watchdog, stop_on_signals
from consumer.monitoring import Monitor, no_outbox
from consumer.telemetry import logs

_log = logs.logger(__name__)

_COLLECT_AFTER_OBJECTS = 20_000


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
    help="Exit 0 once everything is read, closed and archived and nothing came for so long. Open runs stay "
    "open, parked ones parked.",
)
@click.option(
    "--grace",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Show an open run, with what is missing, below OUTPUT/partial/ after so long without a record. "
    "Default: 900.",
)
@click.option(
    "--abandon-after",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Give an open run up, and publish it as incomplete, after so long without a record. Default: 86400.",
)
@options.hub()
@click.option(
    "--http",
    metavar="HOST:PORT",
    help='Serve /metrics, /healthz, /readyz and /runs there; "" for nowhere. Default: 127.0.0.1:9464.',
)
@options.config()
def command(  # noqa: PLR0917 - click passes them by name
    brokers: str | None,
    output: str | None,
    state: str | None,
    group: str | None,
    exit_when_idle: float | None,
    grace: float | None,
    abandon_after: float | None,
    hub_repo: str | None,
    http: str | None,
    config: Path | None,
    *,
    hub_public: bool | None,
) -> None:
    """Read events from Kafka and publish finished runs.

    While a run goes on, its rows can be followed: `tail -f STATE/runs/*/*/*.jsonl`. When its last event is
    in, its files appear in OUTPUT/MODEL/, the results JSON last. Stop with Ctrl-C or SIGTERM; start again any
    time, on this state folder or an empty one: the published files are the same.

    With --hub-repo, complete runs are also archived in a dataset repository of the Hugging Face Hub, by a
    process of its own. The token comes from HF_TOKEN, from `hf auth login`, or from the file that the setting
    hub.token_file names. `evalsink outbox` shows what waits, and why.

    Every setting is also an environment variable (EVALSINK_GROUP, EVALSINK_CHECKPOINT_INTERVAL_S …) and a
    key of the --config file; docs/SETTINGS.md lists them.

    \b
    Example:
      evalsink worker --brokers kafka:9092 --output /data/runs --state /var/lib/evalsink
      evalsink worker --output runs --state state --hub-repo my-org/evaluations
    """  # noqa: D301 - click wants the control character, not the two letters
    logs.configure()
    flags = {
        "brokers": brokers,
        "output": output,
        "state": state,
        "group": group,
        "grace_s": grace,
        "abandon_after_s": abandon_after,
        "http": http,
        "hub.repo": hub_repo,
        "hub.public": hub_public,
    }
    chosen = settings.load(flags=flags, config=config)
    monitor = Monitor(chosen)
    with (
        monitor.listening(insist="http" in settings.given(flags=flags, config=config)),
        assembly.worker(chosen, observe=monitor.observe, window=monitor.window) as worker,
    ):
        watch = OutboxWatch(chosen.state_path, now=time.time) if chosen.hub.enabled else no_outbox
        monitor.attach(worker, watch)
        collect_garbage_less_often()
        _log.info(
            "worker_started",
            version=importlib.metadata.version("evalsink"),
            brokers=chosen.brokers,
            group=chosen.group,
            output=chosen.output,
            state=chosen.state,
        )
        stop_on_signals(worker, chosen.drain_timeout_s)
        with Watchdog(lambda: worker.turns, chosen.watchdog_s):
            worker.run(exit_when_idle_s=exit_when_idle)
        counts = worker.counts
        _log.info("worker_stopped", records=counts.records, rows=counts.rows, closed=counts.closed)
    if worker.violations:
        raise DeterminismError(
            "not published (determinism_violation or close_out_crashed in the log says why): "
            f"{', '.join(worker.violations)}"
        )


def collect_garbage_less_often() -> None:
    """Python looks for circular garbage after every 700 objects that stay; a poll has thousands of them.

    What was made up to here stays for good and need not be looked at again.
    """
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER_OBJECTS)
