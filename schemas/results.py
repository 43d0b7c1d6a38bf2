"""The published results JSON: the harness's own keys in its own order, then ``evalsink``.

File format: UTF-8, strict JSON (no NaN, no Infinity), indented by 2, no newline at the end, as lmms-eval and
lm-eval write theirs. It holds nothing of host, clock, worker or offsets: the same log gives the same bytes.

Sources: lmms-eval ``evaluator.py`` and ``loggers/evaluation_tracker.py``; lm-eval
``loggers/evaluation_tracker.py``.
"""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from schemas.events import Harness

RunStatus = Literal["complete", "incomplete", "failed"]

KEY_ORDER: dict[Harness, tuple[str, ...]] = {
    "lmms-eval": (
        "results",
        "groups",
        "group_subtasks",
        "configs",
        "versions",
        "n-shot",
        "higher_is_better",
        "n-samples",
        "config",
        "git_hash",
        "git_branch",
        "lmms_eval_version",
        "date",
        "throughput",
        "usage",
        "efficiency",
        "task_hashes",
        "model_source",
        "model_name",
        "model_name_sanitized",
        "system_instruction",
        "system_instruction_sha",
        "fewshot_as_multiturn",
        "chat_template",
        "chat_template_sha",
        "start_time",
        "end_time",
        "total_evaluation_time_seconds",
    ),
    "lm-eval": (
        "results",
        "groups",
        "group_subtasks",
        "configs",
        "versions",
        "n-shot",
        "higher_is_better",
        "n-samples",
        "config",
        "git_hash",
        "date",
        "pretty_env_info",
        "transformers_version",
        "lm_eval_version",
        "upper_git_hash",
        "tokenizer_pad_token",
        "tokenizer_eos_token",
        "tokenizer_bos_token",
        "eot_token_id",
        "max_length",
        "task_hashes",
        "model_source",
        "model_name",
        "model_name_sanitized",
        "system_instruction",
        "system_instruction_sha",
        "fewshot_as_multiturn",
        "chat_template",
        "chat_template_sha",
        "start_time",
        "end_time",
        "total_evaluation_time_seconds",
    ),
}
"""Top-level keys in the order each harness writes them. Keys it does not know follow, then ``evalsink``."""

OWN_KEY = "evalsink"


class TaskEntry(Struct, frozen=True, omit_defaults=False):
    """One task's samples file and what happened to its rows on the way.

    Attributes:
        file: File name beside the results JSON; null for a task without rows.
        rows: Lines in the file.
        bytes: Its size.
        sha256: Its hash, hex; null for a task without rows. The one to trust: ``task_hashes`` follows the
            harness's formula, which for lmms-eval depends on the number of rows alone.
        filters: Filter to its number of rows, in the file's order: the first `n` lines are of the first
            filter.
        duplicates: Rows that came again with equal bytes.
        conflicts: Rows that came again with other bytes, and lost.
        superseded: Rows of a lower attempt of the same shard that lost to a higher one.
        rejected: Distinct samples of which no readable row ever came (see dead letters).
        repaired: Published rows in which NaN, Infinity or half an emoji had to be replaced.
        scores_dropped: Published rows that came with scores or a cluster that could not be read.
        missing: Only when rows are short. Gaps in 0..n-1 as [first, last] where all doc_ids are integers,
            else how many.
    """

    file: str | None = None
    rows: int = 0
    bytes: int = 0
    sha256: str | None = None
    filters: dict[str, int] = {}
    duplicates: int = 0
    conflicts: int = 0
    superseded: int = 0
    rejected: int = 0
    repaired: int = 0
    scores_dropped: int = 0
    missing: list[tuple[int, int]] | int | UnsetType = UNSET


class Evalsink(Struct, frozen=True):
    """The key ``evalsink``: what the run is, how complete, and the proof of its files.

    Attributes:
        format: Version of this object.
        run_id: The run.
        status: ``complete``; ``incomplete``: something is short or was rejected; ``failed``: given up after a
            shard failed.
        why: What is short, one sentence each; empty for a complete run.
        shards: How many shards the run had.
        aggregates_superseded: Aggregates that lost to another of their task.
        aggregates_duplicates: Aggregates that came again with equal bytes.
        tasks: Every task with rows, named in an end or announced.
        scores: Recomputed from the published rows' scores: task, filter, metric, statistic.
        disagreements: Where the recomputed mean differs from the evaluator's aggregate.
    """

    run_id: str
    status: RunStatus
    why: list[str]
    shards: int
    tasks: dict[str, TaskEntry]
    format: int = 1
    aggregates_superseded: int = 0
    aggregates_duplicates: int = 0
    scores: dict[str, dict[str, dict[str, dict[str, Any]]]] | UnsetType = UNSET
    disagreements: list[dict[str, Any]] | UnsetType = UNSET
