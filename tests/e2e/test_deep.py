"""A tree as deep as git can check one out, which is deeper than Python goes by itself."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.agents import Agent
from tests.remotes import GIT_ENV, Upstream, git

_LEVELS = 1900


@pytest.fixture(autouse=True)
def cleared(agent: Agent) -> Iterator[None]:
    """What is left at a failure is too deep for pytest's own clearing away."""
    yield
    subprocess.run(["rm", "-rf", str(agent.tree)], check=True)


def deep(upstream: Upstream) -> str:
    """Commit it, by what a fast-import is told (git-fast-import(1)); gives the revision."""
    path = "d/" * _LEVELS + "f"
    told = (
        "commit refs/heads/main\ncommitter Ada <ada@example.org> 1700000000 +0000\n"
        f"data 4\ndeep\nfrom refs/heads/main^0\nM 100644 inline {path}\ndata 1\nx\n"
    )
    subprocess.run(
        ["git", "fast-import", "--quiet"], cwd=upstream.path, input=told.encode(), env=GIT_ENV,
        check=True,
    )  # fmt: skip
    return upstream.tip()


def flat(upstream: Upstream, first: str, number: int) -> str:
    """Commit the first revision's tree once more; gives the revision."""
    tree, parent = f"{first}^{{tree}}", upstream.tip()
    message = f"flat again, {number}"
    upstream.move_main(git("commit-tree", tree, "-p", parent, "-m", message, cwd=upstream.path))
    return upstream.tip()


def test_a_tree_as_deep_as_can_be_comes_and_goes(agent: Agent, upstream: Upstream) -> None:
    agent.configure(target='strategy = "releases"\nkeep = 1')
    first = upstream.commit({"a": "0"})
    agent.start()
    agent.finished(first)
    for one in (deep, flat, deep, flat, flat, flat):
        number = len(agent.history())
        revision = deep(upstream) if one is deep else flat(upstream, first, number)
        agent.push(revision)
        assert agent.finished(revision)["outcome"] == "deployed"
    assert agent.stop() == 0
    assert "sync.crashed" not in agent.log()
    assert "prune.failed" not in agent.log()
    left = [one for one in (agent.tree / "releases").iterdir() if (one / "d").exists()]
    assert left == []
