"""A slice of the fuzzing in every build; the whole is `python -m tests.fuzz --inputs 1000000`."""

import sys

import pytest

from consumer.archive.outbox import Outbox
from consumer.filesystem import Disk
from consumer.intake.receipts import ReceiptTable
from consumer.runs import checkpoint
from tests.fuzz import subjects
from tests.fuzz.__main__ import fuzz

SLICE = 6_000


def test_no_reader_raises_what_it_does_not_promise_and_no_path_leaves_the_folder():
    taken, findings = fuzz(SLICE, seed=20260101)
    assert {} == findings
    assert taken.total() >= SLICE
    assert all(number >= 1 for number in taken.values())


@pytest.mark.parametrize(
    "damage",
    [
        (b'"rows":0', b'"rows":-10'),
        (b'"folder":"r"', b'"folder":"/r"'),
        (b'"folder":"r"', b'"folder":"../r"'),
    ],
)
def test_a_checkpoint_whose_files_cannot_be_ours_is_dropped_and_nothing_is_cut(tmp_path, damage):
    """The first was found by the seed 7 of a million."""
    state = tmp_path / "state"
    [example] = subjects.subjects(tmp_path)["checkpoint"].examples
    elsewhere = state / "runs" / "r"
    elsewhere.mkdir(parents=True)
    (elsewhere / "000-t.jsonl").write_bytes(b"{}\n")
    (state / "checkpoint.json").write_bytes(example.replace(*damage))
    assert example != example.replace(*damage)
    cut = []
    disk = Disk()
    disk.truncate = lambda path, length: cut.append((path, length))
    assert {} == checkpoint.load(state, group="g", topic_ids={"s": "1"}, disk=disk)
    assert [] == cut


@pytest.mark.parametrize("opened", [Outbox, ReceiptTable])
def test_damage_of_which_sqlite_speaks_in_no_text_is_damage(tmp_path, monkeypatch, opened):
    """Found by the seed 7 of a million: sqlite3 raises UnicodeDecodeError."""
    opened(tmp_path).close()
    module = sys.modules[opened.__module__]
    check, met = module._check, []

    def unreadable(database):
        if not met:
            met.append(True)
            b"\xc3\x28".decode()
        check(database)

    monkeypatch.setattr(module, "_check", unreadable)
    if opened is Outbox:
        opened(tmp_path, mend=True).close()
        assert (tmp_path / "outbox.sqlite.damaged").exists()
    else:
        opened(tmp_path).close()
    assert [True] == met


def test_what_a_reader_raises_is_found():
    _, findings = fuzz(300, seed=1, only="names")
    assert {} == findings

    def broken(content):
        raise KeyError(content)

    before, subjects.take_name = subjects.take_name, broken
    try:
        _, findings = fuzz(3, seed=1, only="names")
    finally:
        subjects.take_name = before
    [key] = findings
    assert key.startswith("names: KeyError at ")
