"""The rows of one batch: all at once where they are good, one by one where they are not.

Owns: which rows of a ``samples`` event are kept, which are rejected and under what identity, and what is
dropped from a row's scores. Invariants: every element of the batch comes out exactly once, kept or rejected;
a kept row is a JSON object in UTF-8 on one line; its bytes are those that came unless it had to be mended or
spanned lines.
"""

import contextlib
import hashlib
from typing import Final, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, ValidationError
from msgspec.structs import replace

from consumer.intake.repair import is_utf8, one_line, reencode
from consumer.vocabulary import DecodedSamples, RejectedRow, RowReason
from schemas.events import Attempt, Cluster, DocId, NumShards, RunId, Sample, Samples, Score, Shard

_BRACE: Final = ord("{")
_NULL: Final = Raw(b"null")

_T = TypeVar("_T")


class LooseSamples(Struct, frozen=True, tag_field="type", tag="samples"):
    """`Samples` with elements that need only be JSON."""

    run_id: RunId
    task: str
    samples: list[Raw]
    shard: Shard = 0
    num_shards: NumShards = 1
    attempt: Attempt = 0
    filter: str = "none"


class _LooseSample(Struct, frozen=True):
    """`Sample` with members that need only be JSON."""

    doc_id: Raw | UnsetType = UNSET
    row: Raw | UnsetType = UNSET
    scores: Raw | UnsetType = UNSET
    cluster: Raw | UnsetType = UNSET


_SAMPLE: Final[msgspec.json.Decoder[Sample]] = msgspec.json.Decoder(Sample)
_LOOSE_SAMPLE: Final[msgspec.json.Decoder[_LooseSample]] = msgspec.json.Decoder(_LooseSample)
_DOC_ID: Final[msgspec.json.Decoder[DocId]] = msgspec.json.Decoder(DocId)
_SCORES: Final[msgspec.json.Decoder[dict[str, Raw]]] = msgspec.json.Decoder(dict[str, Raw])
_SCORE: Final[msgspec.json.Decoder[Score]] = msgspec.json.Decoder(Score)
_CLUSTER: Final[msgspec.json.Decoder[Cluster]] = msgspec.json.Decoder(Cluster)


def sift(event: Samples, value: bytes) -> DecodedSamples:
    """The rows of `event`, decoded from `value`.

    A few scans of the whole value clear all rows at once. A newline in JSON can only stand between tokens.
    """
    rows = event.samples
    contents = [bytes(sample.row) for sample in rows]
    if (
        b"\n" not in value
        and b"\r" not in value
        and is_utf8(value)
        and all(content[0] == _BRACE for content in contents)
    ):
        return DecodedSamples(
            event.run_id,
            event.task,
            event.filter,
            event.shard,
            event.num_shards,
            event.attempt,
            rows,
            contents,
            range(len(rows)),
        )
    sieve = _Sieve()
    for index, sample in enumerate(rows):
        sieve.take(index, sample)
    return sieve.result(event)


def sift_loosely(event: LooseSamples, twin: LooseSamples) -> DecodedSamples:
    """The rows of `event`, element by element.

    Args:
        event: As decoded from the value, mended if it had to be.
        twin: As decoded from the value mended with other fillings, or `event` itself where nothing was
            mended: a row differs between the two exactly if it was mended.
    """
    sieve = _Sieve()
    for index, (element, other) in enumerate(zip(event.samples, twin.samples, strict=True)):
        sieve.take_loosely(index, element, other)
    return sieve.result(event)


class _Sieve:
    """Takes the elements of one batch in order and remembers what became of each."""

    def __init__(self) -> None:
        self._rows: list[Sample] = []
        self._indexes: list[int] = []
        self._rejected: list[RejectedRow] = []
        self._repaired: set[int] = set()
        self._scores_dropped: set[int] = set()

    def take(self, index: int, sample: Sample, *, mended: bool = False, scores_dropped: bool = False) -> None:
        row = bytes(sample.row)
        if row[0] != _BRACE:
            self._reject(index, sample.doc_id, "row-not-an-object")
            return
        if not is_utf8(row):
            self._reject(index, sample.doc_id, "bad-utf8")
            return
        if mended:
            sample = replace(sample, row=Raw(reencode(row)))
            self._repaired.add(index)
        elif b"\n" in row or b"\r" in row:
            sample = replace(sample, row=Raw(one_line(row)))
        if scores_dropped:
            self._scores_dropped.add(index)
        self._rows.append(sample)
        self._indexes.append(index)

    def take_loosely(self, index: int, element: Raw, other: Raw) -> None:
        if element == other:
            with contextlib.suppress(ValidationError, UnicodeDecodeError):
                self.take(index, _SAMPLE.decode(element))
                return
        try:
            loose, loose_other = _LOOSE_SAMPLE.decode(element), _LOOSE_SAMPLE.decode(other)
        except ValidationError:
            self._reject(index, _digest(element), "not-an-object")
            return
        doc_id = _read(_DOC_ID, loose.doc_id)
        if doc_id is None:
            self._reject(index, _digest(element), "bad-doc-id")
        elif loose.row is UNSET:
            self._reject(index, doc_id, "row-missing")
        else:
            scores, scores_dropped = _read_scores(loose.scores)
            cluster = _read(_CLUSTER, loose.cluster)
            cluster_dropped = cluster is None and loose.cluster not in (UNSET, _NULL)
            self.take(
                index,
                Sample(doc_id, loose.row, scores, cluster),
                mended=loose.row != loose_other.row,
                scores_dropped=scores_dropped or cluster_dropped,
            )

    def result(self, event: Samples | LooseSamples) -> DecodedSamples:
        return DecodedSamples(
            run_id=event.run_id,
            task=event.task,
            filter=event.filter,
            shard=event.shard,
            num_shards=event.num_shards,
            attempt=event.attempt,
            rows=self._rows,
            contents=[bytes(sample.row) for sample in self._rows],
            indexes=self._indexes,
            rejected=self._rejected,
            repaired=frozenset(self._repaired),
            scores_dropped=frozenset(self._scores_dropped),
        )

    def _reject(self, index: int, identity: int | str | bytes, reason: RowReason) -> None:
        self._rejected.append(RejectedRow(index, identity, reason))


def _digest(element: Raw) -> bytes:
    return hashlib.sha256(element).digest()


def _read(decoder: msgspec.json.Decoder[_T], raw: Raw | UnsetType) -> _T | None:
    """What `decoder` makes of `raw`; None where it is absent or of the wrong type."""
    if raw is UNSET:
        return None
    try:
        return decoder.decode(raw)
    except (ValidationError, UnicodeDecodeError):
        return None


def _read_scores(raw: Raw | UnsetType) -> tuple[dict[str, Score], bool]:
    """The scores that can be read, and whether any could not."""
    if raw is UNSET:
        return {}, False
    members = _read(_SCORES, raw)
    if members is None:
        return {}, True
    scores = {
        metric: score for metric, member in members.items() if (score := _read(_SCORE, member)) is not None
    }
    return scores, len(scores) < len(members)
