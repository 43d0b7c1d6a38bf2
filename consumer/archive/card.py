"""The dataset card: ``README.md`` of a repository of runs, read by ``datasets`` and the Hub's viewer. Pure.

Owns: the configurations. One for each (model folder, task), ``{model}__{task}``, lm-eval's rule, with a split
for each run and ``latest``, the newest run that is not known to be short; and ``results``, the figures of all
runs, with the splits ``train`` (all of them) and ``latest`` (runs that are the newest for one of their
tasks). And the page for people: how to load, the latest figures, where they come from.

Invariants: the bytes are a function of the listing, the figures and the columns; since types of columns are
joined (`consumer.archive.columns`), a card that takes the columns of files that are not at hand from the card
before it (`remembered`) is the one that reads all files at once, whoever pushed in which order. What
producers wrote stands in it as text, never as Markdown, HTML or YAML. Every file that is listed loads: one
that is no JSON Lines, holds no row, has more columns than can be declared or a name that ``datasets`` cannot
open is left out, and named.

Paths are patterns to ``datasets``, so that what patterns mean is escaped. The trade-off: beyond `SPLITS_MAX`
runs of a configuration, what older runs left in its columns stays.
"""

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, get_args, get_type_hints

from msgspec import Struct

from consumer.archive import columns as table
from consumer.archive import front_matter, page
from consumer.archive.columns import Columns
from consumer.archive.figures import ALL, LATEST, RESULTS, SPLITS_MAX, Metrics, newest_of, rows_of
from consumer.archive.listing import ListedRun
from schemas.metrics import MetricRow
from schemas.names import hash8

_OWN_KEY = "evalsink"
_SPLIT = re.compile(r"\w+(\.\w+)*", re.ASCII)
_TAKEN_SPLITS = frozenset({"all", LATEST})
_NAME_CHARS_MAX = 120

# What a pattern means, and `:`, which could begin the name of a protocol.
_PATTERN = re.compile(r"[\[*?:]")
_ESCAPED = re.compile(r"\[([\[*?:])\]")

_UNSAFE_IN_CONFIG = re.compile(r"[<>:/\\|?*\"'\x00-\x1f\x7f\u0080-\u009f\u2028\u2029]+")

_DTYPES = {str: "string", float: "float64", int: "int64", bool: "bool"}

_EMPTY: Final = "empty"
_REASONS: dict[str, str] = {
    table.WIDE: f"more than {table.COLUMNS_MAX:,} columns in the files of its configuration",
    table.UNREADABLE: "not JSON Lines with an object in each",
    _EMPTY: "no rows",
    "unknown": "nobody has read its columns yet",
    "figures": "not the rows that this version of evalsink writes",
    "name": "`datasets` cannot open a file of this name",
}


class _File(Struct, frozen=True):
    """A samples file of a run."""

    run: ListedRun
    path: str


class _Config(Struct, frozen=True):
    """Samples of one task of one model, newest first.

    Attributes:
        folder: The model's.
        task: Its name.
        files: One a run.
    """

    folder: str
    task: str
    files: list[_File]


def samples_listed(runs: Sequence[ListedRun], metrics: Metrics) -> list[str]:
    """Paths of the samples files whose columns `render` needs."""
    return sorted(
        file.path for config in _configs(runs, metrics) for file in config.files if _can_be_opened(file.path)
    )


def render(
    *,
    repo_id: str,
    branch: str,
    runs: Sequence[ListedRun],
    metrics: Metrics,
    columns: Mapping[str, Columns],
    sizes: Mapping[str, int],
) -> bytes:
    """The card.

    Args:
        repo_id: The repository.
        branch: The branch in which the card stands.
        runs: All runs of the repository.
        metrics: Path to rows, of the metrics files that could be read. Other runs are listed by their names.
        columns: Path to columns, of samples files. Those that are missing here are left out.
        sizes: Path to size in bytes, of all files: by it a file that was replaced is told.
    """
    named = _named(_configs(runs, metrics))
    left_out: dict[str, str] = {}
    sections = [_results_config(runs, metrics)]
    declared: list[dict[str, Any]] = []
    for name, config in named.items():
        section = _samples_config(name, config, metrics, columns, left_out)
        if section is not None:
            sections.append(section[0])
            declared.append(section[1])
    front: dict[str, Any] = {
        "pretty_name": f"Evaluation runs of {repo_id}",
        "tags": ["evaluation", "evalsink"],
        "configs": [one for one in sections if one is not None],
        "dataset_info": [{"config_name": RESULTS, "features": _metric_features()}, *declared],
    }
    if sections[0] is None:
        del front["dataset_info"][0]
    for run in runs:
        if run.metrics is not None and not _rows_can_be_loaded(run, metrics):
            left_out[run.metrics] = "figures"
    memory: dict[str, Any] = {}
    for path, reason in sorted(left_out.items()):
        if reason in (table.WIDE, table.UNREADABLE, _EMPTY):
            memory.setdefault(reason, []).append(path)
    memory["files"] = {
        one["config_name"]: _digest(_paths(one), sizes) for one in sections[1:] if one is not None
    }
    memory["left_out"] = _digest(_left_out(memory), sizes)
    front[_OWN_KEY] = memory
    loadable = {one["config_name"] for one in declared}
    example = max(
        ((config.files[0].run.age, name) for name, config in named.items() if name in loadable), default=None
    )
    body = page.write(
        repo_id,
        branch,
        runs,
        metrics,
        example=example[1] if example is not None else None,
        left_out={path: _REASONS[reason] for path, reason in left_out.items()},
    )
    return f"{front_matter.dump(front)}\n{body}".encode()


def remembered(previous_card: bytes, sizes: Mapping[str, int]) -> Mapping[str, Columns]:
    """Path to columns, as a card of ours says them; nothing where it is not one, or somebody edited it.

    Args:
        previous_card: The card that is there.
        sizes: Path to size in bytes, of all files that are there. Of a configuration with a file that was
            replaced or removed nothing is remembered.
    """
    front = front_matter.load(previous_card)
    memory = front.get(_OWN_KEY)
    if not isinstance(memory, dict):
        return {}
    digests = memory.get("files")
    declared: dict[str, Columns] = {}
    for info in _objects(front.get("dataset_info")):
        with contextlib.suppress(ValueError):
            declared[str(info.get("config_name"))] = table.of_features(info.get("features"))
    found: dict[str, Columns] = {}
    for config in _objects(front.get("configs")):
        name, paths = str(config.get("config_name")), _paths(config)
        same = isinstance(digests, dict) and digests.get(name) == _digest(paths, sizes)
        if same and name != RESULTS and name in declared:
            found |= dict.fromkeys(paths, declared[name])
    if memory.get("left_out") == _digest(_left_out(memory), sizes):
        kinds: dict[str, Columns] = {table.WIDE: table.WIDE, table.UNREADABLE: table.UNREADABLE, _EMPTY: {}}
        for reason, kind in kinds.items():
            found |= dict.fromkeys(_texts(memory.get(reason)), kind)
    return found


def _paths(config: Mapping[Any, Any]) -> list[str]:
    """The files of a configuration, as the listing has them."""
    return [
        _ESCAPED.sub(r"\1", path)
        for entry in _objects(config.get("data_files"))
        for path in _texts(entry.get("path"))
    ]


def _left_out(memory: Mapping[str, Any]) -> list[str]:
    return [path for kind in (table.WIDE, table.UNREADABLE, _EMPTY) for path in _texts(memory.get(kind))]


def _digest(paths: Iterable[str], sizes: Mapping[str, int]) -> str:
    """Changes when one of the files does."""
    return _mark(*(f"{path} {sizes.get(path)}" for path in sorted(set(paths))))


def _configs(runs: Iterable[ListedRun], metrics: Metrics) -> list[_Config]:
    """Every (folder, task) and the newest runs that have it."""
    found: dict[tuple[str, str], dict[tuple[str, str, str], _File]] = {}
    for run in runs:
        names = {row.samples_file: row.task for row in rows_of(run, metrics) if row.task is not None}
        for task, path in run.samples.items():
            files = found.setdefault((run.folder, names.get(path) or task), {})
            # Two files of a run whose task is the same: the one that sorts first, whoever lists them.
            files.setdefault(run.age, _File(run, path))
    return [
        _Config(folder, task, [files[age] for age in sorted(files, reverse=True)[:SPLITS_MAX]])
        for (folder, task), files in sorted(found.items())
    ]


def _named(configs: Iterable[_Config]) -> dict[str, _Config]:
    """Name to configuration. Those that would share a name have a hash each, so that no order shows."""
    plain = [(_config_name(config), config) for config in configs]
    counts = Counter(name for name, _ in plain)
    named = {
        name
        if counts[name] == 1 and name != RESULTS
        else f"{name}-{_mark(config.folder, config.task)}": config
        for name, config in plain
    }
    return {name: named[name] for name in sorted(named)}


def _mark(*parts: str) -> str:
    return hash8("\0".join(parts))


def _config_name(config: _Config) -> str:
    task = re.sub(r"\W", "_", config.task)
    name = f"{config.folder}__{task}" if config.folder else task
    safe = _UNSAFE_IN_CONFIG.sub("__", "".join("_" if page.is_hidden(char) else char for char in name))
    if len(safe) <= _NAME_CHARS_MAX and len(safe.encode()) <= 2 * _NAME_CHARS_MAX and safe.strip() == safe:
        return safe
    return f"{safe.strip()[: _NAME_CHARS_MAX // 2]}-{hash8(name)}"


def _samples_config(
    name: str,
    config: _Config,
    metrics: Metrics,
    columns: Mapping[str, Columns],
    left_out: dict[str, str],
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The entries under ``configs`` and ``dataset_info``; None if nothing of it can be loaded."""
    joined: Columns = {}
    files = []
    for file in config.files:
        kind = columns.get(file.path)
        if reason := _obstacle(file.path, kind):
            left_out[file.path] = reason
            continue
        assert kind is not None, "an obstacle"
        joined = table.join(joined, kind)
        files.append(file)
    if isinstance(joined, str):
        left_out |= {file.path: table.WIDE for file in files}
        return None
    if not files:
        return None
    splits = _splits([file.run for file in files])
    entries = [
        {"split": split, "path": [_pattern(file.path)]} for split, file in zip(splits, files, strict=True)
    ]
    newest = newest_of([file.run for file in files], metrics)
    path = next(file.path for file in files if file.run is newest)
    return (
        {"config_name": name, "data_files": [{"split": LATEST, "path": [_pattern(path)]}, *entries]},
        {"config_name": name, "features": table.features(joined)},
    )


def _can_be_opened(path: str) -> bool:
    """``datasets`` takes ``::`` for a chain of file systems, in patterns and in what they match."""
    return "::" not in path


def _obstacle(path: str, kind: Columns | None) -> str | None:
    """Why a samples file is in no split, whatever else there is."""
    if not _can_be_opened(path):
        return "name"
    if kind is None:
        return "unknown"
    if kind == table.UNREADABLE:
        return table.UNREADABLE
    return None if kind else _EMPTY


def _rows_can_be_loaded(run: ListedRun, metrics: Metrics) -> bool:
    return bool(rows_of(run, metrics)) and _can_be_opened(run.metrics or "")


def _results_config(runs: Sequence[ListedRun], metrics: Metrics) -> dict[str, Any] | None:
    """The figures of all runs; the latest are those of runs that are the newest for one of their tasks."""
    readable = [run for run in runs if _rows_can_be_loaded(run, metrics)]
    if not readable:
        return None
    tasks: dict[tuple[str, str | None], list[ListedRun]] = {}
    for run in readable:
        for task in {row.task for row in rows_of(run, metrics)}:
            tasks.setdefault((run.folder, task), []).append(run)
    latest = {newest_of(having, metrics).metrics or "" for having in tasks.values()}
    every = {run.metrics or "" for run in readable}
    return {
        "config_name": RESULTS,
        "default": True,
        "data_files": [
            {"split": split, "path": [_pattern(path) for path in sorted(paths)]}
            for split, paths in ((ALL, every), (LATEST, latest))
        ],
    }


def _splits(runs: Sequence[ListedRun]) -> list[str]:
    """The name of each run's split."""
    plain = [_split(run.stem) for run in runs]
    counts = Counter(plain)
    return [
        name if counts[name] == 1 and name not in _TAKEN_SPLITS else f"{name}_{_mark(run.harness, run.stem)}"
        for name, run in zip(plain, runs, strict=True)
    ]


def _split(stem: str) -> str:
    name = re.sub(r"[^\w.]", "_", stem, flags=re.ASCII)
    if not _SPLIT.fullmatch(name):
        name = name.replace(".", "_") or "_"
    return name if len(name) <= _NAME_CHARS_MAX else f"{name[: _NAME_CHARS_MAX // 2]}_{hash8(stem)}"


def _pattern(path: str) -> str:
    """A pattern that matches this path alone."""
    return _PATTERN.sub(lambda match: f"[{match[0]}]", path)


def _metric_features() -> list[dict[str, Any]]:
    """The columns of `MetricRow`, in its order."""
    hints = get_type_hints(MetricRow)
    return [{"name": name, "dtype": _dtype(hints[name])} for name in MetricRow.__struct_fields__]


def _dtype(hint: Any) -> str:
    """Unions and literals are of one type, null aside."""
    if hint in _DTYPES:
        return _DTYPES[hint]
    [dtype] = {
        _dtype(part if isinstance(part, type) or get_args(part) else type(part))
        for part in get_args(hint)
        if part is not type(None)
    }
    return dtype


def _objects(value: object) -> Iterator[Mapping[Any, Any]]:
    yield from (one for one in value if isinstance(one, dict)) if isinstance(value, list) else ()


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
