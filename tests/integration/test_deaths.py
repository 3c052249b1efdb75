"""The agent dies before and after each thing it does; the next start ends at the same revision."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agent import repository
from agent.database import Database
from agent.model import (
    Condition,
    Reason,
    Stage,
    Strategy,
)
from agent.releases import Releases
from agent.runs import Runs
from tests.house import FAIL_IF_BAD, Died, House
from tests.trees import cycle, listing


class Deaths:
    """Dies at the nth step: before or after each journal write, each git and each hook."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = -1
        self.at = ""
        steps = ((Database, "submit"), (repository, "git"), (Runs, "run"), (Releases, "switch"))
        for owner, name in steps:
            monkeypatch.setattr(owner, name, self._deadly(getattr(owner, name), name))

    def _deadly(self, real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def deadly(*args: Any, **kwargs: Any) -> Any:
            self._step(f"before {name}")
            answer = real(*args, **kwargs)
            if name == "submit":
                answer.result()
            self._step(f"after {name}")
            return answer

        return deadly

    def _step(self, at: str) -> None:
        self.left -= 1
        if self.left == 0:
            self.at = at
            raise Died


@pytest.mark.timeout(600)
@pytest.mark.parametrize("strategy", list(Strategy))
@pytest.mark.parametrize("bad", [False, True], ids=["good", "bad"])
def test_a_death_at_any_step_ends_at_the_same_revision(
    house: House, monkeypatch: pytest.MonkeyPatch, bad: bool, strategy: Strategy
) -> None:
    a = house.upstream.commit({"a": "1"})
    gate = house.hook(FAIL_IF_BAD, Stage.ACTIVATE)
    hooks = (house.recorder(Stage.BUILD), gate, house.recorder(Stage.VERIFY))
    house.track(*hooks, strategy=strategy)
    assert house.sync().result == "deployed"
    b = house.upstream.commit({"a": "2", **({"bad": ""} if bad else {})})
    goal = a if bad else b
    house.stop()
    before = shutil.copytree(house.root, house.root.with_name("before"), symlinks=True)
    deaths = Deaths(monkeypatch)
    died: list[str] = []
    for n in range(1, 200):
        shutil.rmtree(house.root)
        shutil.copytree(before, house.root, symlinks=True)
        house.start()
        deaths.left = n
        try:
            house.sync(Reason.PUSH)
        except Died:
            died.append(deaths.at)
        finished = deaths.left > 0
        deaths.left = -1
        house.restart()
        house.sync(Reason.START)
        assert house.whole() == goal, died[-1:]
        state = house.state()
        assert (state.live, state.condition) == (goal, Condition.SETTLED), died[-1:]
        assert (state.hold is not None) == bad
        started = [
            (one["DEPLOY_ID"], one["DEPLOY_STAGE"], one["DEPLOY_REASON"])
            for one in house.recorded()
        ]
        assert len(set(started)) == len(started), died[-1:]
        # Forwards the attempt alone tells one start from another; on the way back the id does.
        told = [
            (one["DEPLOY_REVISION"], one["DEPLOY_STAGE"], one["DEPLOY_ATTEMPT"])
            for one in house.recorded()
            if one["DEPLOY_REASON"] != "rollback"
        ]
        assert len(set(told)) == len(told), died[-1:]
        house.stop()
        if finished:
            break
    assert len(died) > 40
    assert {
        "before submit",
        "after submit",
        "before git",
        "after git",
        "before run",
        "after run",
    } == {at for at in died if not at.endswith(" switch")}
    switched = {at for at in died if at.endswith(" switch")}
    assert switched == ({"before switch", "after switch"} if strategy == "releases" else set())


# ---- each thing that is done to the disk ----------------------------------------------------------

_CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink", "shutil.rmtree", "open",
            "subprocess.Popen")  # fmt: skip


class DiskDeaths:
    """Dies before the nth change of trees, or git; from then on nothing more is done to them."""

    def __init__(self, house: House) -> None:
        self._trees = (os.fspath(house.tree), os.fspath(house.state_dir / "trees"))
        self.left: int | None = None
        self.died: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.left is None or event not in _CHANGES:
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        what = (
            os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes | os.PathLike) else ""
        )
        if event == "subprocess.Popen" and what != "git":
            return
        # A name that is not absolute is one in an open folder, and only trees are changed so.
        if what.startswith("/") and not what.startswith(self._trees):
            return
        self.left -= 1
        if self.left == 0:
            self.died.append(event)
        if self.left <= 0:
            raise Died


@pytest.fixture
def disk(house: House) -> Iterator[DiskDeaths]:
    one = DiskDeaths(house)
    yield one
    # A hook of this kind stays for ever; it hears no more.
    one.left = None


@pytest.mark.timeout(600)
def test_a_death_before_any_change_of_files_leaves_whole_releases(
    house: House, disk: DiskDeaths
) -> None:
    """While a tree is brought forward, is switched to, falls out of what is kept, is cleaned."""
    house.releases(house.hook("touch left", Stage.BUILD), keep=1, shared=("log",))
    house.upstream.commit({"keep": "k", "gone": "x", "folder/inner": "x"})
    cycle(house, house.upstream, 2)
    live, good = house.live(), house.journal.last_good("shop")
    assert good
    kept = {name: listing(house.path_of(name)) for name in (live, good)}
    goal = house.upstream.commit({"n": "new", "gone": None, "folder": "now a file"})
    house.stop()
    before = shutil.copytree(house.root, house.root.with_name("before"), symlinks=True)
    for n in range(1, 300):
        shutil.rmtree(house.root)
        shutil.copytree(before, house.root, symlinks=True)
        house.start()
        at = _dies(house, disk, n)
        if house.live() == goal:
            assert house.journal.last_good("shop") in (live, good)
            kept = {live: kept[live], goal: listing(house.path_of(goal))}
            assert "left" in kept[goal]
        for name, tree in kept.items():
            assert listing(house.path_of(name)) == tree, at
        house.restart()
        house.sync(Reason.START)
        house.settle()
        left = house.tree / "current" / "left"
        left.unlink()
        assert house.whole() == goal, at
        house.stop()
        if at is None:
            break
    assert len(disk.died) > 30
    assert set(disk.died) == set(_CHANGES)


def _dies(house: House, disk: DiskDeaths, n: int) -> str | None:
    """Deploy, and tidy up after it, with a death at the nth change; at what it died."""
    disk.left = n
    try:
        house.sync(Reason.PUSH)
        house.settle()
    except Died:
        return f"{n}: {disk.died[-1]}"
    finally:
        disk.left = None
    return None
