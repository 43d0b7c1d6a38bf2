"""Strict JSON out of what Python's ``json.dumps`` writes.

Owns: the two faults of otherwise sound JSON: bare ``NaN``, ``Infinity`` and ``-Infinity`` become ``null``,
half of a surrogate pair (a cut emoji) becomes U+FFFD. Every other byte stays as it is, and so does text that
faults none.
"""

import re

# Possessive quantifiers: a string is one step without a way back, however long it is.
_TOKEN = re.compile(rb'(?P<string>"[^"\\]*+(?:\\.[^"\\]*+)*+")|-?Infinity|NaN', re.DOTALL)
_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a whole pair: kept
    rb"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
    rb"|\\.",  # any other escape, a backslash among them: kept
    re.DOTALL,
)


def repair(text: bytes) -> tuple[bytes, int]:
    """`text` with the two faults mended, and how many there were; anything else wrong with it stays wrong."""
    faults = 0

    def mend_escape(match: re.Match[bytes]) -> bytes:
        nonlocal faults
        if match["half"] is None:
            return match[0]
        faults += 1
        return rb"\ufffd"

    def mend_token(match: re.Match[bytes]) -> bytes:
        nonlocal faults
        if match["string"] is not None:
            return _ESCAPE.sub(mend_escape, match[0])
        faults += 1
        return b"null"

    return _TOKEN.sub(mend_token, text), faults
