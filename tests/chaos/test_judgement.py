"""The judge of the chaos run: silent where nothing is wrong, and not where anything is."""

import copy
import hashlib
import json
from types import SimpleNamespace

import pytest

from consumer.settings import Topics
from schemas.state import Receipt, TopicCut
from tests.chaos.judgement import Account, differences_of_trees
from tests.chaos.workload import Parcel, Row
from tests.observing import Place, Sending

TOPICS = Topics(samples="s", aggregates="a")
BAD = Row("t", "none", "x")


def rows(*doc_ids):
    return tuple(Row("t", "none", doc_id) for doc_id in doc_ids)


class Outcome:
    """A run of three rows, one of them sent twice, one late, one bad; an aggregate; garbage; and what came of it."""

    def __init__(self):
        self.sent, self.log, self.letters = [], [], {}
        self._send("s", "rows", good=rows(0, 1))
        self._send("s", "rows", good=rows(1), bad=(BAD,), reason="bad-rows")
        self._send("s", "garbage", reason="not-json")
        self._send("s", "rows", good=rows(2))
        self._send("a", "aggregate")
        self._send("s", "lifecycle")
        self._send("s", "rows", good=rows(2), reason="late")
        lines = b"0\n1\n2\n"
        self.entry = {
            "file": "f.jsonl",
            "rows": 3,
            "duplicates": 1,
            "conflicts": 0,
            "superseded": 0,
            "rejected": 1,
        }
        self.entry["sha256"] = hashlib.sha256(lines).hexdigest()
        self.files = {"m/f.jsonl": lines}
        self.receipts = {}
        self.seal()

    def _send(self, topic, kind, *, good=(), bad=(), reason=None):
        offset = sum(place.topic == topic for _, place in self.sent)
        run_id = "" if kind == "garbage" else "r"
        parcel = Parcel(Sending(topic, b"r", b"%d" % offset), run_id, kind, good, bad)
        self.sent.append((parcel, Place(topic, 0, offset)))
        self.log.append(
            SimpleNamespace(topic=topic, partition=0, offset=offset, key=b"r", value=b"%d" % offset)
        )
        if reason:
            self.letters[Place(topic, 0, offset)] = (reason, b"%d" % offset, (("key", b"r"),), b"")

    def seal(self, samples_cut=4):
        """Results and receipt as the entry now is."""
        results = json.dumps(
            {"evalsink": {"run_id": "r", "status": "incomplete", "tasks": {"t": self.entry}}}
        )
        self.files["m/x_results.json"] = results.encode()
        sha256 = hashlib.sha256(results.encode()).hexdigest()
        cuts = TopicCut("", samples_cut), TopicCut("", 0)
        self.receipts["r"] = (0, Receipt("g", "r", "incomplete", *cuts, "x", "m/x_results.json", sha256))

    def findings(self):
        return Account(
            self.sent, self.log, letters=self.letters, receipts=self.receipts, files=self.files, topics=TOPICS
        ).findings


def test_where_every_record_is_where_it_belongs_nothing_is_found():
    assert [] == Outcome().findings()


def counted_otherwise(name):
    def tamper(outcome):
        outcome.entry[name] += 1
        outcome.seal()

    return tamper


TAMPERINGS = {
    "a row too many": counted_otherwise("rows"),
    "a duplicate too many": counted_otherwise("duplicates"),
    "a rejected row too many": counted_otherwise("rejected"),
    "a late record without a letter": lambda one: one.letters.pop(Place("s", 0, 5)),
    "garbage without a letter": lambda one: one.letters.pop(Place("s", 0, 2)),
    "a bad row without a letter": lambda one: one.letters.pop(Place("s", 0, 1)),
    "a letter that says late of a record below the cut": lambda one: one.letters.update(
        {Place("s", 0, 0): ("late", b"0", (("key", b"r"),), b"")}
    ),
    "a letter without its record": lambda one: one.letters.update(
        {Place("s", 0, 9): ("late", b"9", (("key", b"r"),), b"")}
    ),
    "a letter with other bytes": lambda one: one.letters.update(
        {Place("s", 0, 5): ("late", b"other", (("key", b"r"),), b"")}
    ),
    "no receipt": lambda one: one.receipts.clear(),
    "a receipt with a higher cut": lambda one: one.seal(samples_cut=5),
    "a receipt with a lower cut": lambda one: one.seal(samples_cut=2),
    "a receipt of other bytes": lambda one: one.files.update(
        {"m/x_results.json": one.files["m/x_results.json"] + b" "}
    ),
    "a receipt in another partition": lambda one: one.receipts.update({"r": (1, one.receipts["r"][1])}),
    "a run that is not published": lambda one: one.files.pop("m/x_results.json"),
    "a samples file with a line less": lambda one: one.files.update({"m/f.jsonl": b"0\n1\n"}),
    "a record that nobody sent": lambda one: one.log.append(
        SimpleNamespace(topic="s", partition=0, offset=6, key=b"r", value=b"{}")
    ),
    "a record that the log has lost": lambda one: one.log.pop(0),
}


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_whatever_is_wrong_is_found(tampering):
    outcome = copy.deepcopy(Outcome())
    TAMPERINGS[tampering](outcome)
    assert outcome.findings()


def test_trees_differ_by_names_and_by_bytes():
    one = {"a": b"1", "b": b"2", "c": b"3"}
    assert [] == differences_of_trees(one, dict(one))
    assert 3 == len(differences_of_trees(one, {"a": b"1", "b": b"x", "d": b"3"}))
