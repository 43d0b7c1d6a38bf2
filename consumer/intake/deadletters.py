"""Dead letters: what could not be taken, whole and with its coordinates.

One per source record, however often it is read.

Format: key ``{topic UUID, or its name where there is none}/{partition}/{offset}``; value: the original bytes,
b"" for null; headers, all text in UTF-8: ``reason`` (slug), ``detail``, ``topic``, ``partition``, ``offset``,
``timestamp`` (ms), ``key`` (the original key's bytes; absent for null), ``null`` ("1" if the value was null),
``rows`` (rejected places in the batch, by commas). The topic is compacted. A dead letter holds the original
bytes, secrets included.
"""

from collections.abc import Mapping, Sequence

from consumer.intake.outbound import Outbound
from consumer.observations import Buried, Observe, unobserved
from consumer.vocabulary import Record, RejectedRow


class DeadLetters:
    """Writes them."""

    def __init__(
        self,
        outbound: Outbound,
        *,
        topic: str,
        topic_ids: Mapping[str, str],
        observe: Observe = unobserved,
    ) -> None:
        self._outbound = outbound
        self._topic = topic
        self._topic_ids = topic_ids
        self._observe = observe

    def send(self, record: Record, reason: str, detail: str = "", rows: Sequence[RejectedRow] = ()) -> None:
        """Write one; `Outbound.acknowledged` tells when it is durable."""
        source = self._topic_ids.get(record.topic) or record.topic
        headers = [
            ("reason", reason.encode()),
            ("detail", detail.encode("utf-8", "replace")),
            ("topic", record.topic.encode()),
            ("partition", b"%d" % record.partition),
            ("offset", b"%d" % record.offset),
            ("timestamp", b"%d" % record.timestamp),
        ]
        if record.key is not None:
            headers.append(("key", bytes(record.key)))
        if record.value is None:
            headers.append(("null", b"1"))
        if rows:
            headers.append(("rows", ",".join(str(row.index) for row in rows).encode()))
        self._outbound.send(
            self._topic,
            key=f"{source}/{record.partition}/{record.offset}".encode(),
            value=bytes(record.value or b""),
            headers=headers,
        )
        self._observe(Buried(reason))
