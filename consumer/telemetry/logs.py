"""Log lines: one JSON object per event of interest, with an ``action``; a short human form on a terminal.

Levels mean what the operator does: info nothing, warning look at it today, error look at it now. No secret
ever enters: callers pass names and numbers, never settings as a whole.
"""

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


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "action": record.getMessage(),
            **getattr(record, "fields", {"logger": record.name}),
        }
        return msgspec.json.encode(line, enc_hook=str).decode()


class _HumanFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{name}={value}" for name, value in getattr(record, "fields", {}).items())
        moment = time.strftime("%H:%M:%S", time.localtime(record.created))
        return f"{moment} {record.levelname.lower():<7} {record.getMessage()} {fields}".rstrip()


def configure(*, stream: IO[str] | None = None, level: int = logging.INFO) -> None:
    """Send log lines to `stream` (stderr): JSON, or the human form if it is a terminal.

    Libraries may say warnings only.
    """
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_HumanFormatter() if stream.isatty() else _JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("consumer").setLevel(level)
