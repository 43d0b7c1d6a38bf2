"""aiokafka's `getmany`: up to 5,000 records a call, appended; flushed and committed every 2 s."""

import asyncio
import time

from aiokafka import AIOKafkaConsumer
from appending import Appender
from stamps import Stamps, commit_every_s, session_ms, wanted

RECORDS_PER_CALL = 5000


async def work() -> None:
    brokers, topic, group, output, records = wanted()
    appender, stamps = Appender(output), Stamps()
    session = {"session_timeout_ms": session_ms()} if session_ms() else {}
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=brokers,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        **session,
    )
    await consumer.start()
    stamps.mark("ready")
    read, committed_at = 0, time.monotonic()
    while read < records:
        batches = await consumer.getmany(timeout_ms=250, max_records=RECORDS_PER_CALL)
        for batch in batches.values():
            stamps.first()
            for message in batch:
                appender.append(message.value)
            read += len(batch)
        if read >= records or time.monotonic() - committed_at >= commit_every_s():
            appender.flush()
            stamps.mark("read")
            await consumer.commit()
            committed_at = time.monotonic()
    stamps.tell(appender.rows)
    await consumer.stop()


if __name__ == "__main__":
    asyncio.run(work())
