"""The two binary formats of a Xet upload, as far as the files can be read back from them.

A xorb is a row of compressed chunks, each behind an 8-byte header; a footer may follow. A shard says which chunks of which
xorbs make up a file, and the file's sha256. Refuses (`FormatError`) what does not fit. Not read: footers, lookup tables, and
the blake3 hashes of chunks and terms; the sha256 of the whole file is checked by `xet` instead, and proves more.

    chunk   version u8 = 0 | packed size u24 | scheme u8 | size u24 | packed bytes
    shard   tag 32 | version u64 = 2 | footer size u64 | file blocks | bookend | xorb blocks | bookend
    file    hash 32 | flags u32 | entries u32 | 8 unused; entries × term; entries × 48 if verified; 48 with the sha256
    term    xorb hash 32 | flags u32 | bytes u32 | first chunk u32 | last chunk + 1 u32
    All integers are little-endian; all shard records are 48 bytes.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

import lz4.frame

_RECORD = 48
_HEADER = struct.Struct("<32sQQ")
_FILE = struct.Struct("<32sII8x")
_TERM = struct.Struct("<32sIIII")
_SHA256 = struct.Struct("<32s16x")
_TAG = b"HFRepoMetaData\0"
_BOOKEND = b"\xff" * 32
_VERIFIED, _WITH_SHA256 = 1 << 31, 1 << 30
_PLAIN, _LZ4, _GROUPED_LZ4 = 0, 1, 2


class FormatError(ValueError):
    """The bytes are not what they claim to be."""


class Term(NamedTuple):
    """A run of chunks of one xorb."""

    xorb: str
    size: int
    first: int
    end: int


class ShardFile(NamedTuple):
    """How a file is put together."""

    hash: str
    sha256: str | None
    terms: tuple[Term, ...]


def hash_text(raw: bytes) -> str:
    """A hash as addresses write it: four little-endian numbers in hex."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", raw))


def read_xorb(content: bytes) -> list[bytes]:
    """The chunks, unpacked.

    Raises:
        FormatError: it is not a xorb.
    """
    chunks: list[bytes] = []
    at = 0
    while at < len(content) and content[at] == 0:  # a footer begins with a letter
        if at + 8 > len(content):
            raise FormatError("a chunk header is cut off")
        packed = int.from_bytes(content[at + 1 : at + 4], "little")
        scheme = content[at + 4]
        size = int.from_bytes(content[at + 5 : at + 8], "little")
        at += 8
        chunk = _unpack(content[at : at + packed], scheme)
        if len(chunk) != size:
            raise FormatError(f"chunk {len(chunks)} has {len(chunk)} bytes, its header says {size}")
        chunks.append(chunk)
        at += packed
    if not chunks:
        raise FormatError("there is no chunk in it")
    return chunks


def read_shard(content: bytes) -> list[ShardFile]:
    """The files it describes.

    Raises:
        FormatError: it is not a shard.
    """
    try:
        tag, version, _ = _HEADER.unpack_from(content)
        if not tag.startswith(_TAG) or version != 2:
            raise FormatError(f"version {version}, tag {tag[:15]!r}")
        return list(_files(content))
    except struct.error as error:
        raise FormatError(f"it is cut off: {error}") from error


def _files(content: bytes) -> Iterator[ShardFile]:
    at = _RECORD
    while content[at : at + 32] != _BOOKEND:
        name, flags, count = _FILE.unpack_from(content, at)
        at += _RECORD
        terms = []
        for _ in range(count):
            xorb, _, size, first, end = _TERM.unpack_from(content, at)
            terms.append(Term(hash_text(xorb), size, first, end))
            at += _RECORD
        if flags & _VERIFIED:
            at += _RECORD * count
        sha256 = None
        if flags & _WITH_SHA256:
            # Kept as a Xet hash too, so its text, not its bytes, is what everybody else calls the sha256.
            sha256 = hash_text(_SHA256.unpack_from(content, at)[0])
            at += _RECORD
        yield ShardFile(hash_text(name), sha256, tuple(terms))


def _unpack(packed: bytes, scheme: int) -> bytes:
    if scheme == _PLAIN:
        return packed
    if scheme not in (_LZ4, _GROUPED_LZ4):
        raise FormatError(f"unknown compression {scheme}")
    try:
        unpacked = lz4.frame.decompress(packed)
    except RuntimeError as error:
        raise FormatError(f"LZ4: {error}") from error
    return unpacked if scheme == _LZ4 else _ungroup(unpacked)


def _ungroup(grouped: bytes) -> bytes:
    """Undo the grouping: all first bytes of each four, then all second ones, and so on."""
    chunk = bytearray(len(grouped))
    at = 0
    for place in range(4):
        count = len(range(place, len(grouped), 4))
        chunk[place::4] = grouped[at : at + count]
        at += count
    return bytes(chunk)
