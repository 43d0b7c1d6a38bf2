"""Input topics that are deleted and made again while a worker reads them: their offsets begin anew, and say nothing."""

import pytest

from consumer import assembly
from consumer.errors import BrokerError
from tests.cluster.conftest import delete, make, tick_until, tick_until_it_ends
from tests.worker.conftest import cut_off
from tests.worker.evaluation import Evaluation, run_ids

pytestmark = pytest.mark.kafka


def test_an_input_topic_made_anew_under_a_running_worker_ends_it_and_the_next_start_reads_all_of_the_new_one(
    real_stage, undisturbed
):
    stage = real_stage
    ids = run_ids(1)
    old, held = Evaluation(next(ids)), Evaluation(next(ids))
    stage.send([*old.events(), *held.body()])
    with assembly.worker(stage.settings()) as worker:
        tick_until(worker, stage.receipts, "a run closed")
        before = stage.tree()
        delete(stage, *stage.topics.inputs)
        make(stage, *stage.topics.inputs)
        # More than there was: the old position lies in the middle of them.
        new = [Evaluation(next(ids)) for _ in range(6)]
        stage.send([event for run in new for event in run.events()])
        tick_until_it_ends(worker, BrokerError, match="made anew")
        cut_off(worker)
    stage.work()
    assert {old.run_id, *(run.run_id for run in new)} == set(stage.results())
    assert {"complete"} == {one["evalsink"]["status"] for one in stage.results().values()}
    of_new = {name: content for name, content in stage.tree().items() if name not in before}
    assert of_new == undisturbed(stage)
