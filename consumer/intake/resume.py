"""Where to start reading a partition: pure, decided for all input topics of the partition as a whole.

Local state is kept only if it reaches the watermark in every topic and does not lie beyond any topic's end;
else all of it is dropped and each topic resumes at its watermark. A commit without our metadata (first start,
expired offsets, an operator's reset), or of a topic that was made anew, counts as none. Without any
watermark, local state decides, else the
beginning: receipts make reading again safe.
"""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from msgspec import Struct

from schemas.state import COMMIT_FORMAT, CommitMetadata

_metadata = msgspec.json.Decoder(CommitMetadata)


class Committed(NamedTuple):
    """A committed offset with its metadata as it lies at the broker."""

    offset: int
    metadata: str


class TopicEnds(NamedTuple):
    """First offset that can be read, and the one after the last."""

    beginning: int
    end: int


class Resume(Struct, frozen=True):
    """Where to start.

    Attributes:
        keep_local: Local state stays; else all of the partition's is to be dropped.
        start: Topic to the first offset to read.
        committed: Topic to the committed offset that later commits may not fall below.
        tainted_below: Topic to its end where the log begins above the start: what it held is gone.
    """

    keep_local: bool
    start: dict[str, int]
    committed: dict[str, int]
    tainted_below: dict[str, int]


def parse_metadata(committed: Committed | None, topic_id: str) -> CommitMetadata | None:
    """Our metadata of a commit; None if it is absent, foreign, of another version or of another topic."""
    if committed is None or not committed.metadata:
        return None
    try:
        metadata = _metadata.decode(committed.metadata)
    except (msgspec.DecodeError, ValueError):
        return None
    if metadata.format != COMMIT_FORMAT or metadata.topic_id != topic_id or metadata.watermark < 0:
        return None
    return metadata


def decide(
    *,
    topic_ids: Mapping[str, str],
    committed: Mapping[str, Committed | None],
    local: Mapping[str, int] | None,
    ends: Mapping[str, TopicEnds],
) -> Resume:
    """Where one partition resumes.

    Args:
        topic_ids: UUID per input topic ("" where the broker has none).
        committed: What the group committed per topic.
        local: Positions of the local state per topic; None without any.
        ends: The log per topic.
    """
    metadata = {topic: parse_metadata(committed.get(topic), topic_ids[topic]) for topic in topic_ids}
    ours = all(one is not None for one in metadata.values())
    watermarks = {topic: one.watermark for topic, one in metadata.items() if one is not None} if ours else {}
    keep = (
        local is not None
        and set(local) >= set(topic_ids)
        and all(watermarks.get(topic, 0) <= local[topic] <= ends[topic].end for topic in topic_ids)
    )
    start = {}
    tainted = {
        topic: one.tainted_below
        for topic, one in metadata.items()
        if ours and one is not None and one.tainted_below
    }
    for topic, (beginning, end) in ends.items():
        wanted = local[topic] if keep and local is not None else watermarks.get(topic, 0)
        if wanted > end:
            # The log was cut back below what was committed: what is left is read again from its beginning.
            wanted = 0
        if wanted < beginning:
            tainted[topic] = end
        start[topic] = max(wanted, beginning)
    floors = {
        topic: one.offset
        for topic in topic_ids
        if ours and (one := committed[topic]) is not None and one.offset <= ends[topic].end
    }
    return Resume(keep_local=keep, start=start, committed=floors, tainted_below=tainted)
