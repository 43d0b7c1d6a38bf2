import json
import shutil

import pytest

from consumer.errors import EvalsinkError, UsageError
from consumer.publish.outputs import find_outputs
from tests.publish.evaluations import ISO, STAMP, lines, publication, results, write_lm, write_lmms


def found(path):
    return [(output.harness, output.date, sorted(output.samples)) for output in find_outputs(path).outputs]


def test_runs_of_both_harnesses_are_found_below_a_folder(tmp_path):
    write_lmms(tmp_path / "a" / "org__m", results(), {"mme": lines(2)})
    write_lm(tmp_path / "b", results(), {"asdiv": lines(2)})
    assert [("lmms-eval", STAMP, ["mme"]), ("lm-eval", ISO, ["asdiv"])] == found(tmp_path)


def test_one_results_file_is_one_run(tmp_path):
    path = write_lmms(tmp_path, results(), {"mme": lines(2)})
    write_lmms(tmp_path, results(), {"mme": lines(2)}, stamp="20270101_000000")
    assert [("lmms-eval", STAMP, ["mme"])] == found(path)


def test_runs_side_by_side_keep_to_their_own_samples(tmp_path):
    write_lm(tmp_path, results(), {"t": lines(1)}, stamp="2026-01-01T00-00-00.000001")
    write_lm(tmp_path, results(), {"t": lines(2), "u": lines(1)}, stamp="2026-01-01T00-00-00.000002")
    assert [
        ("lm-eval", "2026-01-01T00-00-00.000001", ["t"]),
        ("lm-eval", "2026-01-01T00-00-00.000002", ["t", "u"]),
    ] == found(tmp_path)


def test_a_results_file_without_samples_is_a_run(tmp_path):
    write_lmms(tmp_path, results(), {})
    assert [("lmms-eval", STAMP, [])] == found(tmp_path)


def test_keys_tell_the_harness_when_the_name_misleads(tmp_path):
    (tmp_path / "lm-eval_results.json").write_text(json.dumps(results(lm_eval_version="0.4", date=1.5)))
    assert [("lm-eval", "lm-eval", [])] == found(tmp_path)


def test_a_renamed_file_is_dated_by_its_content(tmp_path):
    (tmp_path / "mine_results.json").write_text(json.dumps(results()))
    assert [("lmms-eval", STAMP, [])] == found(tmp_path)


def test_lm_eval_told_to_write_one_file_is_found(tmp_path):
    write_lm(tmp_path, results(), {"asdiv": lines(1)}).rename(tmp_path / f"out_{ISO}.json")
    assert [("lm-eval", ISO, ["asdiv"])] == found(tmp_path)


def test_folders_that_look_like_samples_are_ignored(tmp_path):
    write_lmms(tmp_path, results(), {"mme": lines(1)})
    (tmp_path / f"{STAMP}_samples_odd.jsonl").mkdir()
    assert [("lmms-eval", STAMP, ["mme"])] == found(tmp_path)


def test_samples_without_results_are_mentioned(tmp_path):
    path = write_lmms(tmp_path, results(), {"mme": lines(1)})
    shutil.copy(tmp_path / f"{STAMP}_samples_mme.jsonl", tmp_path / "20270101_000000_samples_mme.jsonl")
    assert path.exists()
    [notice] = find_outputs(tmp_path).notices
    assert "20270101_000000_samples_mme.jsonl" in notice


def test_json_of_something_else_is_passed_over_with_a_word(tmp_path):
    write_lmms(tmp_path, results(), {})
    other = tmp_path / "survey_results.json"
    other.write_text('{"answers": []}')
    result = find_outputs(tmp_path)
    assert 1 == len(result.outputs)
    assert str(other) in result.notices[0]


def test_json_of_something_else_is_refused_when_named(tmp_path):
    other = tmp_path / "survey_results.json"
    other.write_text('["results"]')
    with pytest.raises(UsageError, match="no results JSON"):
        find_outputs(other)


def test_a_torn_results_file_is_refused(tmp_path):
    path = write_lmms(tmp_path, results(), {})
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(EvalsinkError, match=r"_results\.json is torn"):
        find_outputs(tmp_path)


def test_a_results_file_in_another_encoding_is_refused(tmp_path):
    path = write_lmms(tmp_path, results(), {})
    path.write_text('{"results": {}, "model_name": "café"}', "latin-1")
    with pytest.raises(EvalsinkError, match="not UTF-8"):
        find_outputs(tmp_path)


def test_an_empty_folder_says_what_was_expected(tmp_path):
    with pytest.raises(UsageError, match=r"expected \*_results\.json"):
        find_outputs(tmp_path)


def test_what_evalsink_published_can_be_sent_again(tmp_path):
    own = {
        "run_id": "r",
        "status": "incomplete",
        "tasks": {
            "a/b": {"file": f"{STAMP}-0123abcd_samples_a_b-89abcdef.jsonl", "filters": {"x": 1, "y": 2}}
        },
    }
    path = write_lmms(
        tmp_path,
        results(evalsink=own),
        {"a_b-89abcdef": [*lines(1), *lines(2)]},
        stamp=f"{STAMP}-0123abcd",
    )
    [output] = find_outputs(path).outputs
    assert (STAMP, ["a/b"]) == (output.date, list(output.samples))
    assert "evalsink" not in output.document
    assert "incomplete" in find_outputs(path).notices[0]
    prepared = publication(path)
    assert ["x", "y", "y"] == [prepared.table.streams[number].filter for number in prepared.table.stream]
