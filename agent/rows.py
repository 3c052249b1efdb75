"""Journal rows to values. A row that makes no sense is put aside, so that it hurts only once."""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import structlog

from agent.model import (
    Condition,
    Deployment,
    Hold,
    Look,
    Outcome,
    Pause,
    Reason,
    Retry,
    Revision,
    Step,
    SyncRequest,
    TargetState,
)
from agent.notices import Failing, Notice

T = TypeVar("T")
log = structlog.get_logger()


def to_request(row: sqlite3.Row) -> SyncRequest:
    return SyncRequest(
        row["target"],
        Reason(row["reason"]),
        row["id"],
        row["delivery"],
        row["expected"],
        bool(row["force"]),
        row["actor"],
        row["goal"],
    )


def to_state(row: sqlite3.Row, holds: tuple[Hold, ...]) -> TargetState:
    retry: Revision | None = row["retry"]
    since = _time(row["paused_at"])
    return TargetState(
        row["target"],
        row["live"],
        _time(row["live_since"]),
        Condition(row["condition"]),
        holds,
        Retry(retry, float(row["retry_at"])) if retry else None,
        int(row["attempts"]),
        row["attempted"],
        Pause(since, row["paused_by"], _time(row["paused_until"]), row["paused_because"])
        if since is not None
        else None,
    )


def to_look(row: sqlite3.Row) -> Look:
    return Look(row["target"], float(row["at"]), Reason(row["reason"]), row["result"], row["why"])


def to_deployment(row: sqlite3.Row) -> Deployment:
    return Deployment(
        id=row["id"],
        target=row["target"],
        revision=row["revision"],
        previous=row["previous"],
        reason=Reason(row["reason"]),
        why=row["why"],
        attempt=int(row["attempt"]),
        started_at=float(row["started_at"]),
        ended_at=_time(row["ended_at"]),
        outcome=Outcome(row["outcome"]) if row["outcome"] else None,
        detail=row["detail"],
        subject=row["subject"],
        author=row["author"],
        delivery=row["delivery"],
    )


def steps(db: sqlite3.Connection, deployment: str) -> tuple[Step, ...]:
    """What a deployment did, in its order."""
    rows = db.execute(
        "SELECT n, stage, name, started_at, ended_at, result FROM steps"
        " WHERE deployment = ? ORDER BY n",
        (deployment,),
    )
    return tuple(Step(*row) for row in rows)


def to_notice(row: sqlite3.Row) -> Notice:
    return Notice(
        row["id"],
        row["sink"],
        row["target"],
        row["deployment"],
        Outcome(row["outcome"]) if row["outcome"] else None,
        row["live"],
        bool(row["recovered"]),
        float(row["at"]),
    )


def to_failing(row: sqlite3.Row) -> Failing:
    return Failing(
        row["target"],
        row["deployment"],
        Outcome(row["outcome"]),
        row["live"],
        float(row["since"]),
        float(row["at"]),
    )


def _time(value: Any) -> float | None:
    return None if value is None else float(value)


def sound(
    db: sqlite3.Connection, table: str, rows: Iterable[sqlite3.Row], decode: Callable[[Any], T]
) -> Iterator[T]:
    """The rows as values. One that makes no sense is put aside, so that it hurts only once."""
    key = {"states": "target", "failing": "target", "looks": "at"}.get(table, "id")
    for row in list(rows):
        try:
            value = decode(row)
        except (ValueError, TypeError, KeyError) as error:
            content = json.dumps(dict(row), default=repr)
            log.error("journal.row_quarantined", table=table, why=str(error), row=content)
            db.execute("INSERT INTO quarantine (kind, content) VALUES (?, ?)", (table, content))
            db.execute(f"DELETE FROM {table} WHERE {key} = ?", (row[key],))  # noqa: S608 - our names
        else:
            yield value
