"""The loop of one worker: poll, step, close, checkpoint, commit.

One thread polls and appends; copying and syncing happen off it.

Invariants: a partition's records are looked at only after its receipts were read and its start decided; what
is committed as watermark was first in a durable checkpoint, and every dead letter below it acknowledged;
commits happen here, never in a rebalance callback, and after every checkpoint even when nothing changed (only
a commit reveals that we were thrown out). A full disk pauses reading and keeps the membership; nothing is
lost by it.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TypeVar

from consumer.closing import Closing
from consumer.errors import BrokerAwayError, DeadLetterLimit, DiskFullError
from consumer.expiry import Expiry
from consumer.filesystem import is_disk_full
from consumer.intake.deadletters import DeadLetters
from consumer.intake.decode import Rejection, decode, peek
from consumer.intake.outbound import Outbound
from consumer.intake.receipts import Receipts
from consumer.intake.resume import decide
from consumer.intake.source import Assigned, Source
from consumer.observations import (
    Counts,
    DiskHeld,
    Observe,
    Rebalanced,
    Standing,
    Turned,
    unobserved,
)
from consumer.runs.book import Event, RunBook, role_of
from consumer.runs.lanes import Gathered
from consumer.runs.lifecycle import may_settle
from consumer.runs.window import Window
from consumer.saving import Saving
from consumer.settings import Settings
from consumer.telemetry.logs import logger
from consumer.vocabulary import DecodedSamples, Record, RejectedRow, Role, TopicPartition
from schemas.events import RunExpired
from schemas.state import Receipt, RunState

# Kafka may be away for so long while dead letters wait for it; then the worker ends, and begins again.
FLUSH_TIMEOUT_S = 120.0

TELL_AGAIN_AFTER_S = 10.0

STANDING_EVERY_S = 1.0

_T = TypeVar("_T")

_log = logger(__name__)


class Worker:
    """One member of the group with its local state."""

    def __init__(
        self,
        settings: Settings,
        *,
        source: Source,
        book: RunBook,
        outbound: Outbound,
        dead_letters: DeadLetters,
        receipts: Receipts,
        closing: Closing,
        expiry: Expiry,
        saving: Saving,
        topic_ids: Mapping[str, str],
        clock: Callable[[], float],
        observe: Observe = unobserved,
        window: Window | None = None,
    ) -> None:
        self._settings = settings
        self._source = source
        self._book = book
        self._outbound = outbound
        self._dead_letters = dead_letters
        self._receipts = receipts
        self._closing = closing
        self._expiry = expiry
        self._saving = saving
        self._topic_ids = topic_ids
        self._clock = clock
        self._observe = observe
        self._window = window
        self._stood_at = clock() - STANDING_EVERY_S
        self._ends: dict[TopicPartition, int] = {}
        topics = settings.topics
        roles: dict[str, list[Role]] = {}
        roles.setdefault(topics.samples, []).append("samples")
        roles.setdefault(topics.aggregates, []).append("aggregates")
        self._roles = roles
        self._owned: set[int] = set()
        self._gained: set[int] = set()
        # Since when each partition with local state is not owned: at first, none is.
        self._lost_at: dict[int, float] = dict.fromkeys(book.partitions, clock())
        self._assigned_once = False
        self._told: dict[str, tuple[float, int]] = {}
        self._idle_since: float | None = None
        self._stop = False
        self.turns = 0
        self.turned_at = clock()
        self.is_drained = False
        self.counts = Counts()

    @property
    def violations(self) -> list[str]:
        """Runs that are not published: other files bear their names, or their close-out crashed."""
        return self._closing.violations

    @property
    def is_stopping(self) -> bool:
        """`stop` was called."""
        return self._stop

    def stop(self) -> None:
        """Ask the loop to end; safe in a signal handler."""
        self._stop = True

    def run(
        self, *, exit_when_idle_s: float | None = None, on_tick: Callable[[], None] | None = None
    ) -> None:
        """Work until `stop` or until idle; then save, commit and leave the group.

        Args:
            exit_when_idle_s: Seconds of idleness that end it; None: only `stop` does.
            on_tick: Called after every turn of the loop.

        Raises:
            EvalsinkError: what the operator must mend; nothing is lost.
        """
        while not self._stop:
            if self.tick():
                self._idle_since = None
            elif exit_when_idle_s is not None and self._idle_for() >= exit_when_idle_s:
                break
            if on_tick is not None:
                on_tick()
        self._drain()

    def tick(self) -> bool:
        """One turn of the loop. Returns True if records came."""
        self._turn()
        records = self._source.poll()
        self._take_assignments()
        self._take(records)
        self._patiently(self._book.spool.flush)
        self._close()
        self._expiry.look(self._at_end, self._owned)
        self._forget_lost()
        abandoned = self._closing.has_abandoned() or self._expiry.is_reading()
        self._saving.advance(self._owned, may_remove=not abandoned)
        self._tell(records)
        return bool(records)

    def _turn(self) -> None:
        self.turns += 1
        self.turned_at = self._clock()

    def _take(self, records: Sequence[Record]) -> None:
        """Take records to where they belong: rows of open runs by their lanes, the others one by one."""
        if not records:
            return
        owned, lanes, partitions = self._owned, self._book.lanes.by_key, self._book.partitions
        for record in records:
            topic, partition, offset, _, key, value, _ = record
            if partition not in owned:
                continue
            event = peek(value)
            if event is not None:
                lane = lanes.get(
                    (
                        partition,
                        event.run_id,
                        event.task,
                        event.filter,
                        event.shard,
                        event.attempt,
                        event.num_shards,
                    )
                )
                if lane is not None and key == lane.key and topic == lane.topic:
                    state = partitions[partition]
                    if offset >= state.positions[topic]:
                        state.positions[topic] = offset + 1
                        state.buried_in_a_row = 0
                        lane.records.append(record)
                        lane.samples.append(event.samples)
                    continue
            self._step(record)
        self.counts.records += len(records)
        self._settle_up(self._book.lanes.gather())

    def _settle_up(self, gathered: Gathered) -> None:
        self.counts.rows += gathered.rows
        for record in gathered.odd:
            self._judge(record)

    def _step(self, record: Record) -> None:
        """Take one record to where it belongs: a run, a dead letter, or a count."""
        positions = self._book.partitions[record.partition].positions
        if record.offset < positions[record.topic]:
            return  # read before: whatever the client does, a record is applied once
        self._judge(record)
        positions[record.topic] = record.offset + 1
        if self._book.spool.is_full:
            self._patiently(self._book.spool.flush)

    def _judge(self, record: Record) -> None:
        topic, partition = record.topic, record.partition
        state = self._book.partitions[partition]
        roles = self._roles[topic]
        event = decode(record.value, record.key, roles[0] if len(roles) == 1 else "both")
        if isinstance(event, Rejection):
            self._bury(record, event.reason, event.detail)
        elif (run := state.runs.get(event.run_id)) is not None:
            self._apply(run, record, event, roles)
        elif (receipt := self._receipts.find(partition, event.run_id)) is not None:
            self._after_closing(record, receipt, event)
        elif isinstance(event, RunExpired):
            self._book.note_early(record, event, roles)
            self.counts.replayed += 1
        else:
            self._apply(self._open(record, event.run_id), record, event, roles)

    def _apply(self, run: RunState, record: Record, event: Event, roles: Sequence[Role]) -> None:
        """Take one event into its open run."""
        self._settle_up(self._book.release(run, event))
        if self._book.take(run, record, event, roles) == "late":
            self._bury(record, "late")
            return
        if may_settle(run):
            self._patiently(partial(self._book.settle, run, record))
        if isinstance(event, DecodedSamples):
            self._count(event)
            if event.rejected:
                self._bury(record, "bad-rows", event.rejected[0].reason, event.rejected)
                return
        self._book.partitions[record.partition].buried_in_a_row = 0

    def _open(self, record: Record, run_id: str) -> RunState:
        run = self._patiently(lambda: self._book.open(record, run_id))
        _log.info("run_opened", run_id=run_id, partition=record.partition, offset=record.offset)
        return run

    def _count(self, event: DecodedSamples) -> None:
        self.counts.rows += len(event.rows)
        if event.repaired or event.scores_dropped or event.rejected:
            self.counts.repaired += len(event.repaired)
            self.counts.scores_dropped += len(event.scores_dropped)
            self.counts.rejected += len(event.rejected)

    def _after_closing(self, record: Record, receipt: Receipt, event: Event) -> None:
        """A record of a run that is closed: up to its cut a replay, above it late."""
        cut = receipt.samples if role_of(event) == "samples" else receipt.aggregates
        same_topic = cut.topic_id == self._topic_ids[record.topic]
        if isinstance(event, RunExpired) or (same_topic and record.offset <= cut.offset):
            self.counts.replayed += 1
        else:
            self._bury(record, "late")

    def _bury(self, record: Record, reason: str, detail: str = "", rows: Sequence[RejectedRow] = ()) -> None:
        state = self._book.partitions[record.partition]
        if reason != "late":
            if state.buried_in_a_row >= self._settings.dead_letters_in_a_row_max:
                raise DeadLetterLimit(
                    f"{state.buried_in_a_row} dead letters in a row from partition {record.partition} of "
                    f"{record.topic}, the next at offset {record.offset} ({reason}): mend what produces "
                    "them, or raise the setting dead_letters_in_a_row_max"
                )
            state.buried_in_a_row += 1
        if self._outbound.is_full:
            self._outbound.flush(FLUSH_TIMEOUT_S)
        self._dead_letters.send(record, reason, detail, rows)
        self.counts.dead_letters += 1
        self._tell_of(record, reason, detail)

    def _tell_of(self, record: Record, reason: str, detail: str) -> None:
        """One line per reason now and then: a bad deployment sends them by the thousand."""
        told_at, untold = self._told.get(reason, (-TELL_AGAIN_AFTER_S, 0))
        if self._clock() - told_at < TELL_AGAIN_AFTER_S:
            self._told[reason] = (told_at, untold + 1)
            return
        self._told[reason] = (self._clock(), 0)
        # Of what could be decoded the key is the run's name.
        named = {"run_id": (record.key or b"").decode()} if reason in {"late", "bad-rows"} else {}
        _log.warning(
            "dead_letter",
            reason=reason,
            detail=detail,
            **named,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            more_of_them_before=untold,
        )

    def _take_assignments(self) -> None:
        self._note_losses()
        if not self._gained:
            return
        started = []
        try:
            for partition in sorted(self._gained):
                self._start(partition)
                started.append(partition)
        except (BrokerAwayError, OSError) as error:
            if isinstance(error, OSError) and not is_disk_full(error):
                raise
            # What is not started stays parked, and is tried again with the next turn.
            _log.warning("start_put_off", reason=str(error))
        self._gained -= set(started)
        _log.info("partitions_assigned", partitions=started)

    def _note_losses(self) -> None:
        """Fold what was noted: one poll may see several rebalances, and only the last holds."""
        for change in self._source.assignments():
            if isinstance(change, Assigned):
                self._observe(Rebalanced("assigned"))
                self._assigned_once = True
                self._gained |= change.partitions
            elif change.partitions:
                self._observe(Rebalanced("lost"))
                self._gained -= change.partitions
                self._owned -= change.partitions
                self._lost_at |= dict.fromkeys(change.partitions, self._clock())
                _log.info("partitions_lost", partitions=sorted(change.partitions))

    def _start(self, partition: int) -> None:
        """Decide where a partition resumes and let it flow."""
        topics = self._settings.topics.inputs
        ends = self._source.ends([partition])
        local = self._book.partitions.get(partition)
        resume = decide(
            topic_ids=self._topic_ids,
            committed=self._source.committed(partition),
            local=local.positions if local is not None else None,
            ends={topic: ends[TopicPartition(topic, partition)] for topic in topics},
        )
        self._receipts.catch_up(partition)
        if not resume.keep_local:
            self._drop(partition)
        state = self._book.partitions[partition]
        for run in list(state.runs.values()):
            if self._receipts.find(partition, run.run_id) is not None:
                self._closing.forget_run(partition, run.run_id)
                self._saving.remove_later(self._book.drop_run(partition, run))
        for run_id in list(state.early_expiries):
            if self._receipts.find(partition, run_id) is not None:
                del state.early_expiries[run_id]
        state.positions.update(resume.start)
        for topic, end in resume.tainted_below.items():
            state.tainted_below[topic] = end
            _log.error("log_begins_above_start", topic=topic, partition=partition, tainted_below=end)
        for place, one in ends.items():
            self._ends[place] = one.end
        self._saving.start(partition, resume.committed)
        self._source.start(partition, resume.start)
        self._owned.add(partition)
        self._lost_at.pop(partition, None)

    def _close(self) -> None:
        for partition in self._owned:
            for run in self._book.settled(partition):
                self._patiently(partial(self._closing.begin, partition, run))
        self._patiently(lambda: self._closing.advance(self._owned))
        for folder in self._closing.take_closed():
            self.counts.closed += 1
            self._saving.remove_later(folder)
        for partition in self._closing.take_damaged():
            # What the disk damaged, the log rebuilds.
            self._drop(partition)
            if partition in self._owned:
                self._owned.discard(partition)
                self._gained.add(partition)

    def _drop(self, partition: int) -> None:
        self._closing.forget(partition)
        for folder in self._book.drop_partition(partition):
            self._saving.remove_later(folder)

    def _forget_lost(self) -> None:
        """Remove the local state of partitions that others have had for long."""
        for partition, since in list(self._lost_at.items()):
            if self._clock() - since >= self._settings.lost_state_keep_s:
                del self._lost_at[partition]
                self._drop(partition)
                del self._book.partitions[partition]

    def _patiently(self, action: Callable[[], _T]) -> _T:
        """Do what needs the disk; while that is full, hold reading, stay a member, and try again."""
        told = False
        while True:
            try:
                done = action()
            except OSError as error:
                if not is_disk_full(error):
                    raise
                if not told:
                    _log.error("disk_full", reason=str(error), state=self._settings.state)
                    told = True
                    self._observe(DiskHeld(waiting=True))
                if self._stop:
                    raise DiskFullError(
                        f"stopped while the disk was full: {error}; nothing is lost, the log is read again"
                    ) from error
                self._source.hold()
                self._note_losses()
                self._turn()
            else:
                if told:
                    _log.info("disk_has_room", state=self._settings.state)
                    self._observe(DiskHeld(waiting=False))
                return done

    def _tell(self, records: Sequence[Record]) -> None:
        """Tell those who watch: of every turn, how things stand now and then, of open runs who asks."""
        self._observe(Turned(records, self.counts))
        if self._clock() - self._stood_at >= STANDING_EVERY_S:
            self._stood_at = self._clock()
            self._observe(self._standing())
        if self._window is not None:
            self._window.show(lambda: [self._book.partitions[number] for number in self._owned])

    def _standing(self) -> Standing:
        lag = {}
        for partition in self._owned:
            for topic, position in self._book.partitions[partition].positions.items():
                place = TopicPartition(topic, partition)
                end = self._source.end_as_heard(place)
                end = self._ends.get(place, 0) if end is None else end
                lag[place] = max(0, end - position)
        runs = [run for partition in self._owned for run in self._book.partitions[partition].runs.values()]
        return Standing(
            assigned=self._assigned_once,
            owned=frozenset(self._owned),
            waiting=frozenset(self._gained),
            lag=lag,
            open_runs=len(runs),
            closing=self._closing.number(self._owned),
            blocked=self._closing.blocked,
            opened_ms=min((run.opened_ms for run in runs if run.opened_ms >= 0), default=None),
            seen_ms=min((run.seen_ms for run in runs if run.seen_ms >= 0), default=None),
            unacknowledged=self._outbound.pending,
        )

    def _at_end(self) -> Collection[int]:
        """Owned partitions whose input topics are read to their ends; none while the broker does not say."""
        try:
            ends = self._source.ends(self._owned)
            return {
                partition
                for partition in self._owned
                if all(
                    position >= ends[TopicPartition(topic, partition)].end
                    for topic, position in self._source.position(partition).items()
                )
            }
        except BrokerAwayError as error:
            _log.warning("ends_unknown", reason=str(error))
            return set()

    def _idle_for(self) -> float:
        """Seconds since nothing is left to do: assigned and started, read to the ends, nothing closing."""
        waiting = not self._assigned_once or self._gained
        busy = self._closing.is_busy(self._owned) or self._outbound.pending
        if waiting or busy or self._at_end() != self._owned:
            self._idle_since = None
            return 0.0
        now = self._clock()
        if self._idle_since is None:
            self._idle_since = now
        return now - self._idle_since

    def _drain(self) -> None:
        """Save and commit what is there, and leave. Runs still closing close again at the next start."""
        self._outbound.flush(self._settings.drain_timeout_s)
        abandoned = self._closing.has_abandoned() or self._expiry.is_reading()
        self._saving.finish(self._owned, may_remove=not abandoned)
        self._source.close()
        self._receipts.close()
        self._outbound.close()
        self._book.spool.close()
        self.is_drained = True
