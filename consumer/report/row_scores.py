"""The scores of a run's rows, read from the samples files beside its results JSON.

Owns: where the samples files of lmms-eval, lm-eval and evalsink lie, which filter a row is of, and which
number of a row is its score for a metric. Memory holds the scores of one task.

A row's score for a metric stands under the metric's name. A number is the score, ``true`` is 1; of a list of
numbers (repeats) it is the mean; of an object it is the field that the task's ``score_key`` names, ``score``
unless the task says otherwise, else the first field whose name ends in ``_score``. Anything else is no score.

lmms-eval's rows do not say their filter. Then the first row of each doc_id is of the task's first filter, the
second of the second, and so on. If there are not as many rows of a doc_id as there are filters, nobody can
know, and the task has no scores.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import repeat
from pathlib import Path
from typing import Any

from consumer.errors import EvalsinkError
from schemas.events import DocId
from schemas.results import OWN_KEY

RowScores = dict[str, dict[DocId, float]]
"""``metric,filter`` to doc_id to score. A doc_id that comes again: the last row counts."""

_RESULTS_SUFFIX = "_results.json"


def samples_file(results: Path, document: Mapping[str, Any], task: str) -> Path | None:
    """The samples file of a task, if there is one.

    Args:
        results: The results JSON.
        document: What stands in it.
        task: The task.
    """
    own = _at(document, OWN_KEY, "tasks", task, "file")
    if isinstance(own, str):
        names = [own]
    elif results.name.endswith(_RESULTS_SUFFIX):
        names = [f"{results.name.removesuffix(_RESULTS_SUFFIX)}_samples_{task}.jsonl"]
    else:
        names = [f"samples_{task}_{results.stem.removeprefix('results_')}.jsonl"]
    return next((path for name in names if (path := results.parent / Path(name).name).is_file()), None)


def read_scores(path: Path, document: Mapping[str, Any], task: str) -> RowScores:
    """The scores of a task's rows, for each metric and filter that the results JSON has.

    Raises:
        EvalsinkError: the samples file cannot be read, or a line of it is no JSON object.
    """
    keys = [key.partition(",") for key in _object(_at(document, "results", task)) if "," in key]
    metrics = dict.fromkeys(metric for metric, _, _ in keys)
    filters = list(dict.fromkeys(name for _, _, name in keys))
    score_key = _at(document, "configs", task, "score_key")
    if not isinstance(score_key, str):
        score_key = "score"
    stated = _stated_filters(document, task)
    rounds: Counter[DocId] = Counter()
    found: dict[tuple[str, str | int], dict[DocId, float]] = {}
    for row in _rows(path):
        filter_name: str | int | None = next(stated, None) or row.get("filter")
        doc_id = row.get("doc_id")
        if not isinstance(doc_id, int | str) or isinstance(doc_id, bool):
            continue
        if not isinstance(filter_name, str):
            filter_name = rounds[doc_id]
            rounds[doc_id] += 1
        for metric in metrics:
            score = _score(row.get(metric), score_key)
            if score is not None:
                found.setdefault((metric, filter_name), {})[doc_id] = score
    names = filters if max(rounds.values(), default=0) == len(filters) else []
    scores: RowScores = {}
    for (metric, name), by_id in found.items():
        if isinstance(name, str):
            scores[f"{metric},{name}"] = by_id
        elif name < len(names):
            scores[f"{metric},{names[name]}"] = by_id
    return scores


def _stated_filters(document: Mapping[str, Any], task: str) -> Iterator[str]:
    """The filter of every row in order, where evalsink says it."""
    for name, rows in _object(_at(document, OWN_KEY, "tasks", task, "filters")).items():
        if isinstance(rows, int):
            yield from repeat(name, rows)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.isspace():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise EvalsinkError(f"{path}, line {number}, is not JSON: {error}") from error
                if not isinstance(row, dict):
                    raise EvalsinkError(f"{path}, line {number}, is not a JSON object")
                yield row
    except OSError as error:
        raise EvalsinkError(f"cannot read {path}: {error.strerror}") from error


def _score(value: object, score_key: str) -> float | None:
    if isinstance(value, list):
        known = [score for one in value if (score := _number(one)) is not None]
        return math.fsum(known) / len(known) if known and len(known) == len(value) else None
    if isinstance(value, dict):
        others = (field for name, field in value.items() if name.endswith("_score"))
        found = map(_number, (value.get(score_key), *others))
        return next((score for score in found if score is not None), None)
    return _number(value)


def _number(value: object) -> float | None:
    if not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer beyond any float
        return None
    return number if math.isfinite(number) else None


def _at(document: Any, *keys: str) -> Any:
    """What stands at a path of keys; None if there is no such place."""
    for key in keys:
        document = _object(document).get(key)
    return document


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
