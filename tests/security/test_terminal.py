"""What hostile names and files say reaches a terminal as text: it moves no cursor, changes no title, fakes no line.

Commands run on a real terminal (a pty), where they show the most: tables, bars, the short log lines.
"""

import json
import os
import pty
import re
import subprocess
import sys
import threading

import pytest

from consumer.cli import cli
from tests.acceptance.conftest import environment
from tests.observing import Sending, produce
from tests.report.published_run import publish
from tests.worker.conftest import Stage
from tests.worker.evaluation import Evaluation

TITLE, CLEAR, C1, REVERSED, BELL = "\x1b]0;mine\x07", "\x1b[2J", "\x9b2J", "\u202e", "\x07"
HOSTILE = f"r{TITLE}{CLEAR}{C1}{REVERSED}\r{BELL}x"
"""The title, a cleared screen (two ways), text backwards, a line written over, a bell."""

# What rich and a terminal's line ends need; nothing of it can be sent by a producer.
OURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r\n|\r(?=\x1b\[|$)")


def on_terminal(*arguments, cwd, **settings):
    """Everything that a command writes to a terminal that is its stdout and stderr, and its exit code."""
    ours, theirs = pty.openpty()
    said = bytearray()

    def listen():
        try:
            while piece := os.read(ours, 4096):
                said.extend(piece)
        except OSError:  # the other end is closed
            pass

    listener = threading.Thread(target=listen)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "consumer", *map(os.fspath, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            cwd=cwd,
            env=environment(TERM="xterm", COLUMNS=500, **settings),
        )
        os.close(theirs)
        listener.start()
        code = process.wait(120)
        listener.join(60)
    finally:
        os.close(ours)
    return bytes(said).decode(), code


def harmless(said):
    """Whether nothing but rich's own colours and bars steers the terminal, and none of it is what was sent."""
    for sent in (TITLE, CLEAR, C1, REVERSED, BELL):
        assert sent not in said, (sent, said)
    rest = OURS.sub("", said)
    assert [] == [char for char in rest if not char.isprintable() and char != "\n"], said
    return True


@pytest.fixture
def results(tmp_path):
    """A results JSON of somebody hostile, in a folder with such a name."""
    folder = tmp_path / f"logs{HOSTILE}"
    folder.mkdir()
    document = {
        "results": {HOSTILE: {"alias": f"a{HOSTILE}", f"m{HOSTILE},f{HOSTILE}": f"v{HOSTILE}"}},
        "configs": {HOSTILE: {"task": HOSTILE}},
        "versions": {HOSTILE: HOSTILE},
        "n-shot": {HOSTILE: HOSTILE},
        "throughput": {HOSTILE: HOSTILE},
        "model_name": HOSTILE,
    }
    path = folder / f"{HOSTILE.replace('/', '_')}_results.json"
    path.write_text(json.dumps(document), "utf-8")
    return path


def test_a_table_on_a_terminal_shows_names_as_text(results, tmp_path):
    said, code = on_terminal("table", results, "--version-column", cwd=tmp_path)
    assert code == 0
    assert harmless(said)
    assert r"\x1b]0;mine\x07" in said


def test_a_table_in_a_pipe_is_what_lmms_eval_prints(results):
    done = subprocess.run(
        [sys.executable, "-m", "consumer", "table", results],
        capture_output=True,
        check=True,
        env=environment(),
    )
    assert TITLE.encode() in done.stdout


@pytest.mark.parametrize("command", ["verify", "push", "publish"])
def test_paths_and_errors_on_a_terminal_are_text(results, tmp_path, command):
    more = {"push": ("--hub-repo", "o/r", "--dry-run"), "publish": ("--brokers", "127.0.0.1:1")}.get(
        command, ()
    )
    samples = results.with_name(results.name.replace("_results.json", f"_samples_{HOSTILE}.jsonl"))
    samples.write_text("no JSON\n", "utf-8")
    (results.parent / f"stray_samples_{HOSTILE}.jsonl").write_text("{}\n", "utf-8")
    said, code = on_terminal(command, results.parent, *more, cwd=tmp_path)
    assert (code == 0) == (command == "push"), said
    assert harmless(said)
    assert r"\x1b]0;mine\x07" in said


def test_a_published_run_with_hostile_names_is_verified_with_text(tmp_path):
    rows = {HOSTILE: {f"f{HOSTILE}": [b'{"doc_id":0,"doc_hash":"h"}']}}
    path = publish(tmp_path / f"o{HOSTILE}", run_id=HOSTILE, model=HOSTILE, rows=rows)
    said, code = on_terminal("verify", path.parent, cwd=tmp_path)
    assert (code, harmless(said)) == (0, True), said
    path.write_bytes(path.read_bytes().replace(b'"rows":', b'"rows": 7, "row":', 1))
    said, code = on_terminal("verify", path.parent, cwd=tmp_path)
    assert (code, harmless(said)) == (1, True), said


@pytest.fixture
def stage(embedded_broker, tmp_path):
    from tests.conftest import Broker

    broker = Broker(embedded_broker.bootstrap, embedded=True)
    return Stage(broker, tmp_path, broker.topics())


def test_the_log_lines_the_runs_and_the_outbox_of_a_worker_on_a_terminal_are_text(stage, tmp_path):
    stage.send(Evaluation(HOSTILE).events())
    stage.send(Evaluation(f"open{HOSTILE}").body())
    produce(stage.broker, [Sending(stage.topics.samples, HOSTILE.encode(), b"garbage")])
    topics = {
        f"EVALSINK_TOPICS_{name.upper()}": getattr(stage.topics, name)
        for name in ("samples", "aggregates", "receipts", "dead_letters")
    }
    places = ("--state", tmp_path / "state", "--output", tmp_path / "output")
    settings = {"EVALSINK_BROKERS": stage.broker.bootstrap, "EVALSINK_HTTP": "", **topics}
    said, code = on_terminal("worker", *places, "--exit-when-idle", "1", cwd=tmp_path, **settings)
    assert (code, harmless(said)) == (0, True), said
    assert "run_closed" in said
    assert r"run_id=r\x1b]0;mine\x07" in said
    for command in (("runs", *places), ("runs", *places, "--json")):
        said, code = on_terminal(*command, cwd=tmp_path)
        assert (code, harmless(said)) == (0, True), said
    for command in ("list", "list --json"):
        said, code = on_terminal("dead-letters", *command.split(), cwd=tmp_path, **settings)
        assert (code, harmless(said)) == (0, True), said
    letter_id = json.loads(said.splitlines()[-1])["id"]
    said, code = on_terminal("dead-letters", "show", letter_id, cwd=tmp_path, **settings)
    assert (code, harmless(said)) == (0, True), said


def test_no_command_prints_what_it_was_given_but_through_the_one_that_makes_it_text():
    """A reminder for who adds a command: this file walks it too."""
    walked = {"table", "verify", "push", "publish", "worker", "runs", "dead-letters"}
    elsewhere = {
        "outbox": "tests/archive/test_commands.py",
        "demo": "prints its own names",
        "broker": "prints its own names",
        "topics": "names are Kafka's, which allows letters, digits and ._-",
        "rebuild": "prints paths that schemas.names made",
    }
    assert set(cli.list_commands(None)) == walked | set(elsewhere)
