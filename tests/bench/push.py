"""From a signed push to the first hook that runs, beside a shell script run right away.

The script is the floor: `git fetch`, `git checkout`, the same hook. Each push is timed from before
its first byte to what the hook writes into a pipe; a push for the one, then one for the other.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from statistics import quantiles

from agent.client import Client
from tests.agents import SECRET, Agent
from tests.bench.large import Large
from tests.bench.programs import Program, python, started
from tests.bench.remote import ROUND_TRIP, delay, remote
from tests.bench.settings import Effort
from tests.bench.table import Row, at_most, within
from tests.remotes import GIT_ENV, delivery, git, push_payload

_SMALL, _LARGE = 30, 50_000
_FLOOR = "git fetch and checkout by a script"
_SCRIPT = """\
#!/bin/sh
cd "$1" && git fetch --quiet origin main && git checkout --quiet --force --detach FETCH_HEAD &&
exec "$2"
"""
_TARGET = """
[targets.{name}]
repo = "{repo}"
branch = "{name}"
path = "{path}"
strategy = "{strategy}"
[[targets.{name}.hooks]]
stage = "build"
run = ["tell"]
"""
_STRATEGIES = {"place": "in-place", "releases": "releases"}


def rows(root: Path, effort: Effort) -> Iterator[Row]:
    with ExitStack() as running:
        site = _site(root / "small", _SMALL, running)
        ours, floor = site.compare("place", effort.pushes)
        what = "signed push to hook running, small repository"
        yield Row.of(f"{what}: median", "ms", ours, _FLOOR, floor, within(20, "ms"))
        yield Row.of(
            f"{what}: 95th percentile", "ms", [_p95(ours)], _FLOOR, [_p95(floor)],
            within(20, "ms"),
        )  # fmt: skip
    with ExitStack() as running:
        files = max(200, int(_LARGE * effort.scale))
        site = _site(root / "large", files, running)
        what = f"push to hook, {files:,} files, ten changed"
        for name, most in (("place", 1.1), ("releases", 0.5)):
            ours, floor = site.compare(name, effort.rounds)
            yield Row.of(f"{what}: {_STRATEGIES[name]}", "ms", ours, _FLOOR, floor, at_most(most))
        site.move_away()
        for name in _STRATEGIES:
            ours, floor = site.compare(name, effort.rounds)
            yield Row.of(
                f"{what}, {ROUND_TRIP * 1000:g} ms of round trip: {_STRATEGIES[name]}",
                "ms", ours, _FLOOR, floor, at_most(0.5),
            )  # fmt: skip


def _p95(values: list[float]) -> float:
    return quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]


@dataclass
class Site:
    """A remote, an agent with a target of each strategy on it, and the script's own clone."""

    root: Path
    upstream: Large
    agent: Agent
    way: Program
    repo: str

    def __post_init__(self) -> None:
        self.pipe = self.root / "pipe"
        os.mkfifo(self.pipe)
        # Open for both, so that it has no end while hooks come and go.
        self._told = os.fdopen(os.open(self.pipe, os.O_RDWR))
        for path in (self.agent.hooks_dir / "tell", self.root / "tell"):
            path.write_text(f'#!/bin/sh\necho "${{DEPLOY_REVISION:-floor}}" > {self.pipe}\n')
            path.chmod(0o755)
        self.script = self.root / "floor"
        self.script.write_text(_SCRIPT)
        self.script.chmod(0o755)
        self.agent.configure("")
        # The one target of `configure` gives way to these.
        text = self.agent.config.read_text().partition("[targets.shop]")[0]
        for name, strategy in _STRATEGIES.items():
            text += _TARGET.format(
                name=name, repo=self.repo, path=self.root / "srv" / name, strategy=strategy
            )
            self._branch(name, git("rev-parse", "main", cwd=self.upstream.path))
        self.agent.config.write_text(text)
        self.clone = self.root / "clone"
        git("clone", "--quiet", self.repo, str(self.clone), cwd=self.root)

    def settle(self, name: str) -> None:
        """Wait until the agent has done with a target."""
        with Client(self.agent.state_dir / "control.sock") as client:
            while True:
                report = next(one for one in client.status()["targets"] if one["name"] == name)
                if report["live"] and not report["syncing"]:
                    return
                time.sleep(0.005)

    def first_deployments(self) -> None:
        for _ in _STRATEGIES:
            self._told.readline()
        for name in _STRATEGIES:
            self.settle(name)
        # What is kept must be full before a tree can be made of one that leaves.
        for _ in range(6):
            self.push("releases")

    def move_away(self) -> None:
        self.way.process.send_signal(signal.SIGUSR1)

    def compare(self, name: str, times: int) -> tuple[list[float], list[float]]:
        """Milliseconds to the hook: pushes to a target, and the script, in turn."""
        ours, floor = [], []
        for _ in range(times):
            ours.append(self.push(name))
            floor.append(self.run_script())
        return ours, floor

    def push(self, name: str) -> float:
        revision = self.upstream.commit()
        self._branch(name, revision)
        payload = push_payload(self.repo, revision, f"refs/heads/{name}")
        headers, body = delivery("push", payload, SECRET)
        forge = HTTPConnection("127.0.0.1", self.agent.port)
        forge.connect()
        began = time.perf_counter()
        forge.request("POST", "/webhook/github", body, headers)
        told = self._told.readline()
        took = (time.perf_counter() - began) * 1000
        assert told.strip() == revision, told
        assert forge.getresponse().status == 202
        forge.close()
        self.settle(name)
        return took

    def run_script(self) -> float:
        self.upstream.commit()
        began = time.perf_counter()
        script = subprocess.Popen(
            [self.script, self.clone, self.root / "tell"], env={**os.environ, **GIT_ENV}
        )
        told = self._told.readline()
        took = (time.perf_counter() - began) * 1000
        assert told.strip() == "floor"
        assert script.wait() == 0
        return took

    def _branch(self, name: str, revision: str) -> None:
        git("update-ref", f"refs/heads/{name}", revision, cwd=self.upstream.path)


def _site(root: Path, files: int, running: ExitStack) -> Site:
    root.mkdir()
    (root / "git").mkdir()
    upstream = Large(root / "git" / "shop.git", files)
    served = running.enter_context(remote(root / "git", root / "remote.log"))
    way = running.enter_context(delay(served.port, root / "delay.log"))
    repo = f"http://127.0.0.1:{way.port}/shop.git"
    site = Site(root, upstream, Agent(root / "agent", repo), way, repo)
    command = python("agent", "run", "--config", str(site.agent.config))
    running.enter_context(started(command, root / "agent.log", site.agent.port, core=None))
    site.first_deployments()
    return site
