"""Mends JSON that is almost right, byte by byte, and says how deep it nests.

Owns: the two faults of Python's own ``json.dumps`` that make a whole event undecodable (bare ``NaN``,
``Infinity`` and ``-Infinity``; half of a surrogate pair, as a cut emoji leaves it) and rows that span lines.
Everything else stays byte for byte. Pure functions, linear in time for any bytes; hence the patterns that
match an unclosed string too and never backtrack: a million quotes must not be searched a million times.
"""

import re
from typing import Final

import msgspec
from msgspec import MsgspecError

MAX_DEPTH: Final = 128
"""Deepest nesting of what close-out decodes, walks and writes again. Python's own limit, near 1,000 frames,
counts the caller's stack and some frames for each level: it would let pass here what fails there."""

REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}".encode()

# Both patterns take everything up to the next fault in one match: few matches, and none that fails.
_BARE = re.compile(
    rb"""(
        (?: [^"NI\-]++                    # nothing that could begin a string or a fault
          | "(?:[^"\\]++|\\.)*+"?+        # a whole string: text such as "NaN" in it is left alone
          | (?!-?Infinity|NaN).
        )*+
    )(-?Infinity|NaN|\Z)""",
    re.DOTALL | re.VERBOSE,
)
_HALF_PAIR = re.compile(
    rb"""(
        (?: [^\\]++
          | \\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}
          | (?!\\u[dD][89a-fA-F][0-9a-fA-F]{2})\\(?:.|\Z)  # any other escape, also of a backslash
        )*+
    )(\\u[dD][89a-fA-F][0-9a-fA-F]{2}|\Z)""",
    re.DOTALL | re.VERBOSE,
)
_BRACKET = re.compile(rb'"(?:[^"\\]++|\\.)*+"?+|([\[{])|([\]}])', re.DOTALL)


def mend(value: bytes, *, null: bytes = b"null", text: bytes = REPLACEMENT) -> bytes:
    """`value` with `null` for each bare non-number and `text` for each half surrogate pair, if it has any."""
    if b"NaN" in value or b"Infinity" in value:
        value = _BARE.sub(lambda match: match[1] + null if match[2] else match[1], value)
    if b"\\u" in value:
        value = _HALF_PAIR.sub(lambda match: match[1] + text if match[2] else match[1], value)
    return value


def mend_otherwise(value: bytes) -> bytes:
    """As `mend` with other fillings: what held a fault is what differs between the two results."""
    return mend(value, null=b"0", text=b"?")


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
