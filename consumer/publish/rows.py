"""The rows of a run's samples files: found once, kept as places, never as themselves.

Owns: reading JSON Lines by bytes, the identity of a row (doc_id and filter) and its shard. Invariants: a row
costs 18 bytes in the table, so a run may be larger than memory (what grows besides is the set of identities
of one task at a time).

Refuses: a line that is not a JSON object in UTF-8, named by file and line, before anything is sent. Blank
lines are no rows.
"""

import hashlib
import itertools
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, MutableSequence, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from consumer.errors import EvalsinkError
from schemas.events import DocId
from schemas.mending import repair

_STEP_BYTES = 1 << 20
_BLANK = b" \t\r\n"

Advance = Callable[[int], None]
"""Told how many bytes more were read."""


class Stream(Struct, frozen=True):
    """What the rows of one event have in common."""

    task: str
    filter: str


class SamplesFile(Struct, frozen=True):
    """One samples file: where its rows begin in the table, and what it was like when they were found."""

    path: Path
    first_row: int
    size: int
    mtime_ns: int
    sha256: str


class RowTable(Struct):
    """All rows of a run, file after file, as columns.

    Attributes:
        files: The samples files by task, in the order of their rows.
        streams: What `stream` numbers.
        stream: Per row, its number in `streams`.
        shard: Per row, its shard.
        offset: Per row, where in its file it begins, bytes.
        length: Per row, its bytes, without the newline.
        documents: Task to its number of distinct documents.
        distinct: Per shard, task to its number of distinct (filter, doc_id).
        repaired: Values that strict JSON does not know, in all rows; `read_row` replaces them.
        unnumbered: Rows without a usable doc_id: they bear their place in the file, from 0.
        repeated: Rows whose (filter, doc_id) stood in the file before.
    """

    files: dict[str, SamplesFile]
    streams: list[Stream]
    stream: MutableSequence[int]
    shard: MutableSequence[int]
    offset: MutableSequence[int]
    length: MutableSequence[int]
    documents: dict[str, int]
    distinct: list[Counter[str]]
    repaired: int = 0
    unnumbered: int = 0
    repeated: int = 0

    @classmethod
    def empty(cls, shards: int) -> "RowTable":
        """A table without rows for `shards` shards."""
        columns = array("I"), array("H"), array("Q"), array("I")
        return cls({}, [], *columns, documents={}, distinct=[Counter() for _ in range(shards)])

    def __len__(self) -> int:
        return len(self.offset)


class Head(Struct, gc=False):
    """What identifies a row, as it stands there."""

    doc_id: Raw | UnsetType = UNSET
    filter: Raw | UnsetType = UNSET


_decode_head = msgspec.json.Decoder(Head).decode


def value_of(raw: Raw | UnsetType) -> Any:
    """A JSON value decoded; None if absent, or a number beyond a float's range (it is valid JSON)."""
    try:
        return None if raw is UNSET else msgspec.json.decode(raw)
    except msgspec.ValidationError:
        return None


def scan_rows(
    samples: Mapping[str, Path],
    *,
    shards: int,
    aggregate_filters: Mapping[str, Sequence[str]],
    known_filters: Mapping[str, Mapping[str, int]],
    advance: Advance = lambda _: None,
) -> RowTable:
    """Find every row of a run.

    Args:
        samples: Task to samples file.
        shards: How many shards the documents are dealt to: the i-th document to shard i modulo `shards`, like
            ranks.
        aggregate_filters: Task to the filters its aggregate names, in order.
        known_filters: Task to its filters and their numbers of rows in the file's order, where that is on
            record.
        advance: Progress.

    Raises:
        EvalsinkError: a file cannot be read, or a line is no JSON object.
    """
    table = RowTable.empty(shards)
    for task, path in samples.items():
        scan = _TaskScan(table, task, known_filters.get(task, {}))
        try:
            scan.read(path, advance)
        except OSError as error:
            raise EvalsinkError(f"cannot read {path}: {error.strerror}") from error
        names = filter_names(scan.filters, aggregate_filters.get(task, ()))
        table.streams.extend(Stream(task, name) for name in names)
        table.documents[task] = len(scan.documents)
    return table


class _TaskScan:
    """Appends the rows of one task to the table, its filters still unnamed."""

    def __init__(self, table: RowTable, task: str, known: Mapping[str, int]) -> None:
        self.documents: dict[DocId, int] = {}
        self.filters: dict[
            str | int, int
        ] = {}  # a name, or the how-many-th row of its document it was: number
        self._table, self._task = table, task
        self._first_row, self._first_stream = len(table), len(table.streams)
        self._known = itertools.chain.from_iterable(
            itertools.repeat(name, rows) for name, rows in known.items()
        )
        self._times: Counter[int] = Counter()
        self._seen: set[int] = set()

    def read(self, path: Path, advance: Advance) -> None:
        digest, position, told = hashlib.sha256(), 0, 0
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            for number, line in enumerate(file, 1):  # by b"\n" alone: U+2028 and its like stand raw in rows
                digest.update(line)
                if row := line.strip(_BLANK):
                    head, repaired = _head(row, path, number)
                    self._add(head, position + line.index(row[:1]), len(row))
                    self._table.repaired += repaired
                position += len(line)
                if position - told >= _STEP_BYTES:
                    advance(position - told)
                    told = position
        advance(position - told)
        self._table.files[self._task] = SamplesFile(
            path, self._first_row, state.st_size, state.st_mtime_ns, digest.hexdigest()
        )

    def _add(self, head: Head, offset: int, length: int) -> None:
        table = self._table
        doc_id = usable_doc_id(value_of(head.doc_id))
        if doc_id is None:
            table.unnumbered += 1
            doc_id = len(table) - self._first_row
        document = self.documents.setdefault(doc_id, len(self.documents))
        stream = self.filters.setdefault(self._filter(value_of(head.filter), document), len(self.filters))
        shard = document % len(table.distinct)
        if (identity := stream << 40 | document) in self._seen:
            table.repeated += 1
        else:
            self._seen.add(identity)
            table.distinct[shard][self._task] += 1
        table.stream.append(self._first_stream + stream)
        table.shard.append(shard)
        table.offset.append(offset)
        table.length.append(length)

    def _filter(self, stated: object, document: int) -> str | int:
        if isinstance(stated, str):
            return stated
        if (known := next(self._known, None)) is not None:
            return known
        self._times[document] += 1
        return self._times[document] - 1


def _head(row: bytes, path: Path, number: int) -> tuple[Head, int]:
    try:
        row.decode()  # the decoder looks at no string that it does not hand out
        try:
            return _decode_head(row), 0
        except msgspec.DecodeError:
            mended, repaired = repair(row)
            return _decode_head(mended), repaired
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EvalsinkError(
            f"{path}, line {number}: not a JSON object in UTF-8 ({error}); nothing was sent"
        ) from error


def usable_doc_id(value: object) -> DocId | None:
    """`value` if it can identify a document on the wire: a 64-bit integer or a string."""
    if isinstance(value, str):
        return value
    return value if type(value) is int and -(2**63) <= value < 2**63 else None


def filter_names(found: Iterable[str | int], aggregate: Sequence[str]) -> list[str]:
    """Names for the filters found in a task's rows, each another.

    Args:
        found: Filters in the order found: a name that stands in the rows, or for rows that name none the
            how-many-th row of its document it was, from 0.
        aggregate: The filters that the task's aggregate names. They go to the nameless in order; a single
            round of nameless rows gets the name only if there is no choice.
    """
    found = list(found)
    taken = {label for label in found if isinstance(label, str)}
    spare = [name for name in aggregate if name not in taken]
    rounds = len(found) - len(taken)
    if rounds == 1 and len(spare) > 1:
        spare = []
    names = []
    for label in found:
        name = label
        if isinstance(name, int):
            name = spare[name] if name < len(spare) else f"filter_{name}" if name else "none"
            while name in taken:
                name += "_"
            taken.add(name)
        names.append(name)
    return names
