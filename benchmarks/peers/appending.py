"""The work that all do alike: decode an event with msgspec, append its rows to the file of its run and task.

Files are buffered and stay open. `flush` hands everything to the operating system; who flushes before it
commits loses nothing when it is killed.
"""

import os
from io import BufferedWriter  # noqa: TC003 - one less thing that only type checkers see

import msgspec

_BUFFER_BYTES = 256 * 1024


class Sample(msgspec.Struct, gc=False):
    """One row of an event."""

    doc_id: int | str
    row: msgspec.Raw
    scores: dict[str, float | list[float]] = {}


class Samples(msgspec.Struct, tag_field="type", tag="samples"):
    """An event with rows."""

    run_id: str
    task: str
    samples: list[Sample]


class Other(msgspec.Struct, tag_field="type", tag="run_ended"):
    """An event without."""

    run_id: str


class Appender:
    """Appends below a folder, and counts."""

    def __init__(self, folder: str) -> None:
        self.rows = 0
        self._folder = folder
        self._decode = msgspec.json.Decoder(Samples | Other).decode
        self._files: dict[tuple[str, str], BufferedWriter] = {}

    def append(self, value: bytes) -> None:
        """The rows of one event."""
        event = self._decode(value)
        if isinstance(event, Other):
            return
        key = (event.run_id, event.task)
        file = self._files.get(key)
        if file is None:
            path = os.path.join(self._folder, f"{event.run_id}.{event.task}.jsonl")  # noqa: PTH118 - hot path's own
            file = self._files[key] = open(path, "ab", buffering=_BUFFER_BYTES)  # noqa: PTH123, SIM115 - stays open
        lines = [sample.row for sample in event.samples]
        lines.append(b"")
        file.write(b"\n".join(lines))
        self.rows += len(event.samples)

    def flush(self) -> None:
        """Hand over what is buffered."""
        for file in self._files.values():
            file.flush()
