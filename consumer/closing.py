"""A settled run's last steps, in order.

Refused aggregates become dead letters; the files are published and the run is handed in to be archived, off
the poll thread; all dead letters so far are acknowledged; with ``durable = "hub"`` the run is archived; the
receipt is written and acknowledged; the run is forgotten.

Invariants: no receipt before the files are published, the run stands in the outbox and the dead letters are
durable; a run is forgotten only after its receipt is acknowledged; a name taken by other bytes means no
receipt: the run stays, alarmed, and pins the watermark.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor, Future
from pathlib import Path

from msgspec import Struct

from consumer.archive.desk import Desk
from consumer.errors import DeterminismError, SpoolError
from consumer.intake.deadletters import DeadLetters
from consumer.intake.outbound import Outbound
from consumer.intake.receipts import Receipts
from consumer.observations import Closed, CloseOutFailed, Observe, Obstacle, unobserved
from consumer.runs.aggregates import refused
from consumer.runs.book import RunBook
from consumer.runs.closeout import ClosedRun, Tools, close_out
from consumer.runs.spool import SpooledRun
from consumer.settings import Topics
from consumer.telemetry.logs import logger
from schemas.state import Receipt, RunState, TopicCut

RETRY_AFTER_S = 5.0

_log = logger(__name__)


class _Step(Struct):
    """One run on its way out."""

    partition: int
    run: RunState
    job: Future[ClosedRun] | None = None
    letters: int = 0
    receipt: Receipt | None = None
    receipt_ticket: int = 0
    again_at: float | None = None
    stuck: Obstacle | None = None
    begun_at: float = 0.0


class Closing:
    """All runs on their way out. One thread, but for the jobs."""

    def __init__(
        self,
        book: RunBook,
        tools: Tools,
        outbound: Outbound,
        dead_letters: DeadLetters,
        receipts: Receipts,
        *,
        group: str,
        topics: Topics,
        topic_ids: Mapping[str, str],
        executor: Executor,
        clock: Callable[[], float],
        observe: Observe = unobserved,
        desk: Desk | None = None,
    ) -> None:
        self._book = book
        self._tools = tools
        self._outbound = outbound
        self._dead_letters = dead_letters
        self._receipts = receipts
        self._group = group
        self._topics = topics
        self._topic_ids = topic_ids
        self._executor = executor
        self._clock = clock
        self._desk = desk
        self._observe = observe
        self._steps: dict[tuple[int, str], _Step] = {}
        self._abandoned: list[Future[ClosedRun]] = []
        self._closed: list[Path] = []
        self._damaged: set[int] = set()

    @property
    def violations(self) -> list[str]:
        """Runs that cannot be published: other bytes bear their names, or their close-out crashed."""
        return [step.run.run_id for step in self._steps.values() if step.stuck]

    @property
    def blocked(self) -> Mapping[str, int]:
        """How many there are of `violations`, by what is in their way."""
        return Counter(step.stuck for step in self._steps.values() if step.stuck)

    def number(self, owned: Collection[int]) -> int:
        """How many runs of owned partitions are on their way out."""
        return sum(step.partition in owned for step in self._steps.values())

    def is_busy(self, owned: Collection[int]) -> bool:
        """Something of an owned partition is on its way out that time alone will finish."""
        return any(
            step.partition in owned and not step.stuck and not self._is_parked(step)
            for step in self._steps.values()
        ) or (self._desk is not None and self._desk.is_busy())

    def has_abandoned(self) -> bool:
        """A close-out that was given up may still be reading spool files of a forgotten run."""
        self._abandoned = [job for job in self._abandoned if not job.done()]
        return bool(self._abandoned)

    def take_closed(self) -> list[Path]:
        """Folders of runs forgotten since the last call, to be removed once no checkpoint lists them."""
        closed, self._closed = self._closed, []
        return closed

    def take_damaged(self) -> set[int]:
        """Partitions whose local state turned out damaged since the last call."""
        damaged, self._damaged = self._damaged, set()
        return damaged

    def begin(self, partition: int, run: RunState) -> None:
        """Start closing a settled run; a run already on its way stays there."""
        if (partition, run.run_id) in self._steps:
            return
        for aggregate, reason in refused(run):
            self._dead_letters.send(self._book.spool.read_record(partition, run, aggregate.span), reason)
        step = _Step(partition, run, begun_at=self._clock())
        self._submit(step)
        self._steps[partition, run.run_id] = step

    def forget(self, partition: int) -> None:
        """Give up on a partition's runs; jobs that run on find their files as long as `has_abandoned`."""
        for _, run_id in [key for key in self._steps if key[0] == partition]:
            self.forget_run(partition, run_id)

    def forget_run(self, partition: int, run_id: str) -> None:
        """Give up on one run."""
        step = self._steps.pop((partition, run_id), None)
        if step is not None and step.receipt is not None and self._desk is not None:
            self._desk.forget(step.receipt.results)
        if step is not None and step.job is not None and not step.job.cancel():
            self._abandoned.append(step.job)

    def advance(self, owned: Collection[int]) -> None:
        """Move every run of an owned partition as far as it goes.

        Raises:
            BrokerError: a dead letter or receipt was refused for good.
        """
        acknowledged = self._outbound.acknowledged()
        for key, step in list(self._steps.items()):
            if step.again_at is not None and self._clock() >= step.again_at:
                step.again_at = None
                self._submit(step)
            if step.job is not None and step.job.done():
                self._finish(step)
            if step.receipt is None or step.partition not in owned:
                continue
            if step.receipt_ticket == 0:
                if acknowledged < step.letters or not self._is_durable(step.receipt):
                    continue
                step.receipt_ticket = self._receipts.send(step.partition, step.receipt)
            elif acknowledged >= step.receipt_ticket:
                self._receipts.remember(step.partition, step.receipt)
                self._closed.append(self._book.drop_run(step.partition, step.run))
                del self._steps[key]

    def _submit(self, step: _Step) -> None:
        spooled = self._book.spooled(step.partition, step.run)
        step.job = self._executor.submit(self._publish, spooled)

    def _publish(self, spooled: SpooledRun) -> ClosedRun:
        """Off the poll thread: the files, then the outbox, which must know a run before its receipt does."""
        closed = close_out(spooled, self._tools)
        if self._desk is not None:
            self._desk.enter(
                closed.results, run_id=spooled.run.run_id, status=closed.status, sha256=closed.sha256
            )
        return closed

    def _is_durable(self, receipt: Receipt) -> bool:
        return self._desk is None or self._desk.is_durable(receipt.results)

    def _is_parked(self, step: _Step) -> bool:
        return (
            self._desk is not None
            and step.receipt is not None
            and step.receipt_ticket == 0
            and self._desk.is_parked(step.receipt.results)
        )

    def _finish(self, step: _Step) -> None:
        job, step.job = step.job, None
        assert job is not None
        run = step.run
        try:
            closed = job.result()
        except DeterminismError as error:
            self._block(step, "determinism")
            _log.error("determinism_violation", run_id=run.run_id, reason=str(error))
            return
        except SpoolError as error:
            self._block(step, "spool")
            self._damaged.add(step.partition)
            _log.error("spool_damaged", run_id=run.run_id, partition=step.partition, reason=str(error))
            return
        except OSError as error:
            step.again_at = self._clock() + RETRY_AFTER_S
            self._observe(CloseOutFailed("disk"))
            _log.error("close_out_failed", run_id=run.run_id, reason=str(error), again_in_s=RETRY_AFTER_S)
            return
        except Exception as error:  # noqa: BLE001 - one run that nobody foresaw must not stop the others
            self._block(step, "crash")
            _log.error("close_out_crashed", run_id=run.run_id, reason=f"{type(error).__name__}: {error}")
            return
        assert run.samples_cut is not None
        assert run.aggregates_cut is not None
        step.letters = self._outbound.sent
        step.receipt = Receipt(
            group=self._group,
            run_id=run.run_id,
            status=closed.status,
            samples=TopicCut(self._topic_ids.get(self._topics.samples, ""), run.samples_cut.offset),
            aggregates=TopicCut(self._topic_ids.get(self._topics.aggregates, ""), run.aggregates_cut.offset),
            stem=closed.stem,
            results=closed.results,
            sha256=closed.sha256,
        )
        _log.info(
            "run_closed",
            run_id=run.run_id,
            status=closed.status,
            results=closed.results,
            rows=closed.rows,
            bytes=closed.size,
        )
        self._observe(
            Closed(
                closed.status,
                closed.rows,
                closed.size,
                closed.duplicates,
                closed.conflicts,
                closed.superseded,
                self._clock() - step.begun_at,
            )
        )

    def _block(self, step: _Step, reason: Obstacle) -> None:
        step.stuck = reason
        self._observe(CloseOutFailed(reason))
