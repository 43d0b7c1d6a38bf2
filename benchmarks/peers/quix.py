"""Quix Streams: a data frame without steps into a batching sink of ours, which appends when it commits.

A batching sink is what Quix Streams offers for outputs like this: it holds rows in memory and is asked to
write them before each commit, here every two seconds.
"""

from appending import Appender
from quixstreams import Application
from quixstreams.sinks import BatchingSink, SinkBatch
from stamps import Stamps, commit_every_s, session_ms, wanted


class Sink(BatchingSink):
    """Appends at each commit."""

    def __init__(self, appender: Appender, stamps: Stamps) -> None:
        super().__init__()
        self._appender = appender
        self._stamps = stamps

    def add(self, *arguments: object, **named: object) -> None:
        self._stamps.first()
        self.add = super().add  # only the first is noted
        super().add(*arguments, **named)

    def write(self, batch: SinkBatch) -> None:
        for item in batch:
            self._appender.append(item.value)

    def flush(self) -> None:
        super().flush()
        self._appender.flush()
        self._stamps.mark("read")


def main() -> None:
    brokers, topic, group, output, records = wanted()
    appender, stamps = Appender(output), Stamps()
    application = Application(
        broker_address=brokers,
        consumer_group=group,
        auto_offset_reset="earliest",
        commit_interval=commit_every_s(),
        auto_create_topics=False,
        consumer_extra_config={"session.timeout.ms": session_ms()} if session_ms() else None,
        loglevel="WARNING",
    )
    source = application.topic(topic, key_deserializer="bytes", value_deserializer="bytes")
    application.dataframe(source).sink(Sink(appender, stamps))
    stamps.mark("ready")
    application.run(count=records, collect=False)  # commits at the end
    stamps.tell(appender.rows)


if __name__ == "__main__":
    main()
