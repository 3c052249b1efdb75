"""An agent with a long past: how soon it acknowledges and answers, beside one with none.

Written straight into its files, in the shape that its own rooms give it.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

from agent.client import Client
from agent.inbox import Inbox
from agent.journal import Journal
from tests.agents import Agent
from tests.bench.load import load, request_file
from tests.bench.programs import python, started
from tests.bench.settings import Effort
from tests.bench.table import Row, at_most
from tests.remotes import Upstream, push_payload

_DELIVERIES, _DEPLOYMENTS = 1_000_000, 100_000
_ASKED = 15
_A_DAY = 86400.0


def rows(root: Path, effort: Effort) -> Iterator[Row]:
    upstream = Upstream(root / "upstream")
    revision = upstream.commit({"a": "1"})
    request = request_file(root, "/webhook/github", push_payload(upstream.url, revision), 8192)
    deliveries = int(_DELIVERIES * effort.scale)
    deployments = int(_DEPLOYMENTS * effort.scale)
    agents = {name: Agent(root / name, upstream.url) for name in ("long", "none")}
    _write_past(agents["long"].state_dir, revision, deliveries, deployments)
    ways: dict[str, Callable[[Agent], float]] = {
        "acknowledged, at one connection": lambda one: load(one.port, request, 1, 1).p50,
        "status": lambda one: _asked(one, lambda client: client.status()),
        "history": lambda one: _asked(one, lambda client: client.history("shop", 20)),
    }
    found: dict[tuple[str, str], list[float]] = {}
    with ExitStack() as running:
        for name, one in agents.items():
            one.configure()
            command = python("agent", "run", "--config", str(one.config))
            running.enter_context(started(command, root / f"{name}.log", one.port))
            _live(one)
        for _ in range(effort.rounds):
            for what, measure in ways.items():
                for name, one in agents.items():
                    found.setdefault((what, name), []).append(measure(one))
    past = f"{deliveries:,} deliveries and {deployments:,} deployments"
    for what in ways:
        yield Row.of(
            f"with {past}: {what}", "ms", found[what, "long"], "no past", found[what, "none"],
            at_most(1.2),
        )  # fmt: skip


def _asked(one: Agent, ask: Callable[[Client], object]) -> float:
    """Milliseconds for the quicker half of some answers."""
    with one.client() as client:
        ask(client)
        took = []
        for _ in range(_ASKED):
            began = time.perf_counter()
            ask(client)
            took.append((time.perf_counter() - began) * 1000)
        return sorted(took)[len(took) // 2]


def _live(one: Agent) -> None:
    with one.client() as client:
        while not client.status()["targets"][0]["live"]:
            time.sleep(0.05)


def _write_past(state_dir: Path, revision: str, deliveries: int, deployments: int) -> None:
    """Three months of it: letters, the request of each, deployments with three steps."""
    Journal(state_dir).close()
    Inbox(state_dir).close()
    start = time.time() - 89 * _A_DAY
    step = 88 * _A_DAY / deliveries
    with closing(sqlite3.connect(state_dir / "inbox.db")) as db, db:
        inbox = db.execute("SELECT id FROM identity").fetchone()[0]
        db.executemany(
            "INSERT INTO letters VALUES (?, 'github', ?, ?, 'refs/heads/main', ?, 0, ?)",
            ((n, f"past-{n}", start + n * step, revision, json.dumps(["shop"]))
             for n in range(1, deliveries + 1)),
        )  # fmt: skip
    each = max(1, deliveries // deployments)
    with closing(sqlite3.connect(state_dir / "journal.db")) as db, db:
        db.execute("INSERT INTO cursors VALUES (?, ?)", (inbox, deliveries))
        db.executemany(
            "INSERT INTO requests (target, reason, delivery, expected, force, made_at, done_at,"
            " result, why, deployment) VALUES ('shop', 'push', ?, ?, 0, ?, ?, 'deployed', '', ?)",
            ((f"past-{n}", revision, start + n * step, start + n * step + 1, f"past-{n // each}")
             for n in range(deliveries)),
        )  # fmt: skip
        db.executemany(
            "INSERT INTO deployments (id, target, revision, previous, reason, why, attempt,"
            " subject, author, started_at, ended_at, outcome)"
            " VALUES (?, 'shop', ?, ?, 'push', 'push', 1, 'change', 'Ada', ?, ?, 'deployed')",
            ((f"past-{n}", revision, revision, start + n * each * step, start + n * each * step + 1)
             for n in range(deployments)),
        )  # fmt: skip
        db.executemany(
            "INSERT INTO steps VALUES (?, ?, 'activate', 'reload', ?, ?, 'ok')",
            ((f"past-{n}", k, start + n * each * step, start + n * each * step + 1)
             for n in range(deployments) for k in range(1, 4)),
        )  # fmt: skip
