"""One record's value into an event, or the reason why not.

Owns: what each kind of bad input gets (the table in docs/FORMATS.md). `decode` is a pure function of its
arguments and raises on no bytes whatever. Good events take one pass of msgspec and a few scans of the whole
value; only an event that fails them is looked at row by row (`consumer.intake.sift`).

Refused as a whole: anything that is not one event of the contract, in the right topic, under the right key.
Refused alone: a row that is not a JSON object in UTF-8, or whose ``doc_id`` cannot be read; its neighbours
stay verbatim.
"""

import json
from typing import Final, Literal

import msgspec
from msgspec import UNSET, DecodeError, Raw, Struct, ValidationError
from msgspec.structs import replace

from consumer.intake.repair import nests_too_deep
from consumer.intake.sift import LooseSamples, sift, sift_loosely
from consumer.vocabulary import DecodedSamples
from schemas.events import Aggregate, Event, RunEnded, RunExpired, RunStarted, Samples
from schemas.mending import mend, mend_otherwise

TopicRole = Literal["samples", "aggregates", "both"]
"""What a topic carries."""

Lifecycle = RunStarted | Aggregate | RunEnded | RunExpired

Decoded = DecodedSamples | Lifecycle

Reason = Literal[
    "empty",
    "not-json",
    "bad-utf8",
    "too-deep",
    "unknown-type",
    "bad-shard",
    "invalid",
    "wrong-topic",
    "key-mismatch",
]

_MAX_DETAIL: Final = 200

_EVENT: Final[msgspec.json.Decoder[Event]] = msgspec.json.Decoder(Event)
_LOOSE_EVENT: Final[msgspec.json.Decoder[LooseSamples | Lifecycle]] = msgspec.json.Decoder(
    LooseSamples | Lifecycle
)
_LOOSE_SAMPLES: Final[msgspec.json.Decoder[LooseSamples]] = msgspec.json.Decoder(LooseSamples)


class Rejection(Struct, frozen=True):
    """Why a record is no event. It opens no run.

    Attributes:
        reason: Stable slug, for counters and dead-letter headers.
        detail: For people; at most 200 characters.
    """

    reason: Reason
    detail: str = ""


class _RefusedError(Exception):
    """Ends decoding from within; `decode` turns it into a `Rejection`."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason: Reason = reason


def decode(value: bytes | None, key: bytes | None, role: TopicRole) -> Decoded | Rejection:
    """The event in a record, or why there is none.

    Args:
        value: The record's value.
        key: The record's key.
        role: What the record's topic carries.
    """
    if not value:
        return Rejection("empty", "the record has no value")
    try:
        event = _decode(value)
        if (
            type(event) is not DecodedSamples  # what nearly every record is, here at once
            or role == "aggregates"
            or key != event.run_id.encode()
            or event.shard >= event.num_shards
        ):
            _check_place(event, key, role)
    except (_RefusedError, RecursionError, UnicodeDecodeError, DecodeError) as error:
        return _rejection(error)
    return event


def peek(value: bytes | None) -> Samples | None:
    """The rows in a record, as they stand there, if msgspec alone can read them; nothing else is checked.

    For who then looks at many records' rows at a time; `decode` has the last word on each.
    """
    try:
        event = _EVENT.decode(value)  # type: ignore[arg-type]  # None raises, too
    except (TypeError, DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return event if type(event) is Samples else None


def _decode(value: bytes) -> Decoded:
    try:
        event = _EVENT.decode(value)
    except (DecodeError, UnicodeDecodeError):
        return _decode_loosely(value)
    return sift(event, value) if type(event) is Samples else _check_lifecycle(event, value)  # type: ignore[arg-type]  # a Struct has no subclasses here


def _decode_loosely(value: bytes) -> Decoded:
    """The event, mended if it has to be, with its samples one by one."""
    mended = value
    try:
        event = _LOOSE_EVENT.decode(value)
    except ValidationError:
        raise
    except DecodeError:
        mended = mend(value)
        if mended == value:
            raise
        event = _LOOSE_EVENT.decode(mended)
    if not isinstance(event, LooseSamples):
        return _check_lifecycle(event, mended)
    twin = event if mended == value else _LOOSE_SAMPLES.decode(mend_otherwise(value))
    return sift_loosely(event, twin)


def _check_lifecycle(event: Lifecycle, value: bytes) -> Lifecycle:
    """`event` if what msgspec does not look at is right too; a group of null is no group.

    Close-out reads these parts with Python's json, which has limits of its own (digits of an integer): what
    it cannot read must not open a run that could never be closed.
    """
    if nests_too_deep(value):
        raise RecursionError
    text = value.decode()
    try:
        json.loads(text)
    except ValueError as error:
        raise _RefusedError("invalid", str(error)) from error
    match event:
        case Aggregate(group=Raw() as group) if bytes(group) == b"null":
            event = replace(event, group=UNSET)
        case _:
            pass
    for field in ("config", "results", "report", "group"):
        part = getattr(event, field, UNSET)
        if part is not UNSET and memoryview(part)[0] != ord("{"):
            raise _RefusedError("invalid", f"Expected an object - at `$.{field}`")
    return event


def _check_place(event: Decoded, key: bytes | None, role: TopicRole) -> None:
    home = "aggregates" if isinstance(event, Aggregate) else "samples"
    if role not in ("both", home) and not isinstance(event, RunExpired):
        raise _RefusedError("wrong-topic", f"belongs in the {home} topic")
    if key != event.run_id.encode():
        raise _RefusedError("key-mismatch", "the record's key is not its run_id in UTF-8")
    if isinstance(event, DecodedSamples | RunStarted | RunEnded) and event.shard >= event.num_shards:
        raise _RefusedError("bad-shard", f"shard {event.shard} of {event.num_shards}")


def _rejection(error: Exception) -> Rejection:
    """The rejection that `error` stands for; where an event is invalid, msgspec's message alone tells."""
    detail = str(error)
    reason: Reason
    match error:
        case _RefusedError():
            reason = error.reason
        case RecursionError():
            reason, detail = "too-deep", "arrays and objects nest too deeply"
        case UnicodeDecodeError():
            reason = "bad-utf8"
        case ValidationError() if detail.endswith("`$.type`"):
            reason = "unknown-type"
        case ValidationError() if detail.endswith(("`$.shard`", "`$.num_shards`")):
            reason = "bad-shard"
        case ValidationError():
            reason = "invalid"
        case _:
            reason = "not-json"
    return Rejection(reason, detail[:_MAX_DETAIL])
