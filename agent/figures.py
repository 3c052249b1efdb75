"""What the journal tells of deployments that are over, for the metrics and for doctor.

Reads only. Each is given to `Journal.submit`, and so runs in the journal's own thread.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from agent.model import Deployment, Revision, Stage
from agent.rows import sound, steps, to_deployment

_AFTERWARDS = (Stage.SUCCESS, Stage.FAILURE)
_A_DAY = 86400.0
JUDGED_AFTER = 60.0
"""Seconds after a poll in which the push that it forestalled may still be announced."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A deployment that is over, with its steps."""

    deployment: Deployment
    pushes: tuple[float, ...]
    """When each push that it stands for was received, in Unix time; of the day before it began."""

    @property
    def live_at(self) -> float | None:
        """When the last gate was through, and with it the revision live and verified."""
        gates = (one for one in self.deployment.steps if one.stage not in _AFTERWARDS)
        return max((one.ended_at for one in gates if one.ended_at), default=None)


def finished(db: sqlite3.Connection, ids: Iterable[str]) -> list[Finished]:
    """The deployments with these ids, as far as they are over."""
    return [one for name in ids for one in _finished(db, name)]


def _finished(db: sqlite3.Connection, name: str) -> Iterator[Finished]:
    rows = db.execute("SELECT * FROM deployments WHERE id = ? AND ended_at NOTNULL", (name,))
    for one in sound(db, "deployments", rows, to_deployment):
        yield Finished(replace(one, steps=steps(db, name)), _pushes(db, one))


def _pushes(db: sqlite3.Connection, one: Deployment) -> tuple[float, ...]:
    rows = db.execute(
        "SELECT made_at FROM requests WHERE target = ? AND reason = 'push' AND made_at > ?"
        " AND deployment = ?",
        (one.target, one.started_at - _A_DAY, one.id),
    )
    return tuple(row["made_at"] for row in rows)


@dataclass(frozen=True, slots=True)
class Missed:
    """A revision that a poll found and no push ever announced."""

    target: str
    revision: Revision
    deployment: str
    at: float


def missed(db: sqlite3.Connection, since: float, until: float) -> list[Missed]:
    """What polls from `since` to `until` (Unix time) found although a webhook should have told.

    Its first attempt counts, and neither the same revision again nor a tree that was moved. Leave
    `until` a little in the past: a push may be announced just after a poll has seen it.
    """
    rows = db.execute(
        "SELECT target, revision, id, started_at FROM deployments AS d"
        " WHERE started_at >= ? AND started_at < ? AND reason = 'poll' AND attempt = 1"
        " AND revision IS NOT previous AND NOT EXISTS (SELECT 1 FROM requests AS r WHERE"
        " r.target = d.target AND r.reason = 'push' AND r.expected = d.revision)"
        " ORDER BY started_at",
        (since, until),
    )
    return [Missed(*row) for row in rows]
