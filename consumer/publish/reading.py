"""A found row as the sample that goes onto the wire.

Owns: reading a row where it lies, and which of its values are scores. Invariants: bytes go out verbatim; only
a row that strict JSON does not know is mended (`strict`). At most `OPEN_FILES` files are open.

Refuses: a file that is not any more what it was when its rows were found.
"""

import bisect
import contextlib
import math
import os
from collections import OrderedDict
from types import TracebackType
from typing import Self

import msgspec
from msgspec import UNSET, Raw

from consumer.errors import EvalsinkError
from consumer.publish.rows import RowTable, SamplesFile, usable_doc_id, value_of
from schemas.events import Sample
from schemas.mending import repair

BASE_KEYS = frozenset(
    {
        *(
            "doc_id",
            "doc",
            "target",
            "arguments",
            "resps",
            "filtered_resps",
            "token_counts",
            "input_media",
            "input",
        ),
        *("doc_hash", "prompt_hash", "target_hash", "filter", "metrics"),
    }
)
"""Keys of a row that the harnesses write beside the metrics."""

OPEN_FILES = 64

_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode


def to_sample(row: bytes, place: int) -> Sample:
    """The sample of a row.

    Args:
        row: A JSON object, one that `strict.repair` can make strict at least.
        place: Its place in its file, from 0: the doc_id of a row that has none.
    """
    try:
        fields = _decode_fields(row)
    except msgspec.DecodeError:
        row, _ = repair(row)
        fields = _decode_fields(row)
    doc_id = usable_doc_id(value_of(fields.get("doc_id", UNSET)))
    return Sample(doc_id=place if doc_id is None else doc_id, row=Raw(row), scores=scores(fields))


def scores(fields: dict[str, Raw]) -> dict[str, float | list[float]]:
    """Numbers and booleans among a row's metrics, where finite; lists, texts and objects are none.

    Metrics are what ``metrics`` of the row names (lm-eval), else every key that is not one of `BASE_KEYS`.
    """
    named = value_of(fields.get("metrics", UNSET))
    names = named if isinstance(named, list) else [name for name in fields if name not in BASE_KEYS]
    found: dict[str, float | list[float]] = {}
    for name in names:
        raw = fields.get(name) if isinstance(name, str) else None
        # The first byte tells a number or boolean, so that long texts are not decoded to be thrown away.
        if raw is None or bytes(memoryview(raw)[:1]) not in b"-0123456789tf":
            continue
        with contextlib.suppress(OverflowError):  # an integer beyond a float's range
            number = value_of(raw)
            if number is not None and math.isfinite(number):
                found[name] = float(number)
    return found


class RowReader:
    """Reads rows of a table; a context manager, for the files it holds open."""

    def __init__(self, table: RowTable) -> None:
        self._table = table
        self._files = list(table.files.values())
        self._first_rows = [file.first_row for file in self._files]
        self._open: OrderedDict[int, int] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def read(self, row: int) -> Sample:
        """Row number `row` of the table.

        Raises:
            EvalsinkError: its file cannot be read any more, or changed.
        """
        # Files without rows begin where the next one does: the last that begins there is meant.
        number = bisect.bisect_right(self._first_rows, row) - 1
        file = self._files[number]
        length = self._table.length[row]
        try:
            content = os.pread(self._descriptor(number, file), length, self._table.offset[row])
        except OSError as error:
            raise EvalsinkError(f"cannot read {file.path}: {error.strerror}") from error
        return to_sample(content, row - file.first_row)

    def _descriptor(self, number: int, file: SamplesFile) -> int:
        descriptor = self._open.pop(number, None)
        if descriptor is None:
            if len(self._open) >= OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
            descriptor = os.open(file.path, os.O_RDONLY)
            state = os.fstat(descriptor)
            if (state.st_size, state.st_mtime_ns) != (file.size, file.mtime_ns):
                os.close(descriptor)
                raise EvalsinkError(f"{file.path} changed while it was being sent; send it again")
        self._open[number] = descriptor
        return descriptor
