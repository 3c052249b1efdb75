"""An agent on loopback with targets that have a past: what the pictures in README.md show.

The past is written into the journal before the agent starts; what is live, running and held is
done by the agent itself, with real repositories and hooks.
"""

import os
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.journal import Journal
from agent.model import Condition, Deployment, Outcome, Reason, SyncRequest
from agent.plan import Ending
from tests.agents import Agent
from tests.remotes import Upstream

DAY = 86400.0
_SUBJECTS = (
    "Prices show the currency of the buyer",
    "Orders keep their place in the queue after a restart",
    "Search finds parts of words",
    "Upgrade to Django 5.2",
    "Invoices are numbered without gaps",
    "A slower back-off for the payment provider",
    "Fix the footer on narrow screens",
    "Cache the list of countries",
)
_AUTHORS = ("Ada", "Grace", "Linus", "Margaret")


@dataclass(frozen=True, slots=True)
class Cast:
    """A target of the scene: how often and how well it is deployed, in seconds."""

    name: str
    every: float
    takes: float
    fails: float = 0.0


CAST = (
    Cast("shop", 2.1 * 3600, 38, 0.10),
    Cast("api", 1.4 * 3600, 95, 0.06),
    Cast("docs", 4 * 3600, 9),
    Cast("billing", 9 * 3600, 240, 0.15),
    Cast("worker", 3 * 3600, 52),
    Cast("landing", 16 * 3600, 6),
    Cast("status-page", 30 * 3600, 5),
)


def write_past(state_dir: Path, cast: tuple[Cast, ...], days: float, now: float) -> None:
    """Deployments of so many days, into the journal of an agent that is not running."""
    chance = random.Random(7)
    journal = Journal(state_dir)
    try:
        for one in cast:
            at = now - days * DAY + chance.random() * one.every
            while at < now - 1200:
                _write(journal, one, at, chance)
                at += one.every * chance.uniform(0.2, 1.8)
    finally:
        journal.close()


def _write(journal: Journal, cast: Cast, at: float, chance: random.Random) -> None:
    revision = f"{chance.getrandbits(160):040x}"
    asked = at - chance.choice((0.1, 0.2, 0.4, 30.0))
    wish = journal.request(SyncRequest(cast.name, Reason.PUSH, delivery="past"), asked).result()
    number = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(at))}-{chance.getrandbits(24):06x}"
    one = Deployment(
        number, cast.name, revision, None, Reason.PUSH, "push: the branch moved", 1, at,
        subject=chance.choice(_SUBJECTS), author=chance.choice(_AUTHORS),
    )  # fmt: skip
    journal.begin(one, wish, clears_holds=True)
    bad = chance.random() < cast.fails
    outcome = Outcome.ROLLED_BACK if bad else Outcome.DEPLOYED
    detail = "verify hook check-http: exit 1" if bad else ""
    end = at + cast.takes * chance.uniform(0.7, 1.6)
    live = None if bad else revision
    journal.conclude(one, Ending(outcome, Condition.SETTLED, live, detail), end)
    journal.close_requests(wish, outcome.value, detail, one.id, end).result()
    journal.end(one.id, end)


HOOK = """\
#!/bin/sh
c() { printf '\\033[%sm%s\\033[0m' "$1" "$2"; }
echo "$(c 2 '$') uv sync --frozen --extra prod"
echo "Resolved $(c 1 '84 packages') in $(c 2 '6ms')"
echo " $(c 32 +) django==5.2.8"
echo " $(c 32 +) psycopg==3.2.12"
echo " $(c 31 -) psycopg2==2.9.9"
echo "$(c '1;33' warning): $(c 36 settings.py):41 uses a setting that is going away"
case "$(cat .state)" in
  slow) echo "Running migrations:"; echo "  Applying $(c 36 orders.0042_currency)..."; echo > {started}; cat {go} ;;
  bad) echo "$(c '1;31' ERROR): relation \\"orders\\" does not exist"; exit 1 ;;
  later) echo "$(c 33 'the database is being backed up; not now')"; exit 75 ;;
esac
echo "$(c '1;32' 'Live') at $DEPLOY_REVISION"
"""
STATES = {"shop": "bad", "api": "slow", "docs": "later"}
"""How the newest push of a target goes; that of the others goes well."""


@contextmanager
def scene(root: Path) -> Iterator[Agent]:
    """The agent, once its targets are as the pictures show them."""
    agent = Agent(root / "agent", "")
    go, started = root / "go", root / "started"
    os.mkfifo(go)
    os.mkfifo(started)
    agent.hook("install-venv", HOOK.replace("{go}", str(go)).replace("{started}", str(started)))
    agent.hook("restart-service", 'echo "restarted"')
    write_past(agent.state_dir, CAST, 7, time.time())
    upstreams = {one.name: Upstream(root / "git" / one.name) for one in CAST}
    _configure(agent, {name: _called(one, name) for name, one in upstreams.items()})
    for name, upstream in upstreams.items():
        upstream.commit({".state": "good", "name": name}, _SUBJECTS[len(name) % len(_SUBJECTS)])
    agent.start()
    for name in upstreams:
        agent.wait_for_log("deployment.finished", target=name)
    for name, state in STATES.items():
        tip = upstreams[name].commit({".state": state}, _SUBJECTS[len(state)])
        agent.push(tip, url=str(root / "git" / f"{name}.git"))
        if state != "slow":
            agent.finished(tip)
    started.read_text()
    yield agent
    go.write_text("go")
    agent.stop()


def _called(upstream: Upstream, name: str) -> Path:
    """The repository under a name of its own."""
    link = upstream.path.parents[1] / f"{name}.git"
    link.symlink_to(upstream.path)
    return link


def _configure(agent: Agent, repos: Mapping[str, Path]) -> None:
    targets = "".join(
        f'[targets.{name}]\nrepo = "{repo}"\npath = "{agent.root}/srv/{name}"\n'
        f'[[targets.{name}.hooks]]\nstage = "build"\nrun = ["install-venv"]\n'
        f'[[targets.{name}.hooks]]\nrun = ["restart-service"]\n'
        for name, repo in repos.items()
    )
    agent.config.write_text(
        f'state_dir = "{agent.state_dir}"\n[server]\nbind = "127.0.0.1:{agent.port}"\n'
        f'[webhooks.github]\nsecret = {{ file = "{agent.root}/secret" }}\n{targets}'
    )
