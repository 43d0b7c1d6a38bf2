"""`consumer.archive.listing`: runs out of names, whoever wrote them and however they are meant."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.archive.listing import runs
from schemas.names import RunFiles, run_files

HARNESSES = ("lmms-eval", "lm-eval")


def one(*paths):
    [run] = runs(paths)
    return run


@pytest.mark.parametrize("harness", HARNESSES)
@pytest.mark.parametrize("model", ["org/m", ""])
@pytest.mark.parametrize(
    "date", ["20260101_000000", "2026-01-01T00-00-00.123456", "my_samples_date", "x-00000000"]
)
def test_all_files_of_a_run_of_ours_are_found(harness, model, date):
    files = run_files(run_id="r", model_name=model, date=date, harness=harness)
    tasks = ["mme", "a_samples_b", "café/vqa", "x_metrics", "samples_", "mmlu_2026-01-01T00-00-00"]
    prefix = f"{files.folder}/" if files.folder else ""
    names = [files.results, files.table, files.metrics, *map(files.samples, tasks)]
    run = one(*(prefix + name for name in names))
    assert (files.folder, files.stem, harness) == (run.folder, run.stem, run.harness)
    assert (prefix + files.results, prefix + files.table, prefix + files.metrics) == (
        run.results,
        run.table,
        run.metrics,
    )
    assert {prefix + files.samples(task) for task in tasks} == set(run.samples.values())
    assert run.samples["mme"] == prefix + files.samples("mme")
    assert files.stem[:-9] == run.date


def test_files_that_the_harnesses_write_are_found():
    [lm, lmms] = runs(
        [
            "m/20260223_052150_results.json",
            "m/20260223_052150_samples_maxm_zh.jsonl",
            "m/results_2026-07-08T16-04-34.219874.json",
            "m/samples_negotiationtom_belief_2026-07-08T16-04-34.219874.jsonl",
        ]
    )
    assert ("lmms-eval", {"maxm_zh": "m/20260223_052150_samples_maxm_zh.jsonl"}) == (
        lmms.harness,
        lmms.samples,
    )
    assert ("lm-eval", ["negotiationtom_belief"]) == (lm.harness, list(lm.samples))
    assert (None, None) == (lm.metrics, lm.table)


@pytest.mark.parametrize(
    ("name", "harness", "stem", "task"),
    [
        ("20260101_000000-1a2b3c4d_samples_mme.jsonl", "lmms-eval", "20260101_000000-1a2b3c4d", "mme"),
        ("20260101_000000_samples_a_samples_b.jsonl", "lmms-eval", "20260101_000000", "a_samples_b"),
        ("samples_gsm8k_2026-01-01T00-00-00.5.jsonl", "lm-eval", "2026-01-01T00-00-00.5", "gsm8k"),
        ("samples_a_b_20260101_000000-1a2b3c4d.jsonl", "lm-eval", "20260101_000000-1a2b3c4d", "a_b"),
        ("samples_a_b_date-1a2b3c4d.jsonl", "lm-eval", "date-1a2b3c4d", "a_b"),
        ("any date-1a2b3c4d_samples_t.jsonl", "lmms-eval", "any date-1a2b3c4d", "t"),
    ],
)
def test_samples_files_that_stand_alone_are_read_by_the_dates_that_harnesses_write(name, harness, stem, task):
    run = one(f"m/{name}")
    assert (harness, stem, {task: f"m/{name}"}, None) == (run.harness, run.stem, run.samples, run.results)


@pytest.mark.parametrize(
    "path",
    [
        "README.md",
        ".gitattributes",
        "",
        "/",
        "m/",
        "m/data.jsonl",
        "m/samples_x.jsonl",
        "m/notes_samples_x.jsonl",
        "m/x_metrics.jsonl",
        "m/x_results.md",
        "m/_results.json",
        "m/results_.json",
        "m/20260101_000000_samples_.jsonl",
        "partial/m/20260101_000000-1a2b3c4d_results.json",
        "partial/20260101_000000-1a2b3c4d_samples_x.jsonl",
    ],
)
def test_what_belongs_to_no_run_is_left_alone(path):
    assert [] == runs([path])


def test_figures_alone_are_a_run_of_ours():
    assert "m/d-1a2b3c4d_metrics.jsonl" == one("m/d-1a2b3c4d_metrics.jsonl").metrics


def test_equal_stems_in_two_folders_or_of_two_harnesses_are_runs_of_their_own():
    found = runs(["a/d_results.json", "b/d_results.json", "a/results_d.json", "a/samples_t_d.jsonl"])
    assert [("a", "lm-eval", 1), ("a", "lmms-eval", 0), ("b", "lmms-eval", 0)] == [
        (run.folder, run.harness, len(run.samples)) for run in found
    ]


def test_a_run_is_newer_by_its_date_whatever_the_harness():
    stems = [
        "20260101_000000-ffffffff",
        "2026-01-01T00-00-01.5-00000000",
        "20260102_000000",
        "20251231_235959-0",
    ]
    found = runs([f"m/{stem}_results.json" for stem in stems])
    order = [stems.index(run.stem) for run in sorted(found, key=lambda run: run.age)]
    assert [3, 0, 1, 2] == order


pieces = st.sampled_from(
    ["samples_", "_samples_", "results_", "_results", ".json", ".jsonl", "_metrics", ".md", "/", "d", "-1a2b3c4d", "é",
     "20260101_000000", "2026-01-01T00-00-00.5", "_", "\n", "*", "[", "..", ""]
)  # fmt: skip
paths = st.lists(st.lists(pieces, max_size=6).map("".join), max_size=8)


@given(paths, st.randoms(use_true_random=False))
def test_any_listing_in_any_order_gives_each_file_to_one_run_at_most(listing, dice):
    found = runs(listing)
    listed = [
        path
        for run in found
        for path in (run.results, run.table, run.metrics, *run.samples.values())
        if path is not None
    ]
    assert len(listed) == len(set(listed))
    assert set(listed) <= set(listing)
    assert all(path.rpartition("/")[0] == run.folder for run in found for path in run.samples.values())
    shuffled = list(listing)
    dice.shuffle(shuffled)
    assert found == runs(shuffled)


@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8), st.sampled_from(HARNESSES)), max_size=4))
def test_runs_of_any_names_are_told_apart_again(wanted):
    published: dict[RunFiles, set[str]] = {}
    for date, task, harness in wanted:
        files = run_files(run_id=f"{date}|{harness}", model_name="m", date=date, harness=harness)
        published.setdefault(files, set()).add(f"m/{files.samples(task)}")
    listing = [f"m/{files.results}" for files in published] + [
        path for paths in published.values() for path in paths
    ]
    random.Random(5).shuffle(listing)
    assert {(files.stem, files.harness): paths for files, paths in published.items()} == {
        (run.stem, run.harness): set(run.samples.values()) for run in runs(listing)
    }
