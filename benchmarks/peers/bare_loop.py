"""kafka-python's poll loop and nothing else: records are counted and thrown away. The measure of all."""

import os

import kafka
from stamps import Stamps, wanted

# What evalsink asks of a poll at most.
RECORDS_PER_POLL = 4000


def main() -> None:
    brokers, topic, _, _, records = wanted()
    stamps = Stamps()
    consumer = kafka.KafkaConsumer(
        bootstrap_servers=brokers,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_poll_records=RECORDS_PER_POLL,
    )
    # No group: it would only cost, and a subscription is forgotten now and then (docs/ARCHITECTURE.md).
    consumer.assign([kafka.TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)])
    stamps.mark("ready")
    read = 0
    while read < records:
        for batch in consumer.poll(timeout_ms=250).values():
            stamps.first()
            read += len(batch)
    stamps.mark("read")
    stamps.tell(read * int(os.environ["BENCH_BATCH"]))
    consumer.close()


if __name__ == "__main__":
    main()
