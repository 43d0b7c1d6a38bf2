"""Names and paths of published files, as pure functions of what producers sent.

Owns: lmms-eval's and lm-eval's naming rules, and the safety on top of them. Invariants: whatever comes in, what goes
out is one path component, never hidden, never ``.`` or ``..``, without control or direction characters, at most
`MAX_COMPONENT_BYTES` long; names that the harness's own rule leaves safe are that rule's names, unchanged; a name that had
to be changed for safety carries 8 hex of the original's hash, so two names never meet.

Sources: lmms-eval ``utils.sanitize_model_name``, ``loggers/evaluation_tracker.py``; lm-eval ``utils.sanitize_model_name``.
"""

import hashlib
import re
import unicodedata
from datetime import UTC, datetime

from msgspec import Struct

from schemas.events import Harness

MAX_COMPONENT_BYTES = 120
"""File systems end at 255 bytes a component: stem and task each stay well below the half of it."""

MAX_DATE_BYTES = 48

PARTIAL_FOLDER = "partial"
"""Provisional runs lie here, below the output folder: no model folder may bear this name."""

_HARNESS_UNSAFE = re.compile(r"[\"<>:/\|\\?\*\[\]]+")
_RESERVED = frozenset({PARTIAL_FOLDER})


def hash8(text: str) -> str:
    """The first 8 hex digits of the sha256 of `text` in UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def _is_unsafe(char: str) -> bool:
    # Cc control, Cf format (direction marks, zero width), Cs surrogate, Co private, Zl and Zp line ends.
    return char in "/\\" or unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def safe_component(name: str, *, max_bytes: int = MAX_COMPONENT_BYTES) -> str:
    """`name` as one path component; unchanged where it already is a harmless one.

    Otherwise unsafe characters become ``_``, the name is cut to `max_bytes` of UTF-8, and ``-`` with 8 hex of the
    original's sha256 is appended.
    """
    cleaned = "".join("_" if _is_unsafe(char) else char for char in name).strip().rstrip(".")
    if cleaned.startswith((".", "-", "~")):
        cleaned = "_" + cleaned[1:]
    if cleaned == name and name and name.lower() not in _RESERVED and len(name.encode()) <= max_bytes:
        return name
    room = max_bytes - 9
    head = cleaned.encode("utf-8", "replace")[:room].decode("utf-8", "ignore").strip() or "_"
    return f"{head}-{hash8(name)}"


def sanitize_model_name(model_name: str, harness: Harness) -> str:
    """The harness's own rule: lmms-eval keeps the last two parts of a path, lm-eval all of it."""
    if harness == "lmms-eval":
        model_name = "/".join(model_name.split("/")[-2:])
    return _HARNESS_UNSAFE.sub("__", model_name)


def model_folder(model_name: str, harness: Harness) -> str:
    """Folder of a model below the output folder; "" for an empty name: the output folder itself."""
    return safe_component(sanitize_model_name(model_name, harness)) if model_name else ""


def default_date(timestamp_ms: int, harness: Harness) -> str:
    """The stamp of a run whose date nobody sent, from a Kafka timestamp (ms since the epoch), in UTC."""
    moment = datetime.fromtimestamp(max(0, timestamp_ms) / 1000, tz=UTC)
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

    def samples(self, task: str) -> str:
        """File name of the samples of `task`."""
        safe = safe_component(task)
        if self.harness == "lmms-eval":
            return f"{self.stem}_samples_{safe}.jsonl"
        return f"samples_{safe}_{self.stem}.jsonl"


def run_files(*, run_id: str, model_name: str, date: str, harness: Harness) -> RunFiles:
    """The names of everything a run publishes."""
    return RunFiles(folder=model_folder(model_name, harness), stem=stem(date, run_id), harness=harness)
