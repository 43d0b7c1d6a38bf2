r"""The index beside each task's live JSONL: one fixed-size entry a row received, in order of arrival.

File format of ``*.index``, little-endian, `ENTRY` bytes each, no header::

    offset    i64  log offset of the record          id_high   u64  \\  identity, see below
    row       u32  place in the record's batch       id_low    u64  /
    filter    u32  number in TaskState.filters       position  u64  of the row in the JSONL
    shard     u32                                    length    u32  of the row, without its newline; 0:
    rejected attempt   u32                                    crc       u32  crc32 of the row
    flags     u32  see Flag                          side      u64  position in the side file
                                                     side_len  u32  0: nothing there

Identity, with the filter: an integer doc_id is id_low in two's complement (id_high 0); a text doc_id
(Flag.TEXT) and the bytes of an unreadable element (Flag.DIGEST) are the first 16 bytes of their sha256. The
text itself lies in the side file, where a msgpack array holds [text id or null, scores or null, cluster or
null].
"""

import contextlib
import hashlib
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from enum import IntFlag
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt
from isal.isal_zlib import crc32
from msgspec import Raw, Struct

from consumer.errors import SpoolError
from consumer.runs.lifecycle import TallyKey
from schemas.events import Sample


class Flag(IntFlag):
    """What an entry is."""

    TEXT = 1
    DIGEST = 2
    REJECTED = 4
    REPAIRED = 8
    SCORES_DROPPED = 16


ENTRY = np.dtype(
    [
        ("offset", "<i8"),
        ("row", "<u4"),
        ("filter", "<u4"),
        ("shard", "<u4"),
        ("attempt", "<u4"),
        ("flags", "<u4"),
        ("id_high", "<u8"),
        ("id_low", "<u8"),
        ("position", "<u8"),
        ("length", "<u4"),
        ("crc", "<u4"),
        ("side", "<u8"),
        ("side_len", "<u4"),
    ]
)
_PACK = struct.Struct("<qIIIIIQQQIIQI")
assert ENTRY.itemsize == _PACK.size

Entries = npt.NDArray[np.void]
Side = tuple[str | None, dict[str, float | list[float]] | None, int | float | str | None]

_UNLIKE = struct.unpack(">2d", b"\x00" * 8 + b"\x01" * 8)
"""Two numbers that differ in every byte."""
_U64 = 2**64
_side_encoder = msgspec.msgpack.Encoder()
_side_decoder = msgspec.msgpack.Decoder(tuple[str | None, dict[str, Any] | None, Any])
_sides_decoder = msgspec.msgpack.Decoder(list[tuple[str | None, dict[str, Any] | None, Any]])

IDENTITY_KIND = Flag.TEXT | Flag.DIGEST


def identity(doc_id: int | str | bytes) -> tuple[int, int, int]:
    """(kind flag, id_high, id_low) of an integer, a text, or the sha256 of an unreadable element."""
    if isinstance(doc_id, int):
        return 0, 0, doc_id % _U64
    digest = doc_id if isinstance(doc_id, bytes) else hashlib.sha256(doc_id.encode()).digest()
    kind = Flag.DIGEST if isinstance(doc_id, bytes) else Flag.TEXT
    return int(kind), int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:16], "big")


def pack_entry(  # noqa: PLR0917 - the columns of the entry, on the hot path
    offset: int,
    row: int,
    filter_number: int,
    shard: int,
    attempt: int,
    flags: int,
    id_high: int,
    id_low: int,
    position: int,
    content: bytes | memoryview,
    side: int,
    side_len: int,
) -> bytes:
    """One entry; `content` is the row, empty if it was rejected."""
    return _PACK.pack(
        offset, row, filter_number, shard, attempt, flags, id_high, id_low, position,
        len(content), crc32(content), side, side_len,
    )  # fmt: skip  # columns in the order of the format


def encode_side(
    text: str | None, scores: Mapping[str, float | list[float]], cluster: float | str | None
) -> bytes:
    """Side entry; empty when there is nothing to say."""
    if text is None and not scores and cluster is None:
        return b""
    return _side_encoder.encode((text, scores or None, cluster))


class Packed(Struct, frozen=True):
    """Rows as the spool takes them.

    Attributes:
        entries: Their index entries, as if the first row and the first side entry stood at position 0.
        sides: The side entries of those that have one, joined.
    """

    entries: Entries
    sides: bytes


def pack_rows(
    samples: Sequence[Sample],
    rows: Sequence[bytes | Raw],
    *,
    offsets: npt.ArrayLike,
    places: Iterable[int],
    filter_number: npt.ArrayLike,
    shard: npt.ArrayLike,
    attempt: npt.ArrayLike,
    marks: Mapping[int, int],
) -> Packed:
    """Entries of many rows at a time: calls that see all of them cost a fifth of going row by row.

    Args:
        samples: What the rows are.
        rows: Their bytes.
        offsets: The log offset of each, or of all.
        places: The place of each in its batch.
        filter_number: In `TaskState.filters`, of each or of all.
        shard: Of each or of all.
        attempt: Of each or of all.
        marks: Flags, by the number in `rows` of those that have any.
    """
    doc_ids: list[Any] = [sample.doc_id for sample in samples]
    entries: Entries = np.empty(len(rows), dtype=ENTRY)
    if set(map(type, doc_ids)) <= {int}:
        entries["flags"], entries["id_high"] = 0, 0
        entries["id_low"] = np.array(doc_ids, dtype=np.int64).view(np.uint64)
        # `encode_side` in place: nearly all rows come through here, and its call costs as much as its work.
        encode = _side_encoder.encode
        sides = [
            encode((None, sample.scores or None, sample.cluster))
            if sample.scores or sample.cluster is not None
            else b""
            for sample in samples
        ]
    else:
        entries["flags"], entries["id_high"], entries["id_low"] = zip(*map(identity, doc_ids), strict=True)
        texts = [doc_id if isinstance(doc_id, str) else None for doc_id in doc_ids]
        sides = [
            encode_side(text, sample.scores, sample.cluster)
            for text, sample in zip(texts, samples, strict=True)
        ]
    for number, flags in marks.items():
        entries["flags"][number] |= flags
    entries["offset"], entries["row"] = offsets, np.fromiter(places, np.uint32, len(rows))
    entries["filter"], entries["shard"], entries["attempt"] = filter_number, shard, attempt
    entries["crc"] = np.fromiter(map(crc32, rows), np.uint32, len(rows))
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    entries["length"], entries["position"] = lengths, np.cumsum(lengths + 1) - (lengths + 1)
    lengths = np.fromiter(map(len, sides), np.int64, len(rows))
    entries["side_len"], entries["side"] = lengths, np.cumsum(lengths) - lengths
    return Packed(entries, b"".join(sides))


def place(entries: Entries, position: int, side: int) -> bytes:
    """The entries as the index file takes them, moved to where their first row and side entry go.

    Args:
        entries: As `pack_rows` gives them; changed in place.
        position: Of the first row in the JSONL.
        side: Of the first side entry in the side file.
    """
    if not entries.size:
        return b""
    # Unsigned numbers wrap around, so a distance may be negative.
    entries["position"] += np.uint64((position - int(entries["position"][0])) % _U64)
    entries["side"] += np.uint64((side - int(entries["side"][0])) % _U64)
    return entries.tobytes()


def decode_side(content: bytes) -> Side:
    """The side entry of `encode_side`.

    Raises:
        SpoolError: `content` is none.
    """
    try:
        return _side_decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SpoolError(f"the spool's side file does not hold what its index names: {error}") from error


class Sides(Struct, frozen=True):
    """Side entries of many rows, one behind the other.

    Attributes:
        count: How many.
        content: Their bytes.
    """

    count: int
    content: bytes


def decode_sides(sides: Sides) -> list[Side]:
    """Many side entries by one call: msgpack's array of them is their bytes behind a header.

    Raises:
        SpoolError: they are none, or of another number.
    """
    header = b"\xdd" + sides.count.to_bytes(4, "big")
    try:
        return _sides_decoder.decode(header + sides.content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SpoolError(f"the spool's side file does not hold what its index names: {error}") from error


def decode_scores(sides: Sides) -> dict[str, npt.NDArray[np.float64]] | None:
    """The scores of side entries that differ in nothing but numbers, metric by metric.

    Most tasks' are so, and are read at a tenth of the cost of `decode_sides`.

    Returns:
        None where any holds something else (a text id, a cluster, repeats, other metrics) or is damaged.
    """
    if not sides.count or len(sides.content) % sides.count:
        return None
    table = np.frombuffer(sides.content, dtype=np.uint8).reshape(sides.count, -1)
    try:
        text, scores, cluster = _side_decoder.decode(table[0].tobytes())
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None  # cut in pieces at the wrong places, at the least
    if text is not None or cluster is not None or not scores or set(map(type, scores.values())) != {float}:
        return None
    low, high = (
        np.frombuffer(_side_encoder.encode((None, dict.fromkeys(scores, number), None)), dtype=np.uint8)
        for number in _UNLIKE
    )
    is_number = low != high
    if low.size != table.shape[1] or (table[:, ~is_number] != low[~is_number]).any():
        return None
    numbers = np.ascontiguousarray(table[:, is_number]).view(">f8").astype(np.float64)
    return dict(zip(scores, numbers.T, strict=True))


def read_entries(path: Path, *, total: int, chunk: int) -> Iterator[Entries]:
    """The first `total` entries of the index in arrival order, at most `chunk` at a time.

    Raises:
        SpoolError: it holds fewer.
    """
    if not total:
        return
    with path.open("rb") as file:
        for start in range(0, total, chunk):
            entries = np.fromfile(file, dtype=ENTRY, count=min(chunk, total - start))
            if entries.size != min(chunk, total - start):
                raise SpoolError(f"{path} holds fewer than the {total} rows that were received")
            yield entries


def check_within(entries: Entries, position: str, length: str, size: int) -> None:
    """Refuse entries that point beyond a file of `size` bytes, before anything is read at their word.

    Raises:
        SpoolError: one does.
    """
    starts, lengths = entries[position], entries[length]
    if entries.size and ((lengths > size) | (starts > size - np.minimum(lengths, size))).any():
        raise SpoolError(f"the index points beyond a file of {size} bytes")


def write_array(file: BinaryIO, array: npt.NDArray[Any]) -> None:
    """Append an array's bytes to a file.

    Not numpy's `tofile`: on a full disk that leaves a file that is too short, and says nothing (2.4).

    Raises:
        OSError: the disk; with a buffered file at its close at the latest.
    """
    file.write(array.tobytes())


def identity_columns(entries: Entries) -> tuple[npt.NDArray[Any], ...]:
    """Columns that are equal for two entries exactly if they are the same sample of the task."""
    return (entries["filter"], entries["flags"] & int(IDENTITY_KIND), entries["id_high"], entries["id_low"])


BUCKET_ENTRIES = 150_000
"""Entries that `count_distinct` sorts in memory at a time (about 30 MB); larger indexes go through buckets on
disk."""


def count_distinct(
    path: Path, total: int, keys: Collection[TallyKey], *, scratch: Path
) -> Mapping[TallyKey, int]:
    """Distinct samples per key (all of one task) in the index at `path`, in bounded memory.

    Rejected entries are samples too; one that also has a good row has the same identity, so it counts once.

    Args:
        path: The task's index.
        total: How many of its entries count.
        keys: (task, shard, attempt); the task is only handed back.
        scratch: Folder for buckets, used and emptied if the index is large.
    """
    wanted = {(key.shard, key.attempt): key for key in keys}
    counts = dict.fromkeys(keys, 0)
    for entries in _buckets(path, total, scratch):
        for pair, count in _distinct_per_shard(entries):
            if pair in wanted:
                counts[wanted[pair]] += count
    return counts


def _distinct_per_shard(entries: Entries) -> Iterator[tuple[tuple[int, int], int]]:
    if not entries.size:
        return
    producer = entries["shard"].astype(np.uint64) << np.uint64(32) | entries["attempt"]
    columns = [entries["id_low"], entries["filter"], entries["flags"] & int(IDENTITY_KIND), producer]
    if entries["id_high"].any():  # no integer has one: most runs are spared sorting by it
        columns.insert(0, entries["id_high"])
    order = np.lexsort(columns)
    new = np.zeros(order.size, dtype=bool)
    new[0] = True
    for column in columns:
        ordered = column[order]
        new[1:] |= ordered[1:] != ordered[:-1]
    producers, counts = np.unique(producer[order][new], return_counts=True)
    for number, count in zip(producers.tolist(), counts.tolist(), strict=True):
        yield (number >> 32, number & 0xFFFFFFFF), count


def _buckets(path: Path, total: int, scratch: Path) -> Iterator[Entries]:
    count = -(-total // BUCKET_ENTRIES)
    if count <= 1:
        yield from read_entries(path, total=total, chunk=BUCKET_ENTRIES)
        return
    scratch.mkdir(parents=True, exist_ok=True)
    files = [scratch / f"bucket-{number}" for number in range(count)]
    with contextlib.ExitStack() as stack:
        handles = [stack.enter_context(file.open("wb")) for file in files]
        for entries in read_entries(path, total=total, chunk=BUCKET_ENTRIES):
            # Any spread will do that puts equal identities together; the multiplier is Knuth's, 2^64 / golden
            # ratio.
            mixed = (entries["id_low"] ^ entries["id_high"]) * np.uint64(0x9E3779B97F4A7C15)
            bucket = (mixed >> np.uint64(32)) % np.uint64(count)
            order = np.argsort(bucket, kind="stable")
            edges = np.searchsorted(bucket[order], np.arange(1, count, dtype=np.uint64))
            for handle, part in zip(handles, np.split(order, edges), strict=True):
                write_array(handle, entries[part])
    for file in files:
        yield np.fromfile(file, dtype=ENTRY)
        file.unlink()
