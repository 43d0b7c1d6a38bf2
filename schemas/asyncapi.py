"""The AsyncAPI 3.0 document: topics, keys, headers and messages, as a worker sees them.

Owns: what the topics promise beyond their messages' shapes. Topic names here are the defaults of settings.
"""

from collections.abc import Mapping
from typing import Any, Final

CONTRACT_VERSION: Final = "1.0.0"
"""Of the wire contract: minor for each new field, major for what old readers cannot read."""

_BINDING_VERSION: Final = "0.5.0"

_RUN_KEY: Final = {
    "type": "string",
    "minLength": 1,
    "description": "The run_id in UTF-8. A record with another key is refused.",
}

_PARTITIONING: Final = (
    "All records of a run lie in one partition, of the same number in both input topics, which therefore "
    "have equal partition counts. All producers of a run use one partitioner: murmur2 over the key, Kafka's "
    "own default (clients built on librdkafka: `partitioner=murmur2_random`). Workers never recompute it."
)

_MESSAGES: Final[dict[str, tuple[str, str]]] = {
    "RunStarted": ("run_started", "What is known of a run before its rows."),
    "Samples": ("samples", "1 to N rows of one (run, task, filter)."),
    "Aggregate": ("aggregate", "A task's metrics as the evaluator computed them."),
    "RunEnded": ("run_ended", "A shard's last word."),
    "RunExpired": ("run_expired", "A worker's decision that nothing more will come."),
}
"""Schema to its tag and its summary."""

_DEAD_LETTER_HEADERS: Final[dict[str, str]] = {
    "reason": "Why, as a slug: `not-json`, `invalid`, `bad-rows`, `late` and so on.",
    "detail": "Why, for people.",
    "topic": "Topic of the original.",
    "partition": "Partition of the original, decimal.",
    "offset": "Offset of the original, decimal.",
    "timestamp": "Kafka time of the original, milliseconds since the epoch, decimal.",
    "key": "Key of the original, its bytes. Absent: it had none.",
    "null": "`1` where the original's value was null: it is empty here, since null is a tombstone.",
    "rows": "Places of the rejected rows in the batch, decimal, by commas. Absent: the whole record.",
}
_ALWAYS_SENT: Final = ["reason", "detail", "topic", "partition", "offset", "timestamp"]


def document(schemas: Mapping[str, Any]) -> dict[str, Any]:
    """The document; `schemas` are the components that its messages refer to."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "evalsink",
            "version": CONTRACT_VERSION,
            "description": (
                "Evaluators write events, workers turn them into published runs. Unknown fields are "
                "ignored, new fields come with defaults. Topic names are settings; aggregates may "
                "share the samples topic."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": _channels(),
        "operations": {
            "takeSamples": _operation("receive", "samples", "Take rows and lifecycle events."),
            "takeAggregates": _operation("receive", "aggregates", "Take aggregates."),
            "expireSamples": _operation("send", "samples", "Expire an abandoned run.", ["RunExpired"]),
            "expireAggregates": _operation(
                "send", "aggregates", "Likewise, after its samples cut.", ["RunExpired"]
            ),
            "writeReceipt": _operation("send", "receipts", "Record that a run is closed."),
            "takeReceipts": _operation(
                "receive", "receipts", "Know the closed runs of an assigned partition."
            ),
            "buryRecord": _operation("send", "deadLetters", "Keep what could not be taken."),
        },
        "components": {"messages": _messages(), "schemas": dict(schemas)},
    }


def _channels() -> dict[str, Any]:
    return {
        "samples": _channel(
            "eval.samples",
            "Rows and lifecycle events, so that the end of a shard follows its rows in one partition.",
            ["RunStarted", "Samples", "RunEnded", "RunExpired"],
            cleanup_policy="delete",
        ),
        "aggregates": _channel(
            "eval.aggregates", "Aggregates.", ["Aggregate", "RunExpired"], cleanup_policy="delete"
        ),
        "receipts": _channel(
            "eval.receipts",
            "Which runs are closed. A receipt lies in the partition of its run's records, chosen by number, "
            "not by key; hence as many partitions as the inputs have.",
            ["Receipt"],
            cleanup_policy="compact",
        ),
        "deadLetters": _channel(
            "eval.dead-letters",
            "What could not be taken: for each original one record with its bytes, secrets included.",
            ["DeadLetter"],
            cleanup_policy="compact",
        ),
    }


def _channel(address: str, description: str, messages: list[str], *, cleanup_policy: str) -> dict[str, Any]:
    is_input = cleanup_policy == "delete"
    return {
        "address": address,
        "description": f"{description} {_PARTITIONING}" if is_input else description,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {
            "kafka": {
                "topic": address,
                "topicConfiguration": {"cleanup.policy": [cleanup_policy]},
                "bindingVersion": _BINDING_VERSION,
            }
        },
    }


def _operation(action: str, channel: str, summary: str, messages: list[str] | None = None) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": summary,
    }
    if messages is not None:
        operation["messages"] = [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in messages]
    return operation


def _messages() -> dict[str, Any]:
    messages: dict[str, Any] = {
        schema: {
            "name": tag,
            "summary": summary,
            "payload": {"$ref": f"#/components/schemas/{schema}"},
            "bindings": _key(_RUN_KEY),
        }
        for schema, (tag, summary) in _MESSAGES.items()
    }
    messages["Receipt"] = {
        "name": "receipt",
        "summary": "The durable record that a run is closed; binds its own group only.",
        "payload": {"$ref": "#/components/schemas/Receipt"},
        "bindings": _key({"type": "string", "description": "`{group}/{run_id}`."}),
    }
    messages["DeadLetter"] = {
        "name": "dead_letter",
        "summary": "A record that could not be taken, or rows of it.",
        "contentType": "application/octet-stream",
        "headers": {
            "type": "object",
            "properties": {
                name: {"type": "string", "description": text} for name, text in _DEAD_LETTER_HEADERS.items()
            },
            "required": _ALWAYS_SENT,
        },
        "payload": {"type": "string", "description": "The original's value, any bytes; empty for null."},
        "bindings": _key(
            {
                "type": "string",
                "description": (
                    "`{topic UUID}/{partition}/{offset}` of the original; the topic's name where the broker "
                    "has no UUIDs."
                ),
            }
        ),
    }
    return messages


def _key(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"kafka": {"key": dict(schema), "bindingVersion": _BINDING_VERSION}}
