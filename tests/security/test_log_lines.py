"""A log line is one line of JSON that steers no terminal, whatever the names in it."""

import io
import json
import logging

import pytest

from consumer.telemetry import logs

NAMES = [
    'r\n{"time":"2026-01-01T00:00:00.000Z","level":"error","action":"run_closed"}',
    "r\r\x1b]0;mine\x07\x1b[2J",
    "c1 \x9b2J, turned \u202e, ended \u2028 and \x7f",
    "beyond the first plane, unassigned \U000e0001 \U000f0000",
    "評価 é 😀",
    "half a pair \ud800",
]


@pytest.fixture
def stream():
    """Where log lines go meanwhile."""
    root, consumer = logging.getLogger(), logging.getLogger("consumer")
    before = root.handlers[:], root.level, consumer.level
    stream = io.StringIO()
    logs.configure(stream=stream)
    yield stream
    root.handlers[:], level, consumer.level = before
    root.setLevel(level)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_in_one_line_of_json_and_comes_back_as_it_was(stream, name):
    logs.logger("consumer.test").warning("met", run_id=name, nested={"task": [name]})
    line = stream.getvalue().removesuffix("\n")
    assert line.isprintable()
    met = json.loads(line)
    assert (name, name) == (met["run_id"], met["nested"]["task"][0])
    assert ("warning", "met") == (met["level"], met["action"])


def test_what_a_terminal_shows_well_is_not_escaped(stream):
    logs.logger("consumer.test").warning("met", run_id="評価 é 😀")
    assert "評価 é 😀" in stream.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_on_a_terminal_it_is_one_line_too(stream, name, monkeypatch):
    monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    logs.configure(stream=stream)
    logs.logger("consumer.test").error("met", run_id=name)
    assert stream.getvalue().removesuffix("\n").isprintable()


def test_what_a_library_says_is_one_line_too(stream):
    logging.getLogger("kafka.test").warning("no topic %s\nReally", "x\x1b[2J")
    assert stream.getvalue().removesuffix("\n").isprintable()
