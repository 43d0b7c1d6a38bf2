"""Strict JSON out of what Python's ``json.dumps`` writes, byte by byte.

Owns: its two faults that make a whole event undecodable. Bare ``NaN``, ``Infinity`` and ``-Infinity`` become
``null``, half of a surrogate pair (a cut emoji) becomes U+FFFD; everything else stays byte for byte, and what
else is wrong stays wrong. Pure functions, linear in time for any bytes; hence the patterns that match an
unclosed string too and never backtrack: a million quotes must not be searched a million times.
"""

import re
from typing import Final

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


def mend(value: bytes, *, null: bytes = b"null", text: bytes = REPLACEMENT) -> bytes:
    """`value` with `null` for each bare non-number and `text` for each half surrogate pair, if it has any."""
    return _mended(value, null, text)[0]


def mend_otherwise(value: bytes) -> bytes:
    """As `mend` with other fillings: what held a fault is what differs between the two results."""
    return mend(value, null=b"0", text=b"?")


def repair(value: bytes) -> tuple[bytes, int]:
    """`value` mended, and how many faults it had."""
    return _mended(value, b"null", REPLACEMENT)


def _mended(value: bytes, null: bytes, text: bytes) -> tuple[bytes, int]:
    faults = 0

    def fill(match: re.Match[bytes], filling: bytes) -> bytes:
        nonlocal faults
        if not match[2]:
            return match[1]
        faults += 1
        return match[1] + filling

    if b"NaN" in value or b"Infinity" in value:
        value = _BARE.sub(lambda match: fill(match, null), value)
    if b"\\u" in value:
        value = _HALF_PAIR.sub(lambda match: fill(match, text), value)
    return value, faults
