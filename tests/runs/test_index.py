"""The index: what is packed is read back, and distinct samples are counted as a set counts them."""

import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from consumer.errors import SpoolError
from consumer.runs import index
from consumer.runs.index import (
    ENTRY,
    Flag,
    Sides,
    count_distinct,
    decode_scores,
    decode_side,
    decode_sides,
    encode_side,
    identity,
    pack_entry,
    pack_rows,
    place,
    read_entries,
)
from consumer.runs.lifecycle import TallyKey
from schemas.events import Sample
from tests.runs.entries import Row, rows, write_files
from tests.runs.logs import homes

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
NAMES = ("offset", "row", "filter", "shard", "attempt", "flags", "id_high", "id_low", "position")


@given(
    values=st.tuples(st.integers(-(2**63), 2**63 - 1), U32, U32, U32, U32, U32, U64, U64, U64),
    content=st.binary(max_size=20),
    side=U64,
    side_len=U32,
)
def test_an_entry_reads_back_as_it_was_packed(tmp_path_factory, values, content, side, side_len):
    with homes() as home:
        path = home() / "i"
        path.write_bytes(pack_entry(*values, content, side, side_len))
        (entries,) = read_entries(path, total=1, chunk=10)
    wanted = dict(zip(NAMES, values, strict=True)) | {
        "length": len(content),
        "crc": zlib.crc32(content),
        "side": side,
        "side_len": side_len,
    }
    assert wanted == {name: int(entries[name][0]) for name in ENTRY.names}


@given(
    text=st.none() | st.text(),
    scores=st.dictionaries(
        st.text(), st.floats(allow_nan=False) | st.lists(st.floats(allow_nan=False)), max_size=3
    ),
    cluster=st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
)
def test_a_side_entry_reads_back_as_it_was_written_and_is_empty_when_it_says_nothing(text, scores, cluster):
    content = encode_side(text, scores, cluster)
    assert (text is None and not scores and cluster is None) == (content == b"")
    if content:
        assert (text, scores or None, cluster) == decode_side(content)


@pytest.mark.parametrize("one", [0, 1, -1, 2**63 - 1, -(2**63), "1", "", b"1" * 32])
@pytest.mark.parametrize("other", [0, 1, -1, 2**63 - 1, -(2**63), "1", "", b"1" * 32])
def test_two_identities_are_equal_only_if_value_and_type_are(one, other):
    assert (type(one) is type(other) and one == other) == (index.identity(one) == index.identity(other))


def test_an_index_is_read_up_to_the_total_alone(tmp_path):
    files = write_files(tmp_path, [Row(number) for number in range(10)])
    chunks = [chunk["id_low"].tolist() for chunk in read_entries(files.index, total=7, chunk=3)]
    assert [[0, 1, 2], [3, 4, 5], [6]] == chunks


@pytest.mark.parametrize("length", [0, ENTRY.itemsize, 10 * ENTRY.itemsize - 1])
def test_an_index_shorter_than_the_state_says_is_refused(tmp_path, length):
    files = write_files(tmp_path, [Row(number) for number in range(10)])
    with files.index.open("r+b") as file:
        file.truncate(length)
    with pytest.raises(SpoolError, match=r"t\.index"):
        list(read_entries(files.index, total=10, chunk=4))


@settings(deadline=None)
@given(
    received=st.lists(rows, max_size=60),
    later=st.lists(rows, max_size=5),
    bucket=st.sampled_from([1, 4, 1000]),
)
def test_distinct_samples_are_counted_as_a_set_counts_them_in_any_size_of_bucket(received, later, bucket):
    keys = [TallyKey(7, shard, attempt) for shard in range(3) for attempt in range(4)]
    wanted = {
        key: len({row.sample for row in received if (row.shard, row.attempt) == key[1:]}) for key in keys
    }
    with homes() as home, pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "BUCKET_ENTRIES", bucket)
        folder = home()
        files = write_files(folder, received + later)
        counts = count_distinct(files.index, len(received), keys, scratch=folder / "scratch")
        left = list((folder / "scratch").glob("*"))
    assert wanted == counts
    assert [] == left


def test_a_sample_rejected_and_then_good_counts_once(tmp_path):
    files = write_files(tmp_path, [Row(1, None), Row(1), Row(1, None), Row("1", None)])
    key = TallyKey(0, 0, 0)
    assert {key: 2} == count_distinct(files.index, 4, [key], scratch=tmp_path)


def test_only_the_counts_asked_for_are_given(tmp_path):
    files = write_files(tmp_path, [Row(1), Row(2, shard=1)])
    key = TallyKey(3, 1, 0)
    assert {key: 1} == count_distinct(files.index, 2, [key], scratch=tmp_path)


def test_flags_leave_room_for_each_other():
    assert len(Flag) == len({int(flag) for flag in Flag})
    assert all(int(flag).bit_count() == 1 for flag in Flag)


numbers = st.floats(allow_nan=False)
alike = st.lists(st.sampled_from(["acc", "f1", "é"]), unique=True, max_size=3).flatmap(
    lambda metrics: st.lists(
        st.tuples(*[numbers] * len(metrics)).map(lambda row: dict(zip(metrics, row, strict=True))),
        min_size=1,
        max_size=6,
    )
)
others = st.tuples(
    st.none() | st.text(max_size=3),
    st.dictionaries(st.sampled_from(["acc", "f1"]), numbers | st.lists(numbers, max_size=2), max_size=2),
    st.none() | st.integers(0, 300) | st.sampled_from(["", "c"]),
)


def joined(sides):
    contents = [content for content in (encode_side(*side) for side in sides) if content]
    return Sides(len(contents), b"".join(contents))


@given(scores=alike, odd=st.none() | others)
def test_scores_read_at_once_are_those_read_one_by_one_or_left_to_that(scores, odd):
    sides = joined([(None, one, None) for one in scores] + ([odd] if odd else []))
    columns = decode_scores(sides)
    one_by_one = decode_sides(sides)
    if columns is not None:
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        assert [(None, row, None) for row in rows] == one_by_one
        assert [list(row) for row in rows] == [list(row) for _, row, _ in one_by_one]
    else:
        assert odd or not scores[0]


@pytest.mark.parametrize("content", [b"", b"\x93\xc0\x81", b"\xff" * 18])
def test_side_entries_that_are_damaged_are_told(content):
    with pytest.raises(SpoolError):
        decode_sides(Sides(2, content))


@given(
    doc_ids=st.lists(st.integers(-(2**63), 2**63 - 1) | st.text(max_size=3), max_size=8),
    sizes=st.lists(st.integers(2, 40), min_size=8, max_size=8),
    scored=st.lists(st.booleans(), min_size=8, max_size=8),
    position=st.integers(0, 2**62),
    side=st.integers(0, 2**62),
)
def test_rows_packed_at_once_are_those_packed_one_by_one(doc_ids, sizes, scored, position, side):
    rows = [b"{" + b" " * (size - 2) + b"}" for size in sizes[: len(doc_ids)]]
    samples = [
        Sample(doc_id, Raw(row), {"acc": 0.5} if has else {})
        for doc_id, row, has in zip(doc_ids, rows, scored, strict=False)
    ]
    packed = pack_rows(
        samples,
        rows,
        offsets=[7 + number for number in range(len(rows))],
        places=range(len(rows)),
        filter_number=1,
        shard=2,
        attempt=3,
        marks=dict.fromkeys(range(0, len(rows), 3), int(Flag.REPAIRED)),
    )
    entries, sides, rows_end = b"", b"", position
    for number, (sample, row) in enumerate(zip(samples, rows, strict=True)):
        text = sample.doc_id if isinstance(sample.doc_id, str) else None
        one = encode_side(text, sample.scores, None)
        kind, high, low = identity(sample.doc_id)
        flags = kind | (0 if number % 3 else Flag.REPAIRED)
        entries += pack_entry(
            7 + number, number, 1, 2, 3, flags, high, low, rows_end, row, side + len(sides), len(one)
        )
        sides, rows_end = sides + one, rows_end + len(row) + 1
    assert (entries, sides) == (place(packed.entries, position, side), packed.sides)
