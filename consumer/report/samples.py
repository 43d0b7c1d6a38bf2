"""A published samples file checked against its entry in the results JSON.

Owns: what the lines of a samples file must be. Two passes: the first takes the file as bytes (lines, size,
sha256), so that the second, which takes it row by row, reads only rows that were published as they are.
"""

import hashlib
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NoReturn

import msgspec
from msgspec import Raw, Struct

from consumer.errors import VerificationError
from schemas.digests import TaskHash
from schemas.events import Harness
from schemas.results import TaskEntry

_BLOCK_BYTES = 1 << 20
_SHOWN = 80

Identity = tuple[int, int | bytes]


class _Row(Struct, gc=False):
    doc_id: Raw = Raw(b"null")


_decode_row = msgspec.json.Decoder(_Row).decode
_decode_doc_id = msgspec.json.Decoder(int | str).decode


def check_samples(
    path: Path, entry: TaskEntry, harness: Harness, *, task_hash: str, advance: Callable[[int], None]
) -> None:
    """Recompute rows, bytes, sha256, order and task hash of a samples file.

    Args:
        path: The file.
        entry: What the results JSON says of it.
        harness: Whose formula the task hash follows.
        task_hash: The one that the results JSON has.
        advance: Told the bytes read in the first pass, as they are read.

    Raises:
        VerificationError: the first difference.
    """
    try:
        with path.open("rb") as file:
            _check_bytes(path, file, entry, advance)
            file.seek(0)
            _check_rows(path, file, entry, TaskHash(harness), task_hash)
    except OSError as error:
        _differ(path, "file", f"{entry.rows} rows", error.strerror)


def _check_bytes(path: Path, file: BinaryIO, entry: TaskEntry, advance: Callable[[int], None]) -> None:
    sha256, rows, size, last = hashlib.sha256(), 0, 0, b""
    while block := file.read(_BLOCK_BYTES):
        sha256.update(block)
        rows += block.count(b"\n")
        size += len(block)
        last = block[-1:]
        advance(len(block))
    for what, expected, found in (
        ("last byte", b"\n", last),
        ("rows", entry.rows, rows),
        ("bytes", entry.bytes, size),
        ("sha256", entry.sha256, sha256.hexdigest()),
    ):
        if expected != found:
            _differ(path, what, expected, found)


def _check_rows(path: Path, file: BinaryIO, entry: TaskEntry, digest: TaskHash, task_hash: str) -> None:
    number = 0
    for filter_name, rows in entry.filters.items():
        previous: Identity | None = None
        for row in islice(file, rows):
            number += 1
            digest.update(row)
            try:
                identity = _identity(row)
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                _differ(path, f"row {number}", "a strict JSON object in UTF-8", str(error))
            if identity is None:
                continue
            if previous is not None and previous >= identity:
                what = f"doc_id of row {number}, filter {filter_name!r}"
                _differ(path, what, f"one above {_shown(previous)}", _shown(identity))
            previous = identity
    if task_hash != digest.hexdigest():
        _differ(path, "task hash", task_hash, digest.hexdigest())


def _identity(row: bytes) -> Identity | None:
    """The row's doc_id such that tuples sort canonically; None if it names none that identifies a sample.

    Raises:
        msgspec.MsgspecError: no JSON object.
        UnicodeDecodeError: no UTF-8, which `Raw` and skipped fields let pass.
    """
    row.decode()
    raw = _decode_row(row).doc_id
    try:
        doc_id = _decode_doc_id(raw)
    except msgspec.ValidationError:
        return None
    return (0, doc_id) if isinstance(doc_id, int) else (1, doc_id.encode())


def _shown(identity: Identity) -> str:
    value = identity[1]
    return str(value) if isinstance(value, int) else repr(value.decode())[:_SHOWN]


def _differ(path: Path, what: str, expected: object, found: object) -> NoReturn:
    raise VerificationError(f"{path}: {what}: expected {expected}, found {found}")
