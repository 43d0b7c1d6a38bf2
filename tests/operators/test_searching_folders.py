"""Output folders are searched while workers stage, publish and remove there."""

import os

import pytest

from consumer.filesystem import files_below
from consumer.publish.outputs import find_outputs
from consumer.report.verify import find_results

RESULTS = '{"results": {}, "configs": {}, "model_name": "m"}'


@pytest.fixture
def output(tmp_path, monkeypatch):
    """One results JSON, and a staging folder that is gone as soon as somebody enters it."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "20260101_000000_results.json").write_text(RESULTS)
    staging = tmp_path / ".evalsink" / "worker"
    staging.mkdir(parents=True)
    scandir = os.scandir

    def entering(path):
        if str(path) == str(staging) and staging.exists():
            staging.rmdir()
        return scandir(path)

    monkeypatch.setattr(os, "scandir", entering)
    yield tmp_path
    assert not staging.exists(), "nobody entered it"


def names(paths):
    return [path.name for path in paths]


def test_verify_finds_what_is_there_while_a_folder_vanishes(output):
    assert names(find_results([output])) == ["20260101_000000_results.json"]


def test_publish_finds_what_is_there_while_a_folder_vanishes(output):
    assert names(one.results for one in find_outputs(output).outputs) == ["20260101_000000_results.json"]


def test_a_folder_that_is_not_there_from_the_start_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        list(files_below(tmp_path / "nowhere", skip_denied=True))


@pytest.mark.parametrize("skip_denied", [True, False])
def test_a_folder_that_may_not_be_entered_is_passed_over_only_where_that_was_asked_for(
    tmp_path, monkeypatch, skip_denied
):
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "one").touch()
    scandir = os.scandir

    def entering(path):
        if str(path).endswith("lost+found"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", entering)
    if skip_denied:
        assert names(files_below(tmp_path, skip_denied=True)) == ["one"]
    else:
        with pytest.raises(PermissionError):
            list(files_below(tmp_path, skip_denied=False))
