"""``evalsink dead-letters``: what could not be taken, why, and another try."""

import base64
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from consumer.cli import options
from consumer.cli.text import print_json, printable
from consumer.errors import EvalsinkError, UsageError
from consumer.intake.deadletterbox import DeadLetterBox, Letter
from consumer.intake.outbound import Outbound
from consumer.kafka_client import Connection, connect
from consumer.settings import Settings, load

_JSON_FIELDS = ("id", "topic", "partition", "offset", "reason", "run_id", "bytes")
_RUN_ID_WIDTH = 60
_PIPE_WIDTH = 1000
# What may make a terminal do things, go back on the line, or turn text around; tabs and ends of lines do not.
_CONTROL = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]|\r(?!\n)")


@click.group(name="dead-letters")
def command() -> None:
    """List, show and redrive what could not be taken.

    A dead letter is a record of an input topic, whole, with the reason why no run got it. It holds the
    original bytes, secrets included. Its ID says where the record stands: topic/partition/offset.
    """


@command.command(name="list")
@options.brokers()
@click.option("--reason", metavar="REASON", help="Only those with this reason.")
@click.option("--run-id", metavar="ID", help="Only those of this run: records with this key.")
@click.option("--json", "as_json", is_flag=True, help=f"One object a line: {', '.join(_JSON_FIELDS)}.")
@options.config()
def list_letters(
    brokers: str | None, reason: str | None, run_id: str | None, as_json: bool, config: Path | None
) -> None:
    """List dead letters, and how many there are for each reason.

    \b
    Example:
      evalsink dead-letters list --reason late
      evalsink dead-letters list --json | jq -r .id
    """  # noqa: D301 - click wants the control character, not the two letters
    settings, connection = _enter(brokers, config)
    with _box(settings, connection) as box:
        letters = box.letters(
            lambda letter: reason in (None, letter.reason) and run_id in (None, letter.run_id)
        )
    if as_json:
        for letter in letters:
            print_json({name: getattr(letter, name) for name in _JSON_FIELDS})
        return
    if letters:
        _print(letters)
    for name, number in Counter(letter.reason for letter in letters).most_common():
        click.echo(f"{number:>8,} {printable(_shown(name))}")
    click.echo(f"{len(letters):>8,} in all, in {settings.topics.dead_letters}")


@command.command(name="show")
@click.argument("letter_id", metavar="ID")
@options.brokers()
@click.option("--raw", is_flag=True, help="Write the record's value to stdout, byte for byte, and no more.")
@options.config()
def show(letter_id: str, brokers: str | None, raw: bool, config: Path | None) -> None:
    """Show one dead letter: its headers, an empty line, the record's value.

    The value is shown as it is if it is text, in Base64 otherwise.

    \b
    Example:
      evalsink dead-letters show ID --raw > record.bin
    """  # noqa: D301 - click wants the control character, not the two letters
    settings, connection = _enter(brokers, config)
    with _box(settings, connection) as box:
        letters = box.letters(lambda letter: letter.id == letter_id)
        _refuse_unknown([letter_id], letters, settings)
        contents = [content for _, content in box.contents(letters)]
    if not contents:
        raise EvalsinkError(f"dead letter {_shown(letter_id)} was taken away just now")
    value = contents[0].value or b""
    if raw:
        sys.stdout.buffer.write(value)
        return
    for name, header in contents[0].headers.items():
        click.echo(f"{printable(name)}: {printable(_shown(header))}")
    click.echo(f"\n{_shown(value)}")


@command.command(name="redrive")
@click.argument("ids", metavar="[ID]…", nargs=-1)
@options.brokers()
@click.option("--reason", metavar="REASON", help="All with this reason.")
@click.option("--all", "everything", is_flag=True, help="All there are.")
@click.option("--yes", is_flag=True, help="Do not ask, on a terminal, before anything is sent.")
@options.config()
def redrive(
    ids: tuple[str, ...],
    *,
    brokers: str | None,
    reason: str | None,
    everything: bool,
    yes: bool,
    config: Path | None,
) -> None:
    """Send dead letters back to the topics they came from.

    The original bytes go out under the original key, to the partition that belongs to the key (murmur2, as
    with every record that evalsink sends). Once the broker has acknowledged a record, its dead letter is
    taken away, and its ID goes to stdout. Mend the reason first, or the worker makes new dead letters of
    them; those with the reason `late` stay late.

    \b
    Example:
      evalsink dead-letters redrive --reason unknown-type --yes
    """  # noqa: D301 - click wants the control character, not the two letters
    if sum((bool(ids), reason is not None, everything)) != 1:
        raise UsageError("say which dead letters to redrive: IDs, or --reason, or --all")
    settings, connection = _enter(brokers, config)
    chosen = set(ids)
    with _box(settings, connection) as box:
        letters = box.letters(
            lambda letter: (
                everything or letter.id in chosen or (reason is not None and letter.reason == reason)
            )
        )
        _refuse_unknown(ids, letters, settings)
        if not letters:
            click.echo(f"no such dead letter in {settings.topics.dead_letters}: nothing to do", err=True)
            return
        topics = sorted({printable(letter.topic) for letter in letters})
        what = f"{_amount(letters)} to {', '.join(topics)}"
        if not yes and _somebody_there():
            click.confirm(f"Send {what}?", abort=True, err=True)
        done = _redrive(box, letters, connection)
    click.echo(f"redriven: {what}" if done == len(letters) else f"redriven: {done} of {what}", err=True)


def _somebody_there() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin.isatty()


def _redrive(box: DeadLetterBox, letters: list[Letter], connection: Connection) -> int:
    done = 0
    outbound = Outbound(connection)
    try:
        with _progress(len(letters)) as advance:
            for letter in box.redrive(letters, outbound):
                click.echo(printable(letter.id))
                done += 1
                advance(1)
    finally:
        outbound.close()
    return done


def _enter(brokers: str | None, config: Path | None) -> tuple[Settings, Connection]:
    settings = load(flags={"brokers": brokers}, config=config)
    return settings, connect(settings.brokers, settings.security)


@contextmanager
def _box(settings: Settings, connection: Connection) -> Iterator[DeadLetterBox]:
    with DeadLetterBox(connection, settings.topics.dead_letters) as box:
        yield box
        if box.strangers:
            click.echo(
                f"passed over {box.strangers} records of {settings.topics.dead_letters} that are no dead "
                "letters of evalsink",
                err=True,
            )


def _refuse_unknown(ids: Iterable[str], letters: list[Letter], settings: Settings) -> None:
    if unknown := sorted(set(ids) - {letter.id for letter in letters}):
        raise EvalsinkError(
            f"no dead letter {', '.join(map(_shown, unknown))} in {settings.topics.dead_letters}; nothing "
            "was done. `evalsink dead-letters list` names those there are"
        )


def _amount(letters: list[Letter]) -> str:
    return f"{len(letters):,} dead letter{'s' * (len(letters) != 1)}"


def _shown(content: bytes | str) -> str:
    """Content as text if that is safe to print, else in Base64."""
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogateescape")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\0"
    return f"base64:{base64.b64encode(content).decode()}" if _CONTROL.search(text) else text


def _print(letters: list[Letter]) -> None:
    table = Table(box=None, pad_edge=False)
    # An id is there to be copied: whatever is short of room, it is not.
    table.add_column("ID", no_wrap=True, min_width=max(len(letter.id) for letter in letters))
    for heading in ("REASON", "TOPIC", "RUN"):
        table.add_column(heading, no_wrap=True)
    table.add_column("BYTES", justify="right")
    for letter in letters:
        run_id = "-" if letter.run_id is None else _shown(letter.run_id)
        cells = (letter.id, letter.reason, letter.topic, run_id[:_RUN_ID_WIDTH])
        table.add_row(*(Text(_one_line(cell)) for cell in cells), f"{letter.bytes:,}")
    # A pipe has no width: nothing is cut off there.
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)


def _one_line(text: str) -> str:
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, if that is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (TextColumn("redriving"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
        task = progress.add_task("redriving", total=total)
        yield lambda step: progress.advance(task, step)
