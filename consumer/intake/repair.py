"""Rows that were mended or span lines, and how deep JSON nests.

Pure functions, linear in time for any bytes.
"""

import re
from typing import Final

import msgspec
from msgspec import MsgspecError

MAX_DEPTH: Final = 128
"""Deepest nesting of what close-out decodes, walks and writes again. Python's own limit, near 1,000 frames,
counts the caller's stack and some frames for each level: it would let pass here what fails there."""

_BRACKET = re.compile(rb'"(?:[^"\\]++|\\.)*+"?+|([\[{])|([\]}])', re.DOTALL)


def reencode(row: bytes) -> bytes:
    """A mended row as msgspec writes it; where it cannot (it holds ``1e999``, say), the row on one line."""
    try:
        return msgspec.json.encode(msgspec.json.decode(row))
    except (MsgspecError, ValueError, OverflowError):
        return one_line(row)


def one_line(row: bytes) -> bytes:
    """The row without white space between its tokens; the tokens stay as they are."""
    return msgspec.json.format(row, indent=-1)


def is_utf8(data: bytes) -> bool:
    """Whether `data` is UTF-8, surrogates excluded."""
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def nests_too_deep(json: bytes) -> bool:
    """Whether arrays and objects nest in valid JSON `json` more than `MAX_DEPTH` deep."""
    if json.count(b"[") + json.count(b"{") <= MAX_DEPTH:  # those in strings do no harm here
        return False
    depth = 0
    for match in _BRACKET.finditer(json):
        if match[1]:
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif match[2]:
            depth -= 1
    return False
