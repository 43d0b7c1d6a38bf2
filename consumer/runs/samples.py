"""One task's samples file: the winners of its index, copied from the spool in canonical order.

Invariants: memory is bounded, whatever the task's size; every byte written was checked against the index's
crc and has passed through the file's sha256. Refuses a spool that does not hold what its index says
(`SpoolError`): the log does.
"""

import hashlib
import operator
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import numpy.typing as npt
from isal.isal_zlib import crc32
from msgspec import Struct

from consumer.errors import SpoolError
from consumer.runs.index import Entries, Flag, Sides, check_within
from consumer.runs.ordering import canonical_blocks
from consumer.runs.spool import TaskFiles
from schemas.digests import TaskHash
from schemas.events import Harness

COPY_BYTES = 4 * 1024 * 1024
HELD_BYTES = 32 * 1024 * 1024
"""A spool file up to this size is read as a whole: most tasks' rows, and the scores of a million rows."""
GATHERED_BYTES = 128
"""Side entries up to this size are gathered byte by byte, where eight bytes say where each one is."""
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
    on_scores: Callable[[int, Sides], None],
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
    task_hash = TaskHash(harness)
    highest_attempts = np.asarray(attempts, dtype=np.int64)
    carried: Entries | None = None
    rejected_now_open = False
    with _Source(files.rows) as rows, _Source(files.side) as side, _Output(target) as output:
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
            winners = groups.entries.compress(groups.is_winner)
            if not winners.size:
                continue
            rank = int(winners["rank"][0])
            _count_winners(copied, rank, winners)
            for lines in _lines(rows, winners):
                output.write(lines)
                task_hash.update_lines(lines)
            if (sides := _sides(side, winners)).count:
                on_scores(rank, sides)
    copied.sha256, copied.task_hash = output.sha256, task_hash.hexdigest()
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
        content = self._whole()
        return [content[at : at + length] for at, length in zip(positions, lengths, strict=True)]

    def read_joined(self, positions: npt.NDArray[np.uint64], lengths: npt.NDArray[np.uint32]) -> bytes:
        """The same, one behind the other; short ones of equal length are taken by one call for all."""
        alike = lengths.size and lengths[0] <= GATHERED_BYTES and (lengths == lengths[0]).all()
        if self.size > HELD_BYTES or not alike:
            return b"".join(self.read(positions.tolist(), lengths.tolist()))
        places = positions.astype(np.intp)[:, np.newaxis] + np.arange(lengths[0])
        return np.frombuffer(self._whole(), dtype=np.uint8).take(places).tobytes()

    def _whole(self) -> bytes:
        if self._content is None:
            self._content = os.pread(self._descriptor, self.size, 0) if self.size else b""
        return self._content

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


class _Output:
    """The samples file, written and hashed by a thread of its own while the next piece is being read.

    Two pieces are in memory: one that is written, one that is read. After the block `sha256` is that of the
    file, or what went wrong has been raised.
    """

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self._digest = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="evalsink-output")
        self._under_way: Future[None] | None = None

    def write(self, content: bytes) -> None:
        """Have `content` written; raises what became of the piece before."""
        self._finish()
        self._under_way = self._thread.submit(self._take, content)

    @property
    def sha256(self) -> str:
        """Of all that was written, hex; to be asked for after the block."""
        return self._digest.hexdigest()

    def _take(self, content: bytes) -> None:
        # Neither call holds the interpreter.
        self._target.write(content)
        self._digest.update(content)

    def _finish(self) -> None:
        if self._under_way is not None:
            self._under_way.result()
            self._under_way = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        if error is None:
            self._finish()


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
        first = np.concatenate([carried, block.take(heads)])
        group = group + 1
    else:
        first = block.take(heads)
    winner = first.take(group)
    is_good = (block["flags"] & int(Flag.REJECTED)) == 0
    has_good = (winner["flags"] & int(Flag.REJECTED)) == 0
    return _Groups(block, new & is_good, winner, is_good, has_good), first[-1:].copy(), continues


def _count_losers(copied: Copied, groups: _Groups, rows: _Source) -> None:
    is_loser = groups.is_good & ~groups.is_winner
    losers, winners = groups.entries.compress(is_loser), groups.winner.compress(is_loser)
    superseded = (losers["shard"] == winners["shard"]) & (losers["attempt"] < winners["attempt"])
    alike = ~superseded & (losers["length"] == winners["length"]) & (losers["crc"] == winners["crc"])
    equal = 0
    for some, others in zip(_pieces(losers.compress(alike)), _pieces(winners.compress(alike)), strict=True):
        equal += sum(map(operator.eq, _contents(rows, some), _contents(rows, others)))
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


def _contents(rows: _Source, entries: Entries) -> list[bytes]:
    """The rows of `entries` with their newlines, as they were received."""
    positions, lengths = entries["position"].tolist(), (entries["length"].astype(np.int64) + 1).tolist()
    # A checksum goes on from where it stands: so it covers the newline too.
    checksums = list(map(crc32, repeat(b"\n"), entries["crc"].tolist()))
    found = rows.read(positions, lengths)
    if list(map(len, found)) != lengths or list(map(crc32, found)) != checksums:
        position = _first_damaged(positions, lengths, checksums, found)
        raise SpoolError(f"the spool does not hold the row that its index names at byte {position}")
    return found


def _first_damaged(
    positions: Sequence[int], lengths: Sequence[int], checksums: Sequence[int], found: Sequence[bytes]
) -> int:
    wrong = (
        position
        for position, length, checksum, one in zip(positions, lengths, checksums, found, strict=True)
        if len(one) != length or crc32(one) != checksum
    )
    return next(wrong)


def _lines(rows: _Source, winners: Entries) -> Iterator[bytes]:
    """The winners' lines in order, in pieces of about `COPY_BYTES`."""
    for piece in _pieces(winners):
        if piece.size:
            yield b"".join(_contents(rows, piece))


def _sides(side: _Source, winners: Entries) -> Sides:
    """The side entries of the winners that have one."""
    entries = winners.compress(winners["side_len"] > 0)
    return Sides(entries.size, side.read_joined(entries["side"], entries["side_len"]))
