"""Static membership: a member that comes back in time gets what it had; a name belongs to one process."""

import pytest

from tests.hand_over.processes import published, workers, write_config
from tests.observing import until
from tests.worker.evaluation import Evaluation

pytestmark = pytest.mark.kafka


def config(stage, name):
    return write_config(
        stage.folder / f"{name}.toml",
        stage.broker.bootstrap,
        stage.topics,
        group=stage.group,
        group_instance_id=name,
        checkpoint_interval_s=0.2,
        # Longer than the test: nobody is thrown out for being away.
        session_timeout_ms=60_000,
    )


def assigned(worker):
    """The partitions of each assignment so far."""
    return [line["partitions"] for line in worker.lines("partitions_assigned")]


def has_two(worker):
    return lambda: assigned(worker) and len(assigned(worker)[-1]) == 2


def test_a_member_that_is_back_within_the_session_gets_what_it_had_and_the_others_keep_theirs(real_stage):
    stage = real_stage
    output = stage.folder / "output"
    with (
        workers(config(stage, "one"), output) as start_one,
        workers(config(stage, "two"), output) as start_two,
    ):
        one, two = start_one(stage.folder / "one"), start_two(stage.folder / "two")
        one.until(has_two(one), "half the partitions")
        two.until(has_two(two), "half the partitions")
        half, other_half = assigned(one)[-1], assigned(two)
        evaluations = [Evaluation(f"r{number}", shards=3) for number in range(12)]
        for life, end in enumerate(("kill", "terminate")):
            getattr(one, end)()
            stage.send([event for each in evaluations[6 * life :][:6] for event in each.events()])
            one = start_one(stage.folder / "one")
            one.until(has_two(one), "half the partitions")
            assert [half] == assigned(one)
            until(lambda runs=6 * (life + 1): runs == published(output), "all runs closed")
        assert other_half == assigned(two)


def test_a_second_process_of_the_same_name_ends_the_first_one_which_says_why(real_stage):
    stage = real_stage
    with workers(config(stage, "one"), stage.folder / "output") as start:
        first = start(stage.folder / "first")
        first.until_assigned()
        second = start(stage.folder / "second")
        second.until_assigned()
        assert 3 == first.exit_code()
        assert "group_instance_id" in first.said()
        assert "Traceback" not in first.said()
        stage.send(Evaluation("r").events())
        second.until(lambda: second.lines("run_closed"), "the run closed")
        assert 0 == second.terminate()
