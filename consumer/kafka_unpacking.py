"""Unpacking of compressed batches, bounded: what a producer packs a thousandfold does not fill our memory.

A broker bounds a batch as it is packed (``max.message.bytes``); zstd makes 32 GB of a megabyte. kafka-python
unpacks whatever comes, as a whole. These decoders stand in its place (`consumer.kafka_client` puts them
there): the same bytes for every batch up to `UNPACKED_BYTES_MAX`, and an error for a larger one, which sets
its partition aside like any batch that cannot be read; the other partitions go on.
"""

import gzip
import io
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
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
        return _joined("gzip", _pieces_of(reader))


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
    unpacked = _joined("lz4", _lz4_pieces(reader, packed))
    if not reader.eof:
        raise ValueError("the lz4 frame is torn")
    return unpacked


def unpack_zstd(packed: bytes) -> bytes:
    """Of Kafka's codec 4."""
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed), read_across_frames=True) as reader:
        return _joined("zstd", _pieces_of(reader))


UNPACK: Final[Mapping[int, Callable[[bytes], bytes]]] = {
    1: unpack_gzip,
    2: unpack_snappy,
    3: unpack_lz4,
    4: unpack_zstd,
}
"""By Kafka's numbers of codecs."""


def _pieces_of(reader: Any) -> Iterator[bytes]:
    """All that `reader` gives: it takes memory for as much as is asked for, at once."""
    while piece := reader.read(_PIECE_BYTES):
        yield piece


def _lz4_pieces(reader: Any, packed: bytes) -> Iterator[bytes]:
    """The same of LZ4.

    Asked for all that could come, it takes fresh memory from the system for each batch: three times the cost.
    """
    most = _LZ4_RATIO * len(packed)
    piece = reader.decompress(packed, max_length=most)
    while piece:
        yield piece
        piece = b"" if reader.eof else reader.decompress(b"", max_length=most)


def _joined(codec: str, pieces: Iterable[bytes]) -> bytes:
    found: list[bytes] = []
    size = 0
    for piece in pieces:
        found.append(piece)
        size += len(piece)
        if size > UNPACKED_BYTES_MAX:
            raise _too_large(codec)
    return found[0] if len(found) == 1 else b"".join(found)


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
