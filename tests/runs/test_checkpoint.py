"""The checkpoint: what is kept, what is cut, and what is dropped so that the log rebuilds it."""

import json
import os
import subprocess
import sys

import msgspec
import pytest

from consumer.errors import StateError
from consumer.filesystem import Disk
from consumer.runs import checkpoint
from consumer.runs.checkpoint import CHECKPOINT_FILE, StateLock, worker_id
from consumer.runs.spool import spool_files
from schemas.state import CHECKPOINT_FORMAT
from tests.runs.logs import APART, GROUP, QuickDisk, Reader, assemble

IDS = {"samples": "u1", "aggregates": "u2"}

BODY = [
    ("r1", {"type": "samples", "task": "t", "samples": [{"doc_id": "x", "row": {}, "scores": {"a": 1}}]}),
    ("r1", {"type": "samples", "task": "t", "samples": [{"doc_id": 1, "row": {}}]}),
    ("r1", {"type": "aggregate", "task": "t", "results": {}}),
    ("r2", {"type": "samples", "task": "t", "samples": [{"doc_id": 1, "row": {}}]}),
]
PLACE = {"shard": 0, "attempt": 0}


@pytest.fixture
def saved(tmp_path):
    """A state folder with a checkpoint of two open runs."""
    reader = Reader(tmp_path)
    for sent in assemble([(run_id, {**PLACE, "filter": "none", **one}) for run_id, one in BODY], APART):
        reader.take(sent)
    reader.book.partitions[0].positions = {"samples": 4, "aggregates": 2}
    reader.book.spool.flush()
    content = checkpoint.capture(GROUP, IDS, reader.book.partitions)
    checkpoint.write(reader.state, content, QuickDisk())
    reader.book.spool.close()
    return reader


def load(reader, group=GROUP, ids=IDS):
    return checkpoint.load(reader.state, group=group, topic_ids=ids, disk=QuickDisk())


def edit(reader, **fields):
    path = reader.state / CHECKPOINT_FILE
    path.write_bytes(json.dumps(json.loads(path.read_bytes()) | fields).encode())


def run_folders(reader):
    return sorted(path.name for path in (reader.state / "runs").glob("*/*"))


def files_of(reader, run_id="r1"):
    run = reader.book.partitions[0].runs[run_id]
    return list(spool_files(reader.state / "runs" / "0" / run.folder, run))


def test_what_was_captured_is_loaded(saved):
    loaded = load(saved)
    assert msgspec.to_builtins(saved.book.partitions) == msgspec.to_builtins(loaded)
    assert 2 == len(run_folders(saved))


def test_the_first_start_finds_nothing(tmp_path):
    assert {} == checkpoint.load(tmp_path, group=GROUP, topic_ids=IDS, disk=QuickDisk())


@pytest.mark.parametrize("number", range(4))
def test_a_file_longer_than_the_checkpoint_says_is_cut(saved, number):
    path, length = files_of(saved)[number]
    with path.open("ab") as file:
        file.write(b"torn")
    assert {0} == load(saved).keys()
    assert length == path.stat().st_size


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("harm", ["short", "missing"])
def test_a_file_shorter_than_the_checkpoint_says_drops_the_partition(saved, number, harm):
    path, length = files_of(saved)[number]
    assert length > 0
    if harm == "short":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.unlink()
    assert {} == load(saved)
    assert [] == run_folders(saved)


def test_another_partition_stays_when_one_is_dropped(saved):
    path = saved.state / CHECKPOINT_FILE
    content = json.loads(path.read_bytes())
    content["partitions"].append({"partition": 7, "positions": {"samples": 3}})
    path.write_bytes(json.dumps(content).encode())
    files_of(saved)[0][0].unlink()
    assert {7} == load(saved).keys()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"group": 1}',
        b'{"group":"evalsink","topic_ids":{},"partitions":[{"partition":"x"}],"format":1}',
    ],
)
def test_a_checkpoint_that_cannot_be_read_drops_all_state(saved, content):
    (saved.state / CHECKPOINT_FILE).write_bytes(content)
    assert {} == load(saved)
    assert [] == run_folders(saved)


@pytest.mark.parametrize("number", [0, CHECKPOINT_FORMAT + 1])
def test_a_checkpoint_of_another_format_drops_all_state(saved, number):
    edit(saved, format=number)
    assert {} == load(saved)
    assert [] == run_folders(saved)


def test_the_state_of_another_group_is_dropped(saved):
    assert {} == load(saved, group="others")
    assert [] == run_folders(saved)


@pytest.mark.parametrize(
    "ids", [{"samples": "u1", "aggregates": "new"}, {"samples": "u1"}, {}, {"other": "u1"}]
)
def test_the_state_of_topics_made_anew_is_dropped(saved, ids):
    assert {} == load(saved, ids=ids)
    assert [] == run_folders(saved)


def test_folders_that_no_run_owns_are_removed(saved):
    known = run_folders(saved)
    for name in ("0/stranger", "9/r.0", "junk/x"):
        (saved.state / "runs" / name).mkdir(parents=True)
    load(saved)
    assert known == run_folders(saved)


def test_a_file_among_the_partitions_is_no_reason_not_to_start(saved):
    (saved.state / "runs" / "notes.txt").write_text("x")
    assert {0} == load(saved).keys()


def test_the_old_checkpoint_stands_when_the_sync_fails(saved):
    class Broken(QuickDisk):
        def sync_tree(self, root):
            raise OSError(5, "input/output error")

    before = (saved.state / CHECKPOINT_FILE).read_bytes()
    with pytest.raises(OSError, match="input/output"):
        checkpoint.write(saved.state, b"new", Broken())
    assert before == (saved.state / CHECKPOINT_FILE).read_bytes()


def test_the_file_system_is_synced_before_the_checkpoint_is_replaced(saved):
    steps = []

    class Watching(QuickDisk):
        def sync_tree(self, root):
            steps.append((root, (root / CHECKPOINT_FILE).read_bytes()))

    before = (saved.state / CHECKPOINT_FILE).read_bytes()
    checkpoint.write(saved.state, b"new", Watching())
    assert [(saved.state, before)] == steps
    assert b"new" == (saved.state / CHECKPOINT_FILE).read_bytes()


def test_a_torn_temporary_checkpoint_does_no_harm(saved):
    (saved.state / (CHECKPOINT_FILE + ".tmp")).write_bytes(b'{"gro')
    assert {0} == load(saved).keys()
    checkpoint.write(saved.state, checkpoint.capture(GROUP, IDS, {}), QuickDisk())
    assert {} == load(saved)


def test_a_state_folder_serves_one_worker_at_a_time(tmp_path):
    lock = StateLock(tmp_path / "state")
    with pytest.raises(StateError, match="--state"):
        StateLock(tmp_path / "state")
    lock.release()
    StateLock(tmp_path / "state").release()


def test_the_lock_of_a_process_that_died_is_free(tmp_path):
    code = (
        "import os, pathlib, sys; from consumer.runs.checkpoint import StateLock; "
        "lock = StateLock(pathlib.Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    StateLock(tmp_path).release()


def test_a_worker_keeps_its_id_and_no_two_folders_share_one(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    assert worker_id(one, QuickDisk()) == worker_id(one, QuickDisk())
    assert worker_id(one, QuickDisk()) != worker_id(other, QuickDisk())


def test_until_the_new_checkpoint_is_whole_and_durable_the_former_one_stands(tmp_path, monkeypatch):
    path = tmp_path / checkpoint.CHECKPOINT_FILE
    Disk().replace_file(path, b"former")
    seen = []
    fsync = os.fsync

    def looking(descriptor):
        seen.append(path.read_bytes())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", looking)
    Disk().replace_file(path, b"new")
    # Of the file, before it bears the name; of the folder, after.
    assert [b"former", b"new"] == seen
