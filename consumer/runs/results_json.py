"""The results JSON, put together from what the run said and what was copied. Pure.

Invariants: strict JSON; keys in the harness's order, ``evalsink`` last; nothing of host, clock, worker or
offsets, so equal logs give equal bytes. Secrets in ``config`` and ``report`` are redacted here, the one way
to the disk.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

import msgspec
from msgspec import UNSET, Struct, UnsetType

from consumer.runs.fields import RunFields, loads
from consumer.runs.redaction import redact
from schemas.events import Aggregate
from schemas.names import sanitize_model_name
from schemas.results import KEY_ORDER, OWN_KEY, Evalsink

_PER_TASK: dict[str, str] = {
    "configs": "config",
    "versions": "version",
    "n-shot": "n_shot",
    "higher_is_better": "higher_is_better",
    "n-samples": "n_samples",
}
"""Key of the results JSON to field of the aggregate."""

_SORTED_KEYS = frozenset({"configs", "versions", "n-shot", "higher_is_better"})

# Computed here or carried elsewhere: a report cannot overrule them.
# (entries that it holds for tasks beyond the aggregates stay).
_RESERVED = frozenset(
    {
        "results",
        "groups",
        *_PER_TASK,
        "config",
        "task_hashes",
        "model_source",
        "model_name",
        "model_name_sanitized",
        OWN_KEY,
    }
)


class Times(Struct, frozen=True):
    """Kafka times, seconds since the epoch, for a run whose report has none of its own."""

    start: float
    end: float


def assemble(
    fields: RunFields,
    aggregates: Mapping[str, Aggregate],
    *,
    computed: Mapping[str, dict[str, Any]],
    task_hashes: Mapping[str, str],
    documents: Mapping[str, int],
    times: Times,
    own: Evalsink,
) -> dict[str, Any]:
    """The whole object, keys in order.

    Args:
        fields: The run's fields.
        aggregates: Task to the aggregate that belongs to the run, in the order of ``results``.
        computed: Task to results computed from the scores, for tasks without an aggregate.
        task_hashes: Task to the harness's hash, for tasks with rows.
        documents: Task to distinct documents, for tasks without an aggregate.
        times: Kafka times.
        own: The key of ours.
    """
    values: dict[str, Any] = {
        "results": {task: loads(event.results) for task, event in aggregates.items()} | dict(computed)
    }
    groups = {task: loads(raw) for task, event in aggregates.items() if _is_set(raw := event.group)}
    if groups or "groups" in fields.report:
        values["groups"] = _reported(fields, "groups") | groups
    for key, field in _PER_TASK.items():
        per_task = _reported(fields, key) | {
            task: loads(raw)
            for task, event in aggregates.items()
            if _is_set(raw := getattr(event, field), null=True)
        }
        if key == "n-samples":
            for task in computed:
                count = documents.get(task, 0)
                per_task[task] = {"original": fields.tasks.get(task, count), "effective": count}
        values[key] = dict(sorted(per_task.items())) if key in _SORTED_KEYS else per_task
    if fields.config is not None:
        values["config"] = redact(fields.config)
    values["task_hashes"] = dict(task_hashes)
    values["model_source"] = fields.model_source
    values["model_name"] = fields.model_name
    values["model_name_sanitized"] = sanitize_model_name(fields.model_name, fields.harness)
    report = {key: redact(value, key) for key, value in fields.report.items() if key not in _RESERVED}
    report.setdefault("date", fields.date)
    if fields.harness == "lmms-eval":
        # lm-eval has not written its times for long, so that absent ones are no gap there.
        _fill_times(report, times)
    values.update(report)
    order = [*KEY_ORDER[fields.harness], *report]
    ordered = {key: values[key] for key in dict.fromkeys(order) if key in values}
    ordered[OWN_KEY] = msgspec.to_builtins(own)
    return ordered


def dump(results: Mapping[str, Any]) -> bytes:
    """The file's bytes: indented by 2, not escaped, no newline at the end, as both harnesses write theirs."""
    return json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False).encode()


def filter_order(results: Any, names: Iterable[str]) -> list[str]:
    """`names` of filters in canonical order.

    By first appearance in an aggregate's ``metric,filter`` keys, the others after them by bytes.
    """
    known = set(names)
    keys: Sequence[str] = list(results) if isinstance(results, dict) else []
    appearing = dict.fromkeys(
        name for key in keys for _, comma, name in [key.partition(",")] if comma and name in known
    )
    return [*appearing, *sorted(known - appearing.keys(), key=str.encode)]


def _reported(fields: RunFields, key: str) -> dict[str, Any]:
    """What the report holds under a key whose entries come with the aggregates: entries of other tasks."""
    entries = fields.report.get(key)
    return redact(entries) if isinstance(entries, dict) else {}


def _fill_times(report: dict[str, Any], times: Times) -> None:
    reported = "start_time" in report and "end_time" in report
    if not reported:
        report["start_time"], report["end_time"] = times.start, times.end
    if "total_evaluation_time_seconds" not in report:
        try:
            report["total_evaluation_time_seconds"] = str(report["end_time"] - report["start_time"])
        except (TypeError, ArithmeticError, ValueError):  # no numbers, or too large ones
            report["total_evaluation_time_seconds"] = str(times.end - times.start)


def _is_set(raw: msgspec.Raw | UnsetType, *, null: bool = False) -> TypeGuard[msgspec.Raw]:
    return raw is not UNSET and (null or bytes(raw) != b"null")
