import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.errors import EvalsinkError
from consumer.publish.rows import filter_names
from schemas.events import RunEnded, Samples
from tests.publish.evaluations import (
    as_line,
    events,
    lines,
    of_type,
    publication,
    results,
    sent_rows,
    write_lm,
    write_lmms,
)


def rows_of(tmp_path, rows, *, document=None, write=write_lmms):
    path = write(tmp_path, document or results(), {"mme": rows})
    return sent_rows(events(publication(path)))


def scores_of(tmp_path, row, **options):
    path = write_lmms(tmp_path, results(), {"mme": [row]}, **options)
    [event] = of_type(Samples, events(publication(path)))
    return event.samples[0].scores


def filters_of(tmp_path, rows, aggregate_keys):
    document = results(results={"mme": dict.fromkeys(aggregate_keys, 1.0)})
    return [row[1] for row in rows_of(tmp_path, rows, document=document)]


def test_rows_are_sent_verbatim(tmp_path):
    odd = b'{"doc_id":7,  "text": "\xe2\x80\xa8\xc2\x85 \\u00e9", "n": 1.0e3, "big": 123456789012345678901234567890}'
    assert [("mme", "none", 7, odd, 0)] == rows_of(tmp_path, [odd])


def test_a_row_without_its_newline_at_the_end_of_the_file_counts(tmp_path):
    path = write_lmms(tmp_path, results(), {"mme": lines(2)})
    samples = tmp_path / path.name.replace("_results.json", "_samples_mme.jsonl")
    samples.write_bytes(samples.read_bytes() + b"\r\n" + as_line({"doc_id": 2}))
    assert [0, 1, 2] == [doc_id for _, _, doc_id, _, _ in sent_rows(events(publication(path)))]


def test_non_numbers_in_a_row_become_null_and_are_counted(tmp_path):
    path = write_lmms(tmp_path, results(), {"mme": [b'{"doc_id": 0, "acc": NaN, "t": "\\ud83d"}', *lines(1)]})
    prepared = publication(path)
    assert b'{"doc_id": 0, "acc": null, "t": "\xef\xbf\xbd"}' == sent_rows(events(prepared))[0][3]
    assert 2 == prepared.table.repaired
    assert "2 value(s) in the rows" in prepared.notices()[0]


@pytest.mark.parametrize(
    "line", [b"[1]", b'"row"', b'{"doc_id": 1', b"{'doc_id': 1}", b'{"doc_id": "\xff"}', b"[" * 99_999]
)
def test_a_bad_line_is_refused_by_file_and_line(tmp_path, line):
    path = write_lmms(tmp_path, results(), {"mme": [as_line(lines(1)[0]), line]})
    with pytest.raises(EvalsinkError, match=r"_samples_mme\.jsonl, line 2: not a JSON object"):
        publication(path)


def test_rows_without_a_usable_doc_id_bear_their_place(tmp_path):
    path = write_lmms(
        tmp_path, results(), {"mme": [{"a": 1}, {"doc_id": None}, {"doc_id": 2.0}, {"doc_id": 2**63}]}
    )
    prepared = publication(path)
    assert [0, 1, 2, 3] == [row[2] for row in sent_rows(events(prepared))]
    assert "4 row(s) have no usable doc_id" in prepared.notices()[0]


def test_doc_ids_that_are_texts_stay_texts(tmp_path):
    assert [1, "1", "שלום"] == [
        row[2] for row in rows_of(tmp_path, [{"doc_id": 1}, {"doc_id": "1"}, {"doc_id": "שלום"}])
    ]


def test_documents_go_to_shards_by_stride_with_all_their_rows(tmp_path):
    path = write_lmms(tmp_path, results(), {"mme": [*lines(7), *lines(7)]})
    sent = sent_rows(events(publication(path, shards=3)))
    assert {(doc_id, doc_id % 3) for doc_id in range(7)} == {(row[2], row[4]) for row in sent}
    assert 14 == len(sent)


def test_ends_count_distinct_rows_and_twins_are_mentioned(tmp_path):
    twins = [{"doc_id": 0, "filter": "x"}, {"doc_id": 0, "filter": "x"}, {"doc_id": 0, "filter": "y"}]
    prepared = publication(write_lm(tmp_path, results(), {"mme": twins}))
    [end] = of_type(RunEnded, events(prepared))
    assert {"mme": 2} == end.samples
    assert "1 row(s) repeat" in prepared.notices()[0]


def test_a_row_names_its_own_filter(tmp_path):
    rows = [{"doc_id": 0, "filter": "b"}, {"doc_id": 0, "filter": "a"}]
    assert ["b", "a"] == filters_of(tmp_path, rows, ["acc,a", "acc,b"])


def test_nameless_repetitions_take_the_filters_of_the_aggregate_in_order(tmp_path):
    keys = ["alias", "em,strict-match", "em_stderr,strict-match", "em,flexible-extract"]
    filters = filters_of(tmp_path, [*lines(2), *lines(2)], keys)
    assert ["strict-match", "strict-match", "flexible-extract", "flexible-extract"] == filters


def test_nameless_rows_that_do_not_repeat_take_the_only_filter(tmp_path):
    assert ["get-answer"] == filters_of(tmp_path, lines(1), ["alias", "acc,get-answer"])


def test_nameless_rows_that_do_not_repeat_take_no_filter_of_several(tmp_path):
    assert ["none"] == filters_of(tmp_path, lines(1), ["acc,a", "acc,b"])


def test_more_repetitions_than_filters_are_numbered(tmp_path):
    rows = [*lines(1), *lines(1), *lines(1)]
    assert ["none", "filter_1", "filter_2"] == filters_of(tmp_path, rows, ["alias"])


@given(
    st.lists(st.sampled_from(["none", "a", "filter_1", "filter_1_"]) | st.integers(0, 4), unique=True),
    st.lists(st.sampled_from(["none", "a", "b", "filter_2"]), unique=True),
)
def test_filters_never_share_a_name(found, aggregate):
    rounds = sum(isinstance(label, int) for label in found)
    ranks = iter(range(rounds))
    found = [next(ranks) if isinstance(label, int) else label for label in found]
    names = filter_names(found, aggregate)
    assert len(found) == len(set(names))
    assert [label for label in found if isinstance(label, str)] == [
        name for name, label in zip(names, found, strict=True) if isinstance(label, str)
    ]


def test_numbers_and_booleans_among_the_metrics_are_scores(tmp_path):
    row = {
        "doc_id": 3,
        "target": "4",
        "token_counts": 5,
        "acc": 1,
        "f1": 0.25,
        "hit": True,
        "miss": False,
        "text": "0.5",
        "list": [1.0],
        "object": {"score": 1},
        "nothing": None,
        "input": 9,
    }
    assert {"acc": 1.0, "f1": 0.25, "hit": 1.0, "miss": 0.0} == scores_of(tmp_path, row)


def test_lm_eval_names_its_metrics(tmp_path):
    row = {"doc_id": 0, "metrics": ["acc", "absent", 5], "acc": 0.5, "seconds": 3.5}
    assert {"acc": 0.5} == scores_of(tmp_path, row)


def test_scores_that_are_not_finite_are_none(tmp_path):
    row = b'{"doc_id": 0, "a": NaN, "b": 1e999, "c": -Infinity, "d": 1' + b"0" * 400 + b', "e": -1e-3}'
    assert {"e": -0.001} == scores_of(tmp_path, row)


def test_a_file_that_changes_on_the_way_is_noticed(tmp_path):
    path = write_lmms(tmp_path, results(), {"mme": lines(2)})
    prepared = publication(path)
    samples = next(iter(prepared.table.files.values())).path
    samples.write_bytes(samples.read_bytes() + b"\n")
    with pytest.raises(EvalsinkError, match="changed while it was being sent"):
        events(prepared)


def open_files():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_many_tasks_do_not_hold_many_files_open(tmp_path):
    path = write_lmms(tmp_path, results(), {f"t{number:03}": lines(2) for number in range(100)})
    before = open_files()
    held = 0
    messages = publication(path, seed=1).messages()
    for _ in messages:
        held = max(held, open_files() - before)
    assert 0 < held <= 66
    assert before == open_files()


def test_progress_adds_up_to_the_bytes_of_the_files(tmp_path):
    from consumer.publish.outputs import find_outputs
    from consumer.publish.publication import prepare

    path = write_lmms(
        tmp_path,
        results(),
        {"mme": [json.dumps({"doc_id": i, "t": "x" * 99_999}).encode() for i in range(30)]},
    )
    [output] = find_outputs(path).outputs
    steps = []
    prepare(output, advance=steps.append)
    assert output.samples["mme"].stat().st_size == sum(steps)
    assert len(steps) > 1
