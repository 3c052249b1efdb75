"""What the journal can be asked: how targets stand, what was deployed, and why.

Reading only; `journal` is the half that writes. Those that return a Future resolve it from the
journal's own thread.
"""

import math
import re
import sqlite3
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from agent.database import Database, Work
from agent.errors import AgentError
from agent.model import Deployment, Hold, Look, Revision, SyncRequest, TargetState
from agent.rows import sound, steps, to_deployment, to_look, to_request, to_state

T = TypeVar("T")

_SHORTEST = 7
"""Digits that tell a revision, as git itself shows them; an empty shell variable tells none."""
_BEGINNING = re.compile(r"[0-9a-f]*")


@dataclass(frozen=True, slots=True)
class RequestResult:
    """How far a request has come; `result` is None while it waits or runs."""

    id: int
    target: str
    result: str | None
    why: str | None
    deployment: str | None


class Goal(NamedTuple):
    """What a rollback brings back."""

    revision: Revision
    subject: str


class Ran(NamedTuple):
    """A deployment as far as a picture of very many needs it."""

    id: str
    target: str
    revision: Revision
    outcome: str | None
    started_at: float
    ended_at: float | None
    asked_at: float | None
    """When it was first asked for; None where a poll or a start began it."""


class Records:
    """The reading half of the journal. JournalUnavailable when the disk does not do its part."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def submit(self, work: Work[T]) -> "Future[T]":
        """Have `work` done in the next transaction."""
        return self._db.submit(work)

    def open_requests(self, target: str | None = None) -> "Future[list[SyncRequest]]":
        """Every wish (for `target`) that was acknowledged and is open still, oldest first."""

        def work(db: sqlite3.Connection) -> list[SyncRequest]:
            rows = db.execute(
                "SELECT * FROM requests WHERE done_at IS NULL AND target = coalesce(?, target)"
                " ORDER BY id",
                (target,),
            )
            return list(sound(db, "requests", rows, to_request))

        return self.submit(work)

    def request_result(self, number: int) -> "Future[RequestResult | None]":
        def work(db: sqlite3.Connection) -> RequestResult | None:
            row = db.execute("SELECT * FROM requests WHERE id = ?", (number,)).fetchone()
            if row is None:
                return None
            return RequestResult(
                row["id"], row["target"], row["result"], row["why"], row["deployment"]
            )

        return self.submit(work)

    def goal_of_rollback(self, target: str, to: str | None) -> "Future[Goal]":
        """The revision that a rollback brings back: `to`, which may be the beginning of one, or
        the last good one before what is live. AgentError where there is none.
        """

        def work(db: sqlite3.Connection) -> Goal:
            found = _last_good(db, target) if to is None else _deployed_once(db, target, to)
            if found is None:
                raise AgentError(f"{target} has no earlier good revision to go back to")
            return Goal(found, _described(db, target, found)[0])

        return self.submit(work)

    def state(self, target: str) -> TargetState:
        return self._db.do(lambda db: _state(db, target))

    def states(self, targets: Iterable[str]) -> "Future[dict[str, TargetState]]":
        names = tuple(targets)
        return self.submit(lambda db: {name: _state(db, name) for name in names})

    def last_good(self, target: str) -> Revision | None:
        """The newest revision before the live one that was deployed and never taken back."""
        return self._db.do(lambda db: _last_good(db, target))

    def described(self, target: str, revision: Revision) -> tuple[str, str]:
        """The subject and author of a revision that was deployed before; empty if it is unknown."""
        return self._db.do(lambda db: _described(db, target, revision))

    def looks(self, target: str | None, limit: int) -> "Future[list[Look]]":
        """The newest looks that led to nothing, newest first."""

        def work(db: sqlite3.Connection) -> list[Look]:
            rows = db.execute(
                "SELECT * FROM looks WHERE target = coalesce(?, target) ORDER BY at DESC LIMIT ?",
                (target, limit),
            )
            return list(sound(db, "looks", rows, to_look))

        return self.submit(work)

    def last(self, targets: Iterable[str]) -> "Future[dict[str, Deployment]]":
        """The newest deployment of each target that has one, without its steps."""
        names = tuple(targets)

        def work(db: sqlite3.Connection) -> dict[str, Deployment]:
            found = {}
            for name in names:
                row = db.execute(
                    "SELECT * FROM deployments WHERE target = ? ORDER BY started_at DESC LIMIT 1",
                    (name,),
                ).fetchone()
                for one in sound(db, "deployments", [row] if row else [], to_deployment):
                    found[name] = one
            return found

        return self.submit(work)

    def history(
        self, target: str | None, limit: int, *, before: float = math.inf
    ) -> "Future[list[Deployment]]":
        """The newest deployments first, without their steps; those begun before a time."""

        def work(db: sqlite3.Connection) -> list[Deployment]:
            where, values = ("target = ? AND", (target,)) if target else ("", ())
            rows = db.execute(
                f"SELECT * FROM deployments WHERE {where} started_at < ?"  # noqa: S608 - fixed text
                " ORDER BY started_at DESC LIMIT ?",
                (*values, before, limit),
            )
            return list(sound(db, "deployments", rows, to_deployment))

        return self.submit(work)

    def live_subjects(self) -> "Future[dict[str, str]]":
        """The commit message's first line of each target's live revision, where it is known."""

        def work(db: sqlite3.Connection) -> dict[str, str]:
            rows = db.execute(
                "SELECT target, (SELECT subject FROM deployments AS d WHERE d.target = s.target"
                " AND d.revision = s.live AND subject != '' ORDER BY started_at DESC LIMIT 1)"
                " FROM states AS s WHERE live NOTNULL"
            )
            return {target: subject for target, subject in rows if subject}

        return self.submit(work)

    def ran(self, targets: Iterable[str], since: float, most: int) -> "Future[list[Ran]]":
        """Of each target the newest deployments begun since then, so many at most."""
        names = tuple(targets)
        query = (
            "SELECT id, target, revision, outcome, started_at, ended_at,"
            " (SELECT min(made_at) FROM requests WHERE deployment = d.id)"
            " FROM deployments AS d WHERE target = ? AND started_at >= ?"
            " ORDER BY started_at DESC LIMIT ?"
        )
        return self.submit(
            lambda db: [
                Ran(*row) for name in names for row in db.execute(query, (name, since, most))
            ]
        )

    def asked_at(self, deployments: Iterable[str]) -> "Future[dict[str, float]]":
        """When each deployment was first asked for; one that a poll or a start began is absent."""
        names = tuple(deployments)

        def work(db: sqlite3.Connection) -> dict[str, float]:
            query = "SELECT min(made_at) FROM requests WHERE deployment = ?"
            found = ((name, db.execute(query, (name,)).fetchone()[0]) for name in names)
            return {name: at for name, at in found if at is not None}

        return self.submit(work)

    def deployment(self, name: str) -> "Future[Deployment | None]":
        """The deployment with this id, or the one whose id begins or ends so, with its steps.

        AgentError where there are several.
        """

        def work(db: sqlite3.Connection) -> Deployment | None:
            rows = db.execute("SELECT * FROM deployments WHERE id = ?", (name,)).fetchall()
            if not rows:
                rows = db.execute(
                    "SELECT * FROM deployments WHERE substr(id, 1, ?) = ? OR substr(id, -?) = ?"
                    " LIMIT 2",
                    (len(name), name, len(name), name),
                ).fetchall()
            if len(rows) > 1:
                raise AgentError(f"several deployments' ids begin or end with {name}")
            found = next(sound(db, "deployments", rows, to_deployment), None)
            return replace(found, steps=steps(db, found.id)) if found else None

        return self.submit(work)

    def last_pushes(self, targets: Iterable[str]) -> "Future[dict[str, float]]":
        """When a push was last received for each target that ever had one."""
        names = tuple(targets)

        def work(db: sqlite3.Connection) -> dict[str, float]:
            found = {}
            for name in names:
                row = db.execute(
                    "SELECT made_at FROM requests WHERE target = ? AND reason = 'push'"
                    " ORDER BY made_at DESC LIMIT 1",
                    (name,),
                ).fetchone()
                if row:
                    found[name] = row["made_at"]
            return found

        return self.submit(work)


def _state(db: sqlite3.Connection, target: str) -> TargetState:
    holds = db.execute(
        "SELECT revision, because, deployment FROM holds WHERE target = ? ORDER BY at", (target,)
    )
    held = tuple(Hold(*row) for row in holds)
    rows = db.execute("SELECT * FROM states WHERE target = ?", (target,))
    found = sound(db, "states", rows, lambda row: to_state(row, held))
    return next(found, TargetState(target, holds=held))


def _last_good(db: sqlite3.Connection, target: str) -> Revision | None:
    row = db.execute(
        "SELECT revision FROM good WHERE target = ? AND NOT taken_back AND revision IS NOT"
        " (SELECT live FROM states WHERE states.target = good.target)"
        " ORDER BY started_at DESC LIMIT 1",
        (target,),
    ).fetchone()
    return row["revision"] if row else None


def _described(db: sqlite3.Connection, target: str, revision: Revision) -> tuple[str, str]:
    row = db.execute(
        "SELECT subject, author FROM good WHERE target = ? AND revision = ? LIMIT 1",
        (target, revision),
    ).fetchone()
    return tuple(row) if row else ("", "")


def _deployed_once(db: sqlite3.Connection, target: str, beginning: str) -> Revision:
    if len(beginning) < _SHORTEST and _BEGINNING.fullmatch(beginning):
        raise AgentError(
            f"{beginning!r} is too short to tell a revision; give at least {_SHORTEST} characters"
        )
    rows = db.execute(
        "SELECT DISTINCT revision FROM good WHERE target = ? AND substr(revision, 1, ?) = ?"
        " LIMIT 2",
        (target, len(beginning), beginning),
    ).fetchall()
    if len(rows) == 1:
        return str(rows[0]["revision"])
    if rows:
        raise AgentError(f"{beginning!r} could be several revisions; give more of it")
    raise AgentError(
        f"{beginning!r} was never deployed to {target}; `gitops-agent history {target}` lists those"
        " that were"
    )
