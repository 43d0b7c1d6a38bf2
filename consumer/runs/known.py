"""Which samples a short shard has already sent: so that a resent shard is not counted anew with every record.

When a count finds a shard short, the identities of what it sent are written to disk, sorted, once; from then
on every row is looked up, and the count stays exact. Memory is bounded by the number of samples that were
missing.

Nothing here is durable: after a restart the first rows that could make the difference cause one more count.
"""

import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np

from consumer.runs.index import BUCKET_ENTRIES, IDENTITY_KIND, Entries, read_entries, write_array
from consumer.runs.lifecycle import TallyKey

_IDENTITY = np.dtype(
    [
        ("shard", ">u4"),
        ("attempt", ">u4"),
        ("filter", ">u4"),
        ("kind", ">u4"),
        ("high", ">u8"),
        ("low", ">u8"),
    ]
)
# As bytes, big-endian fields compare as numbers do; that is all that a sorted look-up needs.
_BYTES = f"S{_IDENTITY.itemsize}"


class KnownSamples:
    """The samples of one task that some of its shards have sent."""

    def __init__(self, index: Path, total: int, keys: Collection[TallyKey], *, scratch: Path) -> None:
        """Read the first `total` entries of the task's index; files go into `scratch`, made here.

        Raises:
            OSError: the disk.
        """
        self._producers = {(key.shard, key.attempt) for key in keys}
        self._added: set[bytes] = set()
        self._sorted: list[np.memmap[tuple[int], np.dtype[np.bytes_]]] = []
        scratch.mkdir(parents=True)
        try:
            self._write(index, total, scratch)
        except OSError:
            # Whoever comes again comes with a folder of its own.
            shutil.rmtree(scratch, ignore_errors=True)
            raise

    def _write(self, index: Path, total: int, scratch: Path) -> None:
        wanted = np.asarray([shard << 32 | attempt for shard, attempt in self._producers], dtype=np.uint64)
        for number, entries in enumerate(read_entries(index, total=total, chunk=BUCKET_ENTRIES)):
            producer = entries["shard"].astype(np.uint64) << np.uint64(32) | entries["attempt"]
            identities = np.unique(_identities(entries[np.isin(producer, wanted)]))
            if identities.size:
                path = scratch / f"known-{number}"
                with path.open("wb") as file:
                    write_array(file, identities)
                self._sorted.append(np.memmap(path, dtype=_BYTES, mode="r"))

    def covers(self, shard: int, attempt: int) -> bool:
        """Rows of this producer are known."""
        return (shard, attempt) in self._producers

    def add(self, shard: int, attempt: int, identities: Iterable[tuple[int, int, int, int]]) -> int:
        """How many of these (filter, kind, id_high, id_low) were never sent before; from now on they were."""
        before = len(self._added)
        for identity in identities:
            content = np.array([(shard, attempt, *identity)], dtype=_IDENTITY).tobytes()
            if content not in self._added and not self._is_sorted_in(content):
                self._added.add(content)
        return len(self._added) - before

    def _is_sorted_in(self, content: bytes) -> bool:
        value = np.frombuffer(content, dtype=_BYTES)[0]
        for part in self._sorted:
            place = int(np.searchsorted(part, value))
            if place < part.size and part[place] == value:
                return True
        return False


def _identities(entries: Entries) -> "np.ndarray[tuple[int], np.dtype[np.bytes_]]":
    packed = np.empty(entries.size, dtype=_IDENTITY)
    packed["shard"], packed["attempt"], packed["filter"] = (
        entries["shard"],
        entries["attempt"],
        entries["filter"],
    )
    packed["kind"] = entries["flags"] & int(IDENTITY_KIND)
    packed["high"], packed["low"] = entries["id_high"], entries["id_low"]
    return packed.view(_BYTES)
