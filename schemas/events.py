"""The wire contract: what evaluators send and workers read, JSON in Kafka record values.

Every event names its ``type`` and its ``run_id``; the record's key is the UTF-8 ``run_id``. Unknown fields
are ignored, new fields come with defaults, so old and new producers and workers mix freely.

Two topics carry them: ``eval.samples`` takes everything but aggregates, so that the end of a shard follows
its rows in one partition; ``eval.aggregates`` takes aggregates. The two may be one topic.

Parts that evalsink hands on untouched are `msgspec.Raw`: bytes of one JSON value, neither decoded nor
re-encoded. `Raw` checks JSON syntax but neither that a value is an object nor that its strings are UTF-8; the
decoder (``consumer.intake.decode``) checks both.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

MAX_SHARDS = 65_536
MAX_ATTEMPT = 2**31 - 1
MAX_NAME_LENGTH = 16_384
"""Characters of a run_id, task or filter: they travel in receipts and live in memory."""

RunId = Annotated[
    str,
    Meta(
        min_length=1, max_length=MAX_NAME_LENGTH, description="Names one evaluation, everywhere and forever."
    ),
]
Name = Annotated[str, Meta(max_length=MAX_NAME_LENGTH)]
Shard = Annotated[
    int, Meta(ge=0, le=MAX_SHARDS - 1, description="The producing process (rank), from 0 to num_shards - 1.")
]
NumShards = Annotated[
    int,
    Meta(
        ge=1, le=MAX_SHARDS, description="How many shards the run has; the largest number anyone sent counts."
    ),
]
Attempt = Annotated[
    int,
    Meta(
        ge=0, le=MAX_ATTEMPT, description="0, then one more each time the shard starts anew after a failure."
    ),
]
DocId = (
    Annotated[int, Meta(ge=-(2**63), le=2**63 - 1, description="A document's number in its dataset.")]
    | Annotated[str, Meta(description="A document's name, where it has no number.")]
)
Score = float | list[float]
Cluster = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | float | str | None
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Offset = Annotated[int, Meta(ge=-1, le=2**63 - 1)]
RawObject = Annotated[Raw, Meta(extra_json_schema={"type": "object"})]
RawObjectOrNull = Annotated[Raw, Meta(extra_json_schema={"type": ["object", "null"]})]
RawAny = Annotated[Raw, Meta(extra_json_schema={"description": "Any JSON value, handed on as it is."})]

Harness = Literal["lmms-eval", "lm-eval"]
"""Whose file names, key order and hash formula the published run follows."""


class Sample(Struct, frozen=True, gc=False):
    """One evaluated document under one filter.

    Attributes:
        doc_id: The document; (task, filter, doc_id) identifies the sample in its run. 1 and "1" differ.
        row: The line of the samples file, a JSON object, written verbatim.
        scores: Metric to its number, or to k numbers where the document was answered k times.
        cluster: Samples of one cluster are not independent (one video, many questions); for clustered
            standard errors. null: none.
    """

    doc_id: DocId
    row: RawObject
    scores: dict[str, Score] = {}
    cluster: Cluster = None


class RunStarted(Struct, frozen=True, tag_field="type", tag="run_started"):
    """What is known of a run before its rows. Optional: the first event of any kind opens a run.

    Attributes:
        harness: Layout of the published files.
        model_name: As the harness was given it; "" puts the files directly into the output folder, absent
            leaves it to others.
        model_source: The harness's model type (``hf``, ``vllm``).
        date: The stamp in file names, as the harness spells it.
        tasks: Task to its expected number of distinct documents: for progress and for naming what is
            missing, never for closing.
        config: ``config`` of the results JSON.
    """

    run_id: RunId
    shard: Shard = 0
    num_shards: NumShards = 1
    attempt: Attempt = 0
    harness: Harness | UnsetType = UNSET
    model_name: str | UnsetType = UNSET
    model_source: str = ""
    date: str = ""
    tasks: dict[str, Count] = {}
    config: RawObject | UnsetType = UNSET


class Samples(Struct, frozen=True, tag_field="type", tag="samples"):
    """Rows of one (run, task, filter): 1 to N of them, so that Kafka's cost per record is paid per batch.

    Attributes:
        task: As the harness names it; the file is named after it.
        samples: The rows. A bad one is rejected alone; its neighbours are kept.
        filter: The harness's filter pipeline whose answers these are.
    """

    run_id: RunId
    task: Name
    samples: list[Sample]
    shard: Shard = 0
    num_shards: NumShards = 1
    attempt: Attempt = 0
    filter: Name = "none"


class Aggregate(Struct, frozen=True, tag_field="type", tag="aggregate"):
    """A task's metrics as the evaluator computed them; sent before its shard's end event.

    Attributes:
        task: Task or group of tasks.
        results: ``results[task]`` verbatim, ``alias`` included.
        config: ``configs[task]``; like all that follow, absent means: not written.
        version: ``versions[task]``.
        n_shot: ``n-shot[task]``.
        higher_is_better: ``higher_is_better[task]``.
        n_samples: ``n-samples[task]``.
        group: ``groups[task]``, for a group of tasks that has metrics of its own. null: none.
    """

    run_id: RunId
    task: Name
    results: RawObject
    shard: Shard = 0
    attempt: Attempt = 0
    config: RawObject | UnsetType = UNSET
    version: RawAny | UnsetType = UNSET
    n_shot: RawAny | UnsetType = UNSET
    higher_is_better: RawAny | UnsetType = UNSET
    n_samples: RawAny | UnsetType = UNSET
    group: RawObjectOrNull | UnsetType = UNSET


class RunEnded(Struct, frozen=True, tag_field="type", tag="run_ended"):
    """A shard's last word: one per shard, after all its rows.

    Attributes:
        status: ``failed`` does not finish the shard: a new attempt may come.
        samples: Task to the number of distinct (filter, doc_id) rows that this attempt of the shard emitted.
        aggregates: Tasks whose aggregate, sent by this attempt of the shard, belongs to the run. Their order
            is the order of ``results`` in the results JSON.
        report: The rest of the results JSON, top-level keys and values (``git_hash``, ``date``,
            ``throughput``, ``usage``, ``start_time``, ``group_subtasks`` …).
    """

    run_id: RunId
    shard: Shard = 0
    num_shards: NumShards = 1
    attempt: Attempt = 0
    status: Literal["ok", "failed"] = "ok"
    samples: dict[str, Count] = {}
    aggregates: list[str] = []
    report: RawObject | UnsetType = UNSET


class RunExpired(Struct, frozen=True, tag_field="type", tag="run_expired"):
    """A worker's decision that nothing more will come, written into the log before it is acted on.

    It takes effect at its own offset, and only if `last` is still the offset of the run's last record before
    it in that topic. It is no record of the run itself.

    Attributes:
        last: Offset of the run's last record in this topic; -1: none.
        reason: Why, for people.
    """

    run_id: RunId
    last: Offset
    reason: str = ""


Event = RunStarted | Samples | Aggregate | RunEnded | RunExpired


def encode(event: Event) -> bytes:
    """The record value of `event`."""
    return msgspec.json.encode(event)
