"""`evalsink worker` as processes: started, asked to end, killed; what they log is read while they live."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from tests.observing import until

ROOT = Path(__file__).parents[2]
END_TIMEOUT_S = 60


def environment():
    """Ours without the settings that the machine's user may have made."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("EVALSINK_") and name != "KAFKA_BOOTSTRAP_SERVERS"
    }
    return {**kept, "PYTHONPATH": str(ROOT)}


def write_config(path, broker, topics, **settings):
    """A settings file as an operator writes it."""
    names = {name: getattr(topics, name) for name in ("samples", "aggregates", "receipts", "dead_letters")}
    lines = [f"{name} = {json.dumps(value)}" for name, value in {"brokers": broker, **settings}.items()]
    lines += ["[topics]", *(f"{name} = {json.dumps(value)}" for name, value in names.items())]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def published(output):
    """How many runs have their results JSON, which comes last; workers may be writing."""
    return sum(
        name.endswith(".json")
        for folder, _, names in os.walk(output)  # what vanishes while it walks is no error to it
        for name in names
        if ".evalsink" not in folder and "partial" not in folder
    )


class WorkerProcess:
    """One life of one worker. `state` is its own folder, and its log lies beside it."""

    def __init__(self, config, state, *options):
        self.state = state
        self.log = state.with_name(f"{state.name}.log")
        with self.log.open("ab") as log:
            self._seen = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "consumer", "worker", "--config", config, "--state", state, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=state.parent,
                env=environment(),
            )

    def said(self):
        """Everything of this life, as text."""
        return self.log.read_bytes()[self._seen :].decode()

    def lines(self, action):
        """Its whole log lines of that action so far."""
        whole = [line for line in self.said().splitlines(keepends=True) if line.endswith("\n")]
        found = [json.loads(line) for line in whole if line.startswith("{")]
        return [line for line in found if line["action"] == action]

    def until(self, condition, what, *, timeout_s=60):
        """Wait for `condition`; fail at once with the log if the process ends first."""

        def step():
            assert self.process.poll() is None, f"ended with {self.process.poll()}:\n{self.said()}"
            return condition()

        return until(step, f"{self.state.name}: {what}", timeout_s=timeout_s)

    def until_assigned(self):
        """Wait for its first partitions."""
        self.until(lambda: self.lines("partitions_assigned"), "partitions assigned")

    def signal(self, number):
        self.process.send_signal(number)

    def exit_code(self, timeout_s=END_TIMEOUT_S):
        """Its exit code, as soon as it has one."""
        return self.process.wait(timeout_s)

    def terminate(self):
        """SIGTERM, and its exit code."""
        self.signal(signal.SIGTERM)
        return self.exit_code()

    def kill(self):
        """SIGKILL; returns when nothing of it is left."""
        self.process.kill()
        self.process.wait()


@contextmanager
def workers(config, output, *common):
    """A starter of workers over one output, all with the `common` options; whatever still lives at the end is killed."""
    started = []

    def start(state, *options):
        started.append(WorkerProcess(config, state, "--output", output, *common, *options))
        return started[-1]

    try:
        yield start
    finally:
        for one in started:
            one.kill()
