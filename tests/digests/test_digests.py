"""`schemas.digests`: the harnesses' task hashes, on worked cases, odd rows and real files."""

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.digests import TaskHash, doc_hash
from schemas.events import Harness

REALDATA = Path(__file__).parents[3] / "shared" / "realdata"
HARNESSES = ("lmms-eval", "lm-eval")
HASH_OF_NO_DOC = "74234e98afe7498fb5daf1f36ac2d78acc339464f950703b8c019892f982b90b"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
hash_fields = ("doc_hash", "prompt_hash", "target_hash", "doc", "arguments", "target")


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def task_hash(harness: Harness, *rows: object) -> str:
    digest = TaskHash(harness)
    for row in rows:
        digest.update(row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode())
    return digest.hexdigest()


def test_lmms_eval_numbers_the_rows_and_takes_their_doc_hash_verbatim():
    assert sha256("sample_0aasample_1bb") == task_hash(
        "lmms-eval", {"doc_hash": "aa"}, {"doc_id": 1, "doc_hash": "bb"}
    )


def test_lm_eval_joins_the_three_hashes_of_each_row():
    row = {"doc_hash": "a", "prompt_hash": "b", "target_hash": "c"}
    assert sha256("abcabc") == task_hash("lm-eval", row, row)


@pytest.mark.parametrize("harness", HARNESSES)
def test_no_rows_hash_as_the_empty_string(harness):
    assert sha256("") == task_hash(harness)


def test_the_hash_of_no_document_is_the_constant_that_fills_real_lmms_eval_files():
    assert HASH_OF_NO_DOC == doc_hash(None)


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"doc_hash": None},
        {"doc_hash": 7},
        {"doc_hash": ["x"]},
        {"doc": None},
        {"doc_hash": {}, "doc": None},
        b"",
        b"[1, 2]",
        b'"text"',
        b"{not json",
        b'{"doc_hash": "\xff"}',
        b'{"x": ' + b"[" * 200_000,
    ],
)
def test_a_row_without_usable_hash_and_document_counts_as_no_document(row):
    assert sha256(f"sample_0{HASH_OF_NO_DOC}") == task_hash("lmms-eval", row)


def test_a_missing_doc_hash_is_computed_from_the_document_by_the_documented_formula():
    doc = {"b": [1, 2.5, True], "a": "é\u2028", "c": {}}
    expected = sha256(json.dumps(doc, indent=2, default=str, ensure_ascii=False))
    assert sha256(f"sample_0{expected}") == task_hash("lmms-eval", {"doc_id": 3, "doc": doc})


@pytest.mark.parametrize(
    ("arguments", "prompt"),
    [
        ({"gen_args_0": {"arg_0": "say é", "arg_1": {"until": []}}, "gen_args_1": {"arg_0": "no"}}, "say é"),
        ([["say é", {"until": []}], ["no"]], "say é"),
        (["say é", {}], "say é"),
        ([], "[]"),
        (None, "None"),
        ({"gen_args_0": {"arg_0": 5}}, "5"),
    ],
)
def test_lm_eval_hashes_that_are_missing_are_computed_from_first_argument_and_target(arguments, prompt):
    row = {"doc": 1, "arguments": arguments, "target": ["yes", 1]}
    assert sha256(sha256("1") + sha256(prompt) + sha256("['yes', 1]")) == task_hash("lm-eval", row)


def test_lm_eval_rows_keep_the_hashes_they_have_and_get_the_others():
    expected = sha256("doc" + sha256("None") + "target")
    assert expected == task_hash("lm-eval", {"doc_hash": "doc", "prompt_hash": 1, "target_hash": "target"})


@pytest.mark.parametrize("harness", HARNESSES)
def test_a_newline_at_the_end_of_a_row_changes_nothing(harness):
    assert task_hash(harness, b'{"doc_hash":"a"}') == task_hash(harness, b'{"doc_hash":"a"}\n')


@given(st.sampled_from(HARNESSES), st.lists(st.binary(max_size=80), max_size=4))
def test_any_bytes_at_all_give_a_hash(harness, rows):
    assert len(task_hash(harness, *rows)) == 64


@given(st.sampled_from(HARNESSES), st.dictionaries(st.sampled_from(hash_fields), json_values))
def test_any_values_in_the_fields_that_count_give_a_hash(harness, row):
    escaped = json.dumps(row).encode()  # also lone surrogates, which a published row never holds
    assert task_hash(harness, escaped) == task_hash(harness, escaped + b"\n")


def real_tasks():
    for results in sorted(REALDATA.glob("l*/*/*/*results*.json")):
        harness: Harness = "lmms-eval" if results.name.endswith("_results.json") else "lm-eval"
        for task, expected in json.loads(results.read_bytes())["task_hashes"].items():
            if harness == "lmms-eval":
                samples = results.name.replace("_results.json", f"_samples_{task}.jsonl")
            else:
                samples = results.name.replace("results_", f"samples_{task}_").replace(".json", ".jsonl")
            yield pytest.param(
                harness, results.with_name(samples), expected, id=f"{results.parts[-3]}/{task}"
            )


@pytest.mark.skipif(
    not REALDATA.is_dir(), reason="the folder ../shared/realdata with real evaluation outputs is absent"
)
class TestRealData:
    @pytest.mark.parametrize(("harness", "samples", "expected"), list(real_tasks()))
    def test_the_hash_equals_the_one_the_harness_wrote(self, harness, samples, expected):
        assert expected == task_hash(harness, *samples.read_bytes().splitlines(keepends=True))

    @pytest.mark.parametrize(
        ("harness", "samples", "expected"), [case for case in real_tasks() if case.values[0] == "lm-eval"]
    )
    def test_hashes_stripped_from_the_rows_are_computed_anew_to_the_same_values(
        self, harness, samples, expected
    ):
        rows = [json.loads(line) for line in samples.read_bytes().splitlines()]
        kept = [{k: v for k, v in row.items() if not k.endswith("_hash")} for row in rows]
        assert expected == task_hash(harness, *kept)
