"""Indexes and side files written by hand, for tests of what reads them."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from hypothesis import strategies as st

from consumer.runs.index import Flag, encode_side, identity, pack_entry
from consumer.runs.spool import TaskFiles


class Row(NamedTuple):
    """One received row; `content` None: rejected."""

    doc_id: int | str | bytes
    content: bytes | None = b"{}"
    filter: int = 0
    shard: int = 0
    attempt: int = 0
    scores: Mapping[str, float] = MappingProxyType({})

    @property
    def sample(self) -> tuple[int, str, int | str | bytes]:
        return self.filter, type(self.doc_id).__name__, self.doc_id


doc_ids = (
    st.integers(-3, 3)
    | st.sampled_from([2**63 - 1, -(2**63), 2**62])
    | st.sampled_from(["", "0", "1", "b", "é", "\U0001f600", "\uffff"])
    | st.sampled_from([bytes([n]) * 32 for n in (0, 1, 0x80, 0xFF)])
)
rows = st.builds(
    Row,
    doc_ids,
    st.sampled_from([b'{"a":1}', b'{"a":2}', b"{}", None]),
    st.integers(0, 2),
    st.integers(0, 2),
    st.integers(0, 2),
    st.sampled_from([{}, {"a": 0.5}]),
).map(lambda row: row._replace(content=None) if isinstance(row.doc_id, bytes) else row)


def write_files(folder: Path, received: list[Row], *, batch: int = 3) -> TaskFiles:
    """The spool files that result from `received`, `batch` rows a record."""
    files = TaskFiles(folder / "t.jsonl", folder / "t.index", folder / "t.side")
    content, index, side = b"", b"", b""
    for number, row in enumerate(received):
        kind, high, low = identity(row.doc_id)
        extra = encode_side(row.doc_id if isinstance(row.doc_id, str) else None, dict(row.scores), None)
        index += pack_entry(
            number // batch,
            number % batch,
            row.filter,
            row.shard,
            row.attempt,
            kind | (Flag.REJECTED if row.content is None else 0),
            high,
            low,
            len(content),
            row.content or b"",
            len(side),
            len(extra),
        )
        side += extra
        if row.content is not None:
            content += row.content + b"\n"
    for path, written in zip((files.rows, files.index, files.side), (content, index, side), strict=True):
        path.write_bytes(written)
    return files


def place(number: int, batch: int = 3) -> tuple[int, int]:
    """(log offset, index in batch) of the row of that number."""
    return number // batch, number % batch
