"""The outbox: what sinks are to be told, written with the fact itself, kept until it is told.

Its rows are in the journal's file, so that a deployment's outcome and the notices of it are one
transaction: a crash loses none. Who is told what is decided in `notices`.
"""

import sqlite3
from collections.abc import Iterable
from concurrent.futures import Future

from agent.bell import Bell
from agent.database import Database
from agent.notices import Backlog, Failing, Happening, Notice, Sink, verdict
from agent.rows import sound, to_failing, to_notice

TABLES = """
CREATE TABLE notices (
  id INTEGER PRIMARY KEY AUTOINCREMENT, sink TEXT NOT NULL, target TEXT NOT NULL,
  deployment TEXT NOT NULL, outcome TEXT, live TEXT, recovered INTEGER NOT NULL,
  at REAL NOT NULL, why TEXT);
CREATE INDEX notices_by_sink ON notices (sink, target, id);

CREATE TABLE failing (
  sink TEXT NOT NULL, target TEXT NOT NULL, deployment TEXT NOT NULL, outcome TEXT NOT NULL,
  live TEXT, failure TEXT NOT NULL, since REAL NOT NULL, at REAL NOT NULL,
  PRIMARY KEY (sink, target)) WITHOUT ROWID;
"""


class Outbox:
    """Part of the journal; every method may be called from any thread."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._sinks: tuple[Sink, ...] = ()
        self._bells: list[Bell] = []

    def track(self, sinks: Iterable[Sink]) -> None:
        """Write for these sinks from now on; what failed for others is forgotten."""
        self._sinks = tuple(sinks)
        kept = {(sink.name, target) for sink in self._sinks for target in sink.targets}

        def work(db: sqlite3.Connection) -> None:
            for row in db.execute("SELECT sink, target FROM failing").fetchall():
                if tuple(row) not in kept:
                    db.execute("DELETE FROM failing WHERE sink = ? AND target = ?", tuple(row))

        self._db.submit(work)
        self.ring()

    def listen(self, bell: Bell) -> None:
        """Ring `bell` whenever something may have been written."""
        self._bells.append(bell)

    def ring(self) -> None:
        for bell in self._bells:
            bell.ring()

    def add(self, db: sqlite3.Connection, happening: Happening, now: float) -> None:
        """In the transaction of the fact itself: what each sink is to be told of it."""
        for sink in self._sinks:
            if happening.deployment.target in sink.targets:
                _add(db, sink, happening, now)

    def heads(self) -> "Future[list[Notice]]":
        """For each sink and target the oldest notice: a target's news is told in its order."""

        def work(db: sqlite3.Connection) -> list[Notice]:
            rows = db.execute(
                "SELECT * FROM notices WHERE id IN"
                " (SELECT min(id) FROM notices GROUP BY sink, target) ORDER BY id"
            )
            return list(sound(db, "notices", rows, to_notice))

        return self._db.submit(work)

    def settle(self, notice: Notice) -> "Future[None]":
        """It was told, or given up."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM notices WHERE id = ?", (notice.id,))

        return self._db.submit(work)

    def postpone(self, notice: Notice, why: str) -> "Future[None]":
        """It could not be told yet, and why."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("UPDATE notices SET why = ? WHERE id = ?", (why, notice.id))

        return self._db.submit(work)

    def failing(self, sink: str) -> "Future[list[Failing]]":
        """What is failing now, as far as this sink wants to know."""

        def work(db: sqlite3.Connection) -> list[Failing]:
            rows = db.execute("SELECT * FROM failing WHERE sink = ? ORDER BY target", (sink,))
            return list(sound(db, "failing", rows, to_failing))

        return self._db.submit(work)

    def backlog(self) -> "Future[list[Backlog]]":
        """The sinks that have not been told everything yet."""

        def work(db: sqlite3.Connection) -> list[Backlog]:
            rows = db.execute(
                "SELECT sink, count(*), min(at), max(why) FROM notices GROUP BY sink ORDER BY sink"
            )
            return [Backlog(*row) for row in rows]

        return self._db.submit(work)


def _add(db: sqlite3.Connection, sink: Sink, happening: Happening, now: float) -> None:
    one = happening.deployment
    place = (sink.name, one.target)
    row = db.execute("SELECT failure FROM failing WHERE sink = ? AND target = ?", place).fetchone()
    before = row["failure"] if row else None
    told = verdict(sink, happening, before)
    if told.tell:
        db.execute(
            "INSERT INTO notices (sink, target, deployment, outcome, live, recovered, at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*place, one.id, happening.outcome, happening.live, told.recovered, now),
        )
    if told.failure is None:
        db.execute("DELETE FROM failing WHERE sink = ? AND target = ?", place)
    elif told.failure != before:
        db.execute(
            "INSERT INTO failing VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (sink, target) DO UPDATE SET deployment = excluded.deployment,"
            " outcome = excluded.outcome, live = excluded.live, failure = excluded.failure,"
            " at = excluded.at",
            (*place, one.id, happening.outcome, happening.live, told.failure, now, now),
        )
