"""Names of published files: the harness's own where they are harmless, safe ones for anything else."""

import os
import re
import unicodedata
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.names import (
    MAX_COMPONENT_BYTES,
    MAX_DATE_BYTES,
    default_date,
    files_of_results,
    hash8,
    model_folder,
    run_files,
    safe_component,
    sanitize_model_name,
    stem,
)

HOSTILE = [
    "",
    ".",
    "..",
    "...",
    "../../x",
    "/etc/passwd",
    "a/../../b",
    "..\\..\\x",
    "\x00",
    "a\x00b",
    "a\nb",
    "a\rb",
    "a\u2028b",
    "x" * 5000,
    "é" * 5000,
    "\U0001f600" * 2000,
    "a" + "\u0301" * 3000,
    "\u202egpj.exe",
    "a\u200fb",
    "\u2066x\u2069",
    "\ufeffx",
    "-rf",
    "--help",
    "~root",
    ".hidden",
    " ",
    " a",
    "a ",
    "\u00a0",
    "a.",
    "\ue000",
    "\x1b[31m",
    "\x7f",
]

HARMLESS = [
    "mme",
    "mmmu_val",
    "maxm_en",
    "x",
    "con",
    "a b",
    "a-b.c_d",
    "leaderboard|arc:challenge|25",
    "中文任务",
    "e\u0301",
    "\U0001f600",
    "x" * MAX_COMPONENT_BYTES,
    "a..b",
    "partial",
    "5",
    "a*b[0]",
]

HARNESSES = ["lmms-eval", "lm-eval"]
harnesses = st.sampled_from(HARNESSES)
characters = st.characters(exclude_categories=()) | st.sampled_from("/\\.-~ _\x00\u202e")
names = st.text(characters, max_size=300) | st.sampled_from([*HOSTILE, *HARMLESS])


def assert_is_one_safe_component(name, max_bytes=MAX_COMPONENT_BYTES):
    assert (name,) == PurePosixPath(name).parts
    assert name == os.path.normpath(name)
    assert 0 < len(name.encode()) <= max_bytes
    assert name[0] not in ".-~ "
    assert name == name.strip()
    assert not {unicodedata.category(char) for char in name} & {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
    assert "/" not in name
    assert "\\" not in name


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_becomes_one_safe_component_with_its_hash(name):
    safe = safe_component(name)
    assert_is_one_safe_component(safe)
    assert f"-{hash8(name)}" == safe[-9:]


@pytest.mark.parametrize("name", HARMLESS)
def test_a_harmless_name_stays_as_it_is(name):
    assert name == safe_component(name)


@given(names, st.integers(10, MAX_COMPONENT_BYTES))
def test_any_name_becomes_one_safe_component_within_its_bytes(name, max_bytes):
    safe = safe_component(name, max_bytes=max_bytes)
    assert_is_one_safe_component(safe, max_bytes)
    assert safe in {name, f"{safe[:-9]}-{hash8(name)}"}


@given(names)
def test_a_safe_name_is_harmless(name):
    safe = safe_component(name)
    assert safe == safe_component(safe)


@given(names, names)
def test_two_tasks_of_a_run_never_share_a_file(one, other):
    files = run_files(run_id="r", model_name="m", date="d", harness="lmms-eval")
    assert (one == other) == (files.samples(one) == files.samples(other))


@given(names)
def test_no_task_can_be_named_to_meet_the_file_of_an_unsafe_one(name):
    files = run_files(run_id="r", model_name="m", date="d", harness="lmms-eval")
    crafted = files.samples(name).removeprefix(f"{files.stem}_samples_").removesuffix(".jsonl")
    assert crafted == name or files.samples(crafted) != files.samples(name)


def test_names_that_differ_only_after_the_cut_differ():
    assert safe_component("x" * 5000) != safe_component("x" * 5001)


def test_a_cut_leaves_no_half_of_a_character():
    assert "é" * 55 + "-" + hash8("é" * 100) == safe_component("é" * 100)


@given(names, names, names, names, harnesses)
def test_no_run_publishes_outside_its_output_folder_or_beyond_what_a_file_system_takes(
    run_id, model, date, task, harness
):
    files = run_files(run_id=run_id, model_name=model, date=date, harness=harness)
    if model:
        assert_is_one_safe_component(files.folder)
    else:
        assert files.folder == ""
    for name in (files.results, files.table, files.metrics, files.samples(task)):
        assert_is_one_safe_component(name, max_bytes=240)
    assert files == run_files(run_id=run_id, model_name=model, date=date, harness=harness)


@given(names, harnesses)
def test_a_samples_file_is_never_taken_for_a_results_file(task, harness):
    files = run_files(run_id="r", model_name="m", date="20260101_000000", harness=harness)
    assert files.samples(task).endswith(".jsonl")
    assert files.samples(task) not in {files.results, files.table, files.metrics}


@pytest.mark.parametrize(
    ("model_name", "folder"),
    [
        ("lmms-lab/x", "lmms-lab__x"),
        ("/data/ckpt/my/model-x", "my__model-x"),
        ("x/", "x__"),
        ("org/mo:del?*", "org__mo__del__"),
        ("models/Qwen3-VL-4B-Instruct", "models__Qwen3-VL-4B-Instruct"),
        ("gpt-4o", "gpt-4o"),
        ("model-1a2b3c4d", "model-1a2b3c4d"),
        ("", ""),
    ],
)
def test_model_folders_are_those_of_lmms_eval(model_name, folder):
    assert folder == model_folder(model_name, "lmms-eval")


@pytest.mark.parametrize(
    ("model_name", "folder"),
    [
        ("meta-llama/Meta-Llama-3-8B-Instruct", "meta-llama__Meta-Llama-3-8B-Instruct"),
        ("a/b/c", "a__b__c"),
    ],
)
def test_model_folders_of_lm_eval_name_the_whole_path(model_name, folder):
    assert folder == model_folder(model_name, "lm-eval")


@pytest.mark.parametrize(
    "model_name",
    [
        "partial",
        "Partial",
        "20260101_000000-1a2b3c4d_results.json",
        "x.jsonl",
        "x.MD",
        "..",
        "../../x",
        "\x00",
    ],
)
@pytest.mark.parametrize("harness", HARNESSES)
def test_a_model_folder_takes_the_place_of_nothing_else(model_name, harness):
    folder = model_folder(model_name, harness)
    assert f"-{hash8(sanitize_model_name(model_name, harness))}" == folder[-9:]


def test_files_are_named_as_each_harness_names_them():
    lmms = run_files(run_id="r1", model_name="org/m", date="20260101_000000", harness="lmms-eval")
    assert "20260101_000000-" + hash8("r1") == lmms.stem
    assert lmms.stem + "_results.json" == lmms.results
    assert lmms.stem + "_results.md" == lmms.table
    assert lmms.stem + "_metrics.jsonl" == lmms.metrics
    assert lmms.stem + "_samples_mme.jsonl" == lmms.samples("mme")
    lm = run_files(run_id="r1", model_name="org/m", date="2026-01-01T00:00:00.000001", harness="lm-eval")
    assert "2026-01-01T00-00-00.000001-" + hash8("r1") == lm.stem
    assert f"results_{lm.stem}.json" == lm.results
    assert f"samples_mme_{lm.stem}.jsonl" == lm.samples("mme")
    assert lm.stem + "_metrics.jsonl" == lm.metrics
    for files in (lmms, lm):
        assert files == files_of_results(files.results, folder="org__m")


@given(names, names)
def test_a_stem_ends_with_its_runs_hash(date, run_id):
    result = stem(date, run_id)
    assert_is_one_safe_component(result, MAX_DATE_BYTES + 9)
    assert re.fullmatch(r".+-[0-9a-f]{8}", result)
    assert result.endswith(hash8(run_id))


@pytest.mark.parametrize(
    ("timestamp_ms", "harness", "date"),
    [
        (1_767_225_600_123, "lmms-eval", "20260101_000000"),
        (1_767_225_600_123, "lm-eval", "2026-01-01T00-00-00.123000"),
        (-1, "lmms-eval", "19700101_000000"),
        (2**63 - 1, "lmms-eval", "99991231_235959"),
    ],
)
def test_a_run_without_a_date_gets_its_kafka_time_in_utc(timestamp_ms, harness, date):
    assert date == default_date(timestamp_ms, harness)
