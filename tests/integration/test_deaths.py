"""The agent dies before and after each thing it does; the next start ends at the same revision."""

import shutil
from collections.abc import Callable
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
