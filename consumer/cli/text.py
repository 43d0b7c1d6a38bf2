"""How commands spell what producers sent and what others' files say, and spans of time.

Whatever a command prints of either goes through here: it is text, and steers no terminal. Bytes that programs
read (`--raw`, a table in a pipe) are left as they are.
"""

import sys
from typing import Any

import click

from consumer.telemetry.logs import as_json_line
from consumer.telemetry.logs import printable as printable  # noqa: PLC0414 - the commands have it from here

_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


def duration(seconds: float | None) -> str:
    """The two largest units: ``1h 5m``."""
    if seconds is None:
        return "-"
    left = int(seconds)
    parts: list[str] = []
    for unit, size in _UNITS:
        number, left = divmod(left, size)
        if number or parts:
            parts.append(f"{number}{unit}")
    return " ".join(parts[:2]) or "0s"


def lines(text: str) -> str:
    """The lines of `text`, each `printable`."""
    return "\n".join(map(printable, text.split("\n")))


def say(text: str) -> None:
    """Tell people: `lines` on stderr."""
    click.echo(lines(text), err=True)


def print_json(value: Any) -> None:
    """One object on a line of stdout, for programs; on a terminal it harms as little."""
    click.echo(as_json_line(value))


def print_verbatim(text: str) -> None:
    """`text` on stdout, byte for byte in a pipe or a file; on a terminal its `lines`."""
    click.echo(lines(text) if sys.stdout.isatty() else text)
