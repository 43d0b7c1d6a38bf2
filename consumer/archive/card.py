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

Front matter: paths are patterns to ``datasets``, so that what patterns mean is escaped. All texts are quoted:
``20260101_000000`` is a number to YAML 1.1, and other readers take more for numbers. Nothing but ASCII stands
in it: ``datasets`` ends lines at U+2028 too.

The trade-off: beyond `SPLITS_MAX` runs of a configuration, what older runs left in its columns stays.
"""

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, get_args, get_type_hints

import yaml
from msgspec import Struct

from consumer.archive import columns as table
from consumer.archive.columns import Columns
from consumer.archive.listing import ListedRun
from schemas.metrics import MetricRow
from schemas.names import hash8

SPLITS_MAX = 1000
"""Of a configuration; the newest runs. ``datasets`` prepares every split of a configuration that it loads."""

RESULTS: Final = "results"
LATEST: Final = "latest"
ALL: Final = "train"
"""The name that ``datasets`` itself gives to the one split of files without any."""

_FIGURES_MAX = 1000
_RUNS_MAX = 200
_LEFT_OUT_MAX = 100

_OWN_KEY = "evalsink"
_SPLIT = re.compile(r"\w+(\.\w+)*", re.ASCII)
_TAKEN_SPLITS = frozenset({"all", LATEST})
_NAME_CHARS_MAX = 120
_CELL_CHARS_MAX = 120

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
    "name": "`datasets` cannot open a file of this name",
}

Metrics = Mapping[str, Sequence[MetricRow]]
"""Path of a metrics file to its rows."""


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
) -> bytes:
    """The card.

    Args:
        repo_id: The repository.
        branch: The branch in which the card stands.
        runs: All runs of the repository.
        metrics: Path to rows, of the metrics files that could be read. Other runs are listed by their names.
        columns: Path to columns, of samples files. Those that are missing here are left out.
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
    memory: dict[str, list[str]] = {}
    for path, reason in sorted(left_out.items()):
        if reason in (table.WIDE, table.UNREADABLE, _EMPTY):
            memory.setdefault(reason, []).append(path)
    if memory:
        front[_OWN_KEY] = memory
    loadable = {section["config_name"] for section in sections if section is not None}
    body = [
        *_introduction(repo_id, branch, named, loadable),
        *_figures(runs, metrics),
        *_provenance(runs, metrics),
        *_left_out(left_out),
    ]
    return f"---\n{_yaml(front)}---\n\n{chr(10).join(body)}\n".encode()


def remembered(previous_card: bytes) -> Mapping[str, Columns]:
    """Path to columns, as a card of ours says them; nothing where it is not one, or somebody edited it."""
    front = _front(previous_card)
    found: dict[str, Columns] = {}
    declared: dict[str, Columns] = {}
    for info in _objects(front.get("dataset_info")):
        try:
            declared[str(info.get("config_name"))] = table.of_features(info.get("features"))
        except ValueError:
            continue
    for config in _objects(front.get("configs")):
        name = str(config.get("config_name"))
        if name == RESULTS or name not in declared:
            continue
        for entry in _objects(config.get("data_files")):
            for path in _texts(entry.get("path")):
                found[_ESCAPED.sub(r"\1", path)] = declared[name]
    memory = front.get(_OWN_KEY)
    if isinstance(memory, dict):
        kinds: dict[str, Columns] = {table.WIDE: table.WIDE, table.UNREADABLE: table.UNREADABLE, _EMPTY: {}}
        for reason, kind in kinds.items():
            found |= dict.fromkeys(_texts(memory.get(reason)), kind)
    return found


# Configurations


def _configs(runs: Iterable[ListedRun], metrics: Metrics) -> list[_Config]:
    """Every (folder, task) and the newest runs that have it."""
    found: dict[tuple[str, str], dict[tuple[str, str, str], _File]] = {}
    for run in runs:
        names = {row.samples_file: row.task for row in _rows(run, metrics) if row.task is not None}
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
    safe = _UNSAFE_IN_CONFIG.sub("__", "".join("_" if _is_hidden(char) else char for char in name))
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
    newest = _newest([file.run for file in files], metrics)
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


def _results_config(runs: Sequence[ListedRun], metrics: Metrics) -> dict[str, Any] | None:
    """The figures of all runs; the latest are those of runs that are the newest for one of their tasks."""
    readable = [run for run in runs if _rows(run, metrics) and _can_be_opened(run.metrics or "")]
    if not readable:
        return None
    tasks: dict[tuple[str, str | None], list[ListedRun]] = {}
    for run in readable:
        for task in {row.task for row in _rows(run, metrics)}:
            tasks.setdefault((run.folder, task), []).append(run)
    latest = {_newest(having, metrics).metrics or "" for having in tasks.values()}
    every = {run.metrics or "" for run in readable}
    return {
        "config_name": RESULTS,
        "default": True,
        "data_files": [
            {"split": split, "path": [_pattern(path) for path in sorted(paths)]}
            for split, paths in ((ALL, every), (LATEST, latest))
        ],
    }


def _rows(run: ListedRun, metrics: Metrics) -> Sequence[MetricRow]:
    return metrics.get(run.metrics, ()) if run.metrics is not None else ()


def _status(run: ListedRun, metrics: Metrics) -> str | None:
    return next((row.status for row in _rows(run, metrics)), None)


def _newest(runs: Iterable[ListedRun], metrics: Metrics) -> ListedRun:
    """The newest that is not known to be short; if all are, the newest."""
    return max(runs, key=lambda run: (_status(run, metrics) in ("complete", None), run.age))


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


# Front matter


class _Quoted(str):
    """Written between quotation marks."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]  # PyYAML ships no types
    """Without references to what stood there before: two equal lists are written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def _represent(dumper: yaml.SafeDumper, text: _Quoted) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style='"')


_Dumper.add_representer(_Quoted, _represent)


def _yaml(front: Mapping[str, Any]) -> str:
    return str(
        yaml.dump(_quoted(front), Dumper=_Dumper, sort_keys=False, width=math.inf, allow_unicode=False)
    )


def _quoted(value: Any) -> Any:
    if isinstance(value, str):
        return _Quoted(value)
    if isinstance(value, Mapping):
        return {key: _quoted(one) for key, one in value.items()}
    return [_quoted(one) for one in value] if isinstance(value, list) else value


def _front(card: bytes) -> Mapping[str, Any]:
    """What stands between the first two lines of ``---``."""
    try:
        text = card.decode()
        if not text.startswith("---\n"):
            return {}
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        front = yaml.load(text[4 : text.index("\n---\n") + 1], Loader=loader)  # noqa: S506 - a safe one
    except (ValueError, yaml.YAMLError, RecursionError):
        return {}
    return front if isinstance(front, dict) else {}


def _objects(value: object) -> Iterator[Mapping[Any, Any]]:
    yield from (one for one in value if isinstance(one, dict)) if isinstance(value, list) else ()


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


# The page


def _introduction(
    repo_id: str, branch: str, named: Mapping[str, _Config], loadable: set[str]
) -> Iterator[str]:
    yield f"# Evaluation runs: {_text(repo_id)}"
    yield ""
    yield (
        "Finished evaluation runs as lmms-eval and lm-eval write them, archived by evalsink. One folder a "
        "model; of each run a results JSON, its figures as uniform rows (`…_metrics.jsonl`), and a samples "
        "file a task. The key `evalsink` in a results JSON says how complete the run is, and has the sha256 "
        "of its files."
    )
    yield ""
    yield "```python"
    yield "from datasets import load_dataset"
    yield ""
    revision = f", revision={_python(branch)}" if branch != "main" else ""
    repo = _python(repo_id)
    if RESULTS in loadable:
        yield f'figures = load_dataset({repo}, "{RESULTS}", split="{ALL}"{revision})'
    newest = max(
        ((config.files[0].run.age, name) for name, config in named.items() if name in loadable), default=None
    )
    if newest is not None:
        yield f'samples = load_dataset({repo}, {_python(newest[1])}, split="{LATEST}"{revision})'
    yield "```"
    yield ""
    yield (
        "A configuration `{model}__{task}` has a split for each run and `latest`, the newest run that is not "
        f"known to be short (at most {SPLITS_MAX:,} runs). `{RESULTS}` has the figures of all runs in "
        f"`{ALL}`, and in `{LATEST}` those of runs that are the newest for one of their tasks."
    )


def _figures(runs: Sequence[ListedRun], metrics: Metrics) -> Iterator[str]:
    """The latest value of every metric."""
    latest: dict[tuple[str, str, str, str], list[tuple[ListedRun, MetricRow]]] = {}
    for run in runs:
        for row in _rows(run, metrics):
            if row.metric is not None:
                key = (run.folder, row.task or "", row.filter or "", row.metric)
                latest.setdefault(key, []).append((run, row))
    if not latest:
        return
    yield from ("", "## Latest figures", "")
    yield "| Model | Task | Filter | Metric | | Value | | Stderr | n | Date |"
    yield "|---|---|---|---|---|---:|---|---:|---:|---|"
    for key in sorted(latest)[:_FIGURES_MAX]:
        chosen = _newest((run for run, _ in latest[key]), metrics)
        row = next(row for run, row in latest[key] if run is chosen)
        arrow = {True: "↑", False: "↓", None: ""}[row.higher_is_better]
        count = row.samples if row.samples is not None else row.rows
        cells = [
            *map(_text, key),
            arrow,
            _value(row),
            "±",
            "N/A" if row.stderr is None else f"{row.stderr:.4g}",
            "" if count is None else f"{count:,}",
            _text(chosen.date),
        ]
        yield f"| {' | '.join(cells)} |"
    if len(latest) > _FIGURES_MAX:
        yield ""
        yield f"These are {_FIGURES_MAX:,} of {len(latest):,} figures; the configuration `{RESULTS}` has all."


def _value(row: MetricRow) -> str:
    if row.value is not None:
        return f"{row.value:.6g}"
    return "N/A" if row.value_json is None else _text(row.value_json)


def _provenance(runs: Sequence[ListedRun], metrics: Metrics) -> Iterator[str]:
    if not runs:
        return
    yield from ("", "## Runs", "")
    yield "| Run | Model | Date | Harness | Status | Commit of the harness | sha256 of the results JSON |"
    yield "|---|---|---|---|---|---|---|"
    newest = sorted(runs, key=lambda run: (run.age, run.folder), reverse=True)
    for run in newest[:_RUNS_MAX]:
        row = next(iter(_rows(run, metrics)), None)
        cells = [run.stem, run.folder, run.date, run.harness, "", "", ""]
        if row is not None:
            cells = [
                row.run_id or run.stem,
                row.model_name or run.folder,
                run.date,
                " ".join(filter(None, (row.harness, row.harness_version))),
                row.status or "",
                row.git_hash or "",
                row.results_sha256,
            ]
        yield f"| {' | '.join(map(_text, cells))} |"
    if len(runs) > _RUNS_MAX:
        yield ""
        yield f"These are the newest {_RUNS_MAX:,} of {len(runs):,} runs."


def _left_out(left_out: Mapping[str, str]) -> Iterator[str]:
    if not left_out:
        return
    yield from ("", "## Without a configuration", "", "| File | Why |", "|---|---|")
    for path, reason in sorted(left_out.items())[:_LEFT_OUT_MAX]:
        yield f"| {_text(path)} | {_REASONS[reason]} |"
    if len(left_out) > _LEFT_OUT_MAX:
        yield ""
        yield f"These are {_LEFT_OUT_MAX:,} of {len(left_out):,} files."


def _python(text: str) -> str:
    """A literal; JSON's are Python's."""
    return json.dumps(text)


def _is_hidden(char: str) -> bool:
    """Controls, formats (direction marks, zero width), halves of surrogate pairs, ends of lines."""
    return unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def _text(text: str) -> str:
    """Text in a table's cell that means nothing to Markdown or HTML."""
    shown = "".join("\N{REPLACEMENT CHARACTER}" if _is_hidden(char) else char for char in text.strip())
    if len(shown) > _CELL_CHARS_MAX:
        shown = f"{shown[:_CELL_CHARS_MAX]}…"
    return _MEANING.sub(lambda match: "".join(f"&#{ord(char)};" for char in match[0]), shown)


# ASCII but for letters, digits, underscores within words and what is harmless; and what makes a host a link.
_MEANING = re.compile(r"(?<![A-Za-z0-9_])_++|_++(?![A-Za-z0-9])|(?<=[wW]{3})\.|(?![ \w./,-])[\x00-\x7f]")
