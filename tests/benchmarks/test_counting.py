"""Rows missing, twice, foreign and cut are found where they are, in each kind of output."""

import json

import pytest

from benchmarks.contenders import CONNECT, PEER_CONTENDERS, PUBLISHING
from benchmarks.crash import count
from benchmarks.rows import Shape, samples

SHAPE = Shape(rows=12, batch=2, runs=2, tasks=2)


def sent():
    """Every event as (run, task, its rows, its value)."""
    for _, run_id, value in samples(SHAPE):
        event = json.loads(value)
        yield run_id, event["task"], [json.dumps(one["row"]) for one in event["samples"]], value.decode()


def write_as_peers_do(folder):
    for run_id, task, rows, _ in sent():
        with (folder / f"{run_id}.{task}.jsonl").open("a") as file:
            file.writelines(f"{row}\n" for row in rows)
    return folder / "run-0001.bench_task_1.jsonl"


def write_as_evalsink_does(folder):
    for run_id, task, rows, _ in sent():
        model = folder / "output" / f"org__model-{int(run_id[-4:])}"
        model.mkdir(parents=True, exist_ok=True)
        (model / "20260101_000000-aaaaaaaa_metrics.jsonl").write_text("{}\n")
        with (model / f"20260101_000000-aaaaaaaa_samples_{task}.jsonl").open("a") as file:
            file.writelines(f"{row}\n" for row in rows)
    return folder / "output" / "org__model-1" / "20260101_000000-aaaaaaaa_samples_bench_task_1.jsonl"


def write_as_connect_does(folder):
    path = folder / "events.jsonl"
    path.write_text(
        "".join(f"{value}\n" for *_, value in sent()) + '{"type":"run_ended","run_id":"run-0000"}\n'
    )
    return path


@pytest.mark.parametrize(
    ("contender", "write", "rows_of_a_line"),
    [
        (PEER_CONTENDERS[0], write_as_peers_do, 1),
        (PUBLISHING, write_as_evalsink_does, 1),
        (CONNECT, write_as_connect_does, 2),
    ],
    ids=["peer", "evalsink", "connect"],
)
def test_rows_are_counted(contender, write, rows_of_a_line, tmp_path):
    path = write(tmp_path)
    whole = {"missing": 0, "twice": 0, "foreign": 0, "cut_lines": 0}
    assert whole == count(contender, tmp_path, SHAPE)

    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[0]]))
    assert {**whole, "twice": rows_of_a_line} == count(contender, tmp_path, SHAPE)
    path.write_text("".join(lines[1:]))
    assert {**whole, "missing": rows_of_a_line} == count(contender, tmp_path, SHAPE)
    path.write_text("".join([*lines, lines[0][:40] + "\n"]))
    assert {**whole, "cut_lines": 1} == count(contender, tmp_path, SHAPE)
