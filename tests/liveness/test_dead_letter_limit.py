"""Too many dead letters in a row stop the line, also after a restart; late ones and those between good ones do not."""

import pytest

from consumer import assembly
from consumer.errors import DeadLetterLimit
from schemas.events import encode
from tests.hand_over.processes import workers, write_config
from tests.observing import Sending
from tests.worker.conftest import cut_off
from tests.worker.evaluation import Evaluation, run_ids

pytestmark = pytest.mark.kafka

LIMIT = 10


def garbage(stage, number, partition=1):
    return [Sending(stage.topics.samples, b"k", b"garbage", partition)] * number


def assert_stops(stage, reason="not-json"):
    """A worker ends with the limit's error before it is idle."""
    with assembly.worker(stage.settings(dead_letters_in_a_row_max=LIMIT)) as worker:
        with pytest.raises(DeadLetterLimit, match=reason):
            worker.run(exit_when_idle_s=0.2)
        cut_off(worker)


def test_a_worker_stops_at_the_limit_and_again_at_once_after_a_restart(real_stage):
    stage, evaluation = real_stage, Evaluation(next(run_ids(1)))
    bad = stage.send(garbage(stage, LIMIT + 5))
    stage.send(evaluation.events())
    config = write_config(
        stage.folder / "settings.toml",
        stage.broker.bootstrap,
        stage.topics,
        group=stage.group,
        checkpoint_interval_s=0.05,
        dead_letters_in_a_row_max=LIMIT,
    )
    with workers(config, stage.folder / "output") as start:
        for _ in range(2):
            worker = start(stage.folder / "state")
            assert 5 == worker.exit_code()
            assert f"the next at offset {bad[LIMIT].offset} (not-json)" in worker.said()
            assert "dead_letters_in_a_row_max" in worker.said()
            assert "Traceback" not in worker.said()
        # What it says is what it did: so many are buried, and not one more.
        assert [place.offset for place in bad[:LIMIT]] == [letter.offset for letter in stage.letters()]
        assert {} == stage.tree()
    # Who raises the limit goes on where it stopped.
    counts = stage.work(dead_letters_in_a_row_max=LIMIT + 5).counts
    assert (1, len(bad)) == (counts.closed, len(stage.letters()))


def test_the_count_is_in_the_checkpoint_so_that_a_restart_does_not_begin_anew(real_stage):
    stage = real_stage
    stage.send(garbage(stage, LIMIT))
    stage.work(dead_letters_in_a_row_max=LIMIT)
    stage.send(garbage(stage, 1))
    assert_stops(stage)
    assert LIMIT == len(stage.letters())


def test_a_good_record_between_them_begins_the_count_anew_and_partitions_count_for_themselves(real_stage):
    stage = real_stage
    evaluation = Evaluation(next(run_ids(1)))
    one, *rest = list(evaluation.events())
    stage.send([*garbage(stage, LIMIT), one, *garbage(stage, LIMIT), *rest, *garbage(stage, LIMIT, 2)])
    assert 1 == stage.work(dead_letters_in_a_row_max=LIMIT).counts.closed
    assert 3 * LIMIT == len(stage.letters())


def test_late_records_do_not_count(real_stage):
    stage = real_stage
    evaluation = Evaluation(next(run_ids(1)))
    stage.send(evaluation.events())
    stage.work()
    late = [stage.record(event) for event in evaluation.batches(0)] * (LIMIT + 5)
    stage.send([*garbage(stage, LIMIT), *late])
    counts = stage.work(dead_letters_in_a_row_max=LIMIT).counts
    assert LIMIT + len(late) == counts.dead_letters == len(stage.letters())
    # Nor do they begin the count anew.
    stage.send(garbage(stage, 1))
    assert_stops(stage)


def test_a_batch_of_which_a_row_is_bad_counts_too(real_stage):
    stage = real_stage
    evaluation = Evaluation(next(run_ids(1)))
    torn = encode(next(evaluation.batches(0))).replace(b'"row":{', b'"row":7,"was":{', 1)
    stage.send([Sending(stage.topics.samples, evaluation.run_id.encode(), torn)] * (LIMIT + 1))
    assert_stops(stage, "bad-rows")
