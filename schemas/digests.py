"""The harnesses' own hash over a task's rows, ``task_hashes``: one code for who writes and who verifies.

Owns: both formulas and what stands in for a hash that a row lacks. Invariants: `TaskHash` never raises,
whatever bytes a row holds, and the result depends on the rows and their order alone. In lmms-eval's real
output every ``doc_hash`` is the same constant, so its task hash says no more than the number of rows: the
sha256 of the file is the one to trust.

Sources: lmms-eval ``loggers/evaluation_tracker.py`` and ``evaluator.py``; lm-eval, the files of the same
names.
"""

import hashlib
import json
from typing import Any

import msgspec
from msgspec import Struct

from schemas.events import Harness


class _LmmsRow(Struct, gc=False):
    doc_hash: str


class _LmRow(Struct, gc=False):
    doc_hash: str
    prompt_hash: str
    target_hash: str


_lmms_decoder = msgspec.json.Decoder(_LmmsRow)
_lm_decoder = msgspec.json.Decoder(_LmRow)

# A value of another type, bytes that are no JSON, bytes that are no UTF-8, a nesting bomb.
_ODD_ROW = (msgspec.MsgspecError, ValueError, RecursionError)


def _hash_string(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def doc_hash(doc: object) -> str:
    """The hash of a document that both harnesses document: sha256 of its JSON, indented by 2, not escaped.

    A document nested too deeply to be written as JSON counts as None, like an absent one.
    """
    try:
        return _hash_string(json.dumps(doc, indent=2, default=str, ensure_ascii=False))
    except _ODD_ROW:
        return doc_hash(None)


def _text_hash(value: object) -> str:
    """lm-eval's hash of a prompt or target: of ``str(value)``; nested too deeply, it counts as None."""
    try:
        return _hash_string(str(value))
    except _ODD_ROW:
        return _text_hash(None)


def _first_argument(arguments: object) -> object:
    """The prompt: in ``{"gen_args_0": {"arg_0": prompt, …}, …}``, or ``[[prompt, …], …]`` in older files."""
    for _ in range(2):
        if isinstance(arguments, dict):
            arguments = list(arguments.values())
        if not isinstance(arguments, list) or not arguments:
            break
        arguments = arguments[0]
    return arguments


def _fields(row: bytes) -> dict[str, Any]:
    """The row as Python's own tolerant parser reads it; empty for what is no JSON object."""
    try:
        fields = json.loads(row)
    except _ODD_ROW:
        return {}
    return fields if isinstance(fields, dict) else {}


def _or(value: object, substitute: str) -> str:
    return value if isinstance(value, str) else substitute


def _lmms_part(row: bytes) -> str:
    try:
        return _lmms_decoder.decode(row).doc_hash
    except _ODD_ROW:
        fields = _fields(row)
        return _or(fields.get("doc_hash"), doc_hash(fields.get("doc")))


def _lm_part(row: bytes) -> str:
    try:
        hashes = _lm_decoder.decode(row)
    except _ODD_ROW:
        fields = _fields(row)
        return (
            _or(fields.get("doc_hash"), doc_hash(fields.get("doc")))
            + _or(fields.get("prompt_hash"), _text_hash(_first_argument(fields.get("arguments"))))
            + _or(fields.get("target_hash"), _text_hash(fields.get("target")))
        )
    return hashes.doc_hash + hashes.prompt_hash + hashes.target_hash


class TaskHash:
    """``task_hashes[task]``, fed row by row in the file's order.

    lmms-eval: sha256 of ``"".join(f"sample_{i}{doc_hash}")``, i from 0. lm-eval: sha256 of
    ``"".join(doc_hash + prompt_hash + target_hash)``.

    A hash in the row is taken verbatim if it is a string. Otherwise it is computed: ``doc_hash`` from
    ``doc``, ``prompt_hash`` from the first argument of the first request, ``target_hash`` from
    ``str(target)``; what is absent counts as None.
    """

    def __init__(self, harness: Harness) -> None:
        self._numbered = harness == "lmms-eval"
        self._part = _lmms_part if self._numbered else _lm_part
        self._rows = 0
        self._hash = hashlib.sha256()

    def update(self, row: bytes) -> None:
        """Take in the next row, with or without its newline. Never raises."""
        part = self._part(row)
        if self._numbered:
            part = f"sample_{self._rows}{part}"
        self._rows += 1
        self._hash.update(part.encode("utf-8", "surrogatepass"))

    def update_lines(self, lines: bytes) -> None:
        """Take in the next rows, each ended by a newline. Never raises."""
        parts: list[str]
        try:
            if self._numbered:
                parts = [
                    f"sample_{number}{row.doc_hash}"
                    for number, row in enumerate(_lmms_decoder.decode_lines(lines), self._rows)
                ]
            else:
                parts = [
                    row.doc_hash + row.prompt_hash + row.target_hash
                    for row in _lm_decoder.decode_lines(lines)
                ]
        except _ODD_ROW:
            # One of them at least: each by itself.
            for row in lines.split(b"\n")[:-1]:
                self.update(row)
            return
        self._rows += len(parts)
        self._hash.update("".join(parts).encode("utf-8", "surrogatepass"))

    def hexdigest(self) -> str:
        """The hash of the rows so far, 64 hex digits; for no rows that of the empty string."""
        return self._hash.hexdigest()
