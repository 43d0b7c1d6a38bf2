"""Each benchmark runs, at its smallest: what it measures here is nothing, that it measures is all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import report

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 280


def run(name, bootstrap, results, *arguments):
    """The figures of one benchmark."""
    command = [sys.executable, "-m", f"benchmarks.{name}", "--brokers", bootstrap, "--results", str(results)]
    done = subprocess.run(
        [*command, "--rounds", "1", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
        stdin=subprocess.DEVNULL,
    )
    assert 0 == done.returncode, done.stderr
    return json.loads((results / f"{name}.json").read_text("utf-8"))


@pytest.mark.kafka
def test_throughput_is_measured_for_every_load(real_kafka, tmp_path):
    found = run("throughput", real_kafka, tmp_path, "--only", "evalsink", "--rows", "20000")
    assert set(report.LOADS) == set(found["loads"])
    for [entry] in found["loads"].values():
        assert entry["rows_per_s"]["median"] > 0
        assert entry["cpu_s_per_million_rows"]["median"] > 0
        assert entry["peak_mb"] > 20


@pytest.mark.kafka
def test_close_out_is_measured_against_a_copy(real_kafka, tmp_path):
    ours = ("--only", "evalsink", "--only", "copy")
    found = run("closeout", real_kafka, tmp_path, "--rows", "1000", *ours)
    assert found["bytes"] > 900_000
    assert {"copy", "evalsink"} == {one["way"] for one in found["ways"]}
    assert all(one["seconds_to_copy"]["median"] > 0 for one in found["ways"])


@pytest.mark.kafka
def test_runs_and_workers_are_compared(real_kafka, tmp_path):
    found = run("open_runs", real_kafka, tmp_path, "--rows", "20000", "--runs", "1", "20")
    assert [1, 20] == [one["runs"] for one in found["runs"]]
    assert [1, 2] == [one["workers"] for one in found["workers"]]


@pytest.mark.kafka
def test_a_restart_is_timed_and_its_single_run_closed(real_kafka, tmp_path):
    found = run("restart", real_kafka, tmp_path, "--rows", "5000", "--runs", "10")
    many, one = found["spools"]
    assert (10, 1) == (many["runs"], one["runs"])
    assert 0 < many["first_poll_s"]["median"] < many["first_row_s"]["median"]
    assert one["closing"]["peak_mb"] > 20


@pytest.mark.kafka
def test_the_way_from_end_event_to_results_is_timed(real_kafka, tmp_path):
    found = run("visible", real_kafka, tmp_path, "--rows", "5000", "--samples", "2", "--idle-too")
    assert 2 == found["timed"] == len(found["all_ms"])
    assert 0 < found["p50_ms"] <= found["p99_ms"]


@pytest.mark.kafka
def test_a_killed_worker_loses_and_doubles_nothing(real_kafka, tmp_path):
    found = run("crash", real_kafka, tmp_path, "--rows", "20000", "--only", "evalsink")
    [ours] = found["contenders"]
    assert (0, 0, 0) == (ours["missing"], ours["twice"], ours["cut_lines"])


@pytest.mark.system
def test_every_peer_reads_the_load(real_kafka, tmp_path):
    """Fetches their packages the first time."""
    few = ("--rows", "20000", "--peers-rows", "10000", "--load", "1KB-single")
    found = run("throughput", real_kafka, tmp_path, "--peers", *few)
    for entry in found["loads"]["1KB-single"]:
        assert entry["rows"] > 0, entry
