"""The canonical order of a task's rows, from an index in order of arrival, in bounded memory.

Order: by filter (as ranked by the caller), then doc_id (integers ascending, then texts by their UTF-8 bytes,
then the rejected whose id cannot be read), and within one sample the winner first: a good row before a
rejected one, then the highest (attempt, offset, place in batch).

Integers are sorted as columns; an index larger than `CHUNK_ENTRIES` is sorted in chunks on disk and merged
column-wise. Texts take a slower way through their side entries. The result is the same stream of blocks.

What comes out are blocks: arrays of `Ranked`, at most about `BLOCK_ENTRIES` times the number of chunks long;
a sample's entries may span blocks.
"""

import heapq
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt

from consumer.errors import SpoolError
from consumer.runs.index import (
    ENTRY,
    IDENTITY_KIND,
    Entries,
    Flag,
    check_within,
    decode_side,
    read_entries,
    write_array,
)

CHUNK_ENTRIES = 100_000
BLOCK_ENTRIES = 8_192
TEXT_CHUNK = 50_000

RANKED = np.dtype([("rank", "<i8"), ("kind", "<i8"), *[(name, ENTRY[name]) for name in ENTRY.names or ()]])
"""An index entry with its filter's rank, and its kind: 0 integer, 1 text, 2 unreadable."""


def canonical_blocks(
    index: Path,
    side: Path,
    ranks: Sequence[int],
    *,
    total: int,
    scratch: Path,
    chunk: int = CHUNK_ENTRIES,
    block: int = BLOCK_ENTRIES,
) -> Iterator[Entries]:
    """The index's entries as `RANKED` blocks in canonical order; each block is of one rank.

    Args:
        index: Index file.
        side: Side file, for texts.
        ranks: Rank per filter number.
        total: How many of the index's entries count.
        scratch: Folder for sorted chunks; emptied on the way.
        chunk: Entries sorted in memory at a time.
        block: Entries read from each sorted chunk at a time.
    """
    if not total:
        return
    scratch.mkdir(parents=True, exist_ok=True)
    lookup = np.asarray(ranks, dtype=np.int64)
    chunks: list[Path] = []
    texts: list[Path] = []
    in_memory: Entries | None = None
    pending: list[tuple[Any, ...]] = []
    for entries in read_entries(index, total=total, chunk=chunk):
        ranked = _ranked(entries, lookup)
        is_text = ranked["kind"] == 1
        if is_text.any():
            for item in _text_items(ranked[is_text], side):
                pending.append(item)
                if len(pending) >= TEXT_CHUNK:
                    texts.append(_spill_texts(pending, scratch / f"text-{len(texts)}"))
                    pending = []
            ranked = ranked.compress(~is_text)
        ranked = _sorted(ranked)
        if total <= chunk:
            in_memory = ranked
        else:
            path = scratch / f"chunk-{len(chunks)}"
            with path.open("wb") as file:
                write_array(file, ranked)
            chunks.append(path)
    numbers = iter([in_memory]) if in_memory is not None else _merge(chunks, block)
    streams = (_by_rank(numbers), _by_rank(_merge_texts(pending, texts, block)))
    yield from heapq.merge(*streams, key=_block_key)
    for path in (*chunks, *texts):
        path.unlink(missing_ok=True)


def _block_key(entries: Entries) -> tuple[int, int, int]:
    # Texts stand between integers (0) and unreadable ones (2); blocks of one stream come in its own order.
    return int(entries["rank"][0]), int(entries["kind"][0]), 0


def _ranked(entries: Entries, lookup: npt.NDArray[np.int64]) -> Entries:
    ranked = np.empty(entries.size, dtype=RANKED)
    for name in ENTRY.names or ():
        ranked[name] = entries[name]
    if entries["filter"].max(initial=0) >= lookup.size:
        raise SpoolError("the index names a filter that the run does not have")
    ranked["rank"] = lookup[entries["filter"]]
    kind = entries["flags"] & int(IDENTITY_KIND)
    ranked["kind"] = np.where(kind == int(Flag.TEXT), 1, np.where(kind == int(Flag.DIGEST), 2, 0))
    return ranked


def _sort_columns(ranked: Entries) -> tuple[npt.NDArray[Any], ...]:
    """Columns of the full order, least significant first, as `np.lexsort` takes them.

    No two entries are equal in all of them.
    """
    return (
        -ranked["row"].astype(np.int64),
        -ranked["offset"],
        -ranked["attempt"].astype(np.int64),
        (ranked["flags"] & int(Flag.REJECTED)).astype(np.int64),
        # Two's complement: an integer's id_low sorts as a signed number, a digest's only has to sort somehow.
        ranked["id_low"].astype(np.int64),
        ranked["id_high"],
        ranked["kind"],
        ranked["rank"],
    )


def _sorted(ranked: Entries) -> Entries:
    """`ranked` in the full order; a column that is the same in all decides nothing."""
    columns = [column for column in _sort_columns(ranked) if (column != column[:1]).any()]
    # `take`, here and for all arrays of entries: indexing with brackets copies them field by field.
    return ranked.take(np.lexsort(columns)) if columns else ranked


def _by_rank(blocks: Iterator[Entries]) -> Iterator[Entries]:
    """Split blocks where rank or kind change, so that whole blocks can be merged with another stream's."""
    for block in blocks:
        edges = np.flatnonzero((np.diff(block["rank"]) != 0) | (np.diff(block["kind"]) != 0)) + 1
        yield from (part for part in np.split(block, edges) if part.size)


class _SortedChunk:
    """A sorted chunk on disk, read a block at a time."""

    def __init__(self, path: Path, block: int) -> None:
        self._file: BinaryIO = path.open("rb")
        self._block = block
        self.head: Entries = np.empty(0, dtype=RANKED)
        self.exhausted = False
        self.fill()

    def fill(self) -> None:
        if self.head.size == 0 and not self.exhausted:
            self.head = np.fromfile(self._file, dtype=RANKED, count=self._block)
            if self.head.size < self._block:
                self.exhausted = True
                self._file.close()


def _key_of(columns: tuple[npt.NDArray[Any], ...], place: int) -> tuple[int, ...]:
    return tuple(int(column[place]) for column in reversed(columns))


def _merge(paths: list[Path], block: int) -> Iterator[Entries]:
    """Merge sorted chunks: take from every head what is not above the lowest of the heads' last keys."""
    chunks = [_SortedChunk(path, block) for path in paths]
    while chunks := [chunk for chunk in chunks if chunk.head.size]:
        columns = [_sort_columns(chunk.head) for chunk in chunks]
        bound = min(_key_of(column, -1) for column in columns)
        taken = []
        for chunk, column in zip(chunks, columns, strict=True):
            count = int(np.count_nonzero(_not_above(column, bound)))
            taken.append(chunk.head[:count])
            chunk.head = chunk.head[count:]
            chunk.fill()
        merged = np.concatenate(taken)
        yield _sorted(merged)


def _not_above(columns: tuple[npt.NDArray[Any], ...], bound: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    result = np.ones(columns[0].size, dtype=bool)
    for column, value in zip(columns, reversed(bound), strict=True):
        result = (column < value) | ((column == value) & result)
    return result


def _text_items(ranked: Entries, side: Path) -> Iterator[tuple[Any, ...]]:
    """(rank, text in UTF-8, rejected, -attempt, -offset, -place, entry): sorts canonically."""
    with side.open("rb", buffering=1 << 20) as file:
        check_within(ranked, "side", "side_len", os.fstat(file.fileno()).st_size)
        for entry in ranked:
            file.seek(int(entry["side"]))
            text, _, _ = decode_side(file.read(int(entry["side_len"])))
            if text is None:
                raise SpoolError("the index names a text that the side file does not have")
            yield (
                int(entry["rank"]),
                text.encode(),
                int(entry["flags"]) & int(Flag.REJECTED),
                -int(entry["attempt"]),
                -int(entry["offset"]),
                -int(entry["row"]),
                entry.tobytes(),
            )


_text_type = tuple[int, bytes, int, int, int, int, bytes]
_text_decoder = msgspec.msgpack.Decoder(_text_type)


def _spill_texts(items: list[tuple[Any, ...]], path: Path) -> Path:
    items.sort()
    encoder = msgspec.msgpack.Encoder()
    with path.open("wb") as file:
        for item in items:
            content = encoder.encode(item)
            file.write(len(content).to_bytes(4, "little") + content)
    return path


def _read_texts(path: Path) -> Iterator[tuple[Any, ...]]:
    with path.open("rb") as file:
        while header := file.read(4):
            yield _text_decoder.decode(file.read(int.from_bytes(header, "little")))


def _merge_texts(pending: list[tuple[Any, ...]], paths: list[Path], block: int) -> Iterator[Entries]:
    pending.sort()
    merged = heapq.merge(pending, *(_read_texts(path) for path in paths))
    while batch := list(itertools.islice(merged, block)):
        yield np.frombuffer(b"".join(item[-1] for item in batch), dtype=RANKED)
