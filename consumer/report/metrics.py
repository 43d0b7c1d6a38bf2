"""A results JSON as uniform rows, one for each task, metric and filter: ``{stem}_metrics.jsonl``.

Owns: which entries of ``results`` and ``groups`` are metrics, and which stand in a column beside one. The
rule is that of lmms-eval's ``make_table`` (see ``consumer.report.table``): a key is ``metric,filter``;
standard errors and the four figures for repeated answers are columns of their metric; ``alias``, comparisons
with a baseline (``paired_…``), empty lists and empty objects are left out. Beyond that rule: lm-eval's
``name``, ``sample_len`` and ``sample_count`` are no metrics, a blank name is none, and what ends like a
companion but has no metric beside it is a metric itself, so that no figure is lost.

Invariants: a pure function, total over whatever JSON a file may hold, also what Python's tolerant parser lets
pass (NaN, half a surrogate pair); a results JSON of ours and one that lmms-eval or lm-eval wrote go the same
way; every run has a row. A task that is in ``results`` and in ``groups`` has its rows once.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, get_args

from schemas.events import Harness
from schemas.metrics import MetricRow, encode_rows
from schemas.names import RunFiles, files_of_results
from schemas.results import OWN_KEY, RunStatus

_COLUMNS = {
    "_stderr": "stderr",
    "_stderr_clt": "stderr_clt",
    "_stderr_clustered": "stderr_clustered",
    "_expected_accuracy": "expected_accuracy",
    "_consensus_accuracy": "consensus_accuracy",
    "_internal_variance": "internal_variance",
    "_consistency_rate": "consistency_rate",
}
"""End of a companion's name to its column."""

_NO_METRICS = frozenset({"alias", "name", "sample_len", "sample_count"})
_PAIRED_PREFIX = "paired_"

# Keys that only one of the two writes, for files whose name anybody may have given.
_VERSION_KEYS: dict[str, Harness] = {"lmms_eval_version": "lmms-eval", "lm_eval_version": "lm-eval"}
_KEYS_OF: dict[str, Harness] = {**_VERSION_KEYS, "pretty_env_info": "lm-eval"}

_DEPTH_MAX = 128
"""As deep as events may nest. Below it a foreign file's values are null, not an error of Python's stack."""

_BITS_MAX = 14_000
"""Python writes integers of up to 4,300 decimal digits; events hold no longer ones either."""

_INT64 = 1 << 63


def render(
    results: Mapping[str, Any],
    results_file: str,
    sha256: str,
    *,
    samples_files: Mapping[str, str] | None = None,
) -> bytes:
    """The bytes of the metrics file of a run.

    Args:
        results: The results JSON, as evalsink, lmms-eval or lm-eval writes it.
        results_file: Its path, relative to the output folder or repository.
        sha256: Of its bytes, hex.
        samples_files: Task to the likewise relative path of its samples file, for a run that evalsink did not
            close; one of ours says so itself.
    """
    return encode_rows(_rows(results, results_file, sha256, samples_files or {}))


def _rows(
    results: Mapping[str, Any], results_file: str, sha256: str, samples_files: Mapping[str, str]
) -> Iterator[MetricRow]:
    folder, _, name = results_file.rpartition("/")
    files = files_of_results(name, folder=folder) or RunFiles(
        folder, stem=PurePosixPath(name).stem, harness="lmms-eval"
    )
    own = _object(results.get(OWN_KEY))
    entries = _object(own.get("tasks"))
    run: dict[str, Any] = {
        "run_id": _text(own.get("run_id")),
        "status": status if (status := own.get("status")) in get_args(RunStatus) else None,
        "harness": files.harness if own else _harness(results, files),
        "model_name": _text(results.get("model_name")) or "",
        "model": _mended(folder.rpartition("/")[2]),
        "date": _mended(files.stem[:-9] if own else files.stem),
        "results_file": _mended(results_file),
        "results_sha256": sha256,
        "git_hash": _text(results.get("git_hash")),
        "harness_version": next((text for key in _VERSION_KEYS if (text := _text(results.get(key)))), None),
        "model_source": _text(results.get("model_source")),
    }
    metrics, groups = _object(results.get("results")), _object(results.get("groups"))
    tasks = dict.fromkeys([*metrics, *groups, *entries, *samples_files])
    for task in tasks:
        entry = _object(entries.get(task))
        file = entry.get("file")
        path = (f"{folder}/{file}" if folder else file) if isinstance(file, str) else samples_files.get(task)
        named = {**_object(metrics.get(task))}
        for key, value in _object(groups.get(task)).items():
            named.setdefault(key, value)
        counts = _of_task(results, "n-samples", task)
        counted = counts if isinstance(counts, Mapping) else {}
        of_task: dict[str, Any] = {
            "task": _mended(task),
            "n_shot": _whole(_of_task(results, "n-shot", task)),
            "version": _version(_of_task(results, "versions", task)),
            "group": task in groups or bool(_of_task(results, "group_subtasks", task)),
            "samples": _whole(counted.get("effective", named.get("sample_len"))),
            "samples_total": _whole(counted.get("original")),
            "rows": _whole(entry.get("rows")),
            "samples_file": None if path is None else _mended(path),
            "samples_sha256": _text(entry.get("sha256")),
            "task_hash": _text(_of_task(results, "task_hashes", task)),
        }
        directions = _object(_of_task(results, "higher_is_better", task))
        empty = True
        for of_metric in _metrics(named, directions):
            empty = False
            yield MetricRow(**run, **of_task, **of_metric)
        if empty:
            yield MetricRow(**run, **of_task, filter=None, metric=None)
    if not tasks:
        yield MetricRow(**run, task=None, filter=None, metric=None)


def _metrics(named: Mapping[str, Any], directions: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The columns of each metric, in the order of the file."""
    for key, value in named.items():
        metric, comma, filter_name = key.partition(",")
        if (
            not metric.strip()
            or (not comma and metric in _NO_METRICS)
            or metric.startswith(_PAIRED_PREFIX)
            or value in ([], {})
            or _is_companion(metric, comma + filter_name, named)
        ):
            continue
        direction = directions.get(metric)
        yield {
            "filter": _mended(filter_name) if comma else None,
            "metric": _mended(metric),
            "value": _number(value),
            "value_json": _json(value),
            "higher_is_better": direction if isinstance(direction, bool) else None,
            **{
                column: _number(named.get(f"{metric}{suffix}{comma}{filter_name}"))
                for suffix, column in _COLUMNS.items()
            },
        }


def _is_companion(metric: str, rest: str, named: Mapping[str, Any]) -> bool:
    return any(
        metric.endswith(suffix) and metric.removesuffix(suffix) + rest in named
        for suffix in _COLUMNS
        if metric != suffix
    )


def _harness(results: Mapping[str, Any], files: RunFiles) -> Harness:
    return next((harness for key, harness in _KEYS_OF.items() if key in results), files.harness)


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _of_task(results: Mapping[str, Any], key: str, task: str) -> Any:
    return _object(results.get(key)).get(task)


def _number(value: object) -> float | None:
    """The nearest double; null for what is no number, or none that is finite."""
    if not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _json(value: object) -> str | None:
    """Compact JSON of what `_number` does not say exactly."""
    if value is None or isinstance(value, float | bool):
        return None
    if isinstance(value, int) and _number(value) == value:  # Python compares the two exactly
        return None
    value = _strict(value, _DEPTH_MAX)
    return None if value is None else _mended(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def _strict(value: Any, depth: int) -> Any:
    """`value` with null for what strict JSON does not know and for what lies too deep."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int):
        return value if value.bit_length() <= _BITS_MAX else None
    if not isinstance(value, list | tuple | dict):
        return value
    if depth == 0:
        return None
    if isinstance(value, dict):
        return {name: _strict(one, depth - 1) for name, one in value.items()}
    return [_strict(one, depth - 1) for one in value]


def _whole(value: object) -> int | None:
    """A whole number of 64 bits. lm-eval writes some counts as ``50.0``."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if -_INT64 <= value < _INT64 else None


def _text(value: object) -> str | None:
    return _mended(value) if isinstance(value, str) else None


def _version(value: object) -> str | None:
    """Versions are texts and numbers; of a number its JSON."""
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else None
    return _text(value) if isinstance(value, str) else str(value) if _whole(value) is not None else None


def _mended(text: str) -> str:
    """U+FFFD for half a surrogate pair, which UTF-8 does not know."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
