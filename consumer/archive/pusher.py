"""Drains the outbox: batches, one commit each, at a pace that the Hub takes, with every failure answered.

The way of a turn: what is due -> by repository -> a batch, if the repository may be committed to now and the
batch is full or has waited -> `pushing` -> the repositories one after the other, samples before results ->
`archived`, put off, or `parked`.

    answer      what happens
    stale       the batch again at once, on the new head; then in a moment
    busy        the repository rests for a moment; no attempt is counted
    throttled   the repository rests for as long as was said; no attempt is counted
    away        the repository rests, longer each time; after commits that were not answered, batches of half
                the size until one succeeds; a run that fails alone stands behind the others, ever longer
    refused     a whole repository: parked. One run: parked. Several runs: batches of half the size, until the
                culprit is alone
    (parked)    tried again on a slow cadence, or as soon as the token changes

Invariants: runs on no poll thread; an errand leaves `pushing` within the turn that brought it there, whatever
is raised; whatever the Hub answers, commits keep to the pace, and nothing is asked while a repository rests;
times come from `now`, waiting is the caller's. Retries are a schedule for each repository here, and outlive
the process, hence no library.
"""

import contextlib
import random
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from msgspec import Struct

from consumer.archive.answers import clean
from consumer.archive.faults import Away, Busy, HubFault, Refused, Stale, Throttled
from consumer.archive.hub import Hub, mark_of
from consumer.archive.outbox import MIRROR_FACT, Errand, Outbox
from consumer.archive.pace import next_commit_at
from consumer.archive.parcels import Parcel, ParcelError, find_published, mirror_of, pack, repositories
from consumer.archive.proposals import propose
from consumer.archive.shelf import Shelf
from consumer.filesystem import is_disk_full
from consumer.settings import Hub as HubSettings
from consumer.telemetry.logs import logger

STALE_TRIES = 2
BUSY_WAIT_S = 2.0
AWAY_WAIT_S = 5.0
AWAY_WAIT_MAX_S = 300.0
ALONE_WAIT_MAX_S = 3600.0
HARD_WAIT_MAX_S = 6 * 3600.0
"""A Hub that asks for more than this is asked again all the same."""

_DUE_MAX = 5000

# What the Hub takes inside the commit itself, in base64, and the client holds in memory meanwhile; larger
# files travel on their own.
_SMALL_FILE_BYTES = 10 * 1024 * 1024
_SMALL_BYTES_MAX = 64 * 1024 * 1024
_BYTES_MAX = 2 * 1024 * 1024 * 1024
"""Of a batch of more than one run: what one attempt risks to send in vain."""

_BYTES_PER_SECOND_MIN = 1024 * 1024

_REFUSED_TOKEN = "refused token"  # noqa: S105 - the name of a fact

_log = logger(__name__)

Parcels = dict[Errand, Parcel]


def _no_deadline(_seconds: float) -> AbstractContextManager[None]:
    return contextlib.nullcontext()


class _Repository(Struct):
    """What is known of one place that runs go to."""

    not_before: float = 0.0
    failures: int = 0
    files_max: int = 0


class Pusher:
    """Pushes from one outbox. One thread."""

    def __init__(
        self,
        hub: Hub,
        outbox: Outbox,
        settings: HubSettings,
        output: Path,
        *,
        now: Callable[[], float],
        deadline: Callable[[float], AbstractContextManager[None]] = _no_deadline,
        packing: Callable[[Errand], Parcel] | None = None,
        linger_s: float | None = None,
        overwrite: bool = False,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Make one.

        Args:
            hub: The Hub.
            outbox: Where errands wait.
            settings: Of the archive.
            output: Output folder.
            now: The time, seconds since the epoch.
            deadline: Entered around each attempt with its seconds; ends the process when they are over.
            packing: Makes the parcel of an errand; not given: from what evalsink published below `output`.
            linger_s: In place of the setting.
            overwrite: Replace files that are on the Hub with other bytes.
            jitter: A number from 0 to 1, anew at each call.
        """
        self._hub = hub
        self._outbox = outbox
        self._settings = settings
        self._output = output
        self._now = now
        self._deadline = deadline
        self._pack = packing or (lambda one: pack(output, one.results, sha256=one.sha256))
        self._linger_s = settings.linger_s if linger_s is None else linger_s
        self._overwrite = overwrite
        self._jitter = jitter
        self._shelf = Shelf(hub, outbox, settings, output, now=now)
        self._repositories: dict[str, _Repository] = {}
        self._entered = False

    def turn(self) -> float | None:
        """Do what can be done now.

        Returns:
            Seconds until there may be more to do; None if nothing waits.

        Raises:
            OSError: the outbox cannot be read or written.
        """
        self._entered = False
        self._clear()
        self._notice_new_token()
        wake: list[float] = []
        for repos, errands in self._due().items():
            wake += self._advance(repos, errands)
        later = self._outbox.next_due_at()
        if later is not None and (later > self._now() or self._entered):
            wake.append(later)
        return max(0.0, min(wake) - self._now()) if wake else None

    def rebuild(self) -> None:
        """Enter what the output folder holds, if this outbox is new, or is for another place than before."""
        mirror = mirror_of(self._output, self._settings)
        before = self._outbox.fact(MIRROR_FACT)
        if before == mirror or not self._output.is_dir():
            return
        if before:
            self._outbox.requeue_archived(now=self._now())
        wanted = {"complete"} if self._settings.runs == "complete" else {"complete", "incomplete", "failed"}
        found = [run for run in find_published(self._output) if run[2] in wanted]
        entered = self._outbox.enter_missing(found, now=self._now())
        self._outbox.remember(MIRROR_FACT, mirror)
        _log.info("outbox_rebuilt", runs=entered, output=str(self._output))

    # -- one repository ------------------------------------------------------------------------------------

    def _due(self) -> dict[tuple[str, ...], list[Errand]]:
        """What is due, by where it goes."""
        due: dict[tuple[str, ...], list[Errand]] = {}
        for errand in self._outbox.due(self._now(), limit=_DUE_MAX):
            if errand.kind == "proposal":
                due.setdefault(("proposals",), []).append(errand)
                continue
            folder, _, _ = errand.results.rpartition("/")
            results, samples = repositories(folder, self._settings)
            # Samples first: results that are there say that all is there.
            due.setdefault(tuple(dict.fromkeys((samples, results))), []).append(errand)
        return due

    def _advance(self, repos: tuple[str, ...], errands: list[Errand]) -> list[float]:
        """Push batches to one place while it may be. Returns when to come again, none if all is done."""
        if repos == ("proposals",):
            return self._propose(errands)
        place = self._place_of(repos)
        while errands:
            ready_at = max(place.not_before, *(self._may_commit_at(repo) for repo in repos))
            parcels, is_full = self._batch(errands, place)
            if not parcels:
                break  # all of them were parked
            if not is_full:
                oldest = min(max(errand.queued_at, errand.next_at) for errand in parcels)
                ready_at = max(ready_at, oldest + self._linger_s)
            if ready_at > self._now():
                return [ready_at]
            errands = [errand for errand in errands if errand not in parcels]
            self._attempt(repos, place, parcels)
            if place.not_before > self._now():
                return [place.not_before]
        return []

    def _batch(self, errands: list[Errand], place: _Repository) -> tuple[Parcels, bool]:
        """The first errands, packed, and whether they fill a commit.

        What is no run any more is parked, and taken out of `errands`.
        """
        parcels: Parcels = {}
        files = small = size = 0
        for errand in list(errands):
            try:
                parcel = self._pack(errand)
            except (ParcelError, OSError) as error:
                self._set_aside(errand, error)
                errands.remove(errand)
                continue
            files += len(parcel.files) + len(parcel.samples)
            small += parcel.bytes_of(largest=_SMALL_FILE_BYTES)
            size += parcel.bytes_of()
            if parcels and (files > place.files_max or small > _SMALL_BYTES_MAX or size > _BYTES_MAX):
                return parcels, True
            parcels[errand] = parcel
        return parcels, files >= place.files_max or small >= _SMALL_BYTES_MAX or size >= _BYTES_MAX

    def _set_aside(self, errand: Errand, error: Exception) -> None:
        """A run that cannot be packed: seen on the Hub before its files went, or for somebody to look at."""
        if errand.done_at is not None and not self._settings.keep_files:
            self._outbox.archive([errand], now=self._now())
        else:
            self._park([errand], str(error))

    def _attempt(self, repos: tuple[str, ...], place: _Repository, parcels: Parcels) -> None:
        """Push one batch, and write down what came of it."""
        errands = list(parcels)
        self._outbox.begin(errands)
        try:
            refused: dict[str, str] = {}
            with self._deadline(self._patience_s(parcels.values())):
                for repo in repos:
                    left = [one for one in parcels.values() if one.results not in refused]
                    refused |= self._place(repo, left)
        except Refused as fault:
            self._answer_refused(place, parcels, fault)
        except HubFault as fault:
            self._answer(" ".join(repos), place, parcels, fault)
        except Exception as error:  # noqa: BLE001 - whatever it is, the errands must leave `pushing`
            # A file that cannot be read, or a fault of ours: the culprit is looked for.
            reason = clean(f"{type(error).__name__}: {error}", None)
            if isinstance(error, OSError) and is_disk_full(error):
                # Of the disk beneath the outbox: nobody's fault, and room comes back.
                self._answer(" ".join(repos), place, parcels, Busy(reason))
                return
            _log.error("push_crashed", repo=" ".join(repos), runs=len(errands), reason=reason)
            self._answer_refused(place, parcels, Refused(reason, whole_repo=False))
        else:
            place.failures = 0
            place.files_max = min(place.files_max * 2, self._settings.files_per_commit_max)
            self._finish([one for one in errands if one.results not in refused], repos)
            for errand in errands:
                if errand.results in refused:
                    self._park([errand], refused[errand.results])

    def _place(self, repo: str, parcels: Sequence[Parcel]) -> dict[str, str]:
        """Put parcels into one repository; once more at once if somebody was quicker."""
        for remaining in range(STALE_TRIES - 1, -1, -1):
            try:
                placed = self._shelf.place(repo, parcels, overwrite=self._overwrite)
            except Stale:
                if not remaining:
                    raise
                continue
            if placed.head is not None:
                _log.info("pushed", repo=repo, runs=len(parcels) - len(placed.refused), commit=placed.head)
            return dict(placed.refused)
        raise AssertionError("the last try returns or raises")

    # -- answers -------------------------------------------------------------------------------------------

    def _finish(self, errands: list[Errand], repos: tuple[str, ...]) -> None:
        """They are on the Hub."""
        proposing = bool(self._settings.eval_results)
        for errand in errands if proposing else ():
            self._entered = True
            self._outbox.enqueue(
                *(errand.results, "proposal"),
                run_id=errand.run_id,
                status=errand.status,
                sha256=errand.sha256,
                now=self._now(),
            )
        clear = not self._settings.keep_files and not proposing
        self._outbox.archive(errands, now=self._now(), clear=clear)
        self._outbox.count("archived", len(errands))
        for errand in errands:
            _log.info("run_archived", run_id=errand.run_id, results=errand.results, repo=repos[-1])
        if clear:
            self._clear()

    def _answer(self, repo: str, place: _Repository, errands: Collection[Errand], fault: HubFault) -> None:
        """The batch stays in the outbox, and its repository rests."""
        reason = str(fault)
        counts = isinstance(fault, Away)
        match fault:
            case Throttled():
                rest_s = min(fault.after_s, HARD_WAIT_MAX_S) + self._jitter()
            case Busy() | Stale():
                place.failures += 1
                rest_s = min(BUSY_WAIT_S * 2 ** min(place.failures - 1, 5), 60.0) * (0.5 + self._jitter())
            case _:
                place.failures += 1
                if isinstance(fault, Away) and fault.was_sent and place.failures > 1:
                    self._halve(place, errands)
                rest_s = min(AWAY_WAIT_S * 2 ** min(place.failures - 1, 10), AWAY_WAIT_MAX_S)
                rest_s *= 0.5 + self._jitter() / 2
        place.not_before = self._now() + rest_s
        next_at = place.not_before
        if counts and len(errands) == 1:
            # It may be this one alone: the others come first.
            [alone] = errands
            next_at = max(next_at, self._now() + min(AWAY_WAIT_S * 2**alone.attempts, ALONE_WAIT_MAX_S))
        self._outbox.put_off(errands, reason, next_at=next_at, counts=counts)
        self._outbox.count("retried")
        _log.warning(
            "push_put_off",
            repo=repo,
            runs=len(errands),
            answer=type(fault).__name__.lower(),
            reason=reason,
            again_in_s=round(rest_s, 1),
        )

    def _answer_refused(self, place: _Repository, parcels: Parcels, fault: Refused) -> None:
        if fault.whole_repo:
            self._outbox.remember(_REFUSED_TOKEN, self._hub.token_mark)
            # The next batch would hear the same: one question at a time.
            place.not_before = self._now() + BUSY_WAIT_S
        if fault.whole_repo or len(parcels) == 1:
            self._park(list(parcels), str(fault))
            return
        self._halve(place, parcels)
        self._outbox.put_off(parcels, str(fault), next_at=self._now(), counts=False)
        self._entered = True

    def _halve(self, place: _Repository, errands: Collection[Errand]) -> None:
        """Smaller batches from now on; `_attempt` lets them grow again."""
        files = (
            len(parcel.files) + len(parcel.samples)
            for errand in errands
            if (parcel := self._packed(errand)) is not None
        )
        place.files_max = max(1, min(place.files_max, sum(files)) // 2)

    def _packed(self, errand: Errand) -> Parcel | None:
        try:
            return self._pack(errand)
        except (ParcelError, OSError):
            return None

    def _park(self, errands: list[Errand], reason: str) -> None:
        self._outbox.park(errands, reason, next_at=self._now() + self._settings.parked_retry_s)
        self._outbox.count("parked", len(errands))
        again_in_s = self._settings.parked_retry_s
        for errand in errands:
            if errand.state != "parked":
                _log.error(
                    "run_parked",
                    run_id=errand.run_id,
                    results=errand.results,
                    kind=errand.kind,
                    reason=reason,
                    again_in_s=again_in_s,
                )
        if still := sum(errand.state == "parked" for errand in errands):
            _log.error("runs_still_parked", runs=still, reason=reason, again_in_s=again_in_s)

    def _clear(self) -> None:
        """Remove the files here of what is on the Hub, if that was asked for; also what an earlier one left.

        The results JSON goes first: no results without their rows.
        """
        for errand in self._outbox.in_state("clearing"):
            if (parcel := self._packed(errand)) is not None:
                with contextlib.suppress(OSError):  # somebody else removes too
                    for path in reversed([*parcel.samples, *parcel.files]):
                        (self._output / path).unlink(missing_ok=True)
                    # Others of the model may lie there.
                    (self._output / errand.results).parent.rmdir()
            self._outbox.finish_clearing(errand)

    def _propose(self, errands: Iterable[Errand]) -> list[float]:
        """Propose the scores of archived runs to their models' repositories."""
        place = self._place_of(("proposals",))
        for errand in errands:
            if place.not_before > self._now():
                return [place.not_before]
            self._outbox.begin([errand])
            try:
                with self._deadline(self._settings.upload_timeout_s):
                    addresses = propose(self._hub, self._output, errand, self._settings)
            except (Refused, ParcelError) as fault:
                self._park([errand], str(fault))
            except HubFault as fault:
                self._answer("proposals", place, [errand], fault)
            except Exception as error:  # noqa: BLE001 - likewise
                self._park([errand], clean(f"{type(error).__name__}: {error}", None))
            else:
                place.failures = 0
                self._outbox.archive([errand], now=self._now(), clear=not self._settings.keep_files)
                for address in addresses:
                    _log.info("scores_proposed", run_id=errand.run_id, pull_request=address)
        return []

    # -- pace ----------------------------------------------------------------------------------------------

    def _place_of(self, repos: tuple[str, ...]) -> _Repository:
        key = " ".join(repos)
        if key not in self._repositories:
            self._repositories[key] = _Repository(files_max=self._settings.files_per_commit_max)
        return self._repositories[key]

    def _may_commit_at(self, repo: str) -> float:
        return next_commit_at(self._outbox.commits(repo), self._settings.commits_per_hour)

    def _patience_s(self, parcels: Iterable[Parcel]) -> float:
        """Longest attempt: by the bytes that it may have to send."""
        size = sum(parcel.bytes_of() for parcel in parcels)
        return self._settings.upload_timeout_s + size / _BYTES_PER_SECOND_MIN

    def _notice_new_token(self) -> None:
        """What was refused to one token may be granted to the next."""
        refused = self._outbox.fact(_REFUSED_TOKEN)
        if refused is None:
            return
        try:
            token = self._hub.read_token()
        except HubFault:
            return  # it cannot be read now
        if (mark_of(token) if token else "") != refused:
            self._outbox.forget(_REFUSED_TOKEN)
            _log.info("token_changed", retried=self._outbox.retry_parked(now=self._now()))
