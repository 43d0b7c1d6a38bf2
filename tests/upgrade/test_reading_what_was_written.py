"""What an earlier evalsink left is read by this one: state half way through a run, receipts, commits, events, published files.

Each folder below `fixtures` was written by the code of the version it is named after, by the steps that a worker takes: half of
`log.jsonl` applied, spool flushed, checkpoint written (`state`); all of it applied and closed (`output`). A new format gets a
folder of its own; none is ever written anew.
"""

import json
import shutil
from pathlib import Path

import msgspec
import pytest

from consumer import assembly
from consumer.filesystem import Disk
from consumer.intake.decode import Rejection, decode
from consumer.intake.receipts import read_table
from consumer.intake.resume import Committed, parse_metadata
from consumer.overview import survey
from consumer.report.verify import find_results, read_run
from consumer.runs import checkpoint
from consumer.runs.book import RunBook
from consumer.runs.closeout import close_out
from consumer.runs.spool import Spool
from consumer.settings import Settings
from consumer.vocabulary import Record
from schemas.state import Receipt

FIXTURES = sorted(path for path in (Path(__file__).parent / "fixtures").iterdir() if path.is_dir())
IDS = {"eval.samples": "id-samples", "eval.aggregates": "id-aggregates"}


@pytest.fixture(params=FIXTURES, ids=lambda path: path.name)
def written(request, tmp_path):
    """A copy, to be worked on."""
    return Path(shutil.copytree(request.param, tmp_path / "written"))


def log(written):
    """(record, role) of every event, as the topics held them."""
    for line in (written / "log.jsonl").read_text().splitlines():
        one = json.loads(line)
        record = Record(
            one["topic"],
            0,
            one["offset"],
            1_767_323_045_000 + one["offset"],
            b"upgraded",
            one["value"].encode(),
        )
        yield record, "aggregates" if one["topic"] == "eval.aggregates" else "samples"


def test_every_event_is_still_taken(written):
    taken = [decode(record.value, record.key, role) for record, role in log(written)]
    assert len(taken) > 10
    assert [] == [event for event in taken if isinstance(event, Rejection)]


def test_a_run_that_was_half_read_is_gone_on_with_and_closes_with_the_same_rows(written, tmp_path):
    state = written / "state"
    partitions = checkpoint.load(state, group="evalsink", topic_ids=IDS, disk=Disk())
    [run] = partitions[0].runs.values()  # kept, not dropped and read again
    book = RunBook(Spool(state, open_files_max=8), partitions)
    applied = 0
    for record, role in log(written):
        if record.offset >= partitions[0].positions[record.topic]:
            book.apply(run, record, decode(record.value, record.key, role), [role])
            applied += 1
    assert 0 < applied < len(list(log(written)))
    tools = assembly.tools(Settings(output=str(tmp_path / "output")), "w", Disk())
    closed = close_out(book.spooled(0, run), tools)
    book.spool.close()
    assert "complete" == closed.status
    before = {
        path.relative_to(written / "output"): path.read_bytes() for path in (written / "output").rglob("*.*")
    }
    for path, content in before.items():
        assert content == (tmp_path / "output" / path).read_bytes(), path


def test_receipts_and_commits_still_say_what_they_said(written):
    receipt = msgspec.json.decode((written / "receipt.json").read_bytes(), type=Receipt)
    assert ("closed", "complete", 41, 2) == (
        receipt.run_id,
        receipt.status,
        receipt.samples.offset,
        receipt.aggregates.offset,
    )
    assert [(0, receipt)] == read_table(written / "state")
    metadata = parse_metadata(Committed(20, (written / "commit-metadata.json").read_text()), "id-samples")
    assert (7, 12) == (metadata.watermark, metadata.tainted_below)


def test_what_it_published_and_had_open_is_still_shown(written):
    [path] = find_results([written / "output"])
    run = read_run(path)
    assert ("upgraded", "complete", 29) == (run.own.run_id, run.own.status, run.rows)
    overview = survey(written / "state", written / "output", recent=5, now_ms=1_767_323_100_000)
    assert {"upgraded": "open", "closed": "complete"} == {one.run_id: one.status for one in overview.runs}
