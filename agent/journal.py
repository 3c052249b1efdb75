"""The journal: deployments and steps, in SQLite; `wishes` has what asked for them.

Each fact is durable before what follows from it is done. Times are Unix seconds, UTC.
"""

import sqlite3
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from agent.database import Database, Work
from agent.model import (
    Deployment,
    Hold,
    Look,
    Outcome,
    Pause,
    Retry,
    Revision,
    SyncRequest,
)
from agent.notices import Happening
from agent.outbox import TABLES, Outbox
from agent.plan import Ending
from agent.rows import sound, steps, to_deployment
from agent.wishes import Wishes, name_deployment

T = TypeVar("T")

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE cursors (
  inbox TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE requests (
  id INTEGER PRIMARY KEY AUTOINCREMENT, target TEXT NOT NULL, reason TEXT NOT NULL,
  delivery TEXT, expected TEXT, force INTEGER NOT NULL, actor TEXT, goal TEXT,
  made_at REAL NOT NULL,
  done_at REAL, result TEXT, why TEXT, deployment TEXT);
CREATE INDEX requests_open ON requests (target) WHERE done_at IS NULL;
CREATE INDEX requests_by_time ON requests (made_at);
CREATE INDEX requests_by_deployment ON requests (deployment, made_at) WHERE deployment NOTNULL;
CREATE INDEX pushes_by_target ON requests (target, made_at) WHERE reason = 'push';

CREATE TABLE deployments (
  id TEXT PRIMARY KEY, target TEXT NOT NULL, revision TEXT NOT NULL, previous TEXT,
  reason TEXT NOT NULL, why TEXT NOT NULL, attempt INTEGER NOT NULL, delivery TEXT,
  subject TEXT NOT NULL, author TEXT NOT NULL, started_at REAL NOT NULL, ended_at REAL,
  outcome TEXT, detail TEXT NOT NULL DEFAULT '', taken_back INTEGER NOT NULL DEFAULT 0
  ) WITHOUT ROWID;
CREATE INDEX deployments_by_target ON deployments (target, started_at);
CREATE INDEX deployments_by_time ON deployments (started_at);
CREATE INDEX deployments_open ON deployments (target) WHERE ended_at IS NULL;

CREATE VIEW good AS SELECT * FROM deployments WHERE outcome = 'deployed' AND reason != 'rollback';

CREATE TABLE steps (
  deployment TEXT NOT NULL, n INTEGER NOT NULL, stage TEXT NOT NULL, name TEXT NOT NULL,
  started_at REAL NOT NULL, ended_at REAL, result TEXT,
  PRIMARY KEY (deployment, n)) WITHOUT ROWID;

CREATE TABLE states (
  target TEXT PRIMARY KEY, live TEXT, live_since REAL, condition TEXT NOT NULL DEFAULT 'settled',
  retry TEXT, retry_at REAL, attempted TEXT, attempts INTEGER NOT NULL DEFAULT 0,
  paused_at REAL, paused_by TEXT, paused_until REAL, paused_because TEXT) WITHOUT ROWID;

CREATE TABLE holds (
  target TEXT NOT NULL, revision TEXT NOT NULL, because TEXT NOT NULL, deployment TEXT NOT NULL,
  at REAL NOT NULL, PRIMARY KEY (target, revision)) WITHOUT ROWID;

CREATE TABLE looks (
  at REAL PRIMARY KEY, target TEXT NOT NULL, reason TEXT NOT NULL, result TEXT NOT NULL,
  why TEXT NOT NULL);
CREATE INDEX looks_by_target ON looks (target, at);

CREATE TABLE quarantine (
  at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP, kind TEXT NOT NULL, content TEXT NOT NULL);
"""


class Journal(Wishes):
    """Opened once by the service; every method may be called from any thread.

    Those that return a Future resolve it after the fsync; the others wait for that.
    Errors: JournalUnavailable when the disk does not do its part.
    """

    def __init__(self, state_dir: Path) -> None:
        super().__init__(
            Database(
                state_dir / "journal.db", _SCHEMA + TABLES, SCHEMA_VERSION,
                state_dir / "agent.lock", "the state file",
            )
        )  # fmt: skip
        self.outbox = Outbox(self._db)

    def close(self) -> None:
        """Finish what is queued, then let go of the file and of the state folder."""
        self._db.close()

    def _do(self, work: Work[T]) -> T:
        return self._db.do(work)

    def healthy(self) -> bool:
        """Whether the last transaction went through and none is stuck."""
        return self._db.trouble() is None

    def trouble(self) -> str | None:
        """What is wrong with the file, if anything is."""
        return self._db.trouble()

    def probe(self, now: float) -> "Future[None]":
        """Write one small row, to learn whether the disk has room again."""
        return self._db.probe(now)

    # ---- deployments ------------------------------------------------------------------------

    def begin(self, deployment: Deployment, request: SyncRequest, *, clears_holds: bool) -> None:
        """A deployment starts, for `request` and older ones: from here on its target is moving."""

        def work(db: sqlite3.Connection) -> None:
            self._interrupt(db, deployment.started_at, deployment.target)
            db.execute(
                "INSERT INTO deployments (id, target, revision, previous, reason, why, attempt,"
                " delivery, subject, author, started_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    deployment.id,
                    deployment.target,
                    deployment.revision,
                    deployment.previous,
                    deployment.reason,
                    deployment.why,
                    deployment.attempt,
                    deployment.delivery,
                    deployment.subject,
                    deployment.author,
                    deployment.started_at,
                ),
            )
            name_deployment(db, request, deployment.id)
            db.execute(
                "INSERT INTO states (target, condition, attempts) VALUES (?, 'moving', ?)"
                " ON CONFLICT DO UPDATE SET condition = 'moving', attempts = excluded.attempts",
                (deployment.target, deployment.attempt),
            )
            if clears_holds:
                db.execute("DELETE FROM holds WHERE target = ?", (deployment.target,))
                db.execute(
                    "UPDATE states SET retry = NULL, retry_at = NULL, attempted = ?"
                    " WHERE target = ?",
                    (deployment.revision, deployment.target),
                )
            self.outbox.add(db, Happening(deployment, None), deployment.started_at)

        self._do(work)
        self.outbox.ring()

    def step_begins(self, deployment: str, n: int, stage: str, name: str, now: float) -> None:
        """A step is about to be taken; only then is it."""

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT INTO steps (deployment, n, stage, name, started_at) VALUES (?, ?, ?, ?, ?)",
                (deployment, n, stage, name, now),
            )

        self._do(work)

    def step_ends(self, deployment: str, n: int, result: str, now: float) -> "Future[None]":
        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE steps SET ended_at = ?, result = ? WHERE deployment = ? AND n = ?",
                (now, result, deployment, n),
            )

        return self.submit(work)

    def mark(self, target: str, verdict: Hold | Retry, now: float) -> None:
        """A revision failed: it is held, or tried again. Known before the way back begins."""

        def work(db: sqlite3.Connection) -> None:
            if isinstance(verdict, Hold):
                _hold(db, target, verdict, now)
            else:
                db.execute(
                    "UPDATE states SET retry = ?, retry_at = ? WHERE target = ?",
                    (verdict.revision, verdict.not_before, target),
                )

        self._do(work)

    def conclude(self, deployment: Deployment, ending: Ending, now: float) -> None:
        """The outcome is known, and with it what is live."""

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE deployments SET outcome = ?, detail = ? WHERE id = ?",
                (ending.outcome, ending.detail, deployment.id),
            )
            db.execute(
                "UPDATE states SET condition = ? WHERE target = ?",
                (ending.condition, deployment.target),
            )
            if ending.live:
                db.execute(
                    "UPDATE states SET live_since = CASE WHEN live IS ? THEN live_since ELSE ? END,"
                    " live = ? WHERE target = ?",
                    (ending.live, now, ending.live, deployment.target),
                )
            if ending.outcome is Outcome.DEPLOYED:
                db.execute(
                    "UPDATE states SET attempted = NULL, attempts = 0, retry = NULL,"
                    " retry_at = NULL WHERE target = ?",
                    (deployment.target,),
                )
                # A person has gone back to what another rollback had left.
                db.execute(
                    "DELETE FROM holds WHERE target = ? AND revision = ?",
                    (deployment.target, deployment.revision),
                )
            for hold in ending.leaves:
                _hold(db, deployment.target, hold, now)
                _take_back(db, deployment, hold.revision)
            self.outbox.add(db, _happening(db, deployment, ending), now)

        self._do(work)
        self.outbox.ring()

    def end(self, deployment: str, now: float) -> None:
        """Its success or failure hooks are through as well."""
        self._do(
            lambda db: db.execute(
                "UPDATE deployments SET ended_at = ? WHERE id = ?", (now, deployment)
            )
        )

    def unfinished(self) -> list[Deployment]:
        """At start: what was running when the agent died, with its steps."""

        def work(db: sqlite3.Connection) -> list[Deployment]:
            rows = db.execute("SELECT * FROM deployments WHERE ended_at IS NULL")
            found = list(sound(db, "deployments", rows, to_deployment))
            return [replace(one, steps=steps(db, one.id)) for one in found]

        return self._do(work)

    def interrupt(self, target: str, now: float) -> None:
        """What was running on `target` when the agent died is not gone on with."""
        self._do(lambda db: self._interrupt(db, now, target))

    def _interrupt(self, db: sqlite3.Connection, now: float, target: str) -> None:
        """Close what was left open of a target."""
        rows = db.execute(
            "SELECT * FROM deployments WHERE ended_at IS NULL AND target = ?", (target,)
        )
        left = list(sound(db, "deployments", rows, to_deployment))
        for one in left:
            _close(db, one, now)
            if one.outcome is None:
                self.outbox.add(db, Happening(one, Outcome.INTERRUPTED), now)

    # ---- what a person says -----------------------------------------------------------------

    def set_pause(self, target: str, pause: Pause | None) -> "Future[None]":
        """From now on nothing goes out to `target` by itself; with None, it does again."""
        row = (pause.since, pause.by, pause.until, pause.reason) if pause else (None,) * 4

        def work(db: sqlite3.Connection) -> None:
            db.execute("INSERT OR IGNORE INTO states (target) VALUES (?)", (target,))
            db.execute(
                "UPDATE states SET paused_at = ?, paused_by = ?, paused_until = ?,"
                " paused_because = ? WHERE target = ?",
                (*row, target),
            )

        return self.submit(work)

    def note_look(self, look: Look) -> "Future[None]":
        """A look led to nothing, for a reason that somebody may ask for."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("INSERT OR REPLACE INTO looks VALUES (?, ?, ?, ?, ?)",
                       (look.at, look.target, look.reason, look.result, look.why))  # fmt: skip

        return self.submit(work)

    def forget(self, before: float) -> list[str]:
        """Drop what is older than `before`, but never a target's newest deployment, nor those by
        which it knows what is live and what was good before, nor one that somebody is still being
        told of.

        Gives the ids of the deployments dropped, whose logs can go too.
        """

        def work(db: sqlite3.Connection) -> list[str]:
            db.execute("DELETE FROM requests WHERE made_at < ? AND done_at NOTNULL", (before,))
            db.execute("DELETE FROM looks WHERE at < ?", (before,))
            rows = db.execute(
                "DELETE FROM deployments WHERE ended_at < ? AND id NOT IN"
                " (SELECT deployment FROM notices UNION SELECT deployment FROM failing"
                "  UNION SELECT id FROM (SELECT id, max(started_at) FROM good"
                "   LEFT JOIN states USING (target) WHERE NOT taken_back"
                "   GROUP BY target, revision IS live))"
                " AND started_at <"
                " (SELECT max(started_at) FROM deployments AS d WHERE d.target ="
                " deployments.target) RETURNING id",
                (before,),
            ).fetchall()
            for row in rows:
                db.execute("DELETE FROM steps WHERE deployment = ?", (row["id"],))
            return [row["id"] for row in rows]

        return self._do(work)


def _happening(db: sqlite3.Connection, deployment: Deployment, ending: Ending) -> Happening:
    """What an ending means to others, now that the target's row says what is live."""
    row = db.execute(
        "SELECT live, retry FROM states WHERE target = ?", (deployment.target,)
    ).fetchone()
    live, retry = row or (None, None)
    retrying = retry == deployment.revision
    return Happening(deployment, ending.outcome, live, ending.step, retrying)


def _close(db: sqlite3.Connection, deployment: Deployment, now: float) -> None:
    """Nobody works on it any more; without an outcome it was interrupted."""
    db.execute(
        "UPDATE steps SET ended_at = ?, result = 'interrupted'"
        " WHERE deployment = ? AND ended_at IS NULL",
        (now, deployment.id),
    )
    db.execute(
        "UPDATE deployments SET ended_at = ?, outcome = coalesce(outcome, 'interrupted'),"
        " detail = CASE WHEN outcome IS NULL THEN 'the agent died' ELSE detail END"
        " WHERE id = ?",
        (now, deployment.id),
    )


def _hold(db: sqlite3.Connection, target: str, hold: Hold, now: float) -> None:
    db.execute(
        "INSERT OR REPLACE INTO holds VALUES (?, ?, ?, ?, ?)",
        (target, hold.revision, hold.because, hold.deployment, now),
    )


def _take_back(db: sqlite3.Connection, deployment: Deployment, left: Revision) -> None:
    """What came after the goal of a rollback is no goal of the next one, and that is one again."""
    goal = (deployment.target, deployment.revision)
    db.execute("UPDATE deployments SET taken_back = 0 WHERE target = ? AND revision = ?", goal)
    db.execute(
        "UPDATE deployments SET taken_back = 1 WHERE target = ? AND revision != ? AND"
        " (revision = ? OR started_at >"
        "  (SELECT max(started_at) FROM good WHERE target = ? AND revision = ?))",
        (*goal, left, *goal),
    )
