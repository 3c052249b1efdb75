"""One SQLite file and the one thread that uses it: group commit.

That thread owns the one connection and does every read, write and checkpoint (SQLite before
3.51.3 can corrupt a WAL that two connections write or checkpoint at once). Whatever queued while
it was in one fsync is its next transaction, so a burst of jobs shares its fsyncs.
"""

import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import structlog

from agent.errors import AgentError, JournalUnavailable
from agent.lock import own

log = structlog.get_logger()
T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

_PROBE = "CREATE TABLE probe (one INTEGER PRIMARY KEY CHECK (one = 1), at REAL NOT NULL);"
_BATCH = 512
_STALLED_AFTER = 10.0
_DISK_FAILED = {
    *(sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN),
    *(sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB),
}


class Database:
    """The file at `path`, with the tables of `schema`, which is the `version`th of its kind.

    One process at a time has it: `lock`, a file beside it, says so, and `what` names it to another.
    Every method may be called from any thread. Errors: JournalUnavailable when the disk does not
    do its part; AgentError when another has it, or when it was written by a newer program.

    When the disk has failed (not when it is merely full) both files are let go of, so that it can
    be mounted again, and opened anew as soon as that works.
    """

    def __init__(self, path: Path, schema: str, version: int, lock: Path, what: str) -> None:
        self._name = path.stem
        self._file = _File(path, schema + _PROBE, version, lock, what)
        self._file.open(create=True)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._busy_since: float | None = None
        self._trouble: str | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish what is queued, then let go of the file."""
        if self._closed:
            return
        self._closed = True
        self._jobs.put(None)
        self._thread.join()
        self._file.let_go()

    def submit(self, work: Work[T]) -> "Future[T]":
        """Have `work` done in the next transaction."""
        job = _Job(work)
        if self._closed:
            job.future.set_exception(JournalUnavailable(f"the {self._name} is closed"))
        else:
            self._jobs.put(job)
        return job.future

    def do(self, work: Work[T]) -> T:
        """Have `work` done in the next transaction, and wait for it."""
        return self.submit(work).result()

    def _work(self) -> None:
        while (first := self._jobs.get()) is not None:
            batch = [first]
            last = False
            while len(batch) < _BATCH:
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if job is None:
                    last = True
                    break
                batch.append(job)
            self._busy_since = time.monotonic()
            self._commit(batch)
            self._busy_since = None
            if last:
                return

    def _commit(self, batch: "list[_Job]") -> None:
        """One transaction for the whole batch; a job that is at fault itself leaves it alone."""
        try:
            db = self._file.connection()
        except (AgentError, OSError) as error:
            self._give_up(batch, error)
            return
        while batch:
            job = batch[0]
            try:
                written = db.total_changes
                db.execute("BEGIN")
                for job in batch:
                    job.answer = job.work(db)
                db.execute("COMMIT")
            except (sqlite3.OperationalError, sqlite3.DatabaseError, OSError) as error:
                self._give_up(batch, error)
                return
            except Exception as error:  # noqa: BLE001 - it is handed on to whoever asked
                self._file.roll_back()
                batch.remove(job)
                job.future.set_exception(error)
            else:
                if db.total_changes != written:
                    # A read that went well says nothing about a disk that is full.
                    self._trouble = None
                for job in batch:
                    job.future.set_result(job.answer)
                return

    def _give_up(self, batch: "list[_Job]", error: Exception) -> None:
        if self._trouble is None:
            log.error("database.failed", file=str(self._file.path), why=str(error))
        self._trouble = f"the {self._name} cannot be used: {error}"
        self._file.roll_back()
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DISK_FAILED:
            self._file.let_go()
        for job in batch:
            job.future.set_exception(JournalUnavailable(self._trouble))

    def trouble(self) -> str | None:
        """What is wrong: the last transaction did not go through, or one is stuck."""
        busy = self._busy_since
        if self._closed:
            return f"the {self._name} is closed"
        if busy is not None and time.monotonic() - busy > _STALLED_AFTER:
            return f"the {self._name} waits for its disk"
        return self._trouble

    def probe(self, now: float) -> "Future[None]":
        """Write one small row, to learn whether the disk has room again."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("INSERT OR REPLACE INTO probe VALUES (1, ?)", (now,))

        return self.submit(work)


class _Job:
    __slots__ = ("answer", "future", "work")

    def __init__(self, work: Work[Any]) -> None:
        self.work = work
        self.future: Future[Any] = Future()
        # What is queued is done, even where nobody waits for it any more.
        self.future.set_running_or_notify_cancel()
        self.answer: Any = None


class _File:
    """The file, its lock and its one connection; opened and closed by one thread at a time."""

    def __init__(self, path: Path, schema: str, version: int, lock: Path, what: str) -> None:
        self.path = path
        self._schema = schema
        self._version = version
        self._lock_path = lock
        self._what = what
        self._lock: int | None = None
        self._connection: sqlite3.Connection | None = None

    def connection(self) -> sqlite3.Connection:
        """The connection, a new one where the last was let go of."""
        return self._connection or self.open(create=False)

    def open(self, *, create: bool) -> sqlite3.Connection:
        """Own the file and open it.

        It is made only where it may be: a folder that is empty because its disk is not mounted
        must not get another one.
        """
        try:
            if create:
                self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            flags = os.O_RDWR | (os.O_CREAT if create else 0)
            self._lock = own(self._lock_path, flags, self._what)
            self._connection = _connect(self.path, create=create)
            _prepare(self._connection, self.path, self._schema, self._version)
        except BaseException as error:
            self.let_go()
            if isinstance(error, sqlite3.Error | OSError):
                message = f"{self.path} cannot be opened: {error}"
                raise JournalUnavailable(message) from error
            raise
        return self._connection

    def roll_back(self) -> None:
        if self._connection and self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def let_go(self) -> None:
        """Close everything; what had not become durable is gone."""
        if self._connection:
            self._connection.close()
            self._connection = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _connect(path: Path, *, create: bool) -> sqlite3.Connection:
    mode = "rwc" if create else "rw"
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        check_same_thread=False,
        isolation_level=None,
    )
    db.row_factory = sqlite3.Row
    return db


def _prepare(db: sqlite3.Connection, path: Path, schema: str, version: int) -> None:
    # FULL: under power cuts it lost none of 11,850 acknowledged rows, NORMAL 7,668.
    # After a failed fsync the system forgets which pages it still had to write; a checkpoint writes
    # them once more, and begins the WAL anew.
    for pragma in (
        *("journal_mode = WAL", "synchronous = FULL", "busy_timeout = 0"),
        "wal_checkpoint(TRUNCATE)",
    ):
        db.execute(f"PRAGMA {pragma}").close()
    with closing(db.execute("PRAGMA user_version")) as cursor:
        found = cursor.fetchone()[0]
    if found > version:
        raise AgentError(
            f"the {path.stem} {path} was written by a newer gitops-agent (schema {found}, this one"
            f" knows {version}); install that version again, or move the file away"
        )
    if found == 0:
        db.executescript(f"BEGIN; {schema} PRAGMA user_version = {version}; COMMIT;")
