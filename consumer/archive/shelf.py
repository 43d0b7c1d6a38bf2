"""One repository as it is filled: what is missing goes in, and the card that lists it, in one commit.

The way: listing of the head -> what of the parcels is not there -> metrics and columns of every run there and
here -> card -> one commit onto that head -> are the files there?

Invariants: nothing is replaced but the card (unless an operator says so); the card is made of the listing
that the commit goes onto, so that of two who commit at a time the second reads again (`Stale`); no commit
where nothing is new; a parcel counts as placed only when its files were seen in the repository.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from consumer.archive import card, columns, listing
from consumer.archive.columns import Columns
from consumer.archive.faults import Away
from consumer.archive.hub import Hub, Snapshot, is_same
from consumer.archive.outbox import Outbox
from consumer.archive.parcels import Parcel, Source
from consumer.settings import Hub as HubSettings
from schemas.metrics import MetricRow

CARD = "README.md"

# Ours are some kilobytes; what is larger is not read for the card, only listed.
_METRICS_BYTES_MAX = 16 * 1024 * 1024

_decode_rows = msgspec.json.Decoder(MetricRow).decode_lines


class Placed(Struct, frozen=True):
    """What came of it.

    Attributes:
        head: The commit in which the parcels are; None: all was there already.
        refused: Results path of a parcel to why it was left out.
    """

    head: str | None
    refused: Mapping[str, str]


class Shelf:
    """Fills repositories of one Hub."""

    def __init__(
        self, hub: Hub, outbox: Outbox, settings: HubSettings, output: Path, *, now: Callable[[], float]
    ) -> None:
        self._hub = hub
        self._outbox = outbox
        self._settings = settings
        self._output = output
        self._now = now
        self._card: dict[str, bytes] = {}
        self._scanned: dict[tuple[str, int], Columns] = {}

    def place(self, repo: str, parcels: Sequence[Parcel], *, overwrite: bool = False) -> Placed:
        """Put the parcels' files for `repo` there.

        Args:
            repo: The repository.
            parcels: Runs; those that are there already cost nothing.
            overwrite: Replace files that are there with other bytes.

        Raises:
            HubFault: nothing of it counts as placed, whatever may have arrived.
            OSError: a file here cannot be read.
        """
        self._hub.prepare(repo)
        snapshot = self._hub.snapshot(repo)
        additions: dict[str, Source] = {}
        here: dict[str, Source] = {}
        hashes: dict[str, str] = {}
        refused: dict[str, str] = {}
        for parcel in parcels:
            files = parcel.into(repo, self._settings)
            missing, differs = _compare(files, snapshot, parcel.hashes)
            if differs and not overwrite:
                refused[parcel.results] = (
                    f"{', '.join(differs)}: in {repo} with other bytes than here; both are kept. "
                    "Compare them; evalsink push --overwrite replaces those there"
                )
                continue
            here |= files
            hashes |= parcel.hashes
            additions |= missing | differs
        if not here:
            return Placed(None, refused)
        content = self._render(repo, snapshot, here)
        known = snapshot.files.get(CARD)
        if known is None or not is_same(content, known):
            additions[CARD] = content
        if not additions:
            return Placed(None, refused)
        runs = len(parcels) - len(refused)
        try:
            head = self._hub.commit(
                repo, additions, parent=snapshot.head, title=f"Archive {runs} run{'s' * (runs != 1)}"
            )
        except Away:
            self._outbox.note_commit(repo, now=self._now())  # it may have been made
            raise
        self._outbox.note_commit(repo, now=self._now())
        self._hub.verify(repo, additions, head, hashes)
        self._scanned.clear()
        return Placed(head, refused)

    def _render(self, repo: str, snapshot: Snapshot, here: Mapping[str, Source]) -> bytes:
        """The card of the repository as it will be."""
        runs = listing.runs({*snapshot.files, *here})
        metrics = {
            run.metrics: rows
            for run in runs
            if run.metrics is not None and (rows := self._rows(repo, snapshot, here, run.metrics)) is not None
        }
        remembered = self._remembered(repo, snapshot)
        known = {
            path: self._columns(repo, snapshot, here, path, remembered)
            for path in card.samples_listed(runs, metrics)
        }
        return card.render(
            repo_id=repo,
            branch=self._settings.branch,
            runs=runs,
            metrics=metrics,
            columns=known,
        )

    def _rows(
        self, repo: str, snapshot: Snapshot, here: Mapping[str, Source], path: str
    ) -> list[MetricRow] | None:
        """The rows of a metrics file, None where it holds something else."""
        if path in here:
            return _decoded(_content(here[path]))
        remote = snapshot.files[path]
        if remote.size > _METRICS_BYTES_MAX:
            return None
        content = self._outbox.blob(remote.oid)
        if content is None:
            local = self._output / path
            if local.is_file() and is_same(local, remote):
                content = local.read_bytes()
            else:
                content = self._hub.read(repo, path, snapshot)
            self._outbox.keep_blob(remote.oid, content)
        return _decoded(content)

    def _remembered(self, repo: str, snapshot: Snapshot) -> Mapping[str, Columns]:
        """What the card that is there now says of the columns of the files that it lists."""
        known = snapshot.files.get(CARD)
        if known is None:
            return {}
        if known.oid not in self._card:
            self._card = {known.oid: self._hub.read(repo, CARD, snapshot)}
        return card.remembered(self._card[known.oid])

    def _columns(
        self,
        repo: str,
        snapshot: Snapshot,
        here: Mapping[str, Source],
        path: str,
        remembered: Mapping[str, Columns],
    ) -> Columns:
        if path in here:
            return self._scan(here[path], path)
        if path in remembered:
            return remembered[path]
        local = self._output / path
        if local.is_file() and is_same(local, snapshot.files[path]):
            return self._scan(local, path)
        with self._hub.fetch(repo, path, snapshot) as fetched, fetched.open("rb") as lines:
            return columns.scan(lines)

    def _scan(self, source: Source, path: str) -> Columns:
        """Scanned once for all tries of a commit."""
        if isinstance(source, bytes):
            return columns.scan(source.splitlines(keepends=True))
        key = (path, source.stat().st_mtime_ns)
        if key not in self._scanned:
            with source.open("rb") as lines:
                self._scanned[key] = columns.scan(lines)
        return self._scanned[key]


def _compare(
    files: Mapping[str, Source], snapshot: Snapshot, hashes: Mapping[str, str]
) -> tuple[dict[str, Source], dict[str, Source]]:
    """What of `files` is not in the repository, and what is there with other bytes."""
    missing: dict[str, Source] = {}
    differs: dict[str, Source] = {}
    for path, source in files.items():
        remote = snapshot.files.get(path)
        if remote is None:
            missing[path] = source
        elif not is_same(source, remote, hashes.get(path, "")):
            differs[path] = source
    return missing, differs


def _content(source: Source) -> bytes:
    return source if isinstance(source, bytes) else source.read_bytes()


def _decoded(content: bytes) -> list[MetricRow] | None:
    try:
        return _decode_rows(content)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
