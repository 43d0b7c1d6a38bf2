"""Publication: names appear whole, once and in order, and nothing that is there is ever replaced."""

import os
import shutil

import pytest

from consumer.errors import DeterminismError
from consumer.filesystem import Disk
from consumer.runs.publication import STAGING_FOLDER, Staging, remove_provisional, sweep_staging
from schemas.names import hash8
from tests.runs.logs import QuickDisk, tree


class WatchingDisk(Disk):
    """Remembers what became durable and visible, in order."""

    def __init__(self):
        self.steps = []

    def sync_path(self, path):
        self.steps.append(("sync", path.name if path.is_dir() else "staged"))
        super().sync_path(path)

    def link_file(self, source, target):
        self.steps.append(("link", target.name))
        return super().link_file(source, target)


def stage(output, files, disk=None):
    staging = Staging(output, "worker", disk=disk or QuickDisk())
    for relative, content in files.items():
        staging.add(relative, lambda file, content=content: file.write(content))
    return staging


FILES = {"m/samples.jsonl": b"rows\n", "m/table.md": b"|\n", "m/results.json": b"{}"}


def test_files_appear_in_the_order_they_were_added_each_synced_before(tmp_path):
    disk = WatchingDisk()
    staging = stage(tmp_path, FILES, disk)
    assert [("sync", "staged")] * 3 == disk.steps
    assert {} == tree(tmp_path)
    disk.steps.clear()
    staging.publish()
    staging.discard()
    assert FILES == tree(tmp_path)
    linked = [name for step, name in disk.steps if step == "link"]
    assert ["samples.jsonl", "table.md", "results.json"] == linked
    # The folder is synced after every name, so also before the results JSON appears.
    for name in linked:
        assert ("sync", "m") == disk.steps[disk.steps.index(("link", name)) + 1]


def test_names_taken_by_the_same_bytes_are_done(tmp_path):
    for _ in range(2):
        staging = stage(tmp_path, FILES)
        staging.publish()
        staging.discard()
    assert FILES == tree(tmp_path)


@pytest.mark.parametrize("taken", list(FILES))
@pytest.mark.parametrize("content", [b"", b"ROWS\n", b"{", b"rows\n and more"])
def test_a_name_taken_by_other_bytes_keeps_them_and_no_results_appear(tmp_path, taken, content):
    (tmp_path / "m").mkdir()
    (tmp_path / taken).write_bytes(content)
    staging = stage(tmp_path, FILES)
    with pytest.raises(DeterminismError, match=taken):
        staging.publish()
    staging.discard()
    assert content == tree(tmp_path)[taken]
    if taken != "m/results.json":
        assert "m/results.json" not in tree(tmp_path)


@pytest.mark.parametrize("published", range(4))
def test_publishing_after_a_crash_in_the_middle_gives_the_same_files(tmp_path, published):
    staging = stage(tmp_path, dict(list(FILES.items())[:published]))
    staging.publish()
    # The process dies: what it staged stays until the worker starts again.
    again = stage(tmp_path, FILES)
    again.publish()
    again.discard()
    sweep_staging(tmp_path, "worker", disk=QuickDisk(), now_s=0)
    assert FILES == {
        str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()
    }


def test_two_workers_that_publish_the_same_run_at_once_both_succeed(tmp_path):
    one, other = stage(tmp_path, FILES), stage(tmp_path, FILES)
    one.publish()
    other.publish()
    one.discard()
    assert FILES == tree(tmp_path)
    other.discard()
    assert FILES == tree(tmp_path)


def test_a_file_that_is_dropped_is_not_published(tmp_path):
    staging = stage(tmp_path, {"a": b"1", "b": b"2"})
    staging.drop_last()
    staging.publish()
    staging.discard()
    assert {"a": b"1"} == tree(tmp_path)


def test_discarding_leaves_the_published_files_and_nothing_else(tmp_path):
    staging = stage(tmp_path, FILES)
    staging.publish()
    staging.discard()
    sweep_staging(tmp_path, "worker", disk=QuickDisk(), now_s=0)
    assert not (tmp_path / STAGING_FOLDER).exists()
    assert FILES == tree(tmp_path)


def test_a_failed_write_leaves_no_name_behind(tmp_path):
    staging = Staging(tmp_path, "worker", disk=QuickDisk())

    def fail(_file):
        raise OSError(28, "no space left on device")

    with pytest.raises(OSError, match="no space"):
        staging.add("m/results.json", fail)
    staging.publish()
    staging.discard()
    assert {} == tree(tmp_path)


def test_what_others_staged_is_swept_only_when_it_is_old(tmp_path):
    other = Staging(tmp_path, "another worker", disk=QuickDisk())
    other.add("x", lambda file: file.write(b"1"))
    folder = next((tmp_path / STAGING_FOLDER).iterdir())
    now = folder.stat().st_mtime
    sweep_staging(tmp_path, "worker", disk=QuickDisk(), now_s=now + 86_400)
    assert folder.exists()
    os.utime(folder, (0, 0))
    sweep_staging(tmp_path, "worker", disk=QuickDisk(), now_s=now)
    assert not folder.exists()


def test_provisional_files_are_replaced_and_removed_with_no_trace(tmp_path):
    names = {f"m/d-{hash8('r1')}_results.json": b"1", f"m/d-{hash8('r1')}_samples_t.jsonl": b"2"}
    for content in (b"old", b"new"):
        staging = stage(tmp_path, dict.fromkeys(names, content))
        staging.place_provisionally()
        staging.discard()
    assert {f"partial/{name}": b"new" for name in names} == tree(tmp_path)
    remove_provisional(tmp_path, "r2")
    assert {f"partial/{name}" for name in names} == tree(tmp_path).keys()
    remove_provisional(tmp_path, "r1")
    assert {} == tree(tmp_path)
    assert not (tmp_path / "partial" / "m").exists()
    remove_provisional(tmp_path, "r1")


def test_a_link_never_replaces_even_when_the_name_appears_meanwhile(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"new")
    assert QuickDisk().link_file(source, target)
    shutil.copy(source, tmp_path / "second")
    (tmp_path / "second").write_bytes(b"other")
    assert not QuickDisk().link_file(tmp_path / "second", target)
    assert b"new" == target.read_bytes()
