"""Releases beside a fresh worktree for each, as git-sync makes them.

From the fetch's start to the switch, in one process, without hooks, over http: what a revision
costs.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import structlog

from agent.mirror import Mirror
from agent.releases import Releases
from tests.agents import Agent
from tests.bench.large import Large
from tests.bench.remote import remote
from tests.bench.settings import Effort
from tests.bench.table import TOLD, Row, at_most, under, within
from tests.house import House
from tests.remotes import Upstream, git

_FILES = 50_000
_KEEP = 2
_PARTS = (
    (Mirror, "take", "the pack checked and kept by git"),
    (Releases, "prepare", "the tree brought forward"),
    (Releases, "list_changed", "the list of changed files"),
    (Releases, "switch", "written out to the disk, and switched"),
)


def rows(root: Path, effort: Effort) -> Iterator[Row]:
    (root / "git").mkdir()
    with remote(root / "git", root / "remote.log") as served:
        yield from _rows(root, effort, f"http://127.0.0.1:{served.port}/shop.git")
    yield from commands(root, effort)


def _rows(root: Path, effort: Effort, url: str) -> Iterator[Row]:
    files = max(200, int(_FILES * effort.scale))
    # Each round writes 50,000 files for the peer.
    rounds = min(3, effort.rounds)
    upstream = Large(root / "git" / "shop.git", files)
    upstream.url = url
    worktrees = Worktrees(root / "worktrees", upstream)
    (root / "house").mkdir()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    house = House(root / "house", upstream)
    house.releases(keep=_KEEP)
    fresh, ours, switches = [], [], []
    parts: dict[str, list[float]] = {name: [] for _, _, name in _PARTS}
    revisions = []
    with measured(parts) as switched:
        # The first few fill what is kept; only then is there a tree to bring forward.
        for n in range(_KEEP + 1 + rounds):
            revisions.append(upstream.commit())
            if n == _KEEP + 1:
                for spent in parts.values():
                    spent.clear()
            if n > _KEEP:
                fresh.append(worktrees.deploy())
                # Else it is ours that waits for what the peer has left to be written.
                os.sync()
            began = time.perf_counter()
            assert house.sync().result == "deployed"
            ours.append((switched[-1] - began) * 1000)
            house.settle()
        for n in range(rounds):
            began = time.perf_counter()
            assert house.roll_back(revisions[-2 + n % 2]).result == "deployed"
            switches.append((time.perf_counter() - began) * 1000)
    house.close()
    warm = slice(_KEEP + 1, _KEEP + 1 + rounds)
    what = f"{files:,} files, ten changed, fetch to switch"
    yield Row.of(
        f"releases: {what}", "ms", ours[warm], "git fetch, a fresh worktree, a link",
        fresh, at_most(0.05),
    )  # fmt: skip
    for name, spent in parts.items():
        each = spent[:rounds]
        yield Row.of(f"releases: of that, {name}", "ms", each, "all", ours[warm], TOLD)
    yield Row.of(
        f"releases: {files:,} files, back to one that is there", "ms", switches,
        "the aim", [50.0], under(50, "ms"),
    )  # fmt: skip


def commands(root: Path, effort: Effort) -> Iterator[Row]:
    """The same by what a person types, on a whole agent without hooks."""
    upstream = Upstream(root / "small")
    agent = Agent(root / "agent", upstream.url)
    agent.configure(target='strategy = "releases"')
    revisions = [upstream.commit({"f": "1"})]
    agent.start()
    agent.finished(revisions[0])
    revisions.append(upstream.commit({"f": "2"}))
    agent.push(revisions[1])
    agent.finished(revisions[1])
    asked, typed, nothing = [], [], []
    with agent.client() as client:
        for _ in range(effort.rounds):
            began = time.perf_counter()
            number = client.rollback("shop", "bench", revisions[0]).request
            while client.result(number, 25.0)["result"] is None:
                pass
            asked.append((time.perf_counter() - began) * 1000)
            typed.append(_typed(agent, "rollback", "shop", "--to", revisions[1]))
            nothing.append(_typed(agent, "history", "shop"))
    agent.stop()
    yield Row.of(
        "rollback, asked of the agent, to its end", "ms", asked, "the aim", [50.0], under(50, "ms")
    )
    yield Row.of(
        "rollback, typed, to the command's end", "ms", typed, "a command that only asks",
        nothing, within(50, "ms"),
    )  # fmt: skip


def _typed(agent: Agent, *arguments: str) -> float:
    began = time.perf_counter()
    done = agent.command(*arguments)
    assert done.returncode == 0, done.stderr
    return (time.perf_counter() - began) * 1000


@contextmanager
def measured(parts: dict[str, list[float]]) -> Iterator[list[float]]:
    """While the block runs, how long each part took goes into `parts`; gives when it switched."""
    switched: list[float] = []
    with patch.object(Releases, "switch", _timed(Releases.switch, [], switched)):
        patches = [
            patch.object(owner, name, _timed(getattr(owner, name), parts[part], []))
            for owner, name, part in _PARTS
        ]
        for one in patches:
            one.start()
        try:
            yield switched
        finally:
            for one in patches:
                one.stop()


def _timed(real: Callable[..., Any], took: list[float], ended: list[float]) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return real(*args, **kwargs)
        finally:
            ended.append(time.perf_counter())
            took.append((ended[-1] - began) * 1000)

    return timed


class Worktrees:
    """What git-sync does: fetch, a new worktree, a link switched, the old worktree removed."""

    def __init__(self, root: Path, upstream: Large) -> None:
        self._root = root
        root.mkdir()
        git("clone", "--quiet", "--bare", upstream.url, str(root / "git"), cwd=root)
        self._old: Path | None = None

    def deploy(self) -> float:
        """To the switch, in milliseconds; the removal comes after it."""
        began = time.perf_counter()
        clone = self._root / "git"
        git("fetch", "--quiet", "origin", "+main:main", cwd=clone)
        revision = git("rev-parse", "main", cwd=clone)
        new = self._root / revision
        git("worktree", "add", "--quiet", "--detach", str(new), revision, cwd=clone)
        beside = self._root / "beside"
        beside.symlink_to(new)
        beside.rename(self._root / "current")
        took = (time.perf_counter() - began) * 1000
        if self._old:
            git("worktree", "remove", "--force", str(self._old), cwd=clone)
        self._old = new
        return took
