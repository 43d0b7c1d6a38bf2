"""A task's samples file out of its spool files: samples that span blocks, gaps, and spools that are damaged."""

import hashlib
import io
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.errors import SpoolError
from consumer.runs import samples
from consumer.runs.index import ENTRY, decode_sides
from consumer.runs.ordering import canonical_blocks
from consumer.runs.samples import GAPS_MAX, copy_samples
from tests.runs.entries import Row, rows, write_files
from tests.runs.logs import homes


def copy(folder, received, *, attempts=(0, 0, 0), ranks=(0, 1, 2), files=None, harness="lmms-eval"):
    """The bytes that are written, what is told of them, and the scores in their order."""
    files = files or write_files(folder, received)
    target, scores = io.BytesIO(), []
    copied = copy_samples(
        files,
        target,
        total=len(received),
        ranks=ranks,
        attempts=attempts,
        harness=harness,
        scratch=folder / "scratch",
        on_scores=lambda rank, sides: scores.extend((rank, side[1]) for side in decode_sides(sides)),
    )
    return target.getvalue(), copied, scores


@settings(deadline=None, max_examples=100)
@given(
    received=st.lists(rows, max_size=40),
    chunk=st.sampled_from([1, 3, 1000]),
    block=st.sampled_from([1, 2, 5]),
    piece=st.sampled_from([1, 10, 10_000]),
)
def test_a_copy_in_tiny_blocks_is_the_copy_in_one_block(received, chunk, block, piece):
    attempts = [max((row.attempt for row in received if row.shard == n), default=0) for n in range(3)]
    with homes() as home, pytest.MonkeyPatch.context() as patch:
        whole = copy(home(), received, attempts=attempts)
        patch.setattr(samples, "COPY_BYTES", piece)
        patch.setattr(samples, "canonical_blocks", partial(canonical_blocks, chunk=chunk, block=block))
        pieces = copy(home(), received, attempts=attempts)
    assert whole == pieces
    content, copied, _ = whole
    assert (len(content), content.count(b"\n")) == (copied.size, copied.rows)
    assert hashlib.sha256(content).hexdigest() == copied.sha256
    good = sum(row.content is not None for row in received)
    assert good == copied.rows + copied.duplicates + copied.conflicts + copied.superseded
    assert copied.rejected == len({row.sample for row in received}) - copied.rows


def test_a_sample_sent_more_often_than_a_block_holds_has_one_winner(tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "canonical_blocks", partial(canonical_blocks, chunk=2, block=1))
    received = [
        Row(1, b'{"v":0}'),
        *[Row(2, b'{"v":%d}' % (number % 2)) for number in range(9)],
        Row(2, None),
        *[Row(2, b'{"v":9}', shard=1)] * 2,
        Row(3, b'{"v":3}'),
    ]
    content, copied, _ = copy(tmp_path, received)
    assert b'{"v":0}\n{"v":9}\n{"v":3}\n' == content
    assert (1, 9, 0, 0) == (copied.duplicates, copied.conflicts, copied.superseded, copied.rejected)


@pytest.mark.parametrize("block", [1, 2, 100])
def test_a_sample_rejected_again_and_again_is_one_rejected_sample(tmp_path, monkeypatch, block):
    monkeypatch.setattr(samples, "canonical_blocks", partial(canonical_blocks, chunk=3, block=block))
    received = [Row(1, None, attempt=number % 3) for number in range(9)] + [Row(2, None), Row(2, None)]
    _, copied, _ = copy(tmp_path, received, attempts=[2])
    assert (2, 1) == (copied.rejected, copied.rejected_now)


@pytest.mark.parametrize(
    ("loser", "counter"),
    [
        (Row(1, b'{"v":1}', attempt=0), "superseded"),
        (Row(1, b'{"v":2}', attempt=0), "superseded"),
        (Row(1, b'{"v":1}', shard=1, attempt=0), "duplicates"),
        (Row(1, b'{"v":2}', shard=1, attempt=0), "conflicts"),
        (Row(1, b'{"v":1}', attempt=1), "duplicates"),
        (Row(1, b'{"v":2}', attempt=1), "conflicts"),
    ],
)
def test_a_loser_counts_once_and_against_the_winner(tmp_path, loser, counter):
    winner = Row(1, b'{"v":1}', attempt=1)
    content, copied, _ = copy(tmp_path, [loser, winner])
    assert b'{"v":1}\n' == content
    counts = {name: getattr(copied, name) for name in ("superseded", "duplicates", "conflicts")}
    assert {"superseded": 0, "duplicates": 0, "conflicts": 0, counter: 1} == counts


def test_a_row_is_equal_by_its_bytes_and_not_by_its_checksum(tmp_path, monkeypatch):
    for module in ("index", "samples"):
        monkeypatch.setattr(f"consumer.runs.{module}.crc32", lambda *_: 7)
    _, copied, _ = copy(tmp_path, [Row(1, b'{"v":1}'), Row(1, b'{"v":2}')])
    assert (0, 1) == (copied.duplicates, copied.conflicts)


def test_scores_come_from_the_winners_in_canonical_order(tmp_path):
    received = [
        Row(2, scores={"a": 2}),
        Row("x", scores={"a": 4}),
        Row(1, scores={"a": 0}),
        Row(1, scores={"a": 1}),
        Row(1, filter=1, scores={"a": 5}),
        Row(0),
    ]
    _, _, scores = copy(tmp_path, received, ranks=[1, 0])
    # A text's side entry is there for its name, even where it has no scores.
    assert [(0, {"a": 5}), (1, {"a": 1}), (1, {"a": 2}), (1, {"a": 4})] == scores


@pytest.mark.parametrize("size", ["HELD_BYTES", "GATHERED_BYTES"])
def test_scores_are_the_same_however_they_are_read(tmp_path, monkeypatch, size):
    received = [Row(number, scores={"a": number / 7}) for number in (5, 3, 9, 3)]
    files = write_files(tmp_path, received)
    *_, expected = copy(tmp_path, received, files=files)
    monkeypatch.setattr(samples, size, 1)
    *_, scores = copy(tmp_path, received, files=files)
    assert [(0, {"a": number / 7}) for number in (3, 5, 9)] == expected == scores


@pytest.mark.parametrize(
    ("doc_ids", "gaps"),
    [
        ([0, 1, 2], []),
        ([0, 3, 4, 9], [(1, 2), (5, 8)]),
        ([2], [(0, 1)]),
        ([-5, 1], [(0, 0)]),
        ([-5], None),
        ([2**63 - 1], [(0, 2**63 - 2)]),
        ([-(2**63), 0, 2**63 - 1], [(1, 2**63 - 2)]),
        ([2**63 - 2, 2**63 - 1, 0], [(1, 2**63 - 3)]),
    ],
)
@pytest.mark.parametrize("block", [1, 100])
def test_gaps_between_integers_are_found_up_to_the_ends_of_64_bits(
    tmp_path, monkeypatch, doc_ids, gaps, block
):
    monkeypatch.setattr(
        samples, "canonical_blocks", partial(canonical_blocks, chunk=1 if block == 1 else 100)
    )
    _, copied, _ = copy(tmp_path, [Row(doc_id) for doc_id in doc_ids])
    assert gaps == copied.gaps.get(0)


def test_gaps_are_not_told_where_a_doc_id_is_a_text(tmp_path):
    _, copied, _ = copy(tmp_path, [Row(0), Row(5), Row("1")])
    assert copied.gaps is None


def test_no_more_gaps_are_kept_than_will_be_listed(tmp_path):
    _, copied, _ = copy(tmp_path, [Row(2 * number) for number in range(GAPS_MAX + 50)])
    assert GAPS_MAX + 1 == len(copied.gaps[0])


def test_a_task_without_a_row_is_an_empty_file(tmp_path):
    content, copied, _ = copy(tmp_path, [])
    assert (b"", 0, hashlib.sha256(b"").hexdigest()) == (content, copied.rows, copied.sha256)


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("position", range(16))
def test_a_flipped_bit_in_any_row_is_refused_in_winners_and_in_equal_losers(tmp_path, position):
    received = [Row(1, b'{"v":1}'), Row(1, b'{"v":1}')]
    files = write_files(tmp_path, received)
    flip(files.rows, position)
    with pytest.raises(SpoolError, match="at byte"):
        copy(tmp_path, received, files=files)


@pytest.mark.parametrize("name", ["rows", "side", "index"])
def test_a_spool_file_cut_short_is_refused(tmp_path, name):
    received = [Row("a", b'{"v":1}', scores={"a": 1}), Row(1, b'{"v":2}', scores={"a": 1})]
    files = write_files(tmp_path, received)
    path = getattr(files, name)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SpoolError):
        copy(tmp_path, received, files=files)


def test_the_index_knows_its_own_width():
    assert 72 == ENTRY.itemsize
