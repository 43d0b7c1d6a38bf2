"""The command line as a user has it: processes, their output, their exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 120


def environment(**more):
    """Ours without settings that the machine's user may have made."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("EVALSINK_") and name != "KAFKA_BOOTSTRAP_SERVERS"
    }
    return {**kept, "PYTHONPATH": str(ROOT), **{name: str(value) for name, value in more.items()}}


def evalsink(*arguments, cwd=None, code=0, **settings):
    """Run a command to its end; its exit code is what it should be. Settings are environment variables."""
    done = subprocess.run(
        [sys.executable, "-m", "consumer", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
        cwd=cwd or ROOT,
        env=environment(**settings),
        stdin=subprocess.DEVNULL,
    )
    assert code == done.returncode, f"evalsink {arguments}: {done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done


def actions(stderr):
    """The log lines, each with its action."""
    return [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]


def topic_settings(topics):
    """A test's own topics, as environment variables."""
    return {
        "EVALSINK_TOPICS_SAMPLES": topics.samples,
        "EVALSINK_TOPICS_AGGREGATES": topics.aggregates,
        "EVALSINK_TOPICS_RECEIPTS": topics.receipts,
        "EVALSINK_TOPICS_DEAD_LETTERS": topics.dead_letters,
    }


@pytest.fixture(scope="session")
def cli_broker(real_kafka):
    """The session's real Kafka, for fixtures that live as long."""
    from tests.conftest import Broker

    return Broker(real_kafka, embedded=False)
