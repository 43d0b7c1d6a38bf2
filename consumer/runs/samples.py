"""One task's samples file: the winners of its index, copied from the spool in canonical order.

Invariants: memory is bounded, whatever the task's size; every byte written was checked against the index's
crc and has passed through the file's sha256. Refuses a spool that does not hold what its index says
(`SpoolError`): the log does.
"""

import hashlib
import operator
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from consumer.errors import SpoolError
from consumer.runs.index import Entries, Flag, Side, check_within, decode_sides
from consumer.runs.ordering import canonical_blocks
from consumer.runs.spool import TaskFiles
from schemas.digests import TaskHash
from schemas.events import Harness

COPY_BYTES = 4 * 1024 * 1024
HELD_BYTES = 32 * 1024 * 1024
"""A spool file up to this size is read as a whole: most tasks' rows, and the scores of a million rows."""
GAPS_MAX = 10_000
"""Ranges of missing documents that are listed; beyond it only their number is told."""


class Copied(Struct):
    """A task's samples file and what became of its rows.

    Attributes:
        rows: Lines written.
        size: Bytes written.
        sha256: Hash of the file, hex.
        task_hash: The harness's hash, hex.
        filters: Rank to rows.
        duplicates: Losers with equal bytes.
        conflicts: Losers with other bytes.
        superseded: Losers of a lower attempt of the winner's shard.
        rejected: Distinct samples without a good row.
        rejected_now: Those of them that some shard's highest attempt sent.
        repaired: Winners that were repaired.
        scores_dropped: Winners whose scores were bad.
        gaps: Missing doc_ids as [first, last], the last gap open to `highest`; None if not all ids are
            integers.
        highest: Highest integer doc_id, -1 if none.
    """

    rows: int = 0
    size: int = 0
    sha256: str = ""
    task_hash: str = ""
    filters: dict[int, int] = {}
    duplicates: int = 0
    conflicts: int = 0
    superseded: int = 0
    rejected: int = 0
    rejected_now: int = 0
    repaired: int = 0
    scores_dropped: int = 0
    gaps: dict[int, list[tuple[int, int]]] | None = {}
    highest: dict[int, int] = {}


class _Groups(Struct):
    """A block's entries, with the winner of each one's sample."""

    entries: Entries
    is_winner: npt.NDArray[np.bool_]
    winner: Entries
    is_good: npt.NDArray[np.bool_]
    has_good: npt.NDArray[np.bool_]


def copy_samples(
    files: TaskFiles,
    target: BinaryIO,
    *,
    total: int,
    ranks: Sequence[int],
    attempts: Sequence[int],
    harness: Harness,
    scratch: Path,
    on_scores: Callable[[int, Sequence[Side]], None],
) -> Copied:
    """Write the canonical samples file of one task.

    Args:
        files: The task's spool files.
        target: Where to; neither flushed nor synced here.
        total: How many of the index's entries count.
        ranks: Rank per filter number.
        attempts: Highest attempt per shard number.
        harness: Whose task hash to compute.
        scratch: Folder for sorted chunks.
        on_scores: Called with a rank and the side entries of its next winners, of those that have one, in
            canonical order.

    Raises:
        SpoolError: the spool is not what its index says.
    """
    copied = Copied(filters={}, gaps={}, highest={})
    digest, task_hash = hashlib.sha256(), TaskHash(harness)
    highest_attempts = np.asarray(attempts, dtype=np.int64)
    carried: Entries | None = None
    rejected_now_open = False
    with _Source(files.rows) as rows, _Source(files.side) as side:
        for block in canonical_blocks(files.index, files.side, ranks, total=total, scratch=scratch):
            if block["shard"].max(initial=0) >= highest_attempts.size:
                raise SpoolError("the index names a shard that the run does not have")
            check_within(block, "position", "length", rows.size)
            check_within(block, "side", "side_len", side.size)
            groups, carried, continues = _group(block, carried)
            _count_losers(copied, groups, rows)
            rejected_now_open = _count_rejected(
                copied, block, groups, highest_attempts, continues=continues, counted=rejected_now_open
            )
            winners = groups.entries[groups.is_winner]
            if not winners.size:
                continue
            rank = int(winners["rank"][0])
            _count_winners(copied, rank, winners)
            for content in _contents(rows, winners):
                target.write(content)
                digest.update(content)
                task_hash.update_lines(content)
            if sides := _sides(side, winners):
                on_scores(rank, sides)
    copied.sha256, copied.task_hash = digest.hexdigest(), task_hash.hexdigest()
    return copied


class _Source:
    """One of a task's spool files, or none, read at given places; a small one is read once."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY) if path.exists() else -1
        self.size = os.fstat(self._descriptor).st_size if self._descriptor >= 0 else 0
        self._content: bytes | None = None

    def read(self, positions: Sequence[int], lengths: Sequence[int]) -> list[bytes]:
        """The pieces at `positions`; what lies beyond the file's end is missing in them."""
        if self.size > HELD_BYTES:
            return list(map(os.pread, repeat(self._descriptor), lengths, positions))
        if self._content is None:
            self._content = os.pread(self._descriptor, self.size, 0) if self.size else b""
        content = self._content
        return [content[at : at + length] for at, length in zip(positions, lengths, strict=True)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


def _group(block: Entries, carried: Entries | None) -> tuple[_Groups, Entries, bool]:
    """Find each entry's winner: the first of its sample, unless that one is rejected.

    `carried` is the first entry of the sample that the last block ended in. The third result: this block
    begins in it.
    """
    new = np.zeros(block.size, dtype=bool)
    for name in ("rank", "kind", "id_high", "id_low"):
        new[1:] |= block[name][1:] != block[name][:-1]
    continues = carried is not None and all(
        block[name][0] == carried[name][0] for name in ("rank", "kind", "id_high", "id_low")
    )
    new[0] = not continues
    heads = np.flatnonzero(new)
    group = np.cumsum(new) - 1
    if continues:
        assert carried is not None
        first = np.concatenate([carried, block[heads]])
        group = group + 1
    else:
        first = block[heads]
    winner = first[group]
    is_good = (block["flags"] & int(Flag.REJECTED)) == 0
    has_good = (winner["flags"] & int(Flag.REJECTED)) == 0
    return _Groups(block, new & is_good, winner, is_good, has_good), first[-1:].copy(), continues


def _count_losers(copied: Copied, groups: _Groups, rows: _Source) -> None:
    is_loser = groups.is_good & ~groups.is_winner
    losers, winners = groups.entries[is_loser], groups.winner[is_loser]
    superseded = (losers["shard"] == winners["shard"]) & (losers["attempt"] < winners["attempt"])
    alike = ~superseded & (losers["length"] == winners["length"]) & (losers["crc"] == winners["crc"])
    equal = 0
    for some, others in zip(_pieces(losers[alike]), _pieces(winners[alike]), strict=True):
        equal += sum(map(operator.eq, _lines(rows, some), _lines(rows, others)))
    copied.superseded += int(np.count_nonzero(superseded))
    copied.duplicates += equal
    copied.conflicts += losers.size - int(np.count_nonzero(superseded)) - equal


def _count_winners(copied: Copied, rank: int, winners: Entries) -> None:
    copied.rows += winners.size
    copied.size += int(winners["length"].sum()) + winners.size
    copied.filters[rank] = copied.filters.get(rank, 0) + winners.size
    copied.repaired += int(np.count_nonzero(winners["flags"] & int(Flag.REPAIRED)))
    copied.scores_dropped += int(np.count_nonzero(winners["flags"] & int(Flag.SCORES_DROPPED)))
    _find_gaps(copied, rank, winners)


def _count_rejected(
    copied: Copied,
    block: Entries,
    groups: _Groups,
    attempts: npt.NDArray[np.int64],
    *,
    continues: bool,
    counted: bool,
) -> bool:
    """Count samples without a good row; of those, the ones that a shard's highest attempt sent.

    `counted`: the sample that the last block ended in is already among the latter. Returns the same for this
        block.
    """
    hopeless = ~groups.has_good
    if not hopeless.any():
        return False
    heads = np.zeros(block.size, dtype=bool)
    for name in ("rank", "kind", "id_high", "id_low"):
        heads[1:] |= block[name][1:] != block[name][:-1]
    heads[0] = not continues
    copied.rejected += int(np.count_nonzero(heads & hopeless))
    group = np.cumsum(heads)
    now = hopeless & (block["attempt"] == attempts[block["shard"]])
    numbers = set(np.unique(group[now]).tolist())
    if continues and counted:
        numbers.discard(0)
    copied.rejected_now += len(numbers)
    last = int(group[-1])
    return last in numbers or (continues and counted and last == 0)


def _find_gaps(copied: Copied, rank: int, winners: Entries) -> None:
    if copied.gaps is None:
        return
    if winners["kind"].any():
        copied.gaps = None
        return
    ids = winners["id_low"].astype(np.int64)
    ids = ids[ids >= 0]
    if not ids.size:
        return
    before = np.concatenate([[copied.highest.get(rank, -1)], ids[:-1]])
    gaps = copied.gaps.setdefault(rank, [])
    # Not a difference: between far ends of 64 bits that would overflow.
    for place in np.flatnonzero(ids > before + 1):
        if len(gaps) <= GAPS_MAX:
            gaps.append((int(before[place]) + 1, int(ids[place]) - 1))
    copied.highest[rank] = int(ids[-1])


def _pieces(entries: Entries) -> Iterator[Entries]:
    """`entries` in pieces of rows of about `COPY_BYTES`, a larger row in one of its own."""
    ends = np.cumsum(entries["length"], dtype=np.int64)
    edges = np.flatnonzero(np.diff(ends // COPY_BYTES)) + 1
    yield from np.split(entries, edges)


def _lines(rows: _Source, entries: Entries) -> list[bytes]:
    """The rows of `entries` with their newlines, as they were received."""
    positions, lengths, checksums = (entries[name].tolist() for name in ("position", "length", "crc"))
    found = rows.read(positions, [length + 1 for length in lengths])
    # A checksum goes on from where it stands: so it covers the newline too.
    wanted = map(zlib.crc32, repeat(b"\n"), checksums)
    for position, length, one, checksum in zip(positions, lengths, found, wanted, strict=False):
        if len(one) != length + 1 or zlib.crc32(one) != checksum:
            raise SpoolError(f"the spool does not hold the row that its index names at byte {position}")
    return found


def _contents(rows: _Source, winners: Entries) -> Iterator[bytes]:
    """The winners' lines in order, in pieces of about `COPY_BYTES`."""
    for piece in _pieces(winners):
        if piece.size:
            yield b"".join(_lines(rows, piece))


def _sides(side: _Source, winners: Entries) -> list[Side]:
    """The side entries of the winners that have one."""
    entries = winners[winners["side_len"] > 0]
    return decode_sides(side.read(entries["side"].tolist(), entries["side_len"].tolist()))
