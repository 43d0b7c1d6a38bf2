"""FastStream over confluent-kafka: a subscriber of batches of up to 5,000, appended, flushed, acknowledged.

It commits after each batch, which is its own way of acknowledging. Its default would acknowledge first, and
lose what it was killed over. Its JSON decoding is switched off: msgspec decodes.
"""

import asyncio
import contextlib
import logging

from appending import Appender
from faststream import AckPolicy, FastStream
from faststream.confluent import KafkaBroker
from stamps import Stamps, session_ms, wanted

RECORDS_PER_CALL = 5000


async def work() -> None:
    brokers, topic, group, output, records = wanted()
    appender, stamps = Appender(output), Stamps()
    broker = KafkaBroker(brokers, allow_auto_create_topics=False, apply_types=False, logger=None)
    application = FastStream(broker, logger=None)
    read = 0

    @broker.subscriber(
        topic,
        group_id=group,
        auto_offset_reset="earliest",
        batch=True,
        max_records=RECORDS_PER_CALL,
        ack_policy=AckPolicy.NACK_ON_ERROR,
        decoder=lambda message: message.body,
        **({"session_timeout_ms": session_ms()} if session_ms() else {}),
    )
    async def handle(values: list) -> None:
        nonlocal read
        stamps.first()
        for value in values:
            appender.append(value)
        appender.flush()
        read += len(values)
        stamps.mark("read")
        if read >= records:
            application.exit()

    stamps.mark("ready")
    await application.run()
    stamps.tell(appender.rows)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(work())
