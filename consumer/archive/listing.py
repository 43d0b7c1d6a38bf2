"""Which runs a repository holds, told from the names of its files alone. Pure.

Owns: taking a listing apart by the name patterns of lmms-eval, of lm-eval and of what evalsink publishes
(whose stems end in 8 hex). Invariants: total over any paths, and independent of their order; a file belongs
to one run or to none, and what belongs to none is left alone; nothing but what the names say is believed.

A samples file names both a task and a stem, and either may hold what separates them. The stems that results
JSONs and metrics files beside it have decide; a samples file that stands alone is read by the dates that the
harnesses write and by our 8 hex. A samples file with neither belongs to nothing.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from schemas.events import Harness
from schemas.names import PARTIAL_FOLDER, files_of_results

_METRICS_END = "_metrics.jsonl"
_TABLE_END = "_results.md"
_SAMPLES_START = "samples_"
_SAMPLES_MIDDLE = "_samples_"
_ROWS_END = ".jsonl"

_HASH = r"-[0-9a-f]{8}"
_OURS = re.compile(rf"(?P<date>.+){_HASH}", re.DOTALL)
_DATE = r"\d{8}_\d{6}"
_ISO = r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?"

# Of samples files that stand alone. Ours may bear any date, one without `_` if it is to be found at the end.
_ALONE: tuple[tuple[re.Pattern[str], Harness], ...] = (
    (
        re.compile(rf"samples_(?P<task>.+)_(?P<stem>{_ISO}(?:{_HASH})?|{_DATE}{_HASH})\.jsonl", re.DOTALL),
        "lm-eval",
    ),
    (re.compile(rf"(?P<stem>.+?{_HASH}|{_DATE})_samples_(?P<task>.+)\.jsonl", re.DOTALL), "lmms-eval"),
    (re.compile(rf"samples_(?P<task>.+)_(?P<stem>[^_]+{_HASH})\.jsonl", re.DOTALL), "lm-eval"),
)


class ListedRun(Struct, frozen=True):
    """A run's files in a repository.

    Attributes:
        folder: Where they lie; "" for the root.
        stem: Of their names.
        harness: Whose pattern the names follow.
        results: Path of the results JSON.
        table: Path of the table for people.
        metrics: Path of the figures.
        samples: Task, as in the file name, to path of its samples file; sorted.
    """

    folder: str
    stem: str
    harness: Harness
    results: str | None = None
    table: str | None = None
    metrics: str | None = None
    samples: dict[str, str] = {}

    @property
    def date(self) -> str:
        """The stamp in the file names."""
        match = _OURS.fullmatch(self.stem)
        return match["date"] if match else self.stem

    @property
    def age(self) -> tuple[str, str, str]:
        """Sorts runs, the newest last: by the digits of the date, which harnesses write from the year on."""
        return re.sub(r"[^0-9]", "", self.date), self.stem, self.harness


class _Parts(Struct):
    results: str | None = None
    table: str | None = None
    metrics: str | None = None
    samples: dict[str, str] = {}


_Key = tuple[str, Harness]
"""Stem and pattern of a run within its folder."""


def runs(paths: Iterable[str]) -> list[ListedRun]:
    """The runs of a repository, by folder, then stem.

    Args:
        paths: Of all its files, with ``/`` between folders.
    """
    folders: dict[str, set[str]] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        if folder.partition("/")[0] != PARTIAL_FOLDER and name:
            folders.setdefault(folder, set()).add(name)
    return sorted(
        (
            ListedRun(
                folder=folder,
                stem=stem,
                harness=harness,
                results=_path(folder, parts.results),
                table=_path(folder, parts.table),
                metrics=_path(folder, parts.metrics),
                samples={
                    task: f"{folder}/{name}" if folder else name
                    for task, name in sorted(parts.samples.items())
                },
            )
            for folder, names in folders.items()
            for (stem, harness), parts in _in_folder(sorted(names)).items()
        ),
        key=lambda run: (run.folder, run.stem, run.harness),
    )


def _path(folder: str, name: str | None) -> str | None:
    return f"{folder}/{name}" if folder and name else name


def _in_folder(names: Sequence[str]) -> dict[_Key, _Parts]:
    """The runs of a folder; what is sure first, for it helps to read the rest."""
    found: dict[_Key, _Parts] = {}
    for name in names:
        if (files := files_of_results(name)) is not None and files.stem:
            found[files.stem, files.harness] = _Parts(results=name)
    _add_samples(found, [name for name in names if name.endswith(_ROWS_END)])
    for name in names:
        if name.endswith(_METRICS_END) and (run := _of_metrics(name, found)) is not None:
            found.setdefault(run, _Parts()).metrics = name
        elif name.endswith(_TABLE_END) and (run := _known(name.removesuffix(_TABLE_END), found)) is not None:
            found[run].table = name
    return found


def _add_samples(found: dict[_Key, _Parts], names: Sequence[str]) -> None:
    alone = []
    for name in names:
        if (place := _with_known_stem(name, found)) is not None:
            run, task = place
            found[run].samples[task] = name
        else:
            alone.append(name)
    for name in alone:
        # A metrics file is not one of samples, though a date may make it look so.
        is_metrics = name.endswith(_METRICS_END) and _of_metrics(name, found) is not None
        if not is_metrics and (place := _alone(name)) is not None:
            run, task = place
            found.setdefault(run, _Parts()).samples[task] = name


def _known(stem: str, found: Mapping[_Key, _Parts]) -> _Key | None:
    runs: tuple[_Key, _Key] = (stem, "lmms-eval"), (stem, "lm-eval")
    return next((run for run in runs if run in found), None)


def _of_metrics(name: str, found: Mapping[_Key, _Parts]) -> _Key | None:
    """The run whose figures `name` holds: one that is there, or one of ours of which nothing else is."""
    stem = name.removesuffix(_METRICS_END)
    return _known(stem, found) or ((stem, "lmms-eval") if _OURS.fullmatch(stem) else None)


def _with_known_stem(name: str, found: Mapping[_Key, _Parts]) -> tuple[_Key, str] | None:
    """The run of a samples file and its task, if a results JSON beside it bears its stem."""
    place = name.find(_SAMPLES_MIDDLE)
    while place >= 0:
        task = name[place + len(_SAMPLES_MIDDLE) : -len(_ROWS_END)]
        if task and (name[:place], "lmms-eval") in found:
            return (name[:place], "lmms-eval"), task
        place = name.find(_SAMPLES_MIDDLE, place + 1)
    if name.startswith(_SAMPLES_START):
        place = name.find("_", len(_SAMPLES_START) + 1)
        while place >= 0:
            stem = name[place + 1 : -len(_ROWS_END)]
            if (stem, "lm-eval") in found:
                return (stem, "lm-eval"), name[len(_SAMPLES_START) : place]
            place = name.find("_", place + 1)
    return None


def _alone(name: str) -> tuple[_Key, str] | None:
    for pattern, harness in _ALONE:
        if match := pattern.fullmatch(name):
            return (match["stem"], harness), match["task"]
    return None
