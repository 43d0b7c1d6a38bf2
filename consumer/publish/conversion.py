"""A run on disk as the events around its rows: start, aggregates, ends.

Owns: which part of a results JSON travels in which event. Invariants: every top-level key and every task's
entry of the original travels exactly once; what no other event has a place for goes into the ``report`` of
shard 0's end, entries of tasks that ``results`` does not list included (under their own key, as an object
that holds only them). Left out are ``task_hashes`` (computed anew from the rows), ``model_name_sanitized``
(follows from the name), and our own key. JSON values travel as the bytes they are, white space between tokens
aside.

Refuses: an entry of ``results`` that is not an object.
"""

import hashlib
from typing import TypeGuard

import msgspec
from msgspec import UNSET, Raw, UnsetType

from consumer.errors import EvalsinkError
from consumer.publish.outputs import Output
from consumer.publish.rows import RowTable
from schemas.events import Aggregate, RunEnded, RunStarted
from schemas.names import sanitize_model_name

Entries = dict[str, Raw]

PARTS = {
    "configs": "config",
    "versions": "version",
    "n-shot": "n_shot",
    "higher_is_better": "higher_is_better",
    "n-samples": "n_samples",
    "groups": "group",
}
"""Keys of the results JSON that hold one entry a task, and the field of `Aggregate` that carries the
entry."""


def default_run_id(output: Output, table: RowTable) -> str:
    """``{harness}-{date}-{16 hex}``, from the content alone: equal files give equal ids wherever they lie."""
    digest = hashlib.sha256(output.sha256.encode())
    for task in sorted(table.files):
        digest.update(f"\n{task}\0{table.files[task].sha256}".encode("utf-8", "surrogateescape"))
    return "-".join(filter(None, (output.harness, output.date, digest.hexdigest()[:16])))


class Conversion:
    """The parts of one results JSON, dealt to the events that carry them."""

    def __init__(self, output: Output) -> None:
        """Deal them.

        Raises:
            EvalsinkError: ``results`` is not an object of objects.
        """
        self._output = output
        self._document = dict(output.document)
        self._results = _results(output)
        self._parts: dict[str, Entries] = {task: {} for task in self._results}
        for key, field in PARTS.items():
            self._deal(key, field)
        self._model_name = self._take_text("model_name")
        self._model_source = self._take_text("model_source")
        self._config = self._document.pop("config") if _is_object(self._document.get("config")) else UNSET
        del self._document["results"]
        self._document.pop("task_hashes", None)
        if self._sanitized_follows():
            del self._document["model_name_sanitized"]

    @property
    def aggregates(self) -> list[str]:
        """Tasks and groups with an aggregate, in the order of ``results``."""
        return list(self._results)

    def started(self, run_id: str, table: RowTable) -> RunStarted:
        """The start, for shard 0 to send."""
        return RunStarted(
            run_id=run_id,
            num_shards=len(table.distinct),
            harness=self._output.harness,
            model_name=self._model_name,
            model_source=self._model_source or "",
            date=self._output.date,
            tasks=dict(table.documents),
            config=self._config,
        )

    def aggregate(self, run_id: str, task: str) -> Aggregate:
        """The aggregate of `task`, for shard 0 to send."""
        event = Aggregate(run_id=run_id, task=task, results=self._results[task])
        return msgspec.structs.replace(event, **self._parts[task])

    def ended(self, run_id: str, shard: int, table: RowTable) -> RunEnded:
        """The last word of `shard`; shard 0 speaks for the run."""
        return RunEnded(
            run_id=run_id,
            shard=shard,
            num_shards=len(table.distinct),
            samples=dict(table.distinct[shard]),
            aggregates=self.aggregates if shard == 0 else [],
            report=Raw(msgspec.json.encode(self._document)) if shard == 0 else UNSET,
        )

    def _deal(self, key: str, field: str) -> None:
        """Give each task its entry of `key`; what no task takes stays in the document."""
        if not _is_object(raw := self._document.get(key)):
            return
        entries = msgspec.json.decode(raw, type=Entries)
        if key == "groups":
            for group, entry in entries.items():
                if group not in self._results and _is_object(entry):
                    # The harnesses list a group in `results` too; an aggregate cannot travel without.
                    self._results[group], self._parts[group] = entry, {}
        rest: Entries = {}
        for task, entry in entries.items():
            taken = task in self._parts and (field != "config" or _is_object(entry))
            (self._parts[task] if taken else rest)[field if taken else task] = entry
        if rest or not entries:
            self._document[key] = Raw(msgspec.json.encode(rest))
        else:
            del self._document[key]

    def _take_text(self, key: str) -> str | UnsetType:
        value = msgspec.json.decode(self._document[key]) if key in self._document else None
        if not isinstance(value, str):
            return UNSET
        del self._document[key]
        return value

    def _sanitized_follows(self) -> bool:
        """True if ``model_name_sanitized`` is what the worker makes of the name anyway."""
        if "model_name_sanitized" not in self._document or self._model_name is UNSET:
            return False
        stated = msgspec.json.decode(self._document["model_name_sanitized"])
        return bool(stated == sanitize_model_name(self._model_name, self._output.harness))


def aggregate_filters(output: Output) -> dict[str, list[str]]:
    """Task to the filters its results name as ``metric,filter``, in order of first appearance."""
    return {
        task: list(
            dict.fromkeys(
                key.partition(",")[2] for key in msgspec.json.decode(raw, type=Entries) if "," in key
            )
        )
        for task, raw in _results(output).items()
    }


def _results(output: Output) -> Entries:
    raw = output.document["results"]
    entries = msgspec.json.decode(raw, type=Entries) if _is_object(raw) else {}
    odd = [task for task, entry in entries.items() if not _is_object(entry)]
    if odd or not _is_object(raw):
        raise EvalsinkError(
            f"{output.results}: `results` must hold an object for each task"
            + "".join(f", see {task}" for task in odd)
        )
    return entries


def _is_object(raw: Raw | None) -> TypeGuard[Raw]:
    return raw is not None and bytes(memoryview(raw)[:1]) == b"{"
