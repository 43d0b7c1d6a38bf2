"""Names and paths of published files, as pure functions of what producers sent.

Owns: lmms-eval's and lm-eval's naming rules, and the safety on top of them. Invariants: whatever comes in,
what goes out is one path component, never hidden, never ``.`` or ``..``, without separators, control or
direction characters, and within its bytes; names that the harness's own rule leaves harmless are that rule's
names, unchanged; any other carries 8 hex of its sha256. Tasks of one run never meet in one file, whatever
they are called, as long as those 8 hex differ; models may share a folder: its files bear their run's hash.

Sources: lmms-eval ``utils.sanitize_model_name``, ``loggers/evaluation_tracker.py``; lm-eval
``utils.sanitize_model_name``.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import Struct

from schemas.events import Harness

MAX_COMPONENT_BYTES: Final = 120
"""File systems end at 255 bytes a component: stem and task each stay well below the half of it."""

MAX_DATE_BYTES: Final = 48

PARTIAL_FOLDER: Final = "partial"
"""Provisional runs lie here, below the output folder: no model folder may bear this name."""

_HARNESS_UNSAFE = re.compile(r"[\"<>:/\|\\?\*\[\]]+")

# A folder named like a published file could take that file's place where an empty model name puts it.
_NO_MODEL_FOLDER = re.compile(rf"{PARTIAL_FOLDER}|.*\.(json|jsonl|md)", re.IGNORECASE)

# A name that looks hashed is hashed again, so that no crafted task meets another's safe name.
_LOOKS_HASHED = re.compile(r".*-[0-9a-f]{8}")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_TIMESTAMP_MS = 253_402_300_799_999
"""The last millisecond of the year 9999, beyond which dates cannot be written."""


def hash8(text: str) -> str:
    """The first 8 hex digits of the sha256 of `text` in UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def _is_unsafe(char: str) -> bool:
    # Cc control, Cf format (direction marks, zero width), Cs surrogate, Co private, Zl and Zp line ends.
    return char in "/\\" or unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def safe_component(
    name: str, *, max_bytes: int = MAX_COMPONENT_BYTES, taken: re.Pattern[str] | None = None
) -> str:
    """`name` as one path component; unchanged where it already is a harmless one.

    Otherwise unsafe characters become ``_``, the name is cut to `max_bytes` of UTF-8, and ``-`` with 8 hex of
    the original's sha256 is appended.

    Args:
        name: Any text, the empty one too.
        max_bytes: Longest result, more than 9 bytes.
        taken: Harmless names that match this wholly count as unsafe too.
    """
    cleaned = "".join("_" if _is_unsafe(char) else char for char in name).strip().rstrip(".")
    if cleaned.startswith((".", "-", "~")):
        cleaned = "_" + cleaned[1:]
    is_taken = taken is not None and taken.fullmatch(name) is not None
    if cleaned == name and name and not is_taken and len(name.encode()) <= max_bytes:
        return name
    head = cleaned.encode()[: max_bytes - 9].decode("utf-8", "ignore").rstrip() or "_"
    return f"{head}-{hash8(name)}"


def sanitize_model_name(model_name: str, harness: Harness) -> str:
    """The harness's own rule: lmms-eval keeps the last two parts of a path, lm-eval all of it."""
    if harness == "lmms-eval":
        model_name = "/".join(model_name.split("/")[-2:])
    return _HARNESS_UNSAFE.sub("__", model_name)


def model_folder(model_name: str, harness: Harness) -> str:
    """Folder of a model below the output folder; "" for an empty name: the output folder itself."""
    return (
        safe_component(sanitize_model_name(model_name, harness), taken=_NO_MODEL_FOLDER) if model_name else ""
    )


def default_date(timestamp_ms: int, harness: Harness) -> str:
    """The stamp of a run whose date nobody sent, from a Kafka timestamp (ms since the epoch), in UTC."""
    moment = _EPOCH + timedelta(milliseconds=min(max(0, timestamp_ms), _LAST_TIMESTAMP_MS))
    return moment.strftime("%Y%m%d_%H%M%S" if harness == "lmms-eval" else "%Y-%m-%dT%H-%M-%S.%f")


def stem(date: str, run_id: str) -> str:
    """``{date}-{8 hex of sha256(run_id)}``: a function of the run alone; many runs share a second."""
    return f"{safe_component(date.replace(':', '-'), max_bytes=MAX_DATE_BYTES)}-{hash8(run_id)}"


class RunFiles(Struct, frozen=True):
    """Where a run's published files lie, relative to the output folder.

    Attributes:
        folder: Model folder, "" for the output folder itself.
        stem: ``{date}-{8 hex}``.
        harness: Whose pattern the names follow.
    """

    folder: str
    stem: str
    harness: Harness

    @property
    def results(self) -> str:
        """File name of the results JSON."""
        return f"{self.stem}_results.json" if self.harness == "lmms-eval" else f"results_{self.stem}.json"

    @property
    def table(self) -> str:
        """File name of the table for people."""
        return f"{self.stem}_results.md"

    @property
    def metrics(self) -> str:
        """File name of the figures, a row each."""
        return f"{self.stem}_metrics.jsonl"

    def samples(self, task: str) -> str:
        """File name of the samples of `task`."""
        safe = safe_component(task, taken=_LOOKS_HASHED)
        if self.harness == "lmms-eval":
            return f"{self.stem}_samples_{safe}.jsonl"
        return f"samples_{safe}_{self.stem}.jsonl"


def run_files(*, run_id: str, model_name: str, date: str, harness: Harness) -> RunFiles:
    """The names of everything a run publishes."""
    return RunFiles(folder=model_folder(model_name, harness), stem=stem(date, run_id), harness=harness)


def files_of_results(name: str, *, folder: str = "") -> RunFiles | None:
    """The names of the run whose results JSON would be called `name`; None if none would."""
    # In this order: a stem of ours never ends in "_results", so that the two cannot be mistaken.
    if name.endswith("_results.json"):
        return RunFiles(folder=folder, stem=name.removesuffix("_results.json"), harness="lmms-eval")
    if name.startswith("results_") and name.endswith(".json"):
        return RunFiles(folder=folder, stem=name[len("results_") : -len(".json")], harness="lm-eval")
    return None


def relative_paths(folder: str, names: Sequence[str]) -> list[str]:
    """`names` below the model folder, which may be the output folder itself."""
    return [f"{folder}/{name}" if folder else name for name in names]
