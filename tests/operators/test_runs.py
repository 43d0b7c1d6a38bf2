"""``evalsink runs``: the runs of a worker's state folder, while it works and when it does not."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from consumer.cli.runs import command
from consumer.errors import StateError, UsageError
from consumer.overview import survey
from tests.conftest import Broker
from tests.operators.conftest import Part, evaluation, make_desk, whole

KEYS = [
    "run_id",
    "partition",
    "status",
    "shards",
    "ended",
    "rows",
    "expected",
    "missing",
    "tainted",
    "first_ms",
    "last_ms",
    "closed_ms",
    "age_s",
    "idle_s",
    "results",
    "sha256",
    "tasks",
]


@pytest.fixture
def embedded_desk(embedded_broker, tmp_path, monkeypatch):
    broker = Broker(embedded_broker.bootstrap, embedded=True)
    return make_desk(broker, broker.topics(), tmp_path, monkeypatch)


def half_done(run_id="r-open"):
    """Of four shards, two have ended, one of them short of a row."""
    parts = [Part(range(2), 2), Part(range(2, 3)), Part(range(4, 6), 3), Part(range(0))]
    return evaluation(run_id, *parts, announced=8)


def test_an_open_run_shows_what_it_waits_for_and_where_its_rows_are(desk):
    places = desk.send(*half_done())
    desk.work()
    run = desk.listed()["r-open"]
    assert KEYS == list(run)
    expected = {
        "partition": places[0].partition,
        "status": "open",
        "shards": 4,
        "ended": 2,
        "rows": 5,
        "expected": 8,
        "missing": ["shards 1, 3: not ended", "shard 2: task mme: 2 of 3 rows"],
        "tainted": False,
        "closed_ms": None,
        "results": None,
        "sha256": None,
    }
    assert expected == {key: run[key] for key in expected}
    assert 0 <= run["idle_s"] <= run["age_s"]
    assert run["first_ms"] <= run["last_ms"]
    [task] = run["tasks"]
    assert ("mme", 5, 8) == (task["task"], task["rows"], task["expected"])
    assert 5 == len(Path(task["file"]).read_text().splitlines())


def test_a_closed_run_shows_its_results_and_their_hash(desk):
    desk.send(*whole("r-closed"))
    desk.work()
    run = desk.listed()["r-closed"]
    assert KEYS == list(run)
    expected = {"status": "complete", "shards": 1, "ended": None, "rows": 3, "missing": [], "idle_s": None}
    assert expected == {key: run[key] for key in expected}
    assert hashlib.sha256(Path(run["results"]).read_bytes()).hexdigest() == run["sha256"]
    [task] = run["tasks"]
    assert ("mme", 3) == (task["task"], len(Path(task["file"]).read_text().splitlines()))


def test_runs_are_shown_while_the_worker_holds_its_lock(desk):
    desk.send(*half_done(), *whole("r-closed"))
    expected = {"r-open": "open", "r-closed": "complete"}
    desk.work_until(lambda: expected == {run_id: run["status"] for run_id, run in desk.listed().items()})


def test_the_last_closed_come_first_and_only_as_many_as_asked_for(embedded_desk):
    names = [f"r-{number}" for number in range(5)]
    for name in names:
        embedded_desk.send(*whole(name), partition=2)
    embedded_desk.work()
    assert names[::-1] == list(embedded_desk.listed())
    assert ["r-4", "r-3"] == list(embedded_desk.listed("--recent", "2"))
    assert [] == list(embedded_desk.listed("--recent", "0"))


def test_in_one_partition_the_log_says_who_closed_last_whatever_the_times_of_the_files(embedded_desk):
    names = [f"r-{number}" for number in range(3)]
    for name in names:
        embedded_desk.send(*whole(name), partition=2)
    embedded_desk.work()
    for age_s, name in enumerate(names):
        # The last one's file is the oldest, and the middle one's is gone.
        results = Path(embedded_desk.listed()[name]["results"])
        os.utime(results, (1e9 - age_s, 1e9 - age_s))
    Path(embedded_desk.listed()["r-1"]["results"]).unlink()
    assert names[::-1] == list(embedded_desk.listed())


def test_for_people_paths_stand_on_lines_of_their_own(embedded_desk):
    embedded_desk.send(*half_done(), *whole("r-closed"))
    embedded_desk.work()
    outcome = embedded_desk.runs()
    assert (0, "") == (outcome.exit_code, outcome.stderr)
    runs = embedded_desk.listed()
    lines = [line.strip() for line in outcome.stdout.splitlines()]
    assert runs["r-open"]["tasks"][0]["file"] in lines
    assert runs["r-closed"]["results"] in lines
    assert "missing: shards 1, 3: not ended" in lines
    [row] = [line.split() for line in lines if line.startswith("r-open ")]
    assert ["r-open", "open", "2/4", "5/8"] == [row[at] for at in (0, 1, 3, 4)]


def test_in_a_pipe_a_long_run_id_stays_on_its_line(embedded_desk):
    long = "r" * 300
    embedded_desk.send(*half_done(long))
    embedded_desk.work()
    [row] = [line for line in embedded_desk.runs().stdout.splitlines() if line.startswith(f"{long} ")]
    assert [long, "open"] == row.split()[:2]


def test_a_run_id_cannot_move_the_cursor(embedded_desk):
    hostile = "r\x1b[2J\u202ex"
    embedded_desk.send(*half_done(hostile))
    embedded_desk.work()
    assert [hostile] == list(embedded_desk.listed())
    outcome = embedded_desk.runs()
    assert "r\\x1b[2J\\u202ex" in outcome.stdout
    assert not {"\x1b", "\u202e"} & set(outcome.stdout)


def test_what_vanishes_meanwhile_is_not_shown_or_shown_without(embedded_desk):
    embedded_desk.send(*half_done("r-gone"), *half_done("r-logless"), *whole("r-unpublished"))
    embedded_desk.work()
    before = embedded_desk.listed()
    files = {name: Path(before[name]["tasks"][0]["file"]) for name in ("r-gone", "r-logless")}
    shutil.rmtree(files["r-gone"].parent)
    for path in files["r-logless"].parent.iterdir():
        path.unlink()
    Path(before["r-unpublished"]["results"]).unlink()
    after = embedded_desk.listed()
    assert {"r-logless", "r-unpublished"} == set(after)
    assert (5, None, None) == (
        after["r-logless"]["rows"],
        after["r-logless"]["expected"],
        after["r-logless"]["tasks"][0]["file"],
    )
    [why] = after["r-unpublished"]["missing"]
    assert why.startswith("its results JSON cannot be read: ")


def test_a_checkpoint_or_table_that_cannot_be_read_is_named(embedded_desk):
    embedded_desk.send(*half_done())
    embedded_desk.work()
    (embedded_desk.state / "receipts.sqlite").write_bytes(b"not a database" * 100)
    outcome = embedded_desk.runs("--json")
    assert ["r-open"] == [json.loads(line)["run_id"] for line in outcome.stdout.splitlines()]
    assert "receipts.sqlite cannot be read" in outcome.stderr
    (embedded_desk.state / "checkpoint.json").write_bytes(b"{")
    assert isinstance(embedded_desk.runs().exception, StateError)


def test_an_empty_state_folder_says_so_and_an_absent_one_is_refused(tmp_path):
    empty = survey(tmp_path, tmp_path / "output", recent=20, now_ms=0)
    assert ([], []) == (empty.runs, empty.notices)
    with pytest.raises(UsageError, match="--state"):
        survey(tmp_path / "absent", tmp_path / "output", recent=20, now_ms=0)


def test_the_command_says_that_there_is_nothing_and_exits_0(tmp_path):
    outcome = CliRunner().invoke(command, ["--state", str(tmp_path)])
    assert (0, "", f"no runs in {tmp_path}\n") == (outcome.exit_code, outcome.stdout, outcome.stderr)
