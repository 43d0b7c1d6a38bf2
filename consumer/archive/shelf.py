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
from consumer.archive.faults import Away, Refused
from consumer.archive.hub import Hub, Snapshot, is_same
from consumer.archive.outbox import Outbox
from consumer.archive.parcels import Parcel, Source
from consumer.settings import Hub as HubSettings
from schemas.metrics import MetricRow, encode_rows

CARD = "README.md"

# Ours are some kilobytes; what is larger is not read for the card, only listed.
_METRICS_BYTES_MAX = 16 * 1024 * 1024
_CARD_BYTES_MAX = 32 * 1024 * 1024

_SAMPLES_BYTES_MAX = 1024 * 1024 * 1024
"""Larger files are not fetched to learn their columns; they stay without a configuration."""

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
        refused: dict[str, str] = {}
        while True:
            chosen = [parcel for parcel in parcels if parcel.results not in refused]
            here, additions = self._missing(repo, chosen, snapshot, refused, overwrite=overwrite)
            hashes = {path: digest for parcel in chosen for path, digest in parcel.hashes.items()}
            if not here:
                return Placed(None, refused)
            content = self._render(repo, snapshot, here)
            known = snapshot.files.get(CARD)
            if known is None or not is_same(content, known):
                additions[CARD] = content
            if not additions:
                return Placed(None, refused)
            head, ignored = self._commit(repo, additions, snapshot, runs=len(chosen))
            if head is not None:
                break
            # Without these it is tried again: half a run is none.
            reason = f"the .gitignore of {repo} names {{}}: take it out there"
            refused |= _with_any(chosen, repo, self._settings, ignored, reason)
            if CARD in ignored:
                raise Refused(reason.format(CARD), whole_repo=True)
        if lost := self._hub.missing(repo, additions, head, hashes):
            reason = f"{{}} is not in commit {head} of {repo} as it was sent: somebody removed or replaced it"
            refused |= _with_any(chosen, repo, self._settings, lost, reason)
        self._scanned.clear()
        return Placed(head, refused)

    def _missing(
        self,
        repo: str,
        parcels: Sequence[Parcel],
        snapshot: Snapshot,
        refused: dict[str, str],
        *,
        overwrite: bool,
    ) -> tuple[dict[str, Source], dict[str, Source]]:
        """All files of the parcels, and those of them to be sent. Whose names are taken is `refused`."""
        here: dict[str, Source] = {}
        additions: dict[str, Source] = {}
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
            additions |= missing | differs
        return here, additions

    def _commit(
        self, repo: str, additions: Mapping[str, Source], snapshot: Snapshot, *, runs: int
    ) -> tuple[str | None, list[str]]:
        """A commit that was refused, or perhaps not made, counts for the pace as one that was."""
        title = f"Archive {runs} run{'s' * (runs != 1)}"
        try:
            made = self._hub.commit(repo, additions, parent=snapshot.head, title=title)
        except (Away, Refused):
            self._outbox.note_commit(repo, now=self._now())
            raise
        if made[0] is not None:
            self._outbox.note_commit(repo, now=self._now())
        return made

    def _render(self, repo: str, snapshot: Snapshot, here: Mapping[str, Source]) -> bytes:
        """The card of the repository as it will be."""
        runs = listing.runs({*snapshot.files, *here})
        metrics = {
            run.metrics: rows
            for run in runs
            if run.metrics is not None and (rows := self._rows(repo, snapshot, here, run.metrics)) is not None
        }
        sizes = {path: remote.size for path, remote in snapshot.files.items()}
        remembered = self._remembered(repo, snapshot, sizes)
        known = {
            path: found
            for path in card.samples_listed(runs, metrics)
            if (found := self._columns(repo, snapshot, here, path, remembered)) is not None
        }
        return card.render(
            repo_id=repo,
            branch=self._settings.branch,
            runs=runs,
            metrics=metrics,
            columns=known,
            sizes=sizes | {path: _size(source) for path, source in here.items()},
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
        local = self._output / path
        if local.is_file() and is_same(local, remote):
            return _decoded(local.read_bytes())
        content = self._outbox.blob(remote.oid)
        if content is None:
            content = self._hub.read(repo, path, snapshot)
            self._outbox.keep_blob(remote.oid, content)
        return _decoded(content)

    def _remembered(self, repo: str, snapshot: Snapshot, sizes: Mapping[str, int]) -> Mapping[str, Columns]:
        """What the card that is there now says of the columns of the files that it lists."""
        known = snapshot.files.get(CARD)
        if known is None or known.size > _CARD_BYTES_MAX:
            return {}
        if known.oid not in self._card:
            self._card = {known.oid: self._hub.read(repo, CARD, snapshot)}
        return card.remembered(self._card[known.oid], sizes)

    def _columns(
        self,
        repo: str,
        snapshot: Snapshot,
        here: Mapping[str, Source],
        path: str,
        remembered: Mapping[str, Columns],
    ) -> Columns | None:
        """None: nobody knows them, and the file is too large to be fetched for it."""
        if path in here:
            return self._scan(here[path], path)
        if path in remembered:
            return remembered[path]
        remote = snapshot.files[path]
        local = self._output / path
        if local.is_file() and is_same(local, remote):
            return self._scan(local, path)
        if remote.size > _SAMPLES_BYTES_MAX:
            return None
        # Kept, so that an attempt that was cut goes on where it was.
        key = f"columns of {remote.oid}"
        if (kept := self._outbox.blob(key)) is not None:
            again: Columns = msgspec.json.decode(kept)
            return again
        with self._hub.fetch(repo, path, snapshot) as fetched, fetched.open("rb") as lines:
            found = columns.scan(lines)
        self._outbox.keep_blob(key, msgspec.json.encode(found))
        return found

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


def _with_any(
    parcels: Sequence[Parcel], repo: str, hub: HubSettings, paths: Sequence[str], reason: str
) -> dict[str, str]:
    """Results path of each parcel that has one of `paths` to the reason, which names it."""
    found = set(paths)
    return {
        parcel.results: reason.format(min(met))
        for parcel in parcels
        if (met := found & parcel.into(repo, hub).keys())
    }


def _size(source: Source) -> int:
    return source.stat().st_size if isinstance(source, Path) else len(source)


def _content(source: Source) -> bytes:
    return source if isinstance(source, bytes) else source.read_bytes()


def _decoded(content: bytes) -> list[MetricRow] | None:
    """The rows; None if they are not exactly what this version writes, and so would not load beside ours."""
    try:
        rows = _decode_rows(content)
        return rows if encode_rows(rows) == content else None
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
