"""How many deliveries a second, at what cost: signed pushes of 8 KB, on disk before the 202.

Each server has one core and the load another, so that each figure is one core's. The peer is
adnanh/webhook with the same check of the signature: once with a rule that matches nothing, so
that it starts no process, once with one that starts /bin/true. It keeps nothing on a disk.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.agents import SECRET, Agent
from tests.bench.load import Loaded, load, request_file
from tests.bench.programs import Program, free_port, need, python, started
from tests.bench.settings import Effort
from tests.bench.table import TOLD, Aim, Row, at_least, at_most
from tests.remotes import Upstream, push_payload

CONNECTIONS = (1, 16, 64)
_SIZE = 8192


@dataclass
class Series:
    """One server's figures at one number of connections, a round each."""

    a_second: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    """Microseconds a request."""

    def take(self, loaded: Loaded, seconds: float) -> None:
        self.a_second.append(loaded.a_second)
        self.p99.append(loaded.p99)
        self.processor.append(seconds / loaded.requests * 1e6)


def rows(root: Path, effort: Effort) -> Iterator[Row]:
    need("wrk", "wrk")
    upstream = Upstream(root / "upstream")
    payload = push_payload(upstream.url, upstream.commit({"a": "1"}))
    found: dict[tuple[str, int], Series] = defaultdict(Series)
    with ExitStack() as running:
        ours = running.enter_context(agent(root / "agent", upstream.url))
        bare = running.enter_context(floor(root / "bare"))
        theirs = running.enter_context(webhook(root / "webhook", "nothing"))
        servers = {"ours": ours, "bare": bare, "webhook": theirs}
        paths = {"ours": "/webhook/github", "bare": "/", "webhook": "/hooks/bench"}
        requests = {name: request_file(root, path, payload, _SIZE) for name, path in paths.items()}
        for _ in range(effort.rounds):
            for connections in CONNECTIONS:
                for name, server in servers.items():
                    taken = measure(server, requests[name], connections, effort.seconds)
                    found[name, connections].take(*taken)
    for _ in range(effort.rounds):
        with webhook(root / "webhook-true", "main") as server:
            taken = measure(server, requests["webhook"], 64, effort.seconds)
            found["true", 64].take(*taken)
    yield from _rows(found)


def measure(
    server: Program, request: Path, connections: int, seconds: float
) -> tuple[Loaded, float]:
    before = server.seconds()
    loaded = load(server.port, request, connections, seconds)
    return loaded, server.seconds() - before


def _rows(found: dict[tuple[str, int], Series]) -> Iterator[Row]:
    aims: dict[int, Aim] = {1: TOLD, 16: at_least(1.5), 64: at_least(2)}
    for count, aim in aims.items():
        ours, theirs = found["ours", count], found["webhook", count]
        what = f"push, durable 202, {count} connection{'s' if count > 1 else ''}"
        peer = "webhook, nothing kept"
        yield Row.of(what, "a second", ours.a_second, peer, theirs.a_second, aim)
        if count > 1:
            yield Row.of(f"{what}: p99", "ms", ours.p99, peer, theirs.p99, at_most(1))
            yield Row.of(
                f"{what}: processor time a request", "µs", ours.processor, peer, theirs.processor,
                at_most(1),
            )  # fmt: skip
    ours, started_true, bare = found["ours", 64], found["true", 64], found["bare", 64]
    what = "push, durable 202, 64 connections"
    yield Row.of(
        what, "a second", ours.a_second, "webhook, starts /bin/true", started_true.a_second,
        at_least(8),
    )  # fmt: skip
    yield Row.of(
        what, "a second", ours.a_second, "bare ASGI, same check and journal", bare.a_second,
        at_least(0.8),
    )  # fmt: skip


# ---- who is measured --------------------------------------------------------------------------


@contextmanager
def agent(root: Path, repo: str) -> Iterator[Program]:
    """Our agent, with one target on `repo` and a hook that does nothing."""
    one = Agent(root, repo)
    one.hook("nothing", "true")
    one.configure('[[targets.shop.hooks]]\nrun = ["nothing"]\n')
    command = python("agent", "run", "--config", str(one.config))
    with started(command, root / "log", one.port) as program:
        yield program


@contextmanager
def floor(root: Path) -> Iterator[Program]:
    root.mkdir()
    port = free_port()
    command = python("tests.bench.floor", str(port), str(root / "state"), SECRET)
    with started(command, root / "log", port) as program:
        yield program


@contextmanager
def webhook(root: Path, branch: str) -> Iterator[Program]:
    """adnanh/webhook with a rule for pushes of `branch` that starts /bin/true."""
    root.mkdir(exist_ok=True)
    hooks, port = root / "hooks.json", free_port()
    hooks.write_text(json.dumps([_rule(branch)]))
    command = [need("webhook", "webhook"), "-hooks", str(hooks), "-ip", "127.0.0.1"]
    with started([*command, "-port", str(port)], root / "log", port) as program:
        yield program


def _rule(branch: str) -> dict[str, object]:
    signature = {
        "type": "payload-hmac-sha256",
        "secret": SECRET,
        "parameter": {"source": "header", "name": "X-Hub-Signature-256"},
    }
    ref = {
        "type": "value",
        "value": f"refs/heads/{branch}",
        "parameter": {"source": "payload", "name": "ref"},
    }
    return {
        "id": "bench",
        "execute-command": "/bin/true",
        "trigger-rule": {"and": [{"match": signature}, {"match": ref}]},
    }
