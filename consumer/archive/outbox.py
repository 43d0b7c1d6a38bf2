"""The outbox: closed runs that have to reach the Hub, and how far each has come. On disk, in the state.

One row an errand: a run to be archived, or a run's scores to be proposed to a model's repository::

    errands(results TEXT, kind TEXT, run_id TEXT, status TEXT, sha256 TEXT, state TEXT, queued_at REAL,
            attempts INTEGER, next_at REAL, reason TEXT, done_at REAL, PRIMARY KEY (results, kind))

    (new) ─► queued ◄───────────────────────────┬──────────┐
               │  ▲ not now                     │          │ entered again: looked at again,
               ▼  │                             │ in time  │ which costs no commit
             pushing ──► (clearing) ─► archived ┼──────────┘
                  └────► parked ────────────────┘
                            └────► dropped   (by an operator, for good)

`clearing`: on the Hub, and its files here are to be removed.

Invariants: an errand is on the disk before whoever entered it goes on; a change of state is one transaction,
so a SIGKILL leaves the old state or the new one; at most one process pushes (`PusherLock`), and what it finds
as `pushing` when it starts is what an earlier one left. Times are seconds since the epoch.

It is a cache of the output folder: a lost or damaged one is written again from there (`MIRROR_FACT`), and
what is on the Hub already costs no second commit. Only the worker that owns the state folder mends one.
"""

import contextlib
import errno
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from consumer.errors import StateError
from consumer.telemetry.logs import logger
from schemas.results import RunStatus

OUTBOX_FILE = "outbox.sqlite"

OUTPUT_FACT = "output"
"""Name of the fact that says where the output folder is."""

MIRROR_FACT = "mirror"
"""Name of the fact that says of which output folder, and in which repositories, this is the outbox."""

PLACE_FACT = "place"
"""Name of the fact that says where the worker archives."""

State = Literal["queued", "pushing", "clearing", "archived", "parked", "dropped"]
Kind = Literal["archive", "proposal"]

_BUSY_TIMEOUT_S = 30.0

# SQLite tells its operational errors apart by words alone.
_OF_THE_DISK = ("full", "locked", "busy", "I/O", "unable to open", "readonly", "interrupted")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS errands (
    results TEXT, kind TEXT, run_id TEXT NOT NULL, status TEXT NOT NULL, sha256 TEXT NOT NULL,
    state TEXT NOT NULL, queued_at REAL NOT NULL, attempts INTEGER NOT NULL, next_at REAL NOT NULL,
    reason TEXT NOT NULL, done_at REAL, PRIMARY KEY (results, kind)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS errands_by_state ON errands (state, next_at);
CREATE TABLE IF NOT EXISTS commits (repo TEXT, at REAL);
CREATE TABLE IF NOT EXISTS outcomes (outcome TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blobs (oid TEXT PRIMARY KEY, content BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""

_log = logger(__name__)


class Errand(Struct, frozen=True):
    """One thing to be done on the Hub.

    Attributes:
        results: Results JSON of the run, relative to the output folder.
        kind: ``archive``: the run's files; ``proposal``: its scores, to the model's repository.
        run_id: The run.
        status: Of the run, as in its results JSON.
        sha256: Of the results JSON, hex.
        state: Where it stands.
        queued_at: When it was entered.
        attempts: How often it was tried without success.
        next_at: When it is due; for ``parked`` the next try on the slow cadence.
        reason: Why it is not done yet, a sentence; "" if it was never tried.
        done_at: When its present bytes were last seen on the Hub, else None.
    """

    results: str
    kind: Kind
    run_id: str
    status: RunStatus
    sha256: str
    state: State
    queued_at: float
    attempts: int
    next_at: float
    reason: str
    done_at: float | None


_COLUMNS = ", ".join(Errand.__struct_fields__)


class Outbox:
    """All errands of one state folder. Threads may share it; processes open one each."""

    def __init__(self, state: Path | None, *, mend: bool = False, timeout_s: float = _BUSY_TIMEOUT_S) -> None:
        """Open the outbox in `state`, made if it is not there; None: one in memory.

        Args:
            state: State folder.
            mend: Begin a damaged one anew. For who has locked the state folder, and before anybody else opens
                it: whoever has it open would go on with what was moved away.
            timeout_s: Longest wait for another process that writes, seconds.

        Raises:
            StateError: it is damaged.
            OSError: the disk.
        """
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._path = state / OUTBOX_FILE if state is not None else None
        if mend and self._path is not None:
            _mend(self._path)
        try:
            with _disk_errors():
                self._db = self._open()
                # What is read does not wait for what is written and synced. In memory one serves for both.
                self._reader = self._db if self._path is None else self._open()
        except sqlite3.DatabaseError as error:
            raise StateError(
                f"{self._path} is damaged: {error}; stop its worker and start it again, which mends it"
            ) from error
        self._reading = self._lock if self._path is None else threading.Lock()

    def enqueue(
        self, results: str, kind: Kind, *, run_id: str, status: RunStatus, sha256: str, now: float
    ) -> None:
        """Enter an errand durably; one that is there already is looked at again, unless it was dropped.

        Raises:
            OSError: the disk.
        """
        with self._write() as db:
            db.execute(
                "INSERT INTO errands VALUES (?, ?, ?, ?, ?, 'queued', ?, 0, ?, '', NULL) "
                "ON CONFLICT DO UPDATE SET state = 'queued', status = excluded.status, "
                "sha256 = excluded.sha256, next_at = excluded.next_at, attempts = 0, "
                "done_at = CASE sha256 WHEN excluded.sha256 THEN done_at END, "
                "queued_at = CASE WHEN state IN ('archived', 'clearing') "
                "THEN excluded.queued_at ELSE queued_at END "
                "WHERE state NOT IN ('dropped', 'pushing')",
                (results, kind, run_id, status, sha256, now, now),
            )

    def enter_missing(self, errands: Iterable[tuple[str, str, RunStatus, str]], *, now: float) -> int:
        """Enter runs (results, run_id, status, sha256) to be archived of which nothing is known.

        Returns how many they were.
        """
        with self._write() as db:
            before = db.total_changes
            db.executemany(
                "INSERT OR IGNORE INTO errands VALUES (?, 'archive', ?, ?, ?, 'queued', ?, 0, ?, '', NULL)",
                ((*errand, now, now) for errand in errands),
            )
            return db.total_changes - before

    def due(self, now: float, *, limit: int) -> list[Errand]:
        """What may be tried now: queued, or parked and its time has come.

        The longest due first: what was put off stands behind what was not tried yet.
        """
        return self._select(
            "WHERE state IN ('queued', 'parked') AND next_at <= ? "
            "ORDER BY next_at, queued_at, results LIMIT ?",
            (now, limit),
        )

    def next_due_at(self) -> float | None:
        """When the next errand is due; None if nothing waits."""
        [(moment,)] = self._read("SELECT min(next_at) FROM errands WHERE state IN ('queued', 'parked')")
        return None if moment is None else float(moment)

    def waiting(self) -> list[Errand]:
        """What is neither archived nor dropped, the longest waiting first."""
        return self._select("WHERE state NOT IN ('archived', 'dropped') ORDER BY queued_at, results")

    def all(self) -> list[Errand]:
        """Every errand."""
        return self._select("ORDER BY queued_at, results")

    def find(self, results: Sequence[str]) -> dict[str, Errand]:
        """The runs to be archived among `results`."""
        marks = ", ".join("?" * len(results))
        found = self._select(f"WHERE kind = 'archive' AND results IN ({marks})", tuple(results))
        return {errand.results: errand for errand in found}

    def in_state(self, state: State) -> list[Errand]:
        """Every errand that is in it."""
        return self._select("WHERE state = ? ORDER BY queued_at, results", (state,))

    def has_work(self) -> bool:
        """Whether anything is on its way that time alone will bring to the Hub."""
        busy = "SELECT 1 FROM errands WHERE state IN ('queued', 'pushing', 'clearing') LIMIT 1"
        return bool(self._read(busy))

    def begin(self, errands: Iterable[Errand]) -> None:
        """They are being pushed now."""
        self._move(errands, "state = 'pushing'")

    def archive(self, errands: Iterable[Errand], *, now: float, clear: bool = False) -> None:
        """They are on the Hub; `clear`: their files here are still to be removed."""
        state = "clearing" if clear else "archived"
        self._move(errands, "state = ?, reason = '', attempts = 0, done_at = ?", state, now)

    def finish_clearing(self, errand: Errand) -> None:
        """Its files here are gone; unless it was entered again meanwhile, it is done."""
        with self._write() as db:
            db.execute(
                "UPDATE errands SET state = 'archived' WHERE results = ? AND kind = ? AND state = 'clearing'",
                (errand.results, errand.kind),
            )

    def put_off(self, errands: Iterable[Errand], reason: str, *, next_at: float, counts: bool = True) -> None:
        """They are tried again at `next_at`; `counts`: it was a failed attempt."""
        self._move(
            errands,
            "state = 'queued', reason = ?, next_at = ?, attempts = attempts + ?",
            *(reason, next_at, int(counts)),
        )

    def park(self, errands: Iterable[Errand], reason: str, *, next_at: float) -> None:
        """They were refused: tried again on the slow cadence only, or when somebody asks for it."""
        self._move(
            errands, "state = 'parked', reason = ?, next_at = ?, attempts = attempts + 1", reason, next_at
        )

    def recover(self) -> int:
        """Queue again what a pusher that ended was at. For who holds the `PusherLock`. Returns how many."""
        with self._write() as db:
            return db.execute(
                "UPDATE errands SET state = 'queued', attempts = attempts + 1, "
                "reason = 'the process that pushed it ended' WHERE state = 'pushing'"
            ).rowcount

    def put_off_overdue(self, *, now: float) -> int:
        """What is being pushed took too long: it stands behind, ever longer. Returns how many."""
        with self._write() as db:
            return db.execute(
                "UPDATE errands SET state = 'queued', attempts = attempts + 1, "
                "next_at = ? + min(3600, 60 << min(attempts, 6)), "
                "reason = 'it took longer than hub.upload_timeout_s' WHERE state = 'pushing'",
                (now,),
            ).rowcount

    def requeue_archived(self, *, now: float) -> int:
        """Look at everything again: it is to be somewhere else. Returns how many."""
        with self._write() as db:
            return db.execute(
                "UPDATE errands SET state = 'queued', next_at = ?, queued_at = ?, done_at = NULL "
                "WHERE state = 'archived'",
                (now, now),
            ).rowcount

    def retry_parked(self, *, now: float) -> int:
        """Make all that is parked due now. Returns how many."""
        with self._write() as db:
            return db.execute(
                "UPDATE errands SET state = 'queued', next_at = ?, attempts = 0 WHERE state = 'parked'",
                (now,),
            ).rowcount

    def drop(self, run_id: str) -> int:
        """Give a run up for good: it is not pushed, and counts as done. Returns how many errands it had."""
        with self._write() as db:
            return db.execute(
                "UPDATE errands SET state = 'dropped', reason = 'dropped by an operator' "
                "WHERE run_id = ? AND state IN ('queued', 'pushing', 'parked')",
                (run_id,),
            ).rowcount

    def depth(self) -> dict[str, int]:
        """Number of errands by state."""
        return dict(self._read("SELECT state, count(*) FROM errands GROUP BY state"))

    def oldest_at(self) -> float | None:
        """Since when the longest waiting errand waits, parked ones too; None if nothing waits."""
        [(moment,)] = self._read(
            "SELECT min(queued_at) FROM errands WHERE state IN ('queued', 'pushing', 'parked')"
        )
        return None if moment is None else float(moment)

    def count(self, outcome: str, number: int = 1) -> None:
        """Count what became of an attempt; the sums outlive the process."""
        with self._write() as db:
            db.execute(
                "INSERT INTO outcomes VALUES (?, ?) ON CONFLICT DO UPDATE SET number = number + ?",
                (outcome, number, number),
            )

    def outcomes(self) -> dict[str, int]:
        """What was counted."""
        return dict(self._read("SELECT outcome, number FROM outcomes"))

    def note_commit(self, repo: str, *, now: float) -> None:
        """A commit is about to be asked for; those of more than an hour ago are forgotten."""
        with self._write() as db:
            db.execute("DELETE FROM commits WHERE at < ?", (now - 3600,))
            db.execute("INSERT INTO commits VALUES (?, ?)", (repo, now))

    def commits(self, repo: str) -> list[float]:
        """When commits to a repository were asked for within the last hour that was noted, ascending."""
        rows = self._read("SELECT at FROM commits WHERE repo = ? ORDER BY at", (repo,))
        return [float(at) for (at,) in rows]

    def blob(self, oid: str) -> bytes | None:
        """A small file of a repository that was read before, by its git hash."""
        rows = self._read("SELECT content FROM blobs WHERE oid = ?", (oid,))
        return bytes(rows[0][0]) if rows else None

    def keep_blob(self, oid: str, content: bytes) -> None:
        """Remember such a file: it never changes under its hash."""
        with self._write() as db:
            db.execute("INSERT OR IGNORE INTO blobs VALUES (?, ?)", (oid, content))

    def fact(self, name: str) -> str | None:
        """Something remembered about the whole."""
        rows = self._read("SELECT value FROM facts WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else None

    def remember(self, name: str, value: str) -> None:
        """Remember it."""
        with self._write() as db:
            db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def forget(self, name: str) -> None:
        """Forget it."""
        with self._write() as db:
            db.execute("DELETE FROM facts WHERE name = ?", (name,))

    def close(self) -> None:
        """Close it; nothing is lost by not doing so."""
        with self._lock:
            self._db.close()
        with self._reading:
            self._reader.close()

    def _move(self, errands: Iterable[Errand], change: str, *values: object) -> None:
        with self._write() as db:
            db.executemany(
                # What an operator dropped meanwhile stays so.
                f"UPDATE errands SET {change} WHERE results = ? AND kind = ? AND state != 'dropped'",  # noqa: S608 - ours
                [(*values, errand.results, errand.kind) for errand in errands],
            )

    def _select(self, condition: str, values: Sequence[object] = ()) -> list[Errand]:
        rows = self._read(f"SELECT {_COLUMNS} FROM errands {condition}", values)  # noqa: S608 - ours
        return [
            msgspec.convert(dict(zip(Errand.__struct_fields__, row, strict=True)), Errand) for row in rows
        ]

    def _read(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._reading, _disk_errors():
            return self._reader.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """One transaction, durable when it is left."""
        with self._lock, _disk_errors(), self._db:
            yield self._db

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path or ":memory:", timeout=self._timeout_s, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.executescript(_SCHEMA)
            _check(database)
        except BaseException:
            database.close()
            raise
        return database


def _mend(path: Path) -> None:
    """Put a damaged outbox aside: the output folder holds all that it held."""
    if not path.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(path)) as database, _disk_errors():
            _check(database)
    except sqlite3.DatabaseError as error:
        _log.error("outbox_damaged", reason=str(error), path=str(path))
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        path.replace(path.with_name(f"{OUTBOX_FILE}.damaged"))


def _check(database: sqlite3.Connection) -> None:
    """Raise where it is damaged, or of another shape than ours."""
    [(verdict,)] = database.execute("PRAGMA quick_check(1)").fetchall()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)
    database.execute(f"SELECT {_COLUMNS} FROM errands LIMIT 1").fetchone()  # noqa: S608 - ours


def has_outbox(state: Path) -> bool:
    """Whether a state folder holds an outbox."""
    return (state / OUTBOX_FILE).exists()


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    """SQLite says in words of its own what is the disk's."""
    try:
        yield
    except UnicodeDecodeError as error:
        # What SQLite says of some damage is no text.
        raise sqlite3.DatabaseError(f"what SQLite says of it cannot be read: {error}") from error
    except sqlite3.OperationalError as error:
        if not any(word in str(error) for word in _OF_THE_DISK):
            raise  # it is damaged, or of another shape than ours
        number = errno.ENOSPC if "full" in str(error) else errno.EIO
        raise OSError(number, str(error), OUTBOX_FILE) from error
