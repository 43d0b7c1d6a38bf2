"""``evalsink topics``: make or check the topics."""

import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from consumer.broker.embedded import PARTITIONS as EMBEDDED_PARTITIONS
from consumer.broker.embedded import ensure_topics
from consumer.cli import options
from consumer.errors import BrokerError
from consumer.intake import topics
from consumer.kafka_client import Connection, connect
from consumer.settings import Topics, load

_PIPE_WIDTH = 400


@click.command(name="topics")
@options.brokers()
@click.option(
    "--partitions",
    type=click.IntRange(min=1),
    help=f"Wanted partitions of inputs and receipts: the most workers that can share the load. "
    f"Default: as those that exist, else {topics.PARTITIONS}.",
)
@click.option(
    "--replication",
    type=click.IntRange(min=1),
    help="Replicas of topics made now. Default: the cluster's.",
)
@options.config()
def command(
    brokers: str | None, partitions: int | None, replication: int | None, config: Path | None
) -> None:
    """Create the topics that are missing and check those that exist; calling it again changes nothing.

    Inputs and receipts need equal partition counts, inputs must not be compacted, receipts must be. An
    existing topic is never changed: what is wrong with it is said, and the exit code is 3. Names come from
    the settings (topics).
    """
    settings = load(flags={"brokers": brokers}, config=config)
    connection = connect(settings.brokers, settings.security)
    if connection.embedded:
        _on_embedded(connection, settings.topics, partitions)
        return
    found = topics.arrange(connection, settings.topics, partitions=partitions, replication=replication)
    _print([(t.name, t.purpose, t.partitions, t.replication, _state(t)) for t in found])
    if problems := [problem for topic in found for problem in topic.problems]:
        raise BrokerError("\n  ".join(["the topics are not as evalsink needs them:", *problems]))


def _on_embedded(connection: Connection, names: Topics, partitions: int | None) -> None:
    wanted = topics.purposes_of(names)
    counts = ensure_topics(connection.brokers, wanted)
    _print([(name, purpose, counts[name], 1, "present") for name, purpose in wanted.items()])
    ignored = (
        f" (--partitions {partitions} has no effect)" if partitions not in (None, EMBEDDED_PARTITIONS) else ""
    )
    click.echo(
        f"Embedded broker: every topic has {EMBEDDED_PARTITIONS} partitions, in memory.{ignored}", err=True
    )


def _state(topic: topics.Topic) -> str:
    if topic.problems:
        return "unfit"
    if topic.partitions is None:
        return "missing"
    return "created" if topic.created else "present"


def _print(rows: list[tuple[str, str, int | None, int | None, str]]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("TOPIC", "FOR"):
        table.add_column(heading, no_wrap=True)
    for heading in ("PARTITIONS", "REPLICATION"):
        table.add_column(heading, justify="right")
    table.add_column("STATE")
    for name, purpose, partitions, replication, state in rows:
        table.add_row(name, purpose, str(partitions or "-"), str(replication or "-"), state)
    # A pipe has no width: rows must not be folded there.
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)
