"""Whatever lies in the topics: what can be used is published, what cannot is a dead letter that says why."""

import json

import pytest
from msgspec.structs import replace

from consumer.errors import DeadLetterLimit
from schemas.events import Aggregate, Sample, Samples, encode
from tests.observing import Sending
from tests.worker.evaluation import Evaluation, raw, row, run_ids

pytestmark = pytest.mark.kafka

RUN = "r"


def wire(value):
    return json.dumps(value).encode()


def batch(*elements, **more):
    """A samples event whose elements may be anything."""
    return wire(
        {"type": "samples", "run_id": RUN, "task": "mme", "num_shards": 2, "samples": list(elements), **more}
    )


GOOD = {"doc_id": 0, "row": {"doc_id": 0, "target": "א", "acc": 0.0}, "scores": {"acc": 0.0}}
NEW = {"doc_id": 1000, "row": {"doc_id": 1000}}

REFUSED = {
    "null value": (None, "empty"),
    "empty value": (b"", "empty"),
    "not JSON": (b"this is not JSON", "not-json"),
    "half an event": (wire({"type": "samples", "run_id": RUN})[:-1], "not-json"),
    "trailing bytes": (batch(GOOD) + b"}", "not-json"),
    "JSON, but no object": (b"[]", "invalid"),
    "no type": (wire({"run_id": RUN}), "invalid"),
    "unknown type": (wire({"type": "picnic", "run_id": RUN}), "unknown-type"),
    "wrong types": (wire({"type": "samples", "run_id": RUN, "task": 5, "samples": []}), "invalid"),
    "negative attempt": (batch(GOOD, attempt=-1), "invalid"),
    "negative count": (wire({"type": "run_ended", "run_id": RUN, "samples": {"mme": -1}}), "invalid"),
    "shard beyond their number": (batch(GOOD, shard=2), "bad-shard"),
    "no shards": (batch(GOOD, num_shards=0), "bad-shard"),
    "too many shards": (batch(GOOD, num_shards=65_537), "bad-shard"),
    "empty run_id": (wire({"type": "run_started", "run_id": ""}), "invalid"),
    "a bomb of brackets": (batch(GOOD)[:-1] + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too-deep"),
    "UTF-8 broken in the event": (batch(GOOD, task="mme").replace(b'"mme"', b'"m\xffe"'), "bad-utf8"),
    "an aggregate among the samples": (encode(Aggregate(RUN, "mme", raw({}))), "wrong-topic"),
}


def test_no_bad_record_opens_a_run_or_stops_the_worker_and_each_becomes_a_dead_letter(real_stage):
    stage = real_stage
    topics = stage.topics
    bad = [Sending(topics.samples, RUN.encode(), value) for value, _ in REFUSED.values()]
    bad += [
        Sending(topics.samples, b"somebody-else", batch(GOOD)),
        Sending(topics.samples, None, batch(GOOD)),
        Sending(topics.aggregates, RUN.encode(), batch(GOOD)),
    ]
    reasons = [*(reason for _, reason in REFUSED.values()), "key-mismatch", "key-mismatch", "wrong-topic"]
    places = stage.send(bad)
    evaluation = Evaluation(RUN)
    stage.send(evaluation.events())
    outcome = stage.work()
    letters = {letter[:3]: letter for letter in stage.letters()}
    assert {tuple(place): reason for place, reason in zip(places, reasons, strict=True)} == {
        place: letter.reason for place, letter in letters.items()
    }
    assert [one.value or b"" for one in bad] == [letters[tuple(place)].value for place in places]
    assert [one.value is None for one in bad] == ["null" in letters[tuple(place)].headers for place in places]
    assert [one.key for one in bad] == [letters[tuple(place)].headers.get("key") for place in places]
    assert (1, len(bad)) == (outcome.counts.closed, outcome.counts.dead_letters)
    [results] = stage.results().values()
    entry = results["evalsink"]["tasks"]["mme"]
    assert ("complete", 24, 0, 0) == (
        results["evalsink"]["status"],
        entry["rows"],
        entry["duplicates"],
        entry["rejected"],
    )


def test_a_bad_row_is_rejected_alone_and_makes_the_run_incomplete_unless_it_comes_good(real_stage):
    stage = real_stage
    elements = [
        {"doc_id": 100, "row": "text"},
        {"doc_id": 101},
        {"row": {"no": "id"}},
        {"doc_id": None, "row": {}},
        {"doc_id": 1.5, "row": {}},
        {"doc_id": True, "row": {}},
        {"doc_id": 2**63, "row": {}},
        "no object at all",
        {"doc_id": "broken", "row": {"text": "BREAK"}},
    ]
    value = batch({"doc_id": 102, "row": {"doc_id": 102}}, *elements, {"doc_id": "good", "row": {"x": 1}})
    value = value.replace(b"BREAK", b"\xff")
    run = Evaluation(RUN)
    *body, last = run.events()
    # All eleven samples are the shard's: rejected ones count as well, each once, however often it comes.
    ended = replace(last, samples={"mme": last.samples["mme"] + 11})
    [*_, place, _] = stage.send(
        [
            *body,
            *[Sending(stage.topics.samples, RUN.encode(), value.replace(b'"num', b'"shard": 1, "num'))] * 2,
            ended,
        ]
    )
    stage.work()
    [results] = stage.results().values()
    own = results["evalsink"]
    entry = own["tasks"]["mme"]
    assert ("incomplete", ["task mme: 9 samples rejected"], 26, 9) == (
        own["status"],
        own["why"],
        entry["rows"],
        entry["rejected"],
    )
    [first, second] = stage.letters()
    assert (place.offset - 1, place.offset) == (first.offset, second.offset)
    assert ("bad-rows", b"1,2,3,4,5,6,7,8,9") == (first.reason, first.headers["rows"])
    lines = stage.tree()[f"org__model/{entry['file']}"].splitlines()
    assert [b'{"doc_id": 102}', b'{"x": 1}'] == lines[-2:]


def test_a_rejected_row_whose_document_has_a_good_row_harms_nothing(real_stage):
    stage = real_stage
    run = Evaluation(RUN)
    *body, last = run.events()
    torn = batch({"doc_id": 1, "row": "torn"}, shard=1)
    stage.send([*body, Sending(stage.topics.samples, RUN.encode(), torn), last])
    stage.work()
    [results] = stage.results().values()
    own = results["evalsink"]
    assert ("complete", 24, 0) == (
        own["status"],
        own["tasks"]["mme"]["rows"],
        own["tasks"]["mme"]["rejected"],
    )
    assert ["bad-rows"] == [letter.reason for letter in stage.letters()]


def test_python_json_is_mended_row_by_row_and_newlines_between_tokens_go(real_stage):
    stage = real_stage
    good = b'{"doc_id":  0, "text": "stays \\u00e4s it is", "big": 1e999}'
    value = (
        b'{"type":"samples","run_id":"r","task":"t","samples":['
        b'{"doc_id":0,"row":' + good + b"},"
        b'{"doc_id":1,"row":{"doc_id":1,"acc":NaN,"low":-Infinity}},'
        b'{"doc_id":2,"row":{"doc_id":2,"cut":"\\ud83d"}},'
        b'{"doc_id":3,"row":{\n "doc_id": 3,\r\n "x": "a  b"\n}},'
        b'{"doc_id":4,"row":{"doc_id":4},"scores":{"acc":"high","f1":0.5}}]}'
    )
    end = wire(
        {"type": "run_ended", "run_id": RUN, "samples": {"t": 5}, "report": {"date": "d", "model_name": ""}}
    )
    stage.send([Sending(stage.topics.samples, b"r", value), Sending(stage.topics.samples, b"r", end)])
    stage.work()
    [results] = stage.results().values()
    entry = results["evalsink"]["tasks"]["t"]
    assert [] == stage.letters()
    assert ("complete", 5, 2, 1) == (
        results["evalsink"]["status"],
        entry["rows"],
        entry["repaired"],
        entry["scores_dropped"],
    )
    # An empty model name puts the files directly into the output folder.
    assert [
        good,
        b'{"doc_id":1,"acc":null,"low":null}',
        '{"doc_id":2,"cut":"\N{REPLACEMENT CHARACTER}"}'.encode(),
        b'{"doc_id":3,"x":"a  b"}',
        b'{"doc_id":4}',
    ] == stage.tree()[entry["file"]].splitlines()


def test_of_rows_with_one_identity_the_highest_attempt_offset_and_place_wins(real_stage):
    stage = real_stage

    def samples(shard, attempt, *rows):
        return Samples(
            run_id=RUN,
            task="t",
            samples=[Sample(0, one) for one in rows],
            shard=shard,
            num_shards=2,
            attempt=attempt,
        )

    winner = row(0, note="the winner")
    stage.send(
        [
            samples(0, 0, winner, row(0, note="of a lower attempt")),  # both superseded, equal bytes or not
            samples(1, 0, row(0, note="of another shard")),  # conflict
            samples(0, 1, row(0, note="earlier"), winner),  # conflict, and one duplicate
            samples(0, 1, winner, winner),  # one duplicate, and the winner
            *(
                replace(event, run_id=RUN, num_shards=2)
                for event in (
                    Evaluation(RUN, tasks=[("t", 1)]).ended(0, attempt=1, aggregates=[]),
                    Evaluation(RUN, tasks=[("t", 2)]).ended(1, aggregates=[]),
                )
            ),
        ]
    )
    stage.work()
    [results] = stage.results().values()
    entry = results["evalsink"]["tasks"]["t"]
    assert bytes(winner) + b"\n" == stage.tree()[f"unknown/{entry['file']}"]
    assert {"rows": 1, "superseded": 2, "duplicates": 2, "conflicts": 2} == {
        name: entry[name] for name in ("rows", "superseded", "duplicates", "conflicts")
    }
    assert [] == stage.letters()


def test_aggregates_nobody_names_are_unexpected_and_those_of_an_attempt_that_failed_are_superseded(
    real_stage,
):
    stage = real_stage
    evaluation = Evaluation(RUN, shards=1)
    [aggregate] = evaluation.aggregates()
    places = stage.send(
        [
            replace(aggregate, task="nobody-names-it"),
            aggregate,
            evaluation.ended(0, status="failed"),
            replace(aggregate, results=raw({"alias": "mme", "acc,none": 0.25}), attempt=1),
            replace(aggregate, attempt=1),
            *(replace(event, attempt=1) for event in evaluation.batches(0)),
            evaluation.ended(0, attempt=1),
        ]
    )
    stage.work()
    [results] = stage.results().values()
    own = results["evalsink"]
    # The first one that the counting attempt sent makes the cut.
    assert ("complete", {"alias": "mme", "acc,none": 0.25}) == (own["status"], results["results"]["mme"])
    assert (1, 0) == (own["aggregates_superseded"], own["aggregates_duplicates"])
    assert [(*places[0], "unexpected"), (*places[4], "late")] == [letter[:4] for letter in stage.letters()]


EVIL = [
    "../../evil",
    "/etc/passwd",
    "a/b/../../c",
    "nul\0byte",
    ".hidden",
    "partial",
    "x" * 5000,
    "tab\tnew\nline",
    "..",
    "C:\\evil",
    "\u202eevil",
]


def test_no_name_leads_out_of_the_output_folder(real_stage):
    stage = real_stage
    for name in EVIL:
        run = Evaluation(name, tasks=[(name, 2)], shards=1)
        started = replace(run.started(), model_name=name, date=name)
        stage.send([started, *list(run.events())[1:]])
    stage.work()
    files = {path for path in stage.folder.rglob("*") if path.is_file()}
    output, state = stage.folder / "output", stage.folder / "state"
    inside = {path.relative_to(output) for path in files if output in path.parents}
    assert files == {output / path for path in inside} | {path for path in files if state in path.parents}
    published = [path for path in inside if path.parts[0] != ".evalsink"]
    # A folder of the model and a file in it: never deeper, never hidden, never where provisional runs lie.
    assert len(EVIL) * 4 == len(published)
    assert {2} == {len(path.parts) for path in published}
    assert not [
        path for path in published if path.parts[0] == "partial" or any(part[0] == "." for part in path.parts)
    ]
    assert set(EVIL) == set(stage.results())


def test_a_flood_of_dead_letters_from_one_partition_stops_the_worker_before_more_is_buried(real_stage):
    stage = real_stage
    garbage = [Sending(stage.topics.samples, b"k", b"garbage %d" % number, 1) for number in range(6)]
    # A good record between them, of either topic, begins the count anew.
    run = Evaluation(next(run_ids(1)), shards=1, tasks=[("t", 3)])
    stage.send([*garbage[:3], *run.batches(0), run.ended(0, aggregates=[]), *garbage[3:]])
    stage.work(dead_letters_in_a_row_max=3)
    stage.send(garbage[:1])
    with pytest.raises(DeadLetterLimit, match="dead_letters_in_a_row_max"):
        stage.work(dead_letters_in_a_row_max=3)
    assert 6 == len(stage.letters())
    stage.work()
    assert 7 == len(stage.letters())


def test_files_of_other_bytes_are_kept_and_the_run_gets_no_receipt_until_somebody_looked(real_stage):
    stage = real_stage
    run = Evaluation(next(run_ids(1)))
    stage.send(run.events())
    stage.work(group="-first", state="state-first", output="first")
    names = list(stage.tree("first"))
    assert 4 == len(names)
    for name in names:
        output = stage.folder / f"output-{names.index(name)}"
        target = output / name
        target.parent.mkdir(parents=True)
        target.write_bytes(b"somebody else's")
        group, state = f"-{output.name}", f"state-{output.name}"
        outcome = stage.work(group=group, state=state, output=output.name)
        assert ([run.run_id], 0) == (outcome.violations, outcome.counts.closed)
        assert b"somebody else's" == target.read_bytes()
        if not name.endswith("_results.json"):
            # Without the results JSON nothing claims that the run is there.
            assert {} == stage.results(output.name)
        assert [f"{stage.group}-first"] == [
            one.group for _, one in stage.receipts() if not one.group.endswith(("-0", "-1", "-2", "-3"))
        ]
        assert {0} == {metadata["w"] for _, metadata in stage.committed(1, group).values()}
        target.unlink()
        again = stage.work(group=group, state=state, output=output.name)
        assert ([], 1) == (again.violations, again.counts.closed)
        assert stage.tree("first") == stage.tree(output.name)
        assert {0} != {metadata["w"] for _, metadata in stage.committed(1, group).values()}
    assert 5 == len(stage.receipts())
