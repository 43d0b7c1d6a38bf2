"""The canonical order: the same as sorting everything in memory, whatever the sizes of chunks and blocks."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.runs import ordering
from consumer.runs.ordering import canonical_blocks
from tests.runs.entries import Row, place, rows, write_files
from tests.runs.logs import homes


def in_order(received: list[Row], ranks: list[int]) -> list[tuple[int, int]]:
    """Places of the rows in canonical order, by Python's own sort."""

    def key(number):
        row = received[number]
        kind = {int: 0, str: 1, bytes: 2}[type(row.doc_id)]
        # How the unreadable are ordered among themselves is free: each of them by its own digest.
        doc_id = row.doc_id.encode() if isinstance(row.doc_id, str) else row.doc_id
        offset, index = place(number)
        return ranks[row.filter], kind, doc_id, row.content is None, -row.attempt, -offset, -index

    readable = [number for number, row in enumerate(received) if not isinstance(row.doc_id, bytes)]
    return [place(number) for number in sorted(readable, key=key)]


@settings(deadline=None, max_examples=150)
@given(
    received=st.lists(rows, max_size=60),
    ranks=st.permutations([0, 1, 2]),
    chunk=st.sampled_from([1, 2, 5, 1000]),
    block=st.sampled_from([1, 2, 7]),
    text_chunk=st.sampled_from([1, 3, 1000]),
)
def test_blocks_joined_are_what_sorting_in_memory_gives(received, ranks, chunk, block, text_chunk):
    with homes() as home, pytest.MonkeyPatch.context() as patch:
        patch.setattr(ordering, "TEXT_CHUNK", text_chunk)
        folder = home()
        files = write_files(folder, received)
        scratch = folder / "scratch"
        blocks = list(
            canonical_blocks(
                files.index, files.side, ranks, total=len(received), scratch=scratch, chunk=chunk, block=block
            )
        )
        left = list(scratch.glob("*"))
    assert [] == left
    assert all(len(set(one["rank"].tolist())) == len(set(one["kind"].tolist())) == 1 for one in blocks)
    places = [(int(entry["offset"]), int(entry["row"])) for one in blocks for entry in one]
    by_place = {place(number): row for number, row in enumerate(received)}
    readable = [one for one in places if not isinstance(by_place[one].doc_id, bytes)]
    assert in_order(received, ranks) == readable
    assert sorted(by_place) == sorted(places)
    # Of the unreadable: after all others of their filter, equal ones side by side, the latest first.
    order = [(ranks[by_place[one].filter], isinstance(by_place[one].doc_id, bytes)) for one in places]
    assert sorted(order) == order
    unreadable = [one for one in places if isinstance(by_place[one].doc_id, bytes)]
    groups = [by_place[one].sample for one in unreadable]
    assert len(set(groups)) == len(list(itertools.groupby(groups)))
    for one, other in itertools.pairwise(unreadable):
        if by_place[one].sample == by_place[other].sample:
            assert (by_place[one].attempt, *one) > (by_place[other].attempt, *other)


@settings(deadline=None, max_examples=50)
@given(received=st.lists(rows, max_size=40), chunk=st.integers(1, 9), block=st.integers(1, 5))
def test_the_stream_of_entries_does_not_depend_on_chunks_and_blocks(received, chunk, block):
    def stream(folder, **sizes):
        files = write_files(folder, received)
        parts = list(
            canonical_blocks(
                files.index, files.side, [2, 0, 1], total=len(received), scratch=folder / "scratch", **sizes
            )
        )
        return np.concatenate(parts).tobytes() if parts else b""

    with homes() as home:
        assert stream(home()) == stream(home(), chunk=chunk, block=block)


def test_what_lies_behind_the_total_does_not_count(tmp_path):
    files = write_files(tmp_path, [Row(3), Row(1), Row(2), Row("x")])
    blocks = canonical_blocks(files.index, files.side, [0], total=2, scratch=tmp_path / "scratch")
    assert [1, 3] == [int(entry["id_low"]) for block in blocks for entry in block]


def test_an_empty_index_gives_no_blocks_and_needs_no_file(tmp_path):
    missing = tmp_path / "missing"
    assert [] == list(canonical_blocks(missing, missing, [], total=0, scratch=tmp_path / "scratch"))
