"""The page of open runs: rows against what is expected, scores as they stand, rate and age."""

import math
import shutil
import statistics
import threading
from pathlib import Path

from msgspec.structs import replace

from consumer import monitoring
from consumer.runs import live
from consumer.runs.live import LiveScores
from consumer.runs.window import SHOW_EVERY_S, Window
from schemas.events import Sample, Samples
from tests.observing import until
from tests.worker.evaluation import Evaluation, row


def scored(run_id, *values, task="mme", filter_name="none", start=0, **more):
    """One event with a row for each value."""
    samples = [
        Sample(
            doc_id=start + number,
            row=row(start + number),
            scores=value if isinstance(value, dict) else {"acc": value},
        )
        for number, value in enumerate(values)
    ]
    return Samples(run_id=run_id, task=task, filter=filter_name, samples=samples, **more)


def the_task(run, name="mme"):
    return next(task for task in run["tasks"] if task["task"] == name)


def test_a_run_shows_rows_against_what_was_announced_and_its_live_file(shelf):
    evaluation = Evaluation("r", tasks=[("mme", 24), ("gqa", 5)])
    shelf.take([evaluation.started(), *list(evaluation.batches(0))[:2]])
    run = shelf.runs()["r"]
    assert ("open", 0, 2, 0, 6, 29) == tuple(
        run[name] for name in ("status", "partition", "shards", "ended", "rows", "expected")
    )
    assert ["shards 0-1: not ended"] == run["missing"]
    task = the_task(run)
    assert (6, 24) == (task["rows"], task["expected"])
    assert 6 == len(Path(task["file"]).read_bytes().splitlines())
    assert (0, 5, None) == tuple(the_task(run, "gqa")[name] for name in ("rows", "expected", "file"))


def test_age_and_silence_are_by_kafkas_clock(shelf):
    shelf.take([scored("r", 1.0)])
    run = shelf.runs()["r"]
    assert shelf.watched.now - 900 == run["age_s"] == run["idle_s"]


def test_scores_are_mean_and_standard_error_of_the_rows_so_far_by_filter_and_metric(shelf):
    values = [0.0, 1.0, 1.0, 0.25, 0.5]
    shelf.take(
        [
            scored("r", *values),
            scored("r", {"acc": 1.0, "f1": 0.5}, {"f1": 0.7}, filter_name="strict"),
        ]
    )
    scores = the_task(shelf.runs()["r"])["scores"]
    acc = scores["none"]["acc"]
    assert 5 == acc["n"]
    assert math.isclose(statistics.fmean(values), acc["mean"])
    assert math.isclose(statistics.stdev(values) / math.sqrt(5), acc["stderr"])
    assert {"n": 1, "mean": 1.0, "stderr": None} == scores["strict"]["acc"]
    assert math.isclose(0.6, scores["strict"]["f1"]["mean"])


def test_rows_without_scores_and_rejected_ones_count_nowhere(shelf):
    bad = scored("r", 1.0)
    shelf.take([replace(bad, samples=[replace(bad.samples[0], scores={})]), scored("r", 0.5, start=5)])
    assert 1 == the_task(shelf.runs()["r"])["scores"]["none"]["acc"]["n"]


def test_reading_goes_on_where_it_was(shelf, monkeypatch):
    shelf.take([scored("r", *[0.0] * 7)])
    assert 7 == the_task(shelf.runs()["r"])["scores"]["none"]["acc"]["n"]
    read = []
    monkeypatch.setattr(live, "_read", lambda *_arguments, start, count, into: read.append((start, count)))
    shelf.take([scored("r", *[1.0] * 3, start=7)])
    shelf.runs()
    assert [(7, 3)] == read


def test_a_restart_loses_no_score(shelf):
    shelf.take([scored("r", *[0.0] * 3)])
    shelf.restart()
    shelf.take([scored("r", 1.0, start=3)])
    score = the_task(shelf.runs()["r"])["scores"]["none"]["acc"]
    assert (4, 0.25) == (score["n"], score["mean"])


def test_rows_sent_twice_count_twice_until_the_run_closes(shelf):
    shelf.take([scored("r", 1.0), scored("r", 1.0)])
    run = shelf.runs()["r"]
    assert (2, 2) == (run["rows"], the_task(run)["scores"]["none"]["acc"]["n"])


def test_what_there_was_no_time_to_read_comes_with_the_next_question(shelf, monkeypatch):
    monkeypatch.setattr(live, "CHUNK_ROWS", 2)
    shelf.take([scored("r", *[1.0] * 5)])
    moments = iter([0, 0, 5])  # two chunks fit
    monkeypatch.setattr(shelf.watched.monitor._runs, "_scores", LiveScores(lambda: next(moments, 0)))
    monkeypatch.setattr(monitoring, "READING_MAX_S", 1 - shelf.watched.now - 30)
    score = the_task(shelf.runs()["r"])["scores"]["none"]["acc"]
    assert 4 == score["n"]


def test_a_run_whose_folder_has_gone_is_not_shown_and_a_file_that_has_gone_costs_its_scores_alone(shelf):
    shelf.take([scored("r", 1.0), scored("s", 1.0), scored("s", 0.0, task="gqa")])
    shutil.rmtree(shelf.book.spool.folder(0, shelf.book.find(0, "r")))
    gone = shelf.book.spool.task_files(0, shelf.book.find(0, "s"), 0)
    gone.side.unlink()
    runs = shelf.runs()
    assert {"s"} == set(runs)
    assert {} == the_task(runs["s"])["scores"]
    assert 1 == the_task(runs["s"], "gqa")["scores"]["none"]["acc"]["n"]


def test_the_rate_is_that_since_the_last_questions(shelf):
    shelf.take([scored("r", *[1.0] * 10)])
    assert shelf.runs()["r"]["rows_per_s"] is None
    shelf.take([scored("r", *[1.0] * 60, start=10)])
    assert 2.0 == shelf.runs()["r"]["rows_per_s"]
    assert 1.0 == shelf.runs()["r"]["rows_per_s"]
    assert 0.0 == [shelf.runs() for _ in range(3)][-1]["r"]["rows_per_s"]


def test_what_is_remembered_of_a_run_goes_with_it(shelf):
    shelf.take([Evaluation("r").started(), scored("r", 1.0), scored("s", 1.0)])
    shelf.runs()
    shelf.book.drop_run(0, shelf.book.find(0, "r"))
    assert {"s"} == set(shelf.runs())
    page = shelf.watched.monitor._runs
    assert 1 == len(page._announced) == len(page._rows) == len(page._scores._tasks)


def test_a_long_list_of_what_is_missing_is_cut(shelf):
    evaluation = Evaluation("r", tasks=[(f"t{number:02}", 4) for number in range(30)], shards=1)
    shelf.take([evaluation.ended(0, aggregates=[])])
    missing = shelf.runs()["r"]["missing"]
    assert (monitoring.MISSING_MAX + 1, "and 10 more") == (len(missing), missing[-1])


def test_a_loop_that_never_showed_anything_is_told_as_such(watched, monkeypatch):
    monkeypatch.setattr(monitoring, "LOOK_TIMEOUT_S", 0.0)
    assert 503 == watched.json("/runs")[0]


def test_a_loop_that_stands_shows_what_there_was_and_how_old_that_is(shelf, monkeypatch):
    monkeypatch.setattr(monitoring, "LOOK_TIMEOUT_S", 0.0)
    shelf.take([scored("r", 1.0)])
    shelf.runs()
    shelf.watched.now += 40
    status, content = shelf.watched.json("/runs")
    assert (200, 40, ["r"]) == (status, content["as_of_s"], [run["run_id"] for run in content["runs"]])


# The window


def test_nothing_is_copied_unless_somebody_asks():
    def copy():
        raise AssertionError

    Window(lambda: 0.0).show(copy)


def test_who_asks_gets_what_the_poll_thread_shows_next():
    window, found = Window(lambda: 0.0), []
    asking = threading.Thread(target=lambda: found.append(window.look(60)))
    asking.start()
    until(lambda: window.show(list) is None and found, "an answer")
    asking.join()
    assert (0.0, []) == (found[0].at_s, found[0].partitions)


def test_however_many_ask_a_copy_serves_for_a_while():
    now, copies = [0.0], []
    window = Window(lambda: now[0])

    def copy():
        copies.append(now[0])
        return []

    for now[0] in (0.0, 0.4, 0.8, SHOW_EVERY_S, 1.5, 10.0):
        window.look(0)
        window.show(copy)
    assert [0.0, SHOW_EVERY_S, 10.0] == copies
