"""When a run is shown provisionally, when it is given up, and when neither: with a time that only tests move."""

import pytest

from consumer.expiry import ASK_AGAIN_AFTER_S, LOOK_EVERY_S
from consumer.settings import Topics
from schemas.events import Aggregate, RunStarted
from tests.expiry.conftest import ABANDON_AFTER_S, GRACE_S, Watched
from tests.worker.evaluation import Evaluation

A_MOMENT_S = 0.5


def three_of_four(run_id="r"):
    """An evaluation and its events but for shard 3, of which nothing ever comes."""
    evaluation = Evaluation(run_id, shards=4)
    return evaluation, [event for event in evaluation.events() if getattr(event, "shard", 0) != 3]


# Shown provisionally


def test_a_run_with_an_end_is_shown_after_the_grace_time_and_not_before(watched):
    watched.take(*three_of_four()[1])
    watched.wait(GRACE_S - 2 * LOOK_EVERY_S - A_MOMENT_S)
    assert ({}, 0) == (watched.shown, watched.asked_for_ends)
    watched.wait(2 * LOOK_EVERY_S)
    assert ["shard 3: never ended"] == watched.shown["r"]["why"]
    assert ("incomplete", 18) == (watched.shown["r"]["status"], watched.shown["r"]["tasks"]["mme"]["rows"])
    assert [[n, n] for n in range(3, 24, 4)] == watched.shown["r"]["tasks"]["mme"]["missing"]
    assert all(name.startswith("partial/org__model/") for name in watched.files)
    assert 4 == len(watched.files)


def test_a_run_without_any_end_is_never_shown(watched):
    events = [event for event in three_of_four()[1] if type(event).__name__ != "RunEnded"]
    watched.take(*events)
    watched.wait(GRACE_S)
    watched.wait(ABANDON_AFTER_S)
    assert (set(), 0) == (watched.files, watched.executor.submitted)


def test_a_run_that_is_shown_stays_open_and_its_state_is_not_touched(watched):
    watched.take(*three_of_four()[1])
    run = watched.book.find(0, "r")
    watched.wait(GRACE_S)
    assert "r" in watched.shown
    assert (run, None, None) == (watched.book.find(0, "r"), run.samples_cut, run.aggregates_cut)


def test_a_run_is_shown_again_only_after_new_records_and_another_grace_time(watched):
    evaluation, events = three_of_four()
    watched.take(*events)
    for _ in range(3):
        watched.wait(GRACE_S)
    assert 1 == watched.executor.submitted
    watched.take(next(evaluation.batches(3)))
    watched.wait(GRACE_S - 2 * LOOK_EVERY_S)
    assert (1, 18) == (watched.executor.submitted, watched.shown["r"]["tasks"]["mme"]["rows"])
    for _ in range(3):
        watched.wait(GRACE_S)
    assert (2, 21) == (watched.executor.submitted, watched.shown["r"]["tasks"]["mme"]["rows"])
    assert 4 == len(watched.files)


def test_what_is_shown_is_gone_when_the_run_closes(watched):
    evaluation, events = three_of_four()
    watched.take(*events)
    watched.wait(GRACE_S)
    assert watched.shown
    watched.take(*evaluation.batches(3), evaluation.ended(3))
    watched.close("r")
    assert not (watched.output / "partial").exists()
    assert 4 == len(watched.files)


def test_a_show_that_is_overtaken_by_the_close_out_leaves_nothing(watched):
    evaluation, events = three_of_four()
    watched.take(*events)
    watched.executor.holding = True
    watched.wait(GRACE_S)
    assert watched.expiry.is_reading()
    watched.take(*evaluation.batches(3), evaluation.ended(3))
    run = watched.book.find(0, "r")
    assert run.samples_cut is not None
    watched.close("r")
    # The folder stays until nobody reads from it any more.
    watched.executor.run()
    watched.wait(LOOK_EVERY_S)
    assert not (watched.output / "partial").exists()
    assert not watched.expiry.is_reading()


def test_a_show_that_failed_is_tried_again(watched, monkeypatch):
    watched.take(*three_of_four()[1])
    placing = watched.tools.disk.sync_path

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(watched.tools.disk, "sync_path", full)
    watched.wait(GRACE_S)
    assert {} == watched.shown
    monkeypatch.setattr(watched.tools.disk, "sync_path", placing)
    watched.wait(LOOK_EVERY_S)
    assert "r" in watched.shown


# Given up


def test_a_run_is_given_up_after_its_time_and_not_before_and_asked_once(watched):
    watched.take(*three_of_four()[1])
    watched.wait(ABANDON_AFTER_S - 2 * LOOK_EVERY_S - A_MOMENT_S)
    assert [] == watched.outbound.sent
    watched.wait(2 * LOOK_EVERY_S)
    last = watched.offsets["s"] - 1
    assert [("s", 0, "r", last)] == watched.outbound.sent
    watched.wait(ASK_AGAIN_AFTER_S / 2)
    assert [("s", 0, "r", last)] == watched.outbound.sent


def test_a_run_nobody_answered_for_is_asked_about_again_after_a_while(watched):
    watched.take(*three_of_four()[1])
    watched.wait(ABANDON_AFTER_S)
    watched.wait(ASK_AGAIN_AFTER_S)
    assert 2 == len(watched.outbound.sent)
    assert 1 == len(set(watched.outbound.sent))


def test_a_record_that_comes_first_voids_the_question_and_the_time_begins_anew(watched):
    evaluation, events = three_of_four()
    watched.take(*events)
    watched.wait(ABANDON_AFTER_S)
    watched.take(next(evaluation.batches(3)))
    assert "surplus" == watched.read_back()
    watched.wait(ABANDON_AFTER_S - 3 * LOOK_EVERY_S)
    assert 1 == len(watched.outbound.sent)
    watched.wait(3 * LOOK_EVERY_S)
    # The surplus one is no record of the run: it lies between, and does not count.
    assert [("s", 0, "r", watched.offsets["s"] - 2)] == watched.outbound.sent[1:]


def test_the_aggregates_topic_is_asked_only_once_the_samples_cut_is_decided(watched):
    # Shard 0, which names the aggregate, ends; the aggregate never comes.
    _, events = three_of_four()
    watched.take(*(event for event in events if not isinstance(event, Aggregate)))
    watched.wait(ABANDON_AFTER_S)
    watched.wait(LOOK_EVERY_S)
    assert ["s"] == [topic for topic, *_ in watched.outbound.sent]
    assert "expired" == watched.read_back()
    watched.wait(LOOK_EVERY_S)
    assert ["s", "a"] == [topic for topic, *_ in watched.outbound.sent]
    assert ("a", 0, "r", -1) == watched.outbound.sent[-1]
    assert "expired" == watched.read_back()
    watched.wait(ASK_AGAIN_AFTER_S)
    assert 2 == len(watched.outbound.sent)
    watched.close("r")
    assert not (watched.output / "partial").exists()


def test_a_run_whose_aggregates_are_there_is_settled_by_one_answer(watched):
    watched.take(*three_of_four()[1])
    watched.wait(ABANDON_AFTER_S)
    assert "expired" == watched.read_back()
    watched.wait(ASK_AGAIN_AFTER_S)
    assert 1 == len(watched.outbound.sent)


def test_in_one_topic_for_all_one_question_is_enough(tmp_path):
    watched = Watched(tmp_path, Topics(samples="e", aggregates="e"))
    watched.take(*(event for event in three_of_four()[1] if not isinstance(event, Aggregate)))
    watched.wait(ABANDON_AFTER_S)
    assert "expired" == watched.read_back()
    watched.wait(ASK_AGAIN_AFTER_S)
    assert ["e"] == [topic for topic, *_ in watched.outbound.sent]
    watched.book.spool.close()


def test_a_run_that_only_began_is_given_up_too(watched):
    watched.take(RunStarted(run_id="r", num_shards=2))
    watched.wait(ABANDON_AFTER_S)
    assert [("s", 0, "r", 0)] == watched.outbound.sent


@pytest.mark.parametrize(("expected", "failed"), [(["s"], (1,)), (["s"], (0, 1)), ([], ())])
def test_when_every_shard_has_ended_and_one_failed_the_grace_time_is_all(watched, expected, failed):
    evaluation = Evaluation("r")
    ends = [evaluation.ended(shard, status="failed" if shard in failed else "ok") for shard in range(2)]
    # One row is short, so that nobody failing leaves it open.
    watched.take(*list(evaluation.batches(0))[1:], *evaluation.batches(1), *ends)
    watched.wait(GRACE_S - 2 * LOOK_EVERY_S - A_MOMENT_S)
    assert [] == watched.outbound.sent
    watched.wait(2 * LOOK_EVERY_S)
    assert expected == [topic for topic, *_ in watched.outbound.sent]


def test_a_failed_shard_waits_for_the_others_and_for_its_new_attempt(watched):
    evaluation, events = three_of_four()
    watched.take(*events[:-1], evaluation.ended(2, status="failed"))
    watched.wait(GRACE_S)
    assert [] == watched.outbound.sent
    # All have spoken now, but the failed one begins anew: its old word is void.
    watched.take(evaluation.ended(3), RunStarted(run_id="r", shard=2, num_shards=4, attempt=1))
    watched.wait(GRACE_S)
    assert [] == watched.outbound.sent


def test_after_new_records_a_new_question_does_not_wait_for_the_old_one(watched):
    evaluation = Evaluation("r", shards=1)
    watched.take(evaluation.ended(0, status="failed"))
    watched.wait(GRACE_S)
    watched.take(next(evaluation.batches(0)))
    watched.wait(GRACE_S)
    assert ASK_AGAIN_AFTER_S > 2 * GRACE_S
    assert [("s", 0, "r", 0), ("s", 0, "r", 1)] == watched.outbound.sent


# Neither


def test_a_partition_that_is_not_read_to_its_end_is_left_alone(watched):
    watched.take(*three_of_four()[1])
    watched.ready = set()
    watched.wait(ABANDON_AFTER_S)
    assert ({}, []) == (watched.shown, watched.outbound.sent)
    assert watched.asked_for_ends > 0
    watched.ready = {0}
    watched.wait(LOOK_EVERY_S)
    assert (["r"], 1) == (list(watched.shown), len(watched.outbound.sent))


def test_a_partition_of_others_is_left_alone_and_told_anew_when_it_comes_back(watched):
    watched.take(*three_of_four()[1])
    watched.wait(ABANDON_AFTER_S, owned=())
    assert ({}, [], 0) == (watched.shown, watched.outbound.sent, watched.asked_for_ends)
    watched.wait(LOOK_EVERY_S)
    watched.wait(LOOK_EVERY_S, owned=())
    watched.wait(LOOK_EVERY_S)
    # Who had it meanwhile may have removed what was shown.
    assert (2, 2) == (watched.executor.submitted, len(watched.outbound.sent))


def test_a_settled_run_is_left_alone(watched):
    watched.take(*Evaluation("r").events())
    watched.wait(ABANDON_AFTER_S)
    assert ({}, [], 0) == (watched.shown, watched.outbound.sent, watched.asked_for_ends)


def test_idle_time_is_that_of_the_log_and_outlives_a_restart(watched):
    watched.take(*three_of_four()[1])
    watched.now_s += ABANDON_AFTER_S
    watched.start()
    watched.wait(LOOK_EVERY_S)
    assert (["r"], 1) == (list(watched.shown), len(watched.outbound.sent))


def test_many_looks_in_one_second_look_once(watched):
    watched.take(*three_of_four()[1])
    watched.now_s += ABANDON_AFTER_S
    for _ in range(100):
        watched.look()
    assert 1 == watched.asked_for_ends
