"""Who takes over from whom, step by step: what is read again, what is not, and what a zombie may still do."""

import random

from tests.proof.stage import END, OTHER_RUN, ROWS, RUN

SECOND_END = {**END, "samples": {"mme": 3}}


def close(stage, name="ann", turns=8):
    stage.tick(name, saves=True, turns=turns)


def test_the_tail_of_a_closed_run_opens_nothing_for_who_takes_over_with_an_empty_disk(stage):
    stage.send(ROWS)
    stage.send(ROWS, run=OTHER_RUN)  # stays open, and keeps the watermark in the middle of the first run
    stage.send(END)
    stage.start("ann")
    close(stage)
    assert 1 == stage.watermarks()["samples", 0]
    stage.kill("ann")
    bob = stage.start("bob")
    close(stage, "bob")
    assert [OTHER_RUN] == bob.open_runs()
    assert {} == stage.reasons()
    assert 1 == len(stage.receipts())


def test_what_comes_after_a_run_closed_is_late_whoever_reads_it(stage):
    stage.send(ROWS, END)
    stage.start("ann")
    close(stage)
    stage.kill("ann")
    stage.start("bob")
    stage.send(ROWS)
    close(stage, "bob")
    assert {("samples", 2): "late"} == stage.reasons()


def test_a_run_that_another_closed_meanwhile_is_not_closed_again_from_the_local_state(stage):
    stage.send(ROWS, END)
    stage.start("ann")
    stage.tick("ann", jobs=False, saves=True, turns=6)
    stage.start("bob")
    stage.deal("bob")
    stage.tick("ann", jobs=False)
    close(stage, "bob")
    assert 1 == len(stage.receipts())
    stage.deal("ann")
    stage.tick("bob")
    close(stage, "ann")
    assert 2 == stage.members["ann"].book.partitions[0].positions["samples"]
    assert 1 == len(stage.receipts())


def test_who_has_no_local_state_begins_at_the_watermark_however_far_others_had_read(stage):
    stage.send(ROWS)
    stage.start("ann")
    close(stage)
    assert (1, 0) == (stage.cluster.committed["samples", 0].offset, stage.watermarks()["samples", 0])
    stage.kill("ann")
    stage.start("bob")
    stage.send(END)
    close(stage, "bob")
    assert "complete" == stage.results()[RUN]["status"]


def test_a_committed_offset_does_not_fall_while_a_new_owner_reads_what_was_read_before(stage):
    stage.send(ROWS, ROWS, ROWS)
    stage.start("ann")
    close(stage)
    stage.kill("ann")
    bob = stage.start("bob")
    read = []
    for _ in range(12):
        with bob.process:
            bob.tick(1, random.Random(0))
            bob.scribe.work()
        stage.cluster.now_s += 1
        read.append(bob.source.position(0)["samples"])
        assert 3 == stage.cluster.committed["samples", 0].offset
    assert 1 in read  # it went step by step


def test_what_was_captured_of_a_partition_is_not_committed_once_it_is_lost(stage):
    stage.send(ROWS)
    ann = stage.start("ann")
    stage.tick("ann")  # a checkpoint is on its way, and does not get there
    assert ann.scribe.jobs
    stage.start("bob")
    stage.deal("bob")
    stage.send(END)
    close(stage, "bob")
    before = dict(stage.cluster.committed)
    assert 2 == stage.watermarks()["samples", 0]
    stage.tick("ann", saves=True)
    assert before == stage.cluster.committed


def test_a_zombie_that_goes_on_leaves_nothing_but_the_same(stage):
    stage.send(ROWS)
    ann = stage.start("ann")
    close(stage)
    ann.source.asleep = "stopped"
    stage.start("bob")
    stage.deal("bob")
    stage.send(END)
    close(stage, "bob")
    stage.send(ROWS)
    committed = dict(stage.cluster.committed)
    stage.tick("ann", turns=4)
    # It closed the run once more, with the same files and the same receipt, and could not commit.
    assert 2 == len(stage.receipts())
    assert committed == stage.cluster.committed
    assert {("samples", 2): "late"} == stage.reasons()
    assert 1 == len(stage.cluster.storage.linked)


def test_a_record_that_comes_again_is_not_applied_again(stage):
    stage.send(ROWS)
    ann = stage.start("ann")
    poll = ann.source.poll

    def twice():
        records = list(poll())
        return records + records

    ann.source.poll = twice
    stage.tick()
    stage.send(END)
    close(stage)
    assert 0 == stage.results()[RUN]["tasks"]["mme"]["duplicates"]


def test_rows_that_the_disk_changed_are_read_again_from_the_log(stage):
    stage.send(ROWS)
    ann = stage.start("ann")
    close(stage)
    [rows] = (ann.state / "runs" / "0").glob("*/*.jsonl")
    rows.write_bytes(rows.read_bytes().replace(b"1", b"7"))
    stage.send(END)
    close(stage, turns=12)
    assert "complete" == stage.results()[RUN]["status"]
    assert not ann.worker.violations


def test_a_power_cut_after_a_run_was_published_takes_no_name_of_it(stage):
    stage.send(ROWS, END)
    stage.start("ann")
    stage.tick("ann", delivers=False)
    stage.kill("ann")
    before = stage.results()
    assert RUN in before
    stage.cluster.storage.lose_power(stage.output, random.Random(1))
    assert before == stage.results()
