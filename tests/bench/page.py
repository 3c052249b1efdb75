"""How long the page takes to open, by itself and in a browser, where there is much to show.

Beside it the page of an agent with one target and no past. The past lies within 90 days, as the
agent keeps it by default.
"""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from agent.journal import Journal
from tests.agents import Agent
from tests.bench.programs import need
from tests.bench.settings import Effort
from tests.bench.table import Row, under
from tests.remotes import Upstream
from tests.tunnel import tunnel

TARGETS, DEPLOYMENTS, DAYS = 200, 100_000, 90
_PATHS = {", again": "/", " of one target": "/targets/t0", " over time": "/timeline?span=30d"}
_AIM = under(300, "ms")
_LOADED = "performance.getEntriesByType('navigation')[0].loadEventEnd"


def rows(root: Path, effort: Effort) -> Iterator[Row]:
    need("chromium", "chromium")
    upstream = Upstream(root / "upstream")
    upstream.commit({"a": "1"})
    targets = max(2, int(TARGETS * effort.scale))
    deployments = int(DEPLOYMENTS * effort.scale)
    many, few = Agent(root / "many", upstream.url), Agent(root / "few", upstream.url)
    _write_past(many.state_dir, targets, deployments)
    said = f" ({targets} targets, {deployments} deployments)"
    with _running(many, targets), _running(few, 1):
        yield _row(f"page, the first time{said}", [_answer(many, "/")], [_answer(few, "/")])
        for what, path in _PATHS.items():
            taken = [(_answer(many, path), _answer(few, path)) for _ in range(effort.rounds)]
            yield _row(f"page{what}", *zip(*taken, strict=True))
        yield _row("page, in a browser until loaded", *_opened(effort, many, few))


def _row(what: str, ours: Sequence[float], theirs: Sequence[float]) -> Row:
    return Row.of(what, "ms", ours, "1 target, no past", theirs, _AIM)


def _answer(agent: Agent, path: str) -> float:
    """Milliseconds until the whole answer is there."""
    transport = httpx.HTTPTransport(uds=str(agent.state_dir / "control.sock"))
    with httpx.Client(transport=transport, base_url="http://localhost", timeout=60) as http:
        began = time.perf_counter()
        http.get(path).raise_for_status()
        return (time.perf_counter() - began) * 1000


def _opened(effort: Effort, *agents: Agent) -> Iterator[list[float]]:
    """Milliseconds from the click to the end of loading, for each agent."""
    from tests.browser import browser

    with browser() as chromium:
        for agent in agents:
            with tunnel(agent.state_dir / "control.sock") as url:
                page = chromium.new_page()
                taken = []
                for _ in range(effort.rounds + 1):
                    page.goto(url)
                    taken.append(float(page.evaluate(_LOADED)))
                page.close()
                yield taken[1:]


# ---- who is asked -----------------------------------------------------------------------------


@contextmanager
def _running(agent: Agent, targets: int) -> Iterator[None]:
    """The agent, once each of its targets is live."""
    trees = "".join(
        f'[targets.t{n}]\nrepo = "{agent.repo}"\npath = "{agent.root}/srv/t{n}"\n'
        for n in range(targets)
    )
    agent.config.write_text(
        f'state_dir = "{agent.state_dir}"\n[server]\nbind = "127.0.0.1:{agent.port}"\n'
        f'[webhooks.github]\nsecret = {{ file = "{agent.root}/secret" }}\n{trees}'
    )
    agent.start()
    for n in range(targets):
        agent.wait_for_log("deployment.finished", target=f"t{n}")
    try:
        yield
    finally:
        agent.stop()


def _write_past(state_dir: Path, targets: int, deployments: int) -> None:
    """So many deployments, evenly over targets and days, each for a push some seconds before."""
    now, step = time.time(), DAYS * 86400 / deployments
    requests, made = [], []
    for n in range(deployments):
        at, name, target = now - (deployments - n) * step, f"past-{n:06d}", f"t{n % targets}"
        outcome = "rolled-back" if n % 17 == 0 else "deployed"
        requests.append((target, at - 5, at, outcome, name))
        made.append((name, target, f"{n:040x}", at, at + 20 + n % 90, outcome))

    def work(db: sqlite3.Connection) -> None:
        db.executemany(
            "INSERT INTO requests (target, reason, force, made_at, done_at, result, deployment)"
            " VALUES (?, 'push', 0, ?, ?, ?, ?)",
            requests,
        )
        db.executemany(
            "INSERT INTO deployments (id, target, revision, reason, why, attempt, subject, author,"
            " started_at, ended_at, outcome) VALUES (?, ?, ?, 'push', 'push, delivery 1: the"
            " branch moved', 1, 'Prices show the currency', 'Ada', ?, ?, ?)",
            made,
        )

    journal = Journal(state_dir)
    try:
        journal.submit(work).result()
    finally:
        journal.close()
