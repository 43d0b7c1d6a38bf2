"""The composition root: the one file that names every concrete class of a worker."""

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from consumer.archive.desk import Desk
from consumer.archive.outbox import MIRROR_FACT, OUTPUT_FACT, PLACE_FACT, Outbox, has_outbox
from consumer.archive.parcels import mirror_of, place_of
from consumer.archive.process import Order, PusherProcess
from consumer.closing import Closing
from consumer.errors import BrokerError
from consumer.expiry import Expiry
from consumer.filesystem import Disk
from consumer.intake import topics
from consumer.intake.deadletters import DeadLetters
from consumer.intake.decode import Rejection, decode
from consumer.intake.group import GroupSource
from consumer.intake.outbound import Outbound
from consumer.intake.receipts import Receipts, ReceiptTable
from consumer.kafka_client import Connection, connect, parse_servers, partition_counts, topic_ids
from consumer.observations import Observe, unobserved
from consumer.report import metrics
from consumer.report.table import as_page, render
from consumer.runs import checkpoint
from consumer.runs.book import RunBook
from consumer.runs.closeout import Tools
from consumer.runs.publication import sweep_staging
from consumer.runs.spool import Spool
from consumer.runs.window import Window
from consumer.saving import Saving
from consumer.settings import Settings
from consumer.telemetry.logs import logger
from consumer.vocabulary import Record
from consumer.worker import Worker

_log = logger(__name__)


@contextlib.contextmanager
def worker(
    settings: Settings,
    *,
    disk: Disk | None = None,
    clock: Callable[[], float] = time.monotonic,
    observe: Observe = unobserved,
    window: Window | None = None,
) -> Iterator[Worker]:
    """A worker, its state folder locked, its clients connected.

    Args:
        settings: Settings.
        disk: The disk; the real one when not given.
        clock: Seconds.
        observe: Is told what happens; must not raise (`consumer.telemetry.observer.Guarded`).
        window: Where open runs are shown to other threads.

    Raises:
        BrokerError: no broker, or its topics are not as they must be.
        StateError: another process uses the state folder.
    """
    disk = disk or Disk()
    state = settings.state_path
    parse_servers(settings.brokers)  # a wrong call is refused before anything is made on the disk
    lock = checkpoint.StateLock(state)
    executor = ThreadPoolExecutor(max_workers=2, thread_name_prefix="close-out")
    # Its own thread: a checkpoint must not wait behind close-outs.
    scribe = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
    worker_name = ""
    source: GroupSource | None = None
    archive = contextlib.ExitStack()
    try:
        connection = connect(settings.brokers, settings.security)
        check_topics(connection, settings)
        every_id = {} if connection.embedded else topic_ids(connection, _all_topics(settings))
        ids = {topic: every_id.get(topic, "") for topic in settings.topics.inputs}
        settings.output_path.mkdir(parents=True, exist_ok=True)
        worker_name = checkpoint.worker_id(state, disk)
        sweep_staging(settings.output_path, worker_name, disk=disk, now_s=time.time())
        spool = Spool(state, open_files_max=settings.open_files_max)
        book = RunBook(spool, checkpoint.load(state, group=settings.group, topic_ids=ids, disk=disk))
        outbound = Outbound(connection)
        dead_letters = DeadLetters(
            outbound, topic=settings.topics.dead_letters, topic_ids=ids, observe=observe
        )
        receipts = Receipts(
            connection,
            outbound,
            ReceiptTable(state),
            group=settings.group,
            topic=settings.topics.receipts,
            topic_id=every_id.get(settings.topics.receipts, ""),
        )
        tooling = tools(settings, worker_name, disk)
        source = GroupSource(connection, settings, topic_ids=ids)
        desk = archive.enter_context(_archive(settings, clock)) if settings.hub.enabled else None
        if desk is None and has_outbox(state):
            _miss(state)
        closing = Closing(
            book,
            tooling,
            outbound,
            dead_letters,
            receipts,
            group=settings.group,
            topics=settings.topics,
            topic_ids=ids,
            executor=executor,
            clock=clock,
            desk=desk,
            observe=observe,
        )
        yield Worker(
            settings,
            source=source,
            book=book,
            outbound=outbound,
            dead_letters=dead_letters,
            receipts=receipts,
            closing=closing,
            expiry=Expiry(
                settings,
                book,
                tooling,
                outbound,
                executor=executor,
                clock=clock,
                now_ms=lambda: int(time.time() * 1000),
            ),
            saving=Saving(
                settings,
                book,
                source,
                outbound,
                topic_ids=ids,
                disk=disk,
                executor=scribe,
                clock=clock,
                observe=observe,
            ),
            topic_ids=ids,
            clock=clock,
            observe=observe,
            window=window,
        )
    finally:
        if source is not None:
            # After an error too: without a word of leaving, others wait for the session to time out.
            with contextlib.suppress(BrokerError):
                source.close()
        for pool in (executor, scribe):
            pool.shutdown(wait=True, cancel_futures=True)
        archive.close()  # close-outs hand in until they have ended
        if worker_name:
            sweep_staging(settings.output_path, worker_name, disk=disk, now_s=time.time())
        lock.release()


@contextlib.contextmanager
def _archive(settings: Settings, clock: Callable[[], float]) -> Iterator[Desk]:
    """The outbox, and a process that pushes from it."""
    outbox = Outbox(settings.state_path, mend=True)
    output = settings.output_path.absolute()
    hub = replace(settings.hub, runs="all") if settings.durable == "hub" else settings.hub
    outbox.remember(OUTPUT_FACT, str(output))
    outbox.remember(PLACE_FACT, place_of(hub))
    desk = Desk(outbox, settings, mirror=mirror_of(output, hub), clock=clock, now=time.time)
    try:
        with PusherProcess(Order(str(settings.state_path.absolute()), str(output), hub)):
            yield desk
    finally:
        desk.close()


def _miss(state: Path) -> None:
    """What is published without an archive is looked for when there is one again."""
    outbox = Outbox(state, mend=True)
    outbox.remember(MIRROR_FACT, "")
    outbox.close()


def tools(settings: Settings, worker_name: str, disk: Disk) -> Tools:
    """What close-out needs: one recipe for all who close runs, so that one log gives the same bytes."""
    return Tools(
        decode=_decode_again,
        render_table=_render_table,
        render_metrics=metrics.render,
        disk=disk,
        output=settings.output_path,
        worker=worker_name,
    )


def check_topics(connection: Connection, settings: Settings) -> None:
    """Refuse a broker whose topics cannot serve.

    Raises:
        BrokerError: a topic is missing, an input is compacted, or those that must be co-partitioned are not.
    """
    counts = partition_counts(connection, _all_topics(settings))
    missing = [topic for topic, count in counts.items() if not count]
    if missing:
        raise BrokerError(
            f"topics missing at {settings.brokers}: {', '.join(missing)}; "
            f"make them with: evalsink topics --brokers {settings.brokers}"
        )
    if connection.embedded:
        return  # made by us, all alike, and without configuration
    found = topics.arrange(
        connection, settings.topics, silence_ms=round(settings.silence_s * 1000), create=False
    )
    for topic in found:
        for remark in topic.remarks:
            _log.warning("topic_risky", topic=topic.name, reason=remark)
    problems = {topic.name: topic.problems for topic in found if topic.problems}
    for problem in problems.pop(settings.topics.dead_letters, ()):
        _log.warning("topic_unfit", topic=settings.topics.dead_letters, reason=problem)
    if problems:
        raise BrokerError(
            "\n  ".join(["the topics are not as evalsink needs them:", *sum(problems.values(), ())])
        )


def _all_topics(settings: Settings) -> list[str]:
    names = settings.topics
    return list(dict.fromkeys([*names.inputs, names.receipts, names.dead_letters]))


def _decode_again(record: Record) -> Any:
    event = decode(record.value, record.key, "both")
    assert not isinstance(event, Rejection), "an accepted record decodes again"
    return event


def _render_table(results: dict[str, Any]) -> str:
    parts = [render(results, version_column=True)]
    if results.get("groups"):
        parts.append(render(results, column="groups", version_column=True))
    return as_page("\n".join(parts) + "\n")
