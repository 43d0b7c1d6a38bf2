"""SIGKILL half way, then started again: on its old state, on an empty one. And published twice."""

import json
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from tests.acceptance.conftest import ROOT, actions, environment, evalsink, topic_settings
from tests.observing import read_all, until

pytestmark = [pytest.mark.kafka, pytest.mark.long]

SLOW = {
    "EVALSINK_POLL_RECORDS_MAX": 1,
    "EVALSINK_CHECKPOINT_INTERVAL_S": 0.02,
    "EVALSINK_SESSION_TIMEOUT_MS": 6000,
}
"""So that a worker can be met half way, with a checkpoint behind it."""


class Life:
    """A worker process with its folders; its log lies in a file."""

    def __init__(self, broker, folder, name, settings):
        self.folder, self.state = folder / name, folder / name / "state"
        self.folder.mkdir()
        self.arguments = ["worker", "--brokers", broker.bootstrap, "--group", broker.name(name)]
        self.arguments += ["--exit-when-idle", "1", "--output", str(self.folder / "output")]
        self.settings = settings

    def start(self):
        with (self.folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "consumer", *self.arguments, "--state", str(self.state)],
                env=environment(**self.settings),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def partitions(self):
        """What the checkpoint holds."""
        try:
            return json.loads((self.state / "checkpoint.json").read_bytes())["partitions"]
        except FileNotFoundError:
            return []

    def spooled(self):
        """Bytes of rows in its spool, wherever its checkpoint is."""
        found = 0
        for path in (self.state / "runs").glob("*/*/*.jsonl"):
            with suppress(FileNotFoundError):  # its run was closed meanwhile
                found += path.stat().st_size
        return found

    def open_runs(self):
        return [run_id for one in self.partitions() for run_id in one["runs"]]

    def ended(self):
        return self.process.poll() is not None

    def was_killed_at(self, size):
        """SIGKILL if so many bytes are spooled and a checkpoint holds an open run."""
        assert not self.ended(), (self.folder / "log").read_text()
        if self.spooled() < size or not self.open_runs():
            return False
        self.process.send_signal(signal.SIGKILL)
        assert -signal.SIGKILL == self.process.wait(30)
        return True

    def end(self):
        """Wait until it ends by itself; its log lines."""
        assert 0 == self.process.wait(120), (self.folder / "log").read_text()
        said = (self.folder / "log").read_text()
        assert "Traceback" not in said
        return actions(said)

    def tree(self):
        root = self.folder / "output"
        return {
            str(path.relative_to(root)): path.read_bytes()
            for path in root.rglob("*")
            if path.is_file() and ".evalsink" not in path.parts
        }


@pytest.fixture
def life(real, tmp_path):
    """Makes workers, and ends them."""
    settings = topic_settings(real.topics(partitions=2))
    lives = []

    def make(name):
        lives.append(Life(real, tmp_path, name, {**settings, **SLOW}))
        return lives[-1]

    make.settings = settings
    yield make
    for one in lives:
        if not one.ended():
            one.process.kill()
            one.process.wait()


def test_killed_half_way_and_started_on_its_old_state_or_on_an_empty_one_the_files_are_the_same(
    real, realdata, life
):
    for folder in ("lmms-eval/maxm", "lmms-eval/mmmu", "lm-eval/negotiationtom"):
        evalsink(
            *("publish", realdata / folder, "--brokers", real.bootstrap, "--batch-size", "1"),
            *("--shards", "4", "--shuffle", "7", "--duplicate", "0.05"),
            **life.settings,
        )
    lives = [life("old-state"), life("empty-state")]
    for one in lives:
        one.start()
    running = list(lives)  # one looked at after the other's death could be through by then

    def kill():
        running[:] = [one for one in running if not one.was_killed_at(200_000)]
        return not running

    until(kill, "200,000 bytes spooled and a checkpoint, of both", every_s=0.001)
    for one in lives:
        one.caught = one.open_runs()
        assert one.caught
        assert 4 > len([name for name in one.tree() if name.endswith(".json")])
    [on_old, on_empty] = lives
    on_empty.state = on_empty.folder / "another-state"
    undisturbed = life("undisturbed")
    for one in (on_old, on_empty, undisturbed):
        one.settings = {**one.settings, "EVALSINK_POLL_RECORDS_MAX": 4000}
        one.start()
    closed = {}
    for one in (on_old, on_empty, undisturbed):
        said = one.end()
        closed[one] = {line["run_id"] for line in said if line["action"] == "run_closed"}
    tree = undisturbed.tree()
    assert 4 == len(closed[undisturbed])
    for one in (on_old, on_empty):
        assert set(one.caught) <= closed[one] <= closed[undisturbed]
    assert tree == on_old.tree()
    assert tree == on_empty.tree()
    originals = [
        path
        for folder in ("lmms-eval/maxm", "lmms-eval/mmmu", "lm-eval/negotiationtom")
        for path in (realdata / folder).rglob("*.jsonl")
    ]
    # As the originals' lines end: theirs may lack the last line end.
    assert sorted(path.read_bytes().rstrip(b"\n") for path in originals) == sorted(
        content.rstrip(b"\n") for name, content in tree.items() if "samples_" in name
    )
    evalsink("verify", on_old.folder / "output", on_empty.folder / "output")


def test_published_twice_under_one_run_id_the_files_are_the_first_ones_and_the_second_copy_is_late(
    real, realdata, life
):
    source = realdata / "lmms-eval" / "mme-newest-format"
    send = ("publish", source, "--brokers", real.bootstrap, "--run-id", "again", "--batch-size", "2")
    assert "again\n" == evalsink(*send, "--shards", "2", **life.settings).stdout
    once = len(read_all(real, *life.settings.values()))
    worker = life("worker")
    worker.start()
    worker.end()
    tree = worker.tree()
    assert "again\n" == evalsink(*send, "--shards", "2", **life.settings).stdout
    worker.start()
    said = worker.end()
    assert tree == worker.tree()
    [original] = source.rglob("*.jsonl")
    assert original.read_bytes().rstrip(b"\n") in {content.rstrip(b"\n") for content in tree.values()}
    late = read_all(real, life.settings["EVALSINK_TOPICS_DEAD_LETTERS"])
    assert ([b"late"] * once, []) == (
        [dict(letter.headers)["reason"] for letter in late],
        [line for line in said if line["action"] == "run_closed"],
    )
