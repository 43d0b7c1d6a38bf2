"""A log that lost its beginning: whose loss it is does not depend on which topic is read first."""

import itertools

import pytest

from consumer.intake.decode import decode
from consumer.runs.book import RunBook
from consumer.runs.spool import Spool
from consumer.vocabulary import Record
from schemas.events import Aggregate, encode
from schemas.state import PartitionState
from tests.worker.evaluation import Evaluation


def book_with(tmp_path, tainted_below):
    return RunBook(
        Spool(tmp_path, open_files_max=8),
        {0: PartitionState(0, {"s": 0, "a": 0}, tainted_below=tainted_below)},
    )


def records(evaluation, first):
    """The run's records with offsets from `first` per topic."""
    places = {"s": itertools.count(first["s"]), "a": itertools.count(first["a"])}
    found = []
    for event in evaluation.events():
        topic = "a" if isinstance(event, Aggregate) else "s"
        found.append(Record(topic, 0, next(places[topic]), 1000, b"r", encode(event)))
    return found


@pytest.mark.parametrize(
    ("expected", "tainted_below", "first"),
    [
        (True, {"s": 50}, {"s": 40, "a": 7}),
        (False, {"s": 50}, {"s": 50, "a": 7}),
        (True, {"a": 8}, {"s": 40, "a": 7}),
        (True, {"s": 50, "a": 8}, {"s": 50, "a": 7}),
        (False, {}, {"s": 40, "a": 7}),
    ],
)
@pytest.mark.parametrize("aggregates_first", [False, True])
def test_which_topic_is_read_first_does_not_show(tmp_path, expected, tainted_below, first, aggregates_first):
    book = book_with(tmp_path, tainted_below)
    log = sorted(records(Evaluation("r"), first), key=lambda one: (one.topic == "a") != aggregates_first)
    for record in log:
        run = book.find(0, "r") or book.open(record, "r")
        role = "aggregates" if record.topic == "a" else "samples"
        book.apply(run, record, decode(record.value, record.key, role), [role])
    assert expected == book.find(0, "r").tainted
    assert book.find(0, "r").samples_cut is not None
    book.spool.close()


def test_a_run_known_from_before_the_gap_was_found_is_not_tainted_by_it(tmp_path):
    book = book_with(tmp_path, {})
    log = records(Evaluation("r"), {"s": 40, "a": 7})
    run = book.open(log[0], "r")
    book.apply(run, log[0], decode(log[0].value, b"r", "samples"), ["samples"])
    book.partitions[0].tainted_below["s"] = 1000
    for record in log[1:]:
        if record.topic == "s":
            book.apply(run, record, decode(record.value, b"r", "samples"), ["samples"])
    assert not run.tainted
    book.spool.close()
