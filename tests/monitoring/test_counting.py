"""What observations come to in a scrape; and observers that fail."""

import logging

import pytest

from consumer import assembly
from consumer.monitoring import Monitor
from consumer.observations import (
    Buried,
    Checkpointed,
    Closed,
    CloseOutFailed,
    CommitEnded,
    Counts,
    DiskHeld,
    Rebalanced,
    Turned,
    unobserved,
)
from consumer.settings import Settings
from consumer.telemetry.observer import Guarded
from consumer.vocabulary import Record, TopicPartition
from tests.monitoring.conftest import standing
from tests.worker.evaluation import Evaluation

SAMPLES = "eval.samples"
PLACE = TopicPartition(SAMPLES, 3)


def record(age_s=0.0, *, value=b"x" * 10, partition=3, topic=SAMPLES):
    return Record(topic, partition, 0, int((1000 - age_s) * 1000), b"k", value)


def test_records_and_bytes_are_counted_by_topic_and_a_null_value_has_none(watched):
    records = [record(), record(value=None), record(topic="eval.aggregates"), record(partition=1)]
    watched.observe(Turned(records, Counts()), Turned([record()], Counts()))
    scrape = watched.scrape()
    assert 4 == scrape.value("evalsink_records_total", topic=SAMPLES)
    assert 30 == scrape.value("evalsink_read_bytes_total", topic=SAMPLES)
    assert 10 == scrape.value("evalsink_read_bytes_total", topic="eval.aggregates")


def test_counts_so_far_are_taken_over_once(watched):
    counts = Counts(rows=5, repaired=1, scores_dropped=2, rejected=3, replayed=4)
    watched.observe(Turned([], counts), Turned([], counts))
    counts.rows += 2
    watched.observe(Turned([], counts))
    scrape = watched.scrape()
    assert 7 == scrape.value("evalsink_rows_total")
    assert 1 == scrape.value("evalsink_repaired_rows_total")
    assert 2 == scrape.value("evalsink_scores_dropped_rows_total")
    assert 3 == scrape.value("evalsink_rejected_rows_total")
    assert 4 == scrape.value("evalsink_replayed_records_total")


def test_the_age_of_every_record_is_in_its_bucket_however_far_apart_they_are(watched):
    watched.observe(Turned([record(0.05), record(0.5), record(2000)], Counts()))
    watched.observe(Turned([record(2), record(2)], Counts()))
    scrape = watched.scrape()
    buckets = {
        bound: scrape.value("evalsink_event_age_seconds_bucket", le=bound)
        for bound in ("0.1", "0.5", "1.0", "5.0", "900.0", "3600.0", "+Inf")
    }
    assert {
        "0.1": 1,
        "0.5": 2,
        "1.0": 2,
        "5.0": 4,
        "900.0": 4,
        "3600.0": 5,
        "+Inf": 5,
    } == buckets
    assert 5 == scrape.value("evalsink_event_age_seconds_count")
    assert abs(2004.55 - scrape.value("evalsink_event_age_seconds_sum")) < 1e-6


def test_a_record_from_the_future_does_not_make_the_sum_fall(watched):
    watched.observe(Turned([record(-50)], Counts()))
    assert 0 == watched.scrape().value("evalsink_event_age_seconds_sum")
    assert 1 == watched.scrape().value("evalsink_event_age_seconds_bucket", le="0.1")


def test_lag_in_seconds_is_the_age_of_the_last_record_where_more_are_waiting(watched):
    other = TopicPartition(SAMPLES, 1)
    watched.observe(Turned([record(90), record(60), record(20, partition=1)], Counts()))
    watched.observe(standing(owned=frozenset({1, 3}), lag={PLACE: 7, other: 0}))
    scrape = watched.scrape()
    assert 7 == scrape.value("evalsink_lag_records", topic=SAMPLES, partition="3")
    assert 60 == scrape.value("evalsink_lag_seconds", topic=SAMPLES, partition="3")
    assert 0 == scrape.value("evalsink_lag_seconds", topic=SAMPLES, partition="1")
    watched.now += 15  # nobody reads: it grows without being told
    assert 75 == watched.scrape().value("evalsink_lag_seconds", topic=SAMPLES, partition="3")


def test_where_nothing_was_read_yet_lag_in_seconds_begins_with_the_partition(watched):
    watched.observe(standing(lag={PLACE: 7}))
    watched.now += 40
    watched.observe(standing(lag={PLACE: 7}))
    assert 40 == watched.scrape().value("evalsink_lag_seconds", topic=SAMPLES, partition="3")


def test_the_lag_of_a_partition_goes_with_it(watched):
    watched.observe(standing(lag={PLACE: 7}))
    before = watched.scrape().series
    watched.observe(standing(lag={}))
    gone = before - watched.scrape().series
    assert {"evalsink_lag_records", "evalsink_lag_seconds"} == {name for name, _ in gone}


def test_what_closes_is_counted_by_status(watched):
    watched.observe(Closed("complete", 10, 500, 1, 2, 3, 0.2), Closed("failed", 1, 50, 0, 0, 0, 20.0))
    scrape = watched.scrape()
    assert (1, 0, 1) == tuple(
        scrape.value("evalsink_runs_closed_total", status=status)
        for status in ("complete", "incomplete", "failed")
    )
    assert 11 == scrape.value("evalsink_published_rows_total")
    assert 550 == scrape.value("evalsink_published_bytes_total")
    assert (1, 2, 3) == tuple(
        scrape.value(f"evalsink_{kind}_rows_total") for kind in ("duplicate", "conflicting", "superseded")
    )
    assert 1 == scrape.value("evalsink_close_out_seconds_bucket", le="0.25")
    assert 20.2 == scrape.value("evalsink_close_out_seconds_sum")


def test_the_small_facts_are_counted(watched):
    watched.observe(
        Buried("late"),
        Buried("late"),
        CloseOutFailed("disk"),
        Checkpointed("written", 0.02),
        Checkpointed("unchanged"),
        Checkpointed("failed"),
        Rebalanced("lost"),
        DiskHeld(waiting=True),
        CommitEnded(accepted=False),
    )
    scrape = watched.scrape()
    assert 2 == scrape.value("evalsink_dead_letters_total", reason="late")
    assert 1 == scrape.value("evalsink_close_outs_failed_total", reason="disk")
    assert 1 == scrape.value("evalsink_checkpoint_seconds_count")
    assert 1 == scrape.value("evalsink_checkpoints_total", outcome="failed")
    assert 1 == scrape.value("evalsink_rebalances_total", change="lost")
    assert 1 == scrape.value("evalsink_waiting_for_disk")
    assert 1 == scrape.value("evalsink_commits_total", outcome="refused")
    watched.observe(DiskHeld(waiting=False))
    assert 0 == watched.scrape().value("evalsink_waiting_for_disk")


def test_the_last_commit_is_the_last_that_was_taken_or_not_needed(watched):
    def last():
        return watched.scrape().value("evalsink_last_commit_timestamp_seconds")

    watched.now = 1100
    watched.observe(standing(), CommitEnded(accepted=False))
    assert 1000 == last()
    watched.observe(CommitEnded(accepted=True))
    assert 1100 == last()
    watched.now = 1200
    watched.observe(standing(owned=frozenset()))
    assert 1200 == last()


def test_open_runs_are_told_by_number_age_and_silence(watched):
    watched.observe(
        standing(open_runs=3, closing=1, blocked={"crash": 1}, opened_ms=900_000, seen_ms=990_000)
    )
    scrape = watched.scrape()
    assert 3 == scrape.value("evalsink_open_runs")
    assert 1 == scrape.value("evalsink_closing_runs")
    assert (1, 0) == tuple(
        scrape.value("evalsink_blocked_runs", reason=reason) for reason in ("crash", "determinism")
    )
    assert 100 == scrape.value("evalsink_open_run_age_max_seconds")
    assert 10 == scrape.value("evalsink_open_run_idle_max_seconds")


def test_a_folder_that_is_not_there_has_no_room_and_breaks_no_scrape(watched):
    watched.settings.state_path.mkdir()
    series = {labels for name, labels in watched.scrape().series if name == "evalsink_disk_free_bytes"}
    assert {frozenset({("folder", "state")})} == series


def test_an_observer_that_fails_is_logged_once_and_counted(caplog):
    def fail(_observation):
        raise RuntimeError("no")

    guarded = Guarded(fail)
    with caplog.at_level(logging.WARNING, "consumer"):
        for _ in range(3):
            guarded(Rebalanced("lost"))
    assert ["observer_failed"] == [line.message for line in caplog.records]
    assert 3 == guarded.failures


def test_without_a_server_nothing_is_counted():
    assert unobserved is Monitor(Settings(http="")).observe


@pytest.mark.kafka
def test_a_worker_whose_observer_fails_publishes_all_the_same(real_stage):
    def fail(_observation):
        raise RuntimeError("no")

    guarded = Guarded(fail)
    real_stage.send(Evaluation("r").events())
    with assembly.worker(real_stage.settings(), observe=guarded) as worker:
        worker.run(exit_when_idle_s=0.2)
        assert (1, []) == (worker.counts.closed, worker.violations)
    assert guarded.failures > 0
    assert ["complete"] == [one["evalsink"]["status"] for one in real_stage.results().values()]
