"""The journal's requests: what letters and people have asked for, until something came of it.

Times are Unix seconds, UTC.
"""

import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace

from agent.database import Database
from agent.model import Letter, Reason, SyncRequest
from agent.records import Records


class Wishes(Records):
    """The part of the journal that writes requests."""

    def __init__(self, db: Database) -> None:
        super().__init__(db)
        self._numbers = itertools.count(db.do(_highest_request) + 1)

    def read_up_to(self, inbox: str) -> "Future[int]":
        """The place of the last letter of this inbox whose requests are here; 0 for none."""

        def work(db: sqlite3.Connection) -> int:
            row = db.execute("SELECT n FROM cursors WHERE inbox = ?", (inbox,)).fetchone()
            return int(row["n"]) if row else 0

        return self.submit(work)

    def take(
        self, inbox: str, letters: Sequence[Letter]
    ) -> "tuple[list[SyncRequest], Future[None]]":
        """Make a request for each target of `letters`, and remember that they were read.

        One of the newest letter stands for all of them, as it does in the target's mailbox. The
        requests may be acted on before the Future has resolved: the inbox has them too.
        """
        requests = [(self._numbered(wish), made_at) for wish, made_at in _wishes(letters)]

        def work(db: sqlite3.Connection) -> None:
            for one, made_at in requests:
                _insert_request(db, one, made_at)
            db.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?)", (inbox, letters[-1].n))

        return [one for one, _ in requests], self.submit(work)

    def request(self, request: SyncRequest, now: float) -> "Future[SyncRequest]":
        """Make a person's wish durable; gives it back with its id."""
        numbered = self._numbered(request)

        def work(db: sqlite3.Connection) -> SyncRequest:
            _insert_request(db, numbered, now)
            return numbered

        return self.submit(work)

    def _numbered(self, request: SyncRequest) -> SyncRequest:
        """With an id of its own, before it is in the file: this is the file's one writer."""
        return replace(request, id=next(self._numbers))

    def close_requests(
        self, request: SyncRequest, result: str, why: str, deployment: str | None, now: float
    ) -> "Future[None]":
        """Record what came of `request` and of the older wishes that it stands for."""

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE requests SET done_at = ?, result = ?, why = ?, deployment = ?"
                " WHERE target = ? AND id <= ? AND done_at IS NULL AND (reason = 'rollback') = ?",
                (now, result, why, deployment, *_stood_for(request)),
            )

        return self.submit(work)


def name_deployment(db: sqlite3.Connection, request: SyncRequest, deployment: str) -> None:
    """Note which deployment `request`, and the older wishes that it stands for, have led to."""
    db.execute(
        "UPDATE requests SET deployment = ?"
        " WHERE target = ? AND id <= ? AND done_at IS NULL AND (reason = 'rollback') = ?",
        (deployment, *_stood_for(request)),
    )


def _highest_request(db: sqlite3.Connection) -> int:
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'requests'").fetchone()
    return int(row["seq"]) if row else 0


def _wishes(letters: Sequence[Letter]) -> Iterator[tuple[SyncRequest, float]]:
    """One for each target: what its newest letter says, asked for when its oldest came."""
    found: dict[str, tuple[Letter, float]] = {}
    for letter in letters:
        for name in letter.targets:
            since = found[name][1] if name in found else letter.received_at
            found[name] = letter, since
    for name, (letter, since) in found.items():
        wish = SyncRequest(name, Reason.PUSH, delivery=letter.delivery, expected=letter.revision)
        yield wish, since


def _insert_request(db: sqlite3.Connection, one: SyncRequest, now: float) -> None:
    db.execute(
        "INSERT INTO requests"
        " (id, target, reason, delivery, expected, force, actor, goal, made_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            one.id,
            one.target,
            one.reason,
            one.delivery,
            one.expected,
            one.force,
            one.actor,
            one.goal,
            now,
        ),
    )


def _stood_for(request: SyncRequest) -> tuple[str, int, bool]:
    """Which open wishes `request` stands for: the older ones of its kind."""
    return request.target, request.id or -1, request.reason is Reason.ROLLBACK
