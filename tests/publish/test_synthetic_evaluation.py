import json
import math

import msgspec

from consumer.demo.synthetic import GROUP, SyntheticEvaluation
from consumer.demo.tasks import REPEATS
from schemas.events import Event, RunEnded, Samples
from schemas.mending import repair


def usable(records):
    """Events that decode, with the faults mended; with the record's place."""
    found = []
    for place, record in enumerate(records):
        try:
            event = msgspec.json.decode(repair(record.value)[0], type=Event)
        except msgspec.MsgspecError:
            continue
        if record.key == event.run_id.encode() and (
            record.role == "samples" or not isinstance(event, Samples)
        ):
            found.append((place, event))
    return found


def good_rows(event):
    return [sample for sample in event.samples if bytes(sample.row).startswith(b"{")]


def test_a_seed_gives_the_same_records_always():
    assert list(SyntheticEvaluation(3).records()) == list(SyntheticEvaluation(3).records())
    assert list(SyntheticEvaluation(3).records()) != list(SyntheticEvaluation(4).records())


def test_it_fits_one_partition_of_the_embedded_broker():
    assert sum(len(record.value) for record in SyntheticEvaluation().records()) < 3 << 20


def test_the_facts_say_how_many_rows_come_and_come_twice():
    evaluation = SyntheticEvaluation()
    rows, twice = {}, {}
    for _, event in usable(evaluation.records()):
        for sample in good_rows(event) if isinstance(event, Samples) else ():
            seen = rows.setdefault(event.task, {})
            identity = event.filter, sample.doc_id
            if identity in seen:
                assert seen[identity] == bytes(sample.row)
                twice[event.task] = twice.get(event.task, 0) + 1
            seen[identity] = bytes(sample.row)
    assert evaluation.facts.rows == {task: len(seen) for task, seen in rows.items()}
    assert evaluation.facts.duplicates == twice
    assert round(0.05 * sum(evaluation.facts.rows.values())) == sum(twice.values())


def test_each_end_counts_its_shard_and_comes_after_its_rows():
    last, ends, distinct = {}, {}, {}
    for place, event in usable(SyntheticEvaluation().records()):
        if isinstance(event, Samples):
            last[event.shard] = place
            for sample in good_rows(event):
                distinct.setdefault(event.shard, set()).add((event.task, event.filter, sample.doc_id))
        elif isinstance(event, RunEnded) and event.shard < event.num_shards:
            ends[event.shard] = (place, event)
    assert [0, 1, 2, 3] == sorted(ends)
    for shard, (place, end) in ends.items():
        assert last[shard] < place
        assert len(distinct[shard]) == sum(end.samples.values())


def test_the_mean_of_the_aggregate_is_the_mean_of_the_rows():
    evaluation = SyntheticEvaluation()
    scores = {}
    for _, event in usable(evaluation.records()):
        for sample in good_rows(event) if isinstance(event, Samples) else ():
            for metric, score in sample.scores.items():
                value = math.fsum(score) / REPEATS if isinstance(score, list) else score
                scores.setdefault((event.task, f"{metric},{event.filter}"), {})[sample.doc_id] = value
    for (task, key), values in scores.items():
        assert math.isclose(evaluation.facts.results[task][key], math.fsum(values.values()) / len(values))


def test_garbage_of_every_kind_is_among_the_records():
    evaluation = SyntheticEvaluation()
    records = list(evaluation.records())
    good = [event for _, event in usable(records)]
    torn = [
        event for event in good if isinstance(event, Samples) and len(good_rows(event)) < len(event.samples)
    ]
    # The end that names shard 9 of 4 decodes: that it is wrong is the worker's to see.
    wrong_shard = [event for event in good if isinstance(event, RunEnded) and event.shard >= event.num_shards]
    assert evaluation.facts.dead_letters == len(records) - len(good) + len(torn) + len(wrong_shard)
    assert 1 == len(torn) == len(wrong_shard)


def test_rows_that_need_mending_are_the_stated_ones():
    evaluation = SyntheticEvaluation()
    mended = set()
    for record in evaluation.records():
        if repair(record.value)[1]:
            event = msgspec.json.decode(repair(record.value)[0], type=Samples)
            for raw, sample in zip(record.value.split(b'{"doc_id":')[1:], event.samples, strict=False):
                mended |= {event.task} if repair(raw)[1] or sample is None else set()
    assert set(evaluation.facts.repaired) == mended


def test_rows_are_written_as_lmms_eval_writes_them():
    for _, event in usable(SyntheticEvaluation().records()):
        for sample in good_rows(event) if isinstance(event, Samples) else ():
            keys = list(json.loads(bytes(sample.row)))
            head = [
                "doc_id",
                "target",
                *(["resps"] if "resps" in keys else []),
                "filtered_resps",
                "token_counts",
            ]
            assert head == keys[: len(head)]
            assert "input" == keys[-1]


def test_the_group_leads_the_results():
    assert GROUP == next(iter(SyntheticEvaluation().facts.results))
