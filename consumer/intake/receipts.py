"""Receipts: which runs are closed.

Written to a compacted topic, read into a table on disk, one lookup per unknown run.

Invariants: `catch_up` reads a partition's receipts to the end before any of its records is looked at; the
table remembers how far it has read, so only new ones are read again; losing the table costs a re-read.
Receipts of other groups are passed over.
"""

import contextlib
import errno
import sqlite3
from pathlib import Path

import msgspec
from kafka import KafkaConsumer
from kafka import TopicPartition as KafkaTopicPartition

from consumer.errors import BrokerError
from consumer.intake.outbound import Outbound
from consumer.kafka_client import Connection, broker_errors
from consumer.telemetry.logs import logger
from schemas.state import Receipt

TABLE_FILE = "receipts.sqlite"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS receipts (part INTEGER, run_id TEXT, receipt BLOB, PRIMARY KEY (part, run_id))
WITHOUT ROWID; CREATE TABLE IF NOT EXISTS progress (part INTEGER PRIMARY KEY, source TEXT, next INTEGER);
"""
_POLL_MS = 500
_PATIENCE_POLLS = 60

_decoder = msgspec.json.Decoder(Receipt)
_log = logger(__name__)


class ReceiptTable:
    """Receipts of one group by (partition, run_id), on disk."""

    def __init__(self, state: Path) -> None:
        """Open the table in `state`, made if it is not there.

        Raises:
            OSError: the disk; nothing was dropped.
        """
        self._path = state / TABLE_FILE
        try:
            self._db = self._open()
        except sqlite3.DatabaseError as error:
            if "full" in str(error):
                raise OSError(errno.ENOSPC, str(error), TABLE_FILE) from error
            # It is a cache of the topic: a damaged one is read again.
            _log.warning("receipts_table_dropped", reason=str(error))
            for suffix in ("", "-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            try:
                self._db = self._open()
            except sqlite3.DatabaseError as again:
                raise OSError(errno.EIO, str(again), TABLE_FILE) from again

    def find(self, partition: int, run_id: str) -> Receipt | None:
        """The receipt of a run, if it is closed."""
        row = self._db.execute(
            "SELECT receipt FROM receipts WHERE part = ? AND run_id = ?", (partition, run_id)
        ).fetchone()
        return None if row is None else _decoder.decode(row[0])

    def add(self, partition: int, receipt: Receipt) -> None:
        """Remember a receipt."""
        self._db.execute(
            "INSERT OR REPLACE INTO receipts VALUES (?, ?, ?)",
            (partition, receipt.run_id, msgspec.json.encode(receipt)),
        )

    def next_offset(self, partition: int, source: str) -> int:
        """Where reading goes on; 0, with the partition emptied, if it was read from another source."""
        row = self._db.execute("SELECT source, next FROM progress WHERE part = ?", (partition,)).fetchone()
        if row is not None and row[0] == source:
            return int(row[1])
        self._db.execute("DELETE FROM receipts WHERE part = ?", (partition,))
        return 0

    def forget(self, partition: int) -> None:
        """Empty a partition."""
        self._db.execute("DELETE FROM receipts WHERE part = ?", (partition,))
        self._db.execute("DELETE FROM progress WHERE part = ?", (partition,))

    def advance(self, partition: int, source: str, offset: int) -> None:
        """Everything of `source` below `offset` is in the table; makes it durable."""
        self._db.execute("INSERT OR REPLACE INTO progress VALUES (?, ?, ?)", (partition, source, offset))
        self._db.commit()

    def commit(self) -> None:
        """Let other processes see what was added."""
        self._db.commit()

    def close(self) -> None:
        """Close it; what cannot be written now is read again from the topic."""
        with contextlib.suppress(sqlite3.Error):
            self._db.commit()
        self._db.close()

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            # Commits need not outlive a power cut: what is lost is read again, and no sync holds the poll
            # thread.
            database.execute("PRAGMA synchronous = NORMAL")
            database.executescript(_SCHEMA)
            _check(database)
        except UnicodeDecodeError as error:
            # What SQLite says of some damage is no text.
            database.close()
            raise sqlite3.DatabaseError(f"what SQLite says of it cannot be read: {error}") from error
        except BaseException:
            database.close()
            raise
        return database


def _check(database: sqlite3.Connection) -> None:
    """Raise now, while dropping the table is harmless: damage met later would be met at every start."""
    [(verdict,)] = database.execute("PRAGMA quick_check(1)").fetchall()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)
    database.execute("SELECT source, next FROM progress").fetchone()


def read_table(state: Path) -> list[tuple[int, Receipt]]:
    """(partition, receipt) of every receipt in a state folder's table, in no order.

    Takes no lock and changes nothing; a worker may be writing.

    Raises:
        sqlite3.DatabaseError: the table is damaged.
    """
    path = state / TABLE_FILE
    if not path.exists():
        return []
    # Without a log beside it nobody is writing, and the reader need not make the files that go with one.
    mode = "mode=ro" if path.with_name(f"{TABLE_FILE}-wal").exists() else "immutable=1"
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)) as database:
        rows = database.execute("SELECT part, receipt FROM receipts").fetchall()
    return [(partition, _decoder.decode(receipt)) for partition, receipt in rows]


class Receipts:
    """The group's receipts: found in the table, read from the topic, written to it."""

    def __init__(
        self,
        connection: Connection,
        outbound: Outbound,
        table: ReceiptTable,
        *,
        group: str,
        topic: str,
        topic_id: str,
    ) -> None:
        self._outbound = outbound
        self._table = table
        self._group = group
        self._topic = topic
        # A table that was filled from another topic, or for another group, is not ours.
        self._source = f"{group}/{topic}/{topic_id}"
        # Of our own, those that the table had no room for: without them a late record would open the run
        # again.
        self._unsaved: dict[tuple[int, str], Receipt] = {}
        with broker_errors("opening the receipts"):
            self._consumer = KafkaConsumer(
                **connection.settings,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                allow_auto_create_topics=False,
            )

    def find(self, partition: int, run_id: str) -> Receipt | None:
        """The receipt of a run, if it is closed."""
        return self._unsaved.get((partition, run_id)) or self._table.find(partition, run_id)

    def send(self, partition: int, receipt: Receipt) -> int:
        """Write a receipt. Returns its ticket (`Outbound.acknowledged`); `remember` it once acknowledged."""
        return self._outbound.send(
            self._topic,
            key=f"{receipt.group}/{receipt.run_id}".encode(),
            value=msgspec.json.encode(receipt),
            partition=partition,
        )

    def remember(self, partition: int, receipt: Receipt) -> None:
        """Add an acknowledged receipt of our own to the table, for others to see (`read_table`)."""
        self._unsaved[partition, receipt.run_id] = receipt
        try:
            for (place, _), one in self._unsaved.items():
                self._table.add(place, one)
            self._table.commit()
        except sqlite3.Error as error:
            # It is a cache: what it lacks when the process ends is read again from the topic.
            _log.error("receipts_table_failed", run_id=receipt.run_id, reason=str(error))
        else:
            self._unsaved.clear()

    def catch_up(self, partition: int) -> None:
        """Read the partition's receipts to their end.

        Raises:
            BrokerError: they cannot be read.
            OSError: the disk is full.
        """
        try:
            self._catch_up(partition)
        except sqlite3.OperationalError as error:
            # SQLite says it in words of its own.
            raise OSError(errno.ENOSPC, str(error), TABLE_FILE) from error

    def _catch_up(self, partition: int) -> None:
        place = KafkaTopicPartition(self._topic, partition)
        with broker_errors("reading receipts"):
            beginning = self._consumer.beginning_offsets([place])[place]
            end = self._consumer.end_offsets([place])[place]
            position = self._table.next_offset(partition, self._source)
            if position > end:
                self._table.forget(partition)
                position = 0
            position = max(position, beginning)
            self._consumer.assign([place])
            self._consumer.seek(place, position)
            idle = 0
            while position < end:
                for records in self._consumer.poll(timeout_ms=_POLL_MS).values():
                    for record in records:
                        self._take(partition, record.key, record.value)
                before, position = position, self._consumer.position(place, timeout_ms=30_000)
                idle = 0 if position > before else idle + 1
                if idle > _PATIENCE_POLLS:
                    raise BrokerError(
                        f"receipts of partition {partition} cannot be read beyond offset {position}"
                    )
        self._table.advance(partition, self._source, position)

    def close(self) -> None:
        """Close reader and table."""
        self._consumer.close()
        self._table.close()

    def _take(self, partition: int, key: bytes | None, value: bytes | None) -> None:
        if key is None or not key.startswith(f"{self._group}/".encode()):
            return
        try:
            receipt = _decoder.decode(value or b"")
        except (msgspec.DecodeError, ValueError) as error:
            _log.error("receipt_unreadable", partition=partition, reason=str(error))
            return
        if receipt.group == self._group:
            self._table.add(partition, receipt)
