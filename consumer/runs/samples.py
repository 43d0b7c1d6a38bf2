"""One task's samples file: the winners of its index, copied from the spool in canonical order.

Invariants: memory is bounded, whatever the task's size; every byte written was checked against the index's
crc and has passed through the file's sha256. Refuses a spool that does not hold what its index says
(`SpoolError`): the log does.
"""

import hashlib
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from consumer.errors import SpoolError
from consumer.runs.index import Entries, Flag, Side, check_within, decode_side
from consumer.runs.ordering import canonical_blocks
from consumer.runs.spool import TaskFiles
from schemas.digests import TaskHash
from schemas.events import Harness

COPY_BYTES = 4 * 1024 * 1024
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
    on_scores: Callable[[int, Side], None],
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
        on_scores: Called with (rank, side entry) of each winner that has one, in canonical order.

    Raises:
        SpoolError: the spool is not what its index says.
    """
    copied = Copied(filters={}, gaps={}, highest={})
    digest, task_hash = hashlib.sha256(), TaskHash(harness)
    highest_attempts = np.asarray(attempts, dtype=np.int64)
    rows = os.open(files.rows, os.O_RDONLY) if files.rows.exists() else -1
    side = os.open(files.side, os.O_RDONLY) if files.side.exists() else -1
    rows_size, side_size = (os.fstat(one).st_size if one >= 0 else 0 for one in (rows, side))
    carried: Entries | None = None
    rejected_now_open = False
    try:
        for block in canonical_blocks(files.index, files.side, ranks, total=total, scratch=scratch):
            if block["shard"].max(initial=0) >= highest_attempts.size:
                raise SpoolError("the index names a shard that the run does not have")
            check_within(block, "position", "length", rows_size)
            check_within(block, "side", "side_len", side_size)
            groups, carried, continues = _group(block, carried)
            _count_losers(copied, groups, rows)
            rejected_now_open = _count_rejected(
                copied, block, groups, highest_attempts, continues=continues, counted=rejected_now_open
            )
            winners = groups.entries[groups.is_winner]
            if not winners.size:
                continue
            rank = int(winners["rank"][0])
            copied.filters[rank] = copied.filters.get(rank, 0) + winners.size
            copied.repaired += int(np.count_nonzero(winners["flags"] & int(Flag.REPAIRED)))
            copied.scores_dropped += int(np.count_nonzero(winners["flags"] & int(Flag.SCORES_DROPPED)))
            _find_gaps(copied, rank, winners)
            for content, lengths in _contents(rows, winners):
                target.write(content)
                digest.update(content)
                start = 0
                for length in lengths:
                    task_hash.update(content[start : start + length])
                    start += length + 1
            for entry in winners[winners["side_len"] > 0]:
                on_scores(rank, decode_side(os.pread(side, int(entry["side_len"]), int(entry["side"]))))
            copied.rows += winners.size
            copied.size += int(winners["length"].sum()) + winners.size
    finally:
        for descriptor in (rows, side):
            if descriptor >= 0:
                os.close(descriptor)
    copied.sha256, copied.task_hash = digest.hexdigest(), task_hash.hexdigest()
    return copied


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


def _count_losers(copied: Copied, groups: _Groups, rows: int) -> None:
    is_loser = groups.is_good & ~groups.is_winner
    losers, winners = groups.entries[is_loser], groups.winner[is_loser]
    superseded = (losers["shard"] == winners["shard"]) & (losers["attempt"] < winners["attempt"])
    alike = ~superseded & (losers["length"] == winners["length"]) & (losers["crc"] == winners["crc"])
    equal = sum(
        one == other
        for one, other in zip(_lines(rows, losers[alike]), _lines(rows, winners[alike]), strict=True)
    )
    copied.superseded += int(np.count_nonzero(superseded))
    copied.duplicates += equal
    copied.conflicts += losers.size - int(np.count_nonzero(superseded)) - equal


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


def _lines(rows: int, entries: Entries) -> Iterator[bytes]:
    """The rows of `entries` with their newlines, as they were received."""
    columns = (entries[name].tolist() for name in ("position", "length", "crc"))
    for position, length, crc in zip(*columns, strict=True):
        line = os.pread(rows, length + 1, position)
        if len(line) != length + 1 or line[-1:] != b"\n" or zlib.crc32(memoryview(line)[:length]) != crc:
            raise SpoolError(f"the spool does not hold the row that its index names at byte {position}")
        yield line


def _contents(rows: int, winners: Entries) -> Iterator[tuple[bytes, list[int]]]:
    """The winners' lines in order, in pieces of about `COPY_BYTES`, with the lengths of their rows."""
    parts: list[bytes] = []
    sizes: list[int] = []
    held = 0
    for line in _lines(rows, winners):
        parts.append(line)
        sizes.append(len(line) - 1)
        held += len(line)
        if held >= COPY_BYTES:
            yield b"".join(parts), sizes
            parts, sizes, held = [], [], 0
    if parts:
        yield b"".join(parts), sizes
