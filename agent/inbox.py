"""The inbox: every push delivery that was acknowledged, in SQLite, written by the receiver alone.

A letter is on disk before its 202. The core makes sync requests of the letters in its own journal,
where it also remembers how far it has read; so each file has one writer, and whichever of the two
dies, nothing acknowledged is lost. Times are Unix seconds, UTC.
"""

import asyncio
import json
import sqlite3
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import islice
from pathlib import Path

import msgspec
import structlog

from agent.database import Database
from agent.model import Delivery, Letter, Push

log = structlog.get_logger()

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE letters (
  n INTEGER PRIMARY KEY, webhook TEXT NOT NULL, id TEXT NOT NULL, received_at REAL NOT NULL,
  ref TEXT NOT NULL, revision TEXT, secret INTEGER NOT NULL, targets TEXT NOT NULL,
  UNIQUE (webhook, id));

CREATE TABLE identity (id TEXT NOT NULL);
INSERT INTO identity VALUES (lower(hex(randomblob(8))));
"""
_MOST = 1000
_encode = msgspec.json.Encoder().encode


class Inbox:
    """Opened once by the receiver; every method may be called from any thread.

    Futures resolve after the fsync. Errors: JournalUnavailable when the disk does not do its part.
    """

    def __init__(self, folder: Path) -> None:
        self._db = Database(
            folder / "inbox.db", _SCHEMA, SCHEMA_VERSION, folder / "inbox.lock", "the inbox"
        )
        self.id: str = self._db.do(lambda db: db.execute("SELECT id FROM identity").fetchone()[0])
        """Tells this inbox from one that was here before it, whose places began at 1 as well."""

    def close(self) -> None:
        """Finish what is queued, then let go of the file."""
        self._db.close()

    def healthy(self) -> bool:
        """Whether the last transaction went through and none is stuck."""
        return self._db.trouble() is None

    def trouble(self) -> str | None:
        """What is wrong with the file, if anything is."""
        return self._db.trouble()

    def probe(self, now: float) -> "Future[None]":
        """Write one small row, to learn whether the disk has room again."""
        return self._db.probe(now)

    def receive(
        self, pushes: Sequence[tuple[Delivery, Push, tuple[str, ...]]], now: float
    ) -> "Future[list[Letter | None]]":
        """Make deliveries durable, each once; None for one that is here already.

        One statement for all of them, so that their thread hands Python's lock over but once.
        """
        values = [
            value
            for one, push, targets in pushes
            for value in (one.webhook, one.id, now, push.ref, push.revision, one.secret,
                          _encode(targets).decode())
        ]  # fmt: skip
        rows = ", ".join(["(?, ?, ?, ?, ?, ?, ?)"] * len(pushes))

        def work(db: sqlite3.Connection) -> list[Letter | None]:
            found = db.execute(
                "INSERT OR IGNORE INTO letters"  # noqa: S608 - placeholders only
                " (webhook, id, received_at, ref, revision, secret, targets)"
                f" VALUES {rows} RETURNING webhook, id, n",
                values,
            )
            places = {(webhook, number): n for webhook, number, n in found}
            return [_new_letter(places, *one, now) for one in pushes]

        return self._db.submit(work)

    def after(self, n: int) -> "Future[list[Letter]]":
        """The letters after the `n`th, oldest first; a thousand at most."""

        def work(db: sqlite3.Connection) -> list[Letter]:
            rows = db.execute("SELECT * FROM letters WHERE n > ? ORDER BY n LIMIT ?", (n, _MOST))
            return [_letter(row) for row in rows]

        return self._db.submit(work)

    def newest(self) -> int:
        """The place of the newest letter; 0 where there is none."""
        last = "SELECT coalesce(max(n), 0) FROM letters"
        return int(self._db.do(lambda db: db.execute(last).fetchone()[0]))

    def forget(self, before: float, read: int) -> None:
        """Drop letters older than `before` up to the `read`th, but never the newest of all.

        Its place tells what the next one's is.
        """
        self._db.do(
            lambda db: db.execute(
                "DELETE FROM letters WHERE received_at < ? AND n <= ?"
                " AND n < (SELECT max(n) FROM letters)",
                (before, read),
            )
        )


def _new_letter(
    places: dict[tuple[str, str], int],
    one: Delivery,
    push: Push,
    targets: tuple[str, ...],
    now: float,
) -> Letter | None:
    n = places.pop((one.webhook, one.id), None)
    return Letter(n, one.id, push.revision, targets, now) if n else None


def _letter(row: sqlite3.Row) -> Letter:
    """A row that makes no sense is a letter to nobody, so that it stops none that follow."""
    try:
        targets = tuple(str(name) for name in json.loads(row["targets"]))
        return Letter(row["n"], row["id"], row["revision"], targets, float(row["received_at"]))
    except (ValueError, TypeError) as error:
        log.error("inbox.letter_unreadable", n=row["n"], why=str(error), row=repr(tuple(row)))
        return Letter(row["n"], "", None, (), 0.0)


class Letters:
    """The inbox as it is read by whoever waits for the next letter. Lives in an event loop."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._newest = inbox.newest()
        self._recent: deque[Letter] = deque(maxlen=_MOST)
        """The newest ones in a row, so that whoever keeps up needs no file."""
        self._rung = asyncio.Event()

    def ring(self, letter: Letter) -> None:
        """A letter has just become durable."""
        if letter.n > self._newest:
            if letter.n != self._newest + 1:
                self._recent.clear()
            self._newest = letter.n
            self._recent.append(letter)
            rung, self._rung = self._rung, asyncio.Event()
            rung.set()

    async def inbox(self) -> str:
        """Which inbox this is."""
        return self._inbox.id

    async def after(self, n: int, patience: float | None = None) -> list[Letter]:
        """The letters after the `n`th, oldest first, as soon as there are any.

        None where none comes within `patience` seconds.
        """
        if self._newest <= n:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._rung.wait()
        if self._newest <= n:
            return []
        if self._recent and self._recent[0].n <= n + 1:
            return list(islice(self._recent, n + 1 - self._recent[0].n, None))
        return await asyncio.wrap_future(self._inbox.after(n))
