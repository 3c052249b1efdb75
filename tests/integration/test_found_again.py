"""An agent dies while a hook runs; the next one finds the hook, and goes on from its result."""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent import processes, runs
from agent.hooks import Result
from agent.model import Outcome, Reason, Stage, Strategy
from tests.house import Died, House

GATES = [Stage.BUILD, Stage.ACTIVATE, Stage.VERIFY]
STRATEGIES = pytest.mark.parametrize("strategy", list(Strategy))


@contextmanager
def dying_in(started: Path) -> Iterator[None]:
    """An agent that is gone as soon as the slow hook says that it has started."""
    wait = runs._wait

    def die(files: Any, *others: Any) -> Result:
        if "record" in files.log.name:
            return wait(files, *others)
        started.read_text()
        raise Died

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Died):
        patch.setattr(runs, "_wait", die)
        # Who is killed clears nothing away.
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        yield


class Slow:
    """A hook that waits to be told, at one stage, how to end; all stages are recorded."""

    def __init__(self, house: House, stage: Stage, strategy: Strategy) -> None:
        self.house, self.strategy = house, strategy
        self.started, self.told = house.root / "started", house.root / "told"
        for fifo in (self.started, self.told):
            os.mkfifo(fifo)
        slow = house.hook(f"echo > {self.started}; read status < {self.told}; exit $status", stage)
        self.hooks = [house.recorder(one) for one in GATES]
        self.hooks.insert(GATES.index(stage) + 1, slow)

    def track(self) -> None:
        self.house.track(*self.hooks, strategy=self.strategy)

    def first(self) -> str:
        """A first revision, deployed without the slow hook."""
        first = self.house.upstream.commit({"a": "1"})
        self.house.track(self.house.recorder(Stage.BUILD), strategy=self.strategy)
        assert self.house.sync().result == "deployed"
        self.track()
        return first

    def runs(self) -> bool:
        """Whether any process of the newest deployment's hooks is there."""
        return bool(processes.marked(f"DEPLOY_ID={self.house.newest().id}"))

    def tell(self, status: int) -> threading.Thread:
        thread = threading.Thread(target=self.told.write_text, args=(f"{status}\n",), daemon=True)
        thread.start()
        return thread


@STRATEGIES
@pytest.mark.parametrize("stage", GATES)
def test_no_step_is_taken_twice(house: House, stage: Stage, strategy: Strategy) -> None:
    slow = Slow(house, stage, strategy)
    slow.first()
    b = house.upstream.commit({"a": "2"})
    with dying_in(slow.started):
        house.sync()
    taken = {(one.n, one.ended_at) for one in house.newest().steps if one.ended_at}
    house.restart()
    telling = slow.tell(0)
    assert house.sync(Reason.START).result == "up-to-date"
    telling.join()
    newest = house.newest()
    assert (newest.outcome, newest.revision, newest.attempt) == (Outcome.DEPLOYED, b, 1)
    assert [step.result for step in newest.steps if step.stage != "tree"] == ["ok"] * 4
    assert taken
    assert taken <= {(one.n, one.ended_at) for one in newest.steps}
    assert [one["DEPLOY_STAGE"] for one in house.recorded()[1:]] == ["build", "activate", "verify"]
    assert {one["DEPLOY_ID"] for one in house.recorded()[1:]} == {newest.id}
    assert house.whole() == b
    assert house.state().live == b
    assert list((house.state_dir / "runs").iterdir()) == []


@STRATEGIES
def test_one_that_failed_meanwhile_takes_the_way_back(house: House, strategy: Strategy) -> None:
    slow = Slow(house, Stage.ACTIVATE, strategy)
    a = slow.first()
    b = house.upstream.commit({"a": "2"})
    with dying_in(slow.started):
        house.sync()
    slow.tell(3).join()
    house.restart()
    # On the way back the hook runs for the revision before, and does well.
    well = threading.Thread(
        target=lambda: (slow.started.read_text(), slow.tell(0).join()), daemon=True
    )
    well.start()
    assert house.sync(Reason.START).result == "held"
    well.join()
    newest = house.newest()
    assert (newest.outcome, newest.revision, newest.attempt) == (Outcome.ROLLED_BACK, b, 1)
    assert house.state().live == a
    assert house.whole() == a


def test_where_the_hooks_are_others_now_it_is_ended_and_begun_anew(house: House) -> None:
    slow = Slow(house, Stage.ACTIVATE, Strategy.IN_PLACE)
    slow.first()
    b = house.upstream.commit({"a": "2"})
    with dying_in(slow.started):
        house.sync()
    house.restart()
    assert slow.runs()
    house.track(house.recorder(Stage.VERIFY))
    found = house.newest().id
    assert house.sync(Reason.START).result == "deployed"
    assert not processes.marked(f"DEPLOY_ID={found}")
    before, newest = house.journal.history("shop", 2).result()[::-1]
    assert (before.outcome, newest.outcome) == (Outcome.INTERRUPTED, Outcome.DEPLOYED)
    assert newest.attempt == 2
    assert house.state().live == b


def test_a_hook_of_a_target_that_is_gone_is_ended(house: House) -> None:
    slow = Slow(house, Stage.ACTIVATE, Strategy.IN_PLACE)
    slow.first()
    house.upstream.commit({"a": "2"})
    with dying_in(slow.started):
        house.sync()
    assert slow.runs()
    house.targets.clear()
    house.restart()
    assert not slow.runs()
    assert house.newest().outcome is Outcome.INTERRUPTED
    assert list((house.state_dir / "runs").iterdir()) == []
