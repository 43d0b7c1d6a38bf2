"""bytewax: its Kafka source, 1,000 records a batch, and a sink that appends, with recovery every two seconds.

The sink flushes after each batch: bytewax tells a stateless sink nothing before it takes a snapshot, and what
was still buffered then would be lost. Its offsets lie in its own recovery store and not in Kafka.
"""

import os
import sys
from datetime import timedelta
from pathlib import Path

import bytewax.operators as op
from appending import Appender
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main
from stamps import Stamps, commit_every_s, wanted


class Part(StatelessSinkPartition):
    """The sink of the one worker."""

    def __init__(self, appender: Appender, stamps: Stamps, records: int) -> None:
        self._appender = appender
        self._stamps = stamps
        self._records = records
        self._read = 0

    def write_batch(self, items: list) -> None:
        self._stamps.first()
        for message in items:
            self._appender.append(message.value)
        self._appender.flush()
        self._read += len(items)
        if self._read >= self._records:
            self._stamps.mark("read")
            self._stamps.tell(self._appender.rows)
            sys.stdout.flush()
            os._exit(0)  # a flow has no other way to end in the middle of a topic


class Sink(DynamicSink):
    """One part a worker."""

    def __init__(self, *arguments: object) -> None:
        self._arguments = arguments

    def build(self, *_: object) -> Part:
        return Part(*self._arguments)


def main() -> None:
    brokers, topic, _, output, records = wanted()
    store = Path(output, "recovery")
    if not store.exists():
        store.mkdir()
        init_db_dir(store, 1)
    stamps = Stamps()
    flow = Dataflow("bench")
    stream = op.input("in", flow, KafkaSource([brokers], [topic]))
    op.output("out", stream, Sink(Appender(output), stamps, records))
    stamps.mark("ready")
    cli_main(flow, epoch_interval=timedelta(seconds=commit_every_s()), recovery_config=RecoveryConfig(store))


if __name__ == "__main__":
    main()
