"""Log lines: one JSON object per event of interest, with an ``action``; a short human form on a terminal.

Levels mean what the operator does: info nothing, warning look at it today, error look at it now. No secret
ever enters: callers pass names and numbers, never settings as a whole. Names are what producers sent: in
either form a line is one line, of characters that a terminal only shows.
"""

import json
import logging
import sys
import time
from typing import IO, Any

import msgspec


class Logger:
    """A logger whose messages are actions and whose details are fields."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def info(self, action: str, **fields: Any) -> None:
        """Nothing to do."""
        self._emit(logging.INFO, action, fields)

    def warning(self, action: str, **fields: Any) -> None:
        """Look at it today."""
        self._emit(logging.WARNING, action, fields)

    def error(self, action: str, **fields: Any) -> None:
        """Look at it now."""
        self._emit(logging.ERROR, action, fields)

    def _emit(self, level: int, action: str, fields: dict[str, Any]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, action, extra={"fields": fields})


def logger(name: str) -> Logger:
    """The logger of a module."""
    return Logger(name)


def printable(text: str) -> str:
    """`text` without what could steer a terminal, turn the line around or end it."""
    return text if text.isprintable() else "".join(map(_spelt, text))


def _spelt(char: str) -> str:
    return char if char.isprintable() else ascii(char)[1:-1]


def as_json_line(value: Any) -> str:
    """`value` as JSON on one line, in which such characters are escaped; what it says is the same."""
    try:
        line = msgspec.json.encode(value, enc_hook=str).decode()
    except UnicodeEncodeError:  # half a surrogate pair, as names of files may hold
        line = json.dumps(msgspec.to_builtins(value, enc_hook=str))
    return line if line.isprintable() else "".join(map(_escaped, line))


def _escaped(char: str) -> str:
    if char.isprintable():
        return char
    return f"\\u{ord(char):04x}" if char == "\x7f" else json.dumps(char)[1:-1]


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "action": record.getMessage(),
            **getattr(record, "fields", {"logger": record.name}),
        }
        return as_json_line(line)


class _HumanFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{name}={value}" for name, value in getattr(record, "fields", {}).items())
        moment = time.strftime("%H:%M:%S", time.localtime(record.created))
        return printable(f"{moment} {record.levelname.lower():<7} {record.getMessage()} {fields}".rstrip())


def configure(*, stream: IO[str] | None = None, level: int = logging.INFO) -> None:
    """Send log lines to `stream` (stderr): JSON, or the human form if it is a terminal.

    Libraries may say warnings only.
    """
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_HumanFormatter() if stream.isatty() else _JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("consumer").setLevel(level)
