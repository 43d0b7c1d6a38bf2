"""Signals: the first ends a worker in order, within its time; the second at once."""

import json
import signal

import pytest

from consumer.liveness import EXIT_DRAIN_TIMEOUT
from consumer.runs.checkpoint import CHECKPOINT_FILE
from tests.conftest import Broker
from tests.hand_over.processes import workers, write_config
from tests.observing import until
from tests.worker.conftest import Stage
from tests.worker.evaluation import Evaluation, run_ids

pytestmark = pytest.mark.kafka


def config(stage, **settings):
    return write_config(
        stage.folder / "settings.toml",
        stage.broker.bootstrap,
        stage.topics,
        **{"group": stage.group, "session_timeout_ms": 6000, "poll_timeout_ms": 100, **settings},
    )


@pytest.fixture
def deaf(pausable_kafka, tmp_path):
    """A stage on that broker; it answers again afterwards."""
    broker = Broker(pausable_kafka.bootstrap, embedded=False)
    yield Stage(broker, tmp_path, broker.topics())
    pausable_kafka.resume()


def test_a_worker_that_is_asked_to_end_saves_and_commits_what_it_has(real_stage):
    stage = real_stage
    ids = run_ids(2)
    closed, held = Evaluation(next(ids)), Evaluation(next(ids))
    # In either topic the last record is one of the run that is closed: once it is, all were read.
    places = stage.send([*held.body(), *closed.events()])
    ends = {
        topic: 1 + max(one.offset for one in places if one.topic == topic) for topic in stage.topics.inputs
    }
    # Its own checkpoints are far apart: what is saved, it saved when it was asked to end.
    settings = config(stage, checkpoint_interval_s=3600, watchdog_s=3600)
    with workers(settings, stage.folder / "output") as start:
        worker = start(stage.folder / "state")
        worker.until(stage.receipts, "a run closed")
        assert not (worker.state / CHECKPOINT_FILE).exists()
        assert 0 == worker.terminate()
        assert "Traceback" not in worker.said()
    assert ends == {topic: offset for topic, (offset, _) in stage.committed(2).items()}
    [saved] = [
        one
        for one in json.loads((worker.state / CHECKPOINT_FILE).read_bytes())["partitions"]
        if one["partition"] == 2
    ]
    assert ends == saved["positions"]
    # The other one is there too if the worker had not heard yet that its receipt arrived; the next start drops it then.
    assert held.run_id in saved["runs"]
    assert {*saved["runs"]} <= {held.run_id, closed.run_id}
    stage.send([held.ended(1)])
    outcome = stage.work()
    assert (1, 1) == (outcome.counts.records, outcome.counts.closed)
    assert {held.run_id, closed.run_id} == set(stage.results())


@pytest.mark.parametrize(("expected", "number"), [(143, signal.SIGTERM), (130, signal.SIGINT)])
def test_a_second_signal_ends_a_worker_whose_drain_hangs_at_once(deaf, pausable_kafka, expected, number):
    with workers(config(deaf, drain_timeout_s=3600), deaf.folder / "output") as start:
        worker = start(deaf.folder / "state")
        worker.until_assigned()
        pausable_kafka.pause()

        def ask():
            # Two that come at the same moment are one to the kernel: the second one is asked for until it is heard.
            worker.signal(number)
            return worker.process.poll() is not None

        until(ask, "the end", every_s=0.2)
        assert expected == worker.exit_code()


def test_a_drain_that_takes_too_long_is_cut_off(deaf, pausable_kafka):
    with workers(config(deaf, drain_timeout_s=1), deaf.folder / "output") as start:
        worker = start(deaf.folder / "state")
        worker.until_assigned()
        pausable_kafka.pause()
        worker.signal(signal.SIGTERM)
        assert EXIT_DRAIN_TIMEOUT == worker.exit_code()
        assert worker.lines("drain_timeout")
