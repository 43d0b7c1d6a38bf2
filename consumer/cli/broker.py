"""``evalsink broker``: the embedded broker in the foreground."""

import signal

import click

from consumer.broker.embedded import PARTITION_BYTES_MAX, PARTITIONS, EmbeddedBroker

_EXAMPLE = """\b
Example:
  evalsink broker > broker.txt &
  evalsink topics --brokers "$(sed -n s/^bootstrap=//p broker.txt)"
"""


@click.command(name="broker", epilog=_EXAMPLE)
def command() -> None:
    """Run the embedded broker in the foreground, until Ctrl-C or SIGTERM.

    The first line on stdout is bootstrap=127.0.0.1:PORT, with a free port. Everything is in memory and gone
    at the end. For trying things out, not for results that matter: past a few MiB it drops records silently.
    """
    # Blocked before the broker starts: its threads inherit that, and no signal gets lost.
    ending = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    with EmbeddedBroker() as broker:
        click.echo(f"bootstrap={broker.bootstrap}")
        click.echo(
            f"Embedded broker: {PARTITIONS} partitions a topic, {PARTITION_BYTES_MAX >> 20} MiB a partition, "
            "in memory. Ctrl-C ends it.",
            err=True,
        )
        signal.sigwait(ending)
