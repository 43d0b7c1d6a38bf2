"""Workers that come, go and die, each with a disk of its own: the files are those of one undisturbed worker."""

import hashlib
import os
import random
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from consumer.demo.synthetic import SyntheticEvaluation
from consumer.publish.arrangement import Arrangement
from consumer.publish.outputs import find_outputs
from consumer.publish.producer import Sender
from consumer.publish.publication import prepare
from tests.conftest import ROOT
from tests.hand_over.processes import published, workers, write_config
from tests.observing import Sending, produce, read_all, until
from tests.worker.conftest import Stage
from tests.worker.evaluation import Evaluation

pytestmark = [pytest.mark.kafka, pytest.mark.long]

SEED = 3
PORTIONS = 8


def small(dice, number):
    return Evaluation(
        f"small/{number}",
        tasks=[(name, dice.randint(5, 80)) for name in dice.sample(["mme", "gsm8k", "a/b", "é"], 2)],
        shards=dice.randint(1, 6),
        batch=dice.randint(1, 4),
    )


class Stream:
    """The records of all runs, to be sent portion by portion.

    24 runs lie in one disorder, one record in ten a second time, and with them what no worker can use; runs of real
    evaluations, where there are such, come between the portions.
    """

    def __init__(self, stage, dice):
        self._stage = stage
        runs = [[stage.record(event) for event in small(dice, number).events()] for number in range(20)]
        topics = {"samples": stage.topics.samples, "aggregates": stage.topics.aggregates}
        for number in range(4):
            demo = SyntheticEvaluation(seed=number, run_id=f"demo-{number}")
            runs.append([Sending(topics[one.role], one.key, one.value) for one in demo.records()])
        records = [record for run in runs for record in run]
        records += dice.sample(records, len(records) // 10)
        # Each of a run's records moves far, yet runs begin and end all along.
        spread = {run[0].key: (start := dice.random(), start + dice.uniform(0.1, 0.5)) for run in runs}
        records.sort(key=lambda one: dice.uniform(*spread.get(one.key, (0, 1.5))))
        size = len(records) // PORTIONS + 1
        self.portions = [records[at : at + size] for at in range(0, len(records), size)]
        self._outputs = real_outputs()
        self.runs = len(runs) + 2 * len(self._outputs)

    def send(self):
        """One portion more."""
        produce(self._stage.broker, self.portions.pop(0))
        if self._outputs:
            output = self._outputs.pop()
            with Sender(self._stage.broker.connect(), self._stage.topics) as sender:
                for copy in (1, 2):
                    arrangement = Arrangement(7, copy, 0.1)
                    name = f"{output.results.stem}#{copy}"
                    sender.send(prepare(output, shards=3 * copy, arrangement=arrangement, run_id=name))


def real_outputs():
    """Outputs of real evaluations, where they are."""
    folder = Path(os.environ.get("EVALSINK_REALDATA") or ROOT.parent / "shared" / "realdata")
    names = ("lmms-eval/mme-newest-format", "lm-eval/asdiv", "lmms-eval/maxm")
    return [
        output for name in names if (folder / name).is_dir() for output in find_outputs(folder / name).outputs
    ]


def digests(tree):
    return {name: hashlib.sha256(content).hexdigest() for name, content in tree.items()}


def spools(worker):
    """The worker has rows of open runs on its disk."""
    for path in (worker.state / "runs").glob("*/*/*.jsonl"):
        with suppress(FileNotFoundError):  # its run was closed meanwhile
            if path.stat().st_size:
                return True
    return False


def come_and_go(stream, start, states):
    """Workers join, end in order, are killed, and come back with and without their disks, while `stream` flows."""
    first, second = start(states[0]), start(states[1])
    first.until_assigned()
    second.until_assigned()
    stream.send()
    first.until(lambda: spools(first), "rows in its spool")
    stream.send()
    first.kill()
    stream.send()
    third = start(states[2])  # joins while the session of the dead one still runs
    third.until_assigned()
    stream.send()
    second.until(lambda: spools(second), "rows in its spool")
    assert 0 == second.terminate()
    stream.send()
    shutil.rmtree(states[0])
    first = start(states[0])  # back, on an empty disk
    first.until_assigned()
    stream.send()
    third.until(lambda: spools(third), "rows in its spool")
    third.kill()
    second = start(states[1])  # back, with what it had
    stream.send()
    second.until_assigned()
    third = start(states[2])
    third.until_assigned()
    stream.send()
    return first, second, third


def test_the_files_of_workers_that_join_leave_and_die_are_those_of_a_single_one(real, tmp_path):
    stage = Stage(real, tmp_path, real.topics(partitions=6))
    config = write_config(
        tmp_path / "settings.toml",
        real.bootstrap,
        stage.topics,
        session_timeout_ms=6000,
        checkpoint_interval_s=0.2,
        poll_records_max=50,
    )
    stream = Stream(stage, random.Random(SEED))
    with workers(config, tmp_path / "output", "--group", stage.group) as start:
        left = come_and_go(stream, start, [tmp_path / f"worker-{number}" for number in range(3)])
        assert [] == stream.portions
        until(lambda: published(tmp_path / "output") == stream.runs, "every run published")
        # Who is asked to end leaves the receipt of a run that was published just now to its next life.
        until(
            lambda: len({one.run_id for _, one in stage.receipts()}) == stream.runs,
            "every receipt",
            every_s=0.2,
        )
        assert [0, 0, 0] == [one.terminate() for one in left]
    letters = {letter[:4]: letter.value for letter in stage.letters()}
    assert {"late", "not-json", "bad-rows"} <= {reason for *_, reason in letters}
    before = len(read_all(real, stage.topics.dead_letters))
    with workers(config, tmp_path / "undisturbed", "--group", f"{stage.group}-alone") as start:
        assert 0 == start(tmp_path / "alone", "--exit-when-idle", "0.5").exit_code()
    assert stream.runs == published(tmp_path / "undisturbed")
    assert digests(stage.tree("undisturbed")) == digests(stage.tree())
    # The single worker wrote the same dead letters, each once.
    assert letters == {letter[:4]: letter.value for letter in stage.letters()}
    assert len(letters) == len(read_all(real, stage.topics.dead_letters)) - before
    # A receipt may come twice, if the first was not remembered; but it never says two things.
    receipts = {(one.run_id, one.sha256) for _, one in stage.receipts() if one.group == stage.group}
    assert stream.runs == len(receipts)
