"""Folders that others can write to or read, and files that are none: nothing is removed, read or waited for through them."""

import os
import stat
import subprocess
import sys

import pytest

from consumer.filesystem import Disk
from consumer.runs.checkpoint import StateLock
from consumer.runs.publication import STAGING_FOLDER, remove_provisional, sweep_staging
from schemas.names import PARTIAL_FOLDER, hash8
from tests.acceptance.conftest import environment, evalsink
from tests.report.published_run import publish

LONG_AGO = 1_000_000_000


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def permissive():
    """A umask under which everybody may do everything."""
    before = os.umask(0)
    yield
    os.umask(before)


# -- modes ------------------------------------------------------------------------------------------------------------


def test_a_state_folder_that_we_make_is_for_its_user_alone(tmp_path, permissive):
    StateLock(tmp_path / "a" / "state").release()
    assert 0o700 == mode(tmp_path / "a" / "state")


def test_a_state_folder_that_somebody_made_keeps_its_mode(tmp_path, permissive):
    (tmp_path / "state").mkdir(mode=0o750)
    StateLock(tmp_path / "state").release()
    assert 0o750 == mode(tmp_path / "state")


# -- links in the output folder ----------------------------------------------------------------------------------------


@pytest.fixture
def precious(tmp_path):
    """Somebody's old folder, which the worker's user may remove."""
    folder = tmp_path / "precious"
    (folder / "old").mkdir(parents=True)
    (folder / "old" / "file").write_text("mine", "utf-8")
    (folder / f"notes-{hash8('r')}_results.json").write_text("mine", "utf-8")
    for path in (folder / "old", folder):
        os.utime(path, (LONG_AGO, LONG_AGO))
    return folder


def test_a_link_in_place_of_the_staging_folder_has_nothing_removed_behind_it(tmp_path, precious):
    output = tmp_path / "output"
    output.mkdir()
    (output / STAGING_FOLDER).symlink_to(precious)
    sweep_staging(output, "worker", disk=Disk(), now_s=2 * LONG_AGO)
    assert "mine" == (precious / "old" / "file").read_text("utf-8")
    assert not (output / STAGING_FOLDER).is_symlink(), "and is not staged through"


def test_a_link_within_the_staging_folder_has_nothing_removed_behind_it(tmp_path, precious):
    (tmp_path / "output" / STAGING_FOLDER).mkdir(parents=True)
    (tmp_path / "output" / STAGING_FOLDER / "other").symlink_to(precious)
    sweep_staging(tmp_path / "output", "worker", disk=Disk(), now_s=2 * LONG_AGO)
    assert "mine" == (precious / "old" / "file").read_text("utf-8")


@pytest.mark.parametrize("where", [PARTIAL_FOLDER, f"{PARTIAL_FOLDER}/model"])
def test_a_link_in_place_of_a_provisional_folder_has_nothing_removed_behind_it(tmp_path, precious, where):
    link = tmp_path / "output" / where
    link.parent.mkdir(parents=True)
    link.symlink_to(precious)
    remove_provisional(tmp_path / "output", "r")
    assert (precious / f"notes-{hash8('r')}_results.json").exists()


# -- files that never end ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["_samples_no-doc-id.jsonl", "_metrics.jsonl"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_file_is_not_read_by_verify(tmp_path, kind, ending):
    results = publish(tmp_path / "output")
    victim = results.with_name(results.name.replace("_results.json", ending))
    victim.unlink()
    os.mkfifo(victim) if kind == "pipe" else victim.symlink_to("/dev/zero")
    said = evalsink("verify", tmp_path / "output", code=1).stderr
    assert victim.name in said
    assert "no file" in said


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_file_is_not_read_by_a_comparison(tmp_path, kind):
    results = publish(tmp_path / "output")
    victim = results.with_name(results.name.replace("_results.json", "_samples_mme.jsonl"))
    victim.unlink()
    os.mkfifo(victim) if kind == "pipe" else victim.symlink_to("/dev/zero")
    done = subprocess.run(
        [sys.executable, "-m", "consumer", "table", results, "--baseline", results],
        capture_output=True,
        check=False,
        timeout=120,
        env=environment(),
    )
    assert done.returncode in (0, 1)
