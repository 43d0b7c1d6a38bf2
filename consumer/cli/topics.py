"""``evalsink topics``: make or check the topics."""

import sys
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from consumer.broker.embedded import PARTITIONS as EMBEDDED_PARTITIONS
from consumer.broker.embedded import ensure_topics
from consumer.cli import options
from consumer.cli.text import duration
from consumer.errors import BrokerError
from consumer.intake import topics
from consumer.intake.topic_rules import PARTITIONS, Topic
from consumer.kafka_client import Connection, connect, partition_counts
from consumer.settings import Settings, load

_PIPE_WIDTH = 400
_DAY_MS = 86_400_000


@click.command(name="topics")
@options.brokers()
@click.option(
    "--partitions",
    type=click.IntRange(min=1),
    help=f"Wanted partitions of inputs and receipts: the most workers that can share the load. "
    f"Default: as those that exist, else {PARTITIONS}.",
)
@click.option(
    "--replication",
    type=click.IntRange(min=1),
    help="Replicas of topics made now. Default: the cluster's.",
)
@click.option(
    "--min-insync-replicas",
    metavar="N",
    type=click.IntRange(min=1),
    help="Replicas that must have a record before it is acknowledged. Default: the cluster's.",
)
@click.option(
    "--retention-days",
    metavar="DAYS",
    type=click.FloatRange(min=0, min_open=True),
    help="How long inputs made now keep records; receipts and dead letters are kept by key. "
    "Default: the cluster's.",
)
@click.option("--check", is_flag=True, help="Make nothing; a missing topic is an error.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@options.config()
def command(  # noqa: PLR0917 - click passes them by name
    brokers: str | None,
    partitions: int | None,
    replication: int | None,
    min_insync_replicas: int | None,
    retention_days: float | None,
    check: bool,
    as_json: bool,
    config: Path | None,
) -> None:
    """Create the topics that are missing and check those that exist; calling it again changes nothing.

    Inputs and receipts need equal partition counts, inputs must not be compacted, receipts must be. An
    existing topic is never changed: what is wrong with it is said, and the exit code is 3. What can lose
    something (a short retention, one replica's acknowledgement), or is otherwise than asked for, is said too;
    the exit code stays 0. Names come from the settings (topics).

    \b
    Keys of --json, each always there: name, purpose, state (created, present, missing, unfit), partitions,
    replication, min_insync_replicas, retention_ms (null where it does not apply), problems, remarks.

    \b
    Example:
      evalsink topics --brokers kafka:9092 --partitions 12 --replication 3 --min-insync-replicas 2 \\
          --retention-days 14
      evalsink topics --brokers kafka:9092 --check --json
    """  # noqa: D301 - click wants the control character, not the two letters
    settings = load(flags={"brokers": brokers}, config=config)
    connection = connect(settings.brokers, settings.security)
    if connection.embedded:
        found = _on_embedded(connection, settings, check=check)
        _say_ignored(partitions, replication, min_insync_replicas, retention_days)
    else:
        found = topics.arrange(
            connection,
            settings.topics,
            partitions=partitions,
            replication=replication,
            min_insync_replicas=min_insync_replicas,
            retention_ms=None if retention_days is None else round(retention_days * _DAY_MS),
            silence_ms=round(settings.silence_s * 1000),
            create=not check,
        )
    if as_json:
        _print_json(found)
    else:
        _print(found)
    for topic in found:
        for remark in topic.remarks:
            click.echo(f"note: {remark}", err=True)
    if problems := [problem for topic in found for problem in topic.problems]:
        raise BrokerError("\n  ".join(["the topics are not as evalsink needs them:", *problems]))
    if missing := [topic.name for topic in found if topic.partitions is None]:
        raise BrokerError(
            f"topics missing at {settings.brokers}: {', '.join(missing)}; the same call without --check "
            "makes them"
        )


def _on_embedded(connection: Connection, settings: Settings, *, check: bool) -> list[Topic]:
    purposes = topics.purposes_of(settings.topics)
    counts = partition_counts(connection, purposes)
    if not check:
        counts |= ensure_topics(connection.brokers, purposes)
    return [
        Topic(name, purpose, partitions=counts[name] or None, replication=1 if counts[name] else None)
        for name, purpose in purposes.items()
    ]


def _say_ignored(
    partitions: int | None,
    replication: int | None,
    min_insync_replicas: int | None,
    retention_days: float | None,
) -> None:
    asked = {
        "--partitions": None if partitions == EMBEDDED_PARTITIONS else partitions,
        "--replication": None if replication == 1 else replication,
        "--min-insync-replicas": None if min_insync_replicas == 1 else min_insync_replicas,
        "--retention-days": retention_days,
    }
    ignored = [f"{option} {value:g}" for option, value in asked.items() if value is not None]
    click.echo(
        f"Embedded broker: every topic has {EMBEDDED_PARTITIONS} partitions, in memory."
        + (f" ({', '.join(ignored)} {'has' if len(ignored) == 1 else 'have'} no effect)" if ignored else ""),
        err=True,
    )


def _state(topic: Topic) -> str:
    if topic.problems:
        return "unfit"
    if topic.partitions is None:
        return "missing"
    return "created" if topic.created else "present"


def _print_json(found: list[Topic]) -> None:
    for topic in found:
        line = {
            "name": topic.name,
            "purpose": topic.purpose,
            "state": _state(topic),
            "partitions": topic.partitions,
            "replication": topic.replication,
            "min_insync_replicas": topic.min_insync_replicas,
            "retention_ms": topic.retention_ms,
            "problems": topic.problems,
            "remarks": topic.remarks,
        }
        click.echo(msgspec.json.encode(line))


def _print(found: list[Topic]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("TOPIC", "FOR"):
        table.add_column(heading, no_wrap=True)
    for heading in ("PARTITIONS", "REPLICATION", "IN SYNC", "KEEPS"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("STATE")
    for topic in found:
        numbers = (topic.partitions, topic.replication, topic.min_insync_replicas)
        table.add_row(
            topic.name,
            topic.purpose,
            *(str(number or "-") for number in numbers),
            _kept(topic),
            _state(topic),
        )
    # A pipe has no width: rows must not be folded there.
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)


def _kept(topic: Topic) -> str:
    """How long it keeps a record."""
    if topic.retention_ms is None:
        return "-"
    return "for ever" if topic.retention_ms < 0 else duration(topic.retention_ms / 1000)
