"""Unpacking of compressed batches, bounded: what a producer packs a thousandfold does not fill our memory.

A broker bounds a batch as it is packed (``max.message.bytes``); zstd makes 32 GB of a megabyte. kafka-python
unpacks whatever comes, as a whole. These decoders stand in its place (`consumer.kafka_client` puts them
there): the same bytes for every batch up to `UNPACKED_BYTES_MAX`, and an error for a larger one, which sets
its partition aside like any batch that cannot be read; the other partitions go on.
"""

import gzip
import io
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

import lz4.frame
import snappy
import zstandard

UNPACKED_BYTES_MAX = 256 * 1024 * 1024
"""32 times what the input topics take packed; producers bound their batches before packing by about as much
as topics do, so an honest one is far below."""

_PIECE_BYTES: Final = 1024 * 1024
_LZ4_RATIO: Final = 16
"""Most batches of events are packed to less than this."""

_XERIAL: Final = b"\x82SNAPPY\x00"
_XERIAL_HEAD_BYTES: Final = 16
_SIZE = struct.Struct(">i")


class UnpackedTooLargeError(ValueError):
    """The batch would be larger than is taken, or never ends as it says."""


def unpack_gzip(packed: bytes | memoryview) -> bytes:
    """Of Kafka's codec 1."""
    with gzip.GzipFile(fileobj=io.BytesIO(packed), mode="r") as reader:
        return _all_of("gzip", reader)


def unpack_snappy(packed: bytes) -> bytes:
    """Of Kafka's codec 2: as it is, or in the blocks of xerial's library, as Java writes them."""
    if len(packed) <= _XERIAL_HEAD_BYTES or not packed.startswith(_XERIAL):
        return _snappy_block(packed, UNPACKED_BYTES_MAX)
    unpacked = bytearray()
    place = _XERIAL_HEAD_BYTES
    while place < len(packed):
        (size,) = _SIZE.unpack_from(packed, place)
        place += _SIZE.size
        if not 0 < size <= len(packed) - place:
            raise ValueError(f"a snappy block of {size} bytes where there are {len(packed) - place}")
        unpacked += _snappy_block(packed[place : place + size], UNPACKED_BYTES_MAX - len(unpacked))
        place += size
    return bytes(unpacked)


def unpack_lz4(packed: bytes) -> bytes:
    """Of Kafka's codec 3."""
    reader = lz4.frame.LZ4FrameDecompressor()
    pieces: list[bytes] = []
    size = 0
    # The library takes memory for as much as it may give; large pieces of it are fresh from the system each
    # time, which costs four times as much as unpacking.
    while piece := reader.decompress(b"" if pieces else packed, max_length=_LZ4_RATIO * len(packed)):
        pieces.append(piece)
        size += len(piece)
        if size > UNPACKED_BYTES_MAX:
            raise _too_large("lz4")
        if reader.eof:
            break
    if not reader.eof:
        raise ValueError("the lz4 frame is torn")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def unpack_zstd(packed: bytes) -> bytes:
    """Of Kafka's codec 4."""
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed), read_across_frames=True) as reader:
        return _all_of("zstd", reader)


UNPACK: Final[Mapping[int, Callable[[bytes], bytes]]] = {
    1: unpack_gzip,
    2: unpack_snappy,
    3: unpack_lz4,
    4: unpack_zstd,
}
"""By Kafka's numbers of codecs."""


def _all_of(codec: str, reader: Any) -> bytes:
    """All that `reader` gives: piece by piece, since it takes memory for as much as is asked for, at once."""
    pieces: list[bytes] = []
    size = 0
    while piece := reader.read(_PIECE_BYTES):
        pieces.append(piece)
        size += len(piece)
        if size > UNPACKED_BYTES_MAX:
            raise _too_large(codec)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _too_large(codec: str) -> UnpackedTooLargeError:
    return UnpackedTooLargeError(f"a {codec} batch of more than {UNPACKED_BYTES_MAX >> 20} MiB unpacked")


def _snappy_block(block: bytes, most: int) -> bytes:
    # It begins with its unpacked length, which the library takes on trust: seven bits a byte, lowest first.
    length = 0
    for number, byte in enumerate(block[:5]):
        length |= (byte & 0x7F) << (7 * number)
        if byte <= 0x7F:  # noqa: PLR2004 - the eighth bit says that more come
            break
    if length > most:
        raise _too_large("snappy")
    return bytes(snappy.decompress(block))
