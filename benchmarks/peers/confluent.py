"""confluent-kafka's `consume`: up to 5,000 records a call, appended; flushed and committed every 2 s."""

import time

import confluent_kafka
from appending import Appender
from stamps import Stamps, commit_every_s, session_ms, wanted

RECORDS_PER_CALL = 5000


def main() -> None:
    brokers, topic, group, output, records = wanted()
    appender, stamps = Appender(output), Stamps()
    settings = {
        "bootstrap.servers": brokers,
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
    if session_ms():
        settings["session.timeout.ms"] = session_ms()
    consumer = confluent_kafka.Consumer(settings)
    consumer.subscribe([topic])
    stamps.mark("ready")
    read, committed_at = 0, time.monotonic()
    while read < records:
        messages = consumer.consume(RECORDS_PER_CALL, 0.25)
        if messages:
            stamps.first()
        for message in messages:
            if message.error():
                raise confluent_kafka.KafkaException(message.error())
            appender.append(message.value())
        read += len(messages)
        if read >= records or time.monotonic() - committed_at >= commit_every_s():
            appender.flush()
            stamps.mark("read")
            if read:
                commit(consumer)
            committed_at = time.monotonic()
    stamps.tell(appender.rows)
    consumer.close()


def commit(consumer: confluent_kafka.Consumer) -> None:
    """What was read; after a restart there may be nothing new."""
    try:
        consumer.commit(asynchronous=False)
    except confluent_kafka.KafkaException as error:
        if error.args[0].code() != confluent_kafka.KafkaError._NO_OFFSET:  # noqa: SLF001 - its public constant
            raise


if __name__ == "__main__":
    main()
