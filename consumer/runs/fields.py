"""What a run says of itself, from its `run_started` events and the reports of its counting ends.

The rule: the non-empty value of the lowest shard, then the highest attempt, then the highest offset, over all
`run_started` up to the cut; if none has one, the same over the reports. An explicitly sent empty model name
is a value.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from consumer.runs.lifecycle import counting_ends
from consumer.vocabulary import Record
from schemas.events import Harness, RunStarted
from schemas.names import default_date
from schemas.state import RunState, Span

_EMPTY: tuple[Any, ...] = (None, "", {}, [], UNSET)


class RunFields(Struct, frozen=True):
    """The fields in force.

    Attributes:
        harness: Layout.
        model_name: ``unknown`` if nobody said.
        model_source: "" if nobody said.
        date: The stamp, as sent; else from the Kafka time of the run's lowest record in the samples topic.
        tasks: Task to expected distinct documents.
        config: ``config`` of the results JSON; None if nobody sent one.
        report: Top-level keys of the results JSON.
    """

    harness: Harness
    model_name: str
    model_source: str
    date: str
    tasks: dict[str, int]
    config: Any
    report: dict[str, Any]


def loads(raw: bytes | memoryview | msgspec.Raw) -> Any:
    """A JSON value that was accepted, decoded so that it can be written as strict JSON.

    A number beyond a float's range (``1e999`` is valid JSON) becomes null.
    """
    return json.loads(bytes(raw), parse_float=_finite)


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def collect(run: RunState, read: Callable[[Span], Record], decode: Callable[[Record], Any]) -> RunFields:
    """The fields of a run whose samples cut is decided.

    Args:
        run: The run.
        read: Reads a record of the run's log.
        decode: Decodes an accepted record again (repairs included) into its event.
    """
    starts: list[RunStarted] = [
        decode(read(start.span))
        for start in sorted(run.starts, key=lambda start: (start.shard, -start.attempt, -start.offset))
    ]
    reports: list[dict[str, Any]] = [
        loads(event.report) if event.report is not UNSET else {}
        for event in (decode(read(end.span)) for _, _, end in counting_ends(run))
    ]
    configs = (loads(start.config) for start in starts if start.config is not UNSET)
    report = _merged(reports)
    asked = _first((start.harness for start in starts), report.get("harness"))
    harness: Harness = "lm-eval" if asked == "lm-eval" else "lmms-eval"
    names = [start.model_name for start in starts if start.model_name is not UNSET]
    said = _text(report.get("model_name"))
    model_name = _first(iter(names), said)
    if model_name is None:
        model_name = "" if names or said is not None else "unknown"
    tasks: dict[str, int] = {}
    for start in starts:
        for task, count in start.tasks.items():
            tasks.setdefault(task, count)
    return RunFields(
        harness=harness,
        model_name=model_name,
        model_source=_first((start.model_source for start in starts), _text(report.get("model_source")))
        or "",
        date=_first((start.date for start in starts), _text(report.get("date")))
        or default_date(start_ms(run), harness),
        tasks=tasks,
        config=_first(configs, report.get("config")),
        report=report,
    )


def start_ms(run: RunState) -> int:
    """Kafka time of the run's lowest record in the samples topic; if it has none, of the samples cut."""
    if run.opened_ms >= 0 or run.samples_cut is None:
        return run.opened_ms
    return run.samples_cut.timestamp_ms


def _is_empty(value: Any) -> bool:
    return any(value is empty or (type(value) is type(empty) and value == empty) for empty in _EMPTY)


def _first(values: Iterable[Any], otherwise: Any = None) -> Any:
    for value in values:
        if not _is_empty(value):
            return value
    return None if _is_empty(otherwise) else otherwise


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _merged(reports: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Key by key the first non-empty value."""
    result: dict[str, Any] = {}
    for one in reports:
        for key, value in one.items():
            if key not in result or (_is_empty(result[key]) and not _is_empty(value)):
                result[key] = value
    return result
