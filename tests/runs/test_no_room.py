"""Arrays that do not fit on the disk: an error at once, never a file that is too short and taken for whole."""

import pytest

from consumer.runs import index
from consumer.runs.index import count_distinct
from consumer.runs.known import KnownSamples
from consumer.runs.lifecycle import TallyKey
from consumer.runs.ordering import canonical_blocks
from tests.observing import room_for
from tests.runs.entries import Row, write_files

KEY = TallyKey(0, 0, 0)


@pytest.fixture
def files(tmp_path):
    return write_files(tmp_path, [Row(number) for number in range(40)])


@pytest.mark.parametrize("room", [0, 100])
def test_samples_that_cannot_be_counted_for_want_of_room_are_not_counted_short(
    files, tmp_path, monkeypatch, room
):
    monkeypatch.setattr(index, "BUCKET_ENTRIES", 10)
    scratch = tmp_path / "scratch"
    with room_for(room), pytest.raises(OSError, match="large"):
        count_distinct(files.index, 40, [KEY], scratch=scratch)
    assert {KEY: 40} == count_distinct(files.index, 40, [KEY], scratch=scratch)


@pytest.mark.parametrize("room", [0, 100])
def test_samples_that_cannot_be_remembered_for_want_of_room_are_not_half_remembered(files, tmp_path, room):
    scratch = tmp_path / "known"
    with room_for(room), pytest.raises(OSError, match="large"):
        KnownSamples(files.index, 40, [KEY], scratch=scratch)
    assert not scratch.exists()


@pytest.mark.parametrize("room", [0, 100])
def test_rows_that_cannot_be_sorted_for_want_of_room_are_not_left_out(files, tmp_path, room):
    def sorted_rows():
        return sum(
            block.size
            for block in canonical_blocks(
                files.index, files.side, [0], total=40, scratch=tmp_path / "scratch", chunk=10
            )
        )

    with room_for(room), pytest.raises(OSError, match="large"):
        sorted_rows()
    assert 40 == sorted_rows()
