"""Finds evaluation output on disk: which files make one run.

Owns: the file name patterns of lmms-eval, lm-eval and of runs that evalsink published, and reading a results
JSON. A run is a results JSON and the samples files beside it that bear its stamp; a results JSON without
samples is a run too.

Refuses: a results JSON that cannot be read, is torn or holds something else than an evaluation. Under a
folder that is searched, a JSON object of something else that merely is named so is passed over with a notice,
as are samples files that belong to no results JSON: they are not lost in silence.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw, Struct

from consumer.errors import EvalsinkError, UsageError
from consumer.filesystem import files_below
from schemas.events import Harness
from schemas.mending import repair
from schemas.results import OWN_KEY

_ISO = r"\d{4}-\d\d-\d\dT\d\d[-:]\d\d[-:]\d\d(?:\.\d+)?(?:-[0-9a-f]{8})?"
_RESULTS_NAMES: tuple[tuple[re.Pattern[str], Harness], ...] = (
    (re.compile(r"(?P<stamp>.+)_results\.json", re.DOTALL), "lmms-eval"),
    (re.compile(r"results_(?P<stamp>.+)\.json", re.DOTALL), "lm-eval"),
    (re.compile(rf".+_(?P<stamp>{_ISO})\.json", re.DOTALL), "lm-eval"),  # lm-eval told to write to one file
)
_SAMPLES_NAME = re.compile(r"samples_.+\.jsonl|.+_samples_.+\.jsonl", re.DOTALL)
_OWN_SUFFIX = re.compile(r"-[0-9a-f]{8}$")

# Keys that only one of the two writes; the name of a file can be anybody's.
_KEYS_OF: tuple[tuple[str, Harness], ...] = (
    ("lmms_eval_version", "lmms-eval"),
    ("lm_eval_version", "lm-eval"),
    ("pretty_env_info", "lm-eval"),
)


class Output(Struct, frozen=True):
    """One evaluation as it lies on disk.

    Attributes:
        results: The results JSON.
        sha256: Hash of its bytes, hex.
        harness: Who wrote it.
        date: The stamp in its name, as the harness spells it.
        document: Its top-level keys and their JSON, our own key left out.
        repaired: Values in it that strict JSON does not know (NaN, half an emoji), replaced.
        samples: Task to its samples file.
        filters: For a run that evalsink published: task to its filters and their numbers of rows, in the
            file's order.
    """

    results: Path
    sha256: str
    harness: Harness
    date: str
    document: dict[str, Raw]
    repaired: int
    samples: dict[str, Path]
    filters: dict[str, dict[str, int]]


class Found(Struct, frozen=True):
    """What a search brought up.

    Attributes:
        outputs: The runs, by path.
        notices: What was passed over and why, one sentence each.
    """

    outputs: list[Output]
    notices: list[str]


class _OwnTask(Struct):
    file: str | None = None
    filters: dict[str, int] = {}


class _Own(Struct):
    status: str = "complete"
    tasks: dict[str, _OwnTask] = {}


def find_outputs(path: Path) -> Found:
    """The runs under the folder `path`, or the one of the results JSON `path`.

    Raises:
        UsageError: there is nothing of that name, or no run in it.
        EvalsinkError: a results JSON cannot be read.
    """
    if path.is_file():
        return _read_all([path], samples=set(), named=True)
    if not path.is_dir():
        raise UsageError(f"no such folder or results file: {path}")
    files = list(_walk(path))
    found = _read_all(
        [file for file in files if _stamp(file) is not None],
        samples={file for file in files if _SAMPLES_NAME.fullmatch(file.name)},
        named=False,
    )
    if not found.outputs:
        raise UsageError(
            f"no run in {path}: expected *_results.json (lmms-eval) or results_*.json (lm-eval)"
            + "".join(f"; {notice}" for notice in found.notices)
        )
    return found


def _walk(root: Path) -> Iterator[Path]:
    # Folders whose name ends in .jsonl exist: only what the system calls a file is one.
    try:
        yield from files_below(root, skip_denied=False)
    except OSError as error:
        raise EvalsinkError(f"cannot search {error.filename}: {error.strerror}") from error


def _read_all(files: list[Path], *, samples: set[Path], named: bool) -> Found:
    outputs, notices = [], []
    for file in files:
        output, notice = _read(file)
        if notice is not None:
            if named and output is None:
                raise UsageError(notice)
            notices.append(notice)
        if output is not None:
            outputs.append(output)
            samples -= set(output.samples.values())
    if samples:
        first = min(samples)
        notices.append(f"not sent: {len(samples)} samples file(s) without a results JSON, {first} the first")
    return Found(outputs, notices)


def _stamp(path: Path) -> tuple[str, Harness] | None:
    for pattern, layout in _RESULTS_NAMES:
        if match := pattern.fullmatch(path.name):
            return match["stamp"], layout
    return None


def _read(path: Path) -> tuple[Output | None, str | None]:
    """The run of a results JSON, and what is to be said of it; no run where the JSON is something else."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EvalsinkError(f"cannot read {path}: {error.strerror}") from error
    document, repaired = _decode(content, path)
    if document is None or "results" not in document:
        return None, f"not sent: {path} is no results JSON of an evaluation (it has no `results`)"
    stamp, layout = _stamp(path) or ("", "lmms-eval")
    harness = next((harness for key, harness in _KEYS_OF if key in document), layout)
    own, notice = _own(document, path)
    output = Output(
        results=path,
        sha256=hashlib.sha256(content).hexdigest(),
        harness=harness,
        date=_date(_OWN_SUFFIX.sub("", stamp) if own else stamp, document),
        document={key: value for key, value in document.items() if key != OWN_KEY},
        repaired=repaired,
        samples=_samples(path, stamp, layout, own),
        filters={task: entry.filters for task, entry in own.tasks.items()} if own else {},
    )
    return output, notice


def _decode(content: bytes, path: Path) -> tuple[dict[str, Raw] | None, int]:
    try:
        content.decode()
        return _as_object(content), 0
    except UnicodeDecodeError as error:
        raise EvalsinkError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error
    except (msgspec.DecodeError, RecursionError):
        mended, repaired = repair(content)
    try:
        return _as_object(mended), repaired
    except (msgspec.DecodeError, RecursionError) as error:
        raise EvalsinkError(f"{path} is torn or no JSON: {error}") from error


def _as_object(content: bytes) -> dict[str, Raw] | None:
    try:
        # Without white space between the tokens: it would travel with every part.
        return msgspec.json.decode(msgspec.json.format(content, indent=-1), type=dict[str, Raw])
    except msgspec.ValidationError:
        return None


def _own(document: dict[str, Raw], path: Path) -> tuple[_Own | None, str | None]:
    """Our own key, where evalsink published this run; and a word if it was not whole then."""
    if OWN_KEY not in document:
        return None, None
    try:
        own = msgspec.json.decode(document[OWN_KEY], type=_Own)
    except msgspec.DecodeError as error:
        raise EvalsinkError(f"{path}: key `{OWN_KEY}` is not as evalsink writes it: {error}") from error
    if own.status != "complete":
        return own, f"{path} was published as {own.status}: the new run has only what is there"
    return own, None


def _date(stamp: str, document: dict[str, Raw]) -> str:
    if stamp[:1].isdigit():
        return stamp
    # The file was renamed by hand; lmms-eval keeps its stamp in the JSON too, lm-eval a number that says
    # something else.
    date: Any = msgspec.json.decode(document["date"]) if "date" in document else None
    return date if isinstance(date, str) and date else stamp


def _samples(results: Path, stamp: str, layout: Harness, own: _Own | None) -> dict[str, Path]:
    """Task to samples file, by file name."""
    if not stamp:
        return {}
    head, tail = (f"{stamp}_samples_", ".jsonl") if layout == "lmms-eval" else ("samples_", f"_{stamp}.jsonl")
    names = sorted(
        file.name
        for file in results.parent.iterdir()
        if file.name.startswith(head) and file.name.endswith(tail) and file.is_file()
    )
    # A published file may bear a shortened or cleaned task name; our own key has the true one.
    known = {entry.file: task for task, entry in own.tasks.items()} if own else {}
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise EvalsinkError(f"the name of {results.parent / name!r} is not UTF-8") from error
    return {
        known.get(name, name.removeprefix(head).removesuffix(tail)): results.parent / name for name in names
    }
