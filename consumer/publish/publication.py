"""One run made ready to be sent: what was found, how it is arranged, and the messages of it.

Owns: putting `rows`, `reading`, `conversion` and `arrangement` together. Invariants: `Publication.messages`
gives the same messages each time it is called, as long as the files stay as they are; it holds one batch at a
time.
"""

from collections.abc import Iterator
from typing import NamedTuple

from msgspec import Struct

from consumer.errors import UsageError
from consumer.publish.arrangement import AggregateStep, Arrangement, Batch, Columns, arrange
from consumer.publish.conversion import Conversion, aggregate_filters, default_run_id
from consumer.publish.outputs import Output
from consumer.publish.reading import RowReader
from consumer.publish.rows import Advance, RowTable, scan_rows
from consumer.vocabulary import Role
from schemas.events import Samples, encode


class Message(NamedTuple):
    """One record to send.

    Attributes:
        role: Which topic it is for.
        value: The event.
        rows: Rows in it.
        last_word: True for a shard's end: what went before must be acknowledged first.
    """

    role: Role
    value: bytes
    rows: int = 0
    last_word: bool = False


class Publication(Struct, frozen=True):
    """A run ready to be sent.

    Attributes:
        run_id: Its name on the wire; also the records' key.
        output: What it is made from.
        table: Its rows.
        conversion: The events around them.
        arrangement: Their order.
    """

    run_id: str
    output: Output
    table: RowTable
    conversion: Conversion
    arrangement: Arrangement

    @property
    def key(self) -> bytes:
        """The key of all its records."""
        return self.run_id.encode()

    @property
    def shards(self) -> int:
        """How many shards it is dealt to."""
        return len(self.table.distinct)

    def messages(self) -> Iterator[Message]:
        """Every record in the order of sending.

        Raises:
            EvalsinkError: a samples file cannot be read any more, or changed.
        """
        yield Message("samples", encode(self.conversion.started(self.run_id, self.table)))
        steps = arrange(
            Columns(self.table.shard, self.table.stream, self.table.length),
            shards=self.shards,
            aggregates=len(self.conversion.aggregates),
            arrangement=self.arrangement,
        )
        with RowReader(self.table) as reader:
            for step in steps:
                if isinstance(step, Batch):
                    yield Message("samples", encode(self._samples(step, reader)), rows=len(step.rows))
                elif isinstance(step, AggregateStep):
                    task = self.conversion.aggregates[step.number]
                    yield Message("aggregates", encode(self.conversion.aggregate(self.run_id, task)))
                else:
                    end = self.conversion.ended(self.run_id, step.shard, self.table)
                    yield Message("samples", encode(end), last_word=True)

    def notices(self) -> list[str]:
        """What the sender should know: everything that does not go out just as it lies there."""
        counts = (
            (
                self.output.repaired,
                "value(s) in the results JSON are NaN, Infinity or half an emoji: sent as null or U+FFFD",
            ),
            (
                self.table.repaired,
                "value(s) in the rows are NaN, Infinity or half an emoji: sent as null or U+FFFD",
            ),
            (
                self.table.unnumbered,
                "row(s) have no usable doc_id: sent under their place in the file, from 0",
            ),
            (
                self.table.repeated,
                "row(s) repeat a filter and doc_id of their file: of each, the run keeps the one sent last",
            ),
        )
        return [f"{self.output.results}: {count} {what}" for count, what in counts if count]

    def _samples(self, batch: Batch, reader: RowReader) -> Samples:
        stream = self.table.streams[batch.stream]
        return Samples(
            run_id=self.run_id,
            task=stream.task,
            samples=[reader.read(row) for row in batch.rows],
            shard=batch.shard,
            num_shards=self.shards,
            filter=stream.filter,
        )


def prepare(
    output: Output,
    *,
    shards: int = 1,
    arrangement: Arrangement = Arrangement(),  # noqa: B008 - immutable
    run_id: str | None = None,
    advance: Advance = lambda _: None,
) -> Publication:
    """Read a run through once and make it ready; nothing is sent.

    Args:
        output: The run.
        shards: How many shards to deal its documents to.
        arrangement: In which order, and what twice.
        run_id: Its name; None: one that its content gives.
        advance: Progress, in bytes read.

    Raises:
        EvalsinkError: a file cannot be read, or holds something else than rows.
        UsageError: `run_id` is empty or no UTF-8.
    """
    conversion = Conversion(output)
    table = scan_rows(
        output.samples,
        shards=shards,
        aggregate_filters=aggregate_filters(output),
        known_filters=output.filters,
        advance=advance,
    )
    if run_id is None:
        run_id = default_run_id(output, table)
    try:
        run_id.encode()
    except UnicodeEncodeError as error:
        raise UsageError("--run-id must be UTF-8") from error
    if not run_id:
        raise UsageError("--run-id must not be empty")
    return Publication(run_id, output, table, conversion, arrangement)
