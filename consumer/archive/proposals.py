"""Scores of an archived run, proposed to the repository of the model they are of. Only what was asked for.

Format: ``.eval_results/{benchmark}.yaml`` in the model's repository, a list of entries as
`huggingface_hub.EvalResultEntry` has them (https://huggingface.co/docs/hub/eval-results).

Invariants: a pull request, never a push; one for a run and model, however often it is asked for; entries of
others in the same file stay; nothing for a run that is not complete, a model that is no repository name, a
figure that is no finite number, or of some of a task's documents only.
"""

import math
import re
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import yaml
from huggingface_hub import EvalResultEntry, constants, eval_result_entries_to_yaml
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # meant to be

from consumer.archive.faults import Refused
from consumer.archive.hub import Hub
from consumer.archive.outbox import Errand
from consumer.archive.parcels import ParcelError, repositories
from consumer.settings import EvalResult
from consumer.settings import Hub as HubSettings
from schemas.names import files_of_results

_DATE = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)")


class _Results(msgspec.Struct, frozen=True, rename={"samples": "n-samples"}):
    """The part of a results JSON that is looked at."""

    results: dict[str, Any]
    model_name: str = ""
    samples: dict[str, Any] = {}


def propose(hub: Hub, output: Path, errand: Errand, settings: HubSettings) -> list[str]:
    """Open the pull request that a run gives rise to.

    Returns:
        Its address; empty where there is nothing to propose, or nothing new.

    Raises:
        HubFault: the Hub did not take it.
        ParcelError: the results JSON cannot be read.
    """
    if errand.status != "complete":
        return []
    try:
        content = msgspec.json.decode((output / errand.results).read_bytes(), type=_Results)
    except (OSError, ValueError, msgspec.DecodeError) as error:
        raise ParcelError(f"{output / errand.results} cannot be read: {error}") from error
    model = content.model_name
    if not _is_repository(model):
        return []
    by_benchmark: dict[str, list[EvalResultEntry]] = {}
    for wanted in settings.eval_results:
        if any(fnmatchcase(model, pattern) for pattern in wanted.models):
            value = _figure(content, wanted)
            if value is not None:
                by_benchmark.setdefault(wanted.dataset, []).append(_entry(value, wanted, errand, settings))
    if not by_benchmark:
        return []
    changes = {
        f".eval_results/{dataset.rpartition('/')[2]}.yaml": partial(_merged, entries)
        for dataset, entries in sorted(by_benchmark.items())
    }
    address = hub.propose(
        model,
        changes,
        title=f"Evaluation results of run {_stem(errand)}",
        description=f"Figures of [this run]({_source(errand, settings)}), proposed by evalsink.",
    )
    return [address] if address is not None else []


def _figure(content: _Results, wanted: EvalResult) -> float | None:
    """The figure, if the task was evaluated as a whole."""
    of_task, number = content.results.get(wanted.task), content.samples.get(wanted.task)
    if isinstance(number, dict) and number.get("effective") != number.get("original"):
        return None
    value = of_task.get(f"{wanted.metric},{wanted.filter}") if isinstance(of_task, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    scaled = value * wanted.scale
    # Ten digits: what a product of floats adds beyond them is no result.
    return round(scaled, 10) if math.isfinite(scaled) else None


def _entry(value: float, wanted: EvalResult, errand: Errand, settings: HubSettings) -> EvalResultEntry:
    return EvalResultEntry(
        dataset_id=wanted.dataset,
        task_id=wanted.task_id,
        value=value,
        date=_date(PurePosixPath(errand.results).name),
        source_url=_source(errand, settings),
        source_name="evalsink",
    )


def _stem(errand: Errand) -> str:
    name = PurePosixPath(errand.results).name
    files = files_of_results(name)
    return files.stem if files is not None else name


def _source(errand: Errand, settings: HubSettings) -> str:
    folder, _, _ = errand.results.rpartition("/")
    repo, _ = repositories(folder, settings)
    endpoint = (settings.endpoint or constants.ENDPOINT).rstrip("/")
    return f"{endpoint}/datasets/{repo}/blob/{settings.branch}/{errand.results}"


def _date(name: str) -> str | None:
    """The day in a file name, by ISO 8601; its hour is of a time zone that nobody knows."""
    found = _DATE.search(name)
    return "-".join(found.groups()) if found is not None else None


def _merged(entries: list[EvalResultEntry], before: bytes | None) -> bytes:
    """The file with `entries` in place of those of the same task, all others as they were."""
    new = eval_result_entries_to_yaml(entries)
    tasks = {(one["dataset"]["id"], one["dataset"]["task_id"]) for one in new}
    try:
        known = yaml.safe_load(before) if before else []
        kept = [one for one in known if (one["dataset"]["id"], one["dataset"].get("task_id")) not in tasks]
    except (yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise Refused(f"the model's file is no list of results: {error}", whole_repo=False) from error
    return str(yaml.safe_dump([*kept, *new], sort_keys=False, allow_unicode=True)).encode()


def _is_repository(name: str) -> bool:
    if name.count("/") != 1:
        return False
    try:
        validate_repo_id(name)
    except ValueError:
        return False
    return True
