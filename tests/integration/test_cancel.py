"""A person's cancel, at each step of a deployment: it ends as a failure would."""

import pytest

from agent import health
from agent.model import Reason, Stage, Strategy, Verify
from agent.steps import Steps
from tests.house import House
from tests.remotes import Upstream


class Canceling:
    """Cancels, twice, once the nth step of a deployment has begun."""

    def __init__(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at = 0
        self.step = ""
        self.answers: list[bool] = []
        begin = Steps.begin

        def begun(steps: Steps, stage: str, name: str) -> int:
            n = begin(steps, stage, name)
            if n == self.at:
                self.step = f"{stage} {name}"
                self.answers += [house.reconciler.cancel("shop", "ada") for _ in range(2)]
            return n

        monkeypatch.setattr(Steps, "begin", begun)


@pytest.fixture
def canceling(house: House, monkeypatch: pytest.MonkeyPatch) -> Canceling:
    return Canceling(house, monkeypatch)


@pytest.mark.parametrize("strategy", list(Strategy))
@pytest.mark.parametrize("bare", [True, False], ids=["no hooks", "every gate"])
def test_a_cancel_at_any_step_brings_back_what_was_live(
    house: House, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, canceling: Canceling,
    strategy: Strategy, bare: bool,
) -> None:  # fmt: skip
    """Whatever runs just then, the health check too; and where nothing runs that could be ended."""
    monkeypatch.setattr(health, "ask", lambda *_: "200")
    gates = () if bare else (Stage.BUILD, Stage.ACTIVATE, Stage.VERIFY)
    house.track(
        *(house.hook("true", stage) for stage in gates), strategy=strategy,
        verify=None if bare else Verify("http://shop.invalid/", stable_for=0),
    )  # fmt: skip
    a = upstream.commit({"f": "A"})
    assert house.sync().result == "deployed"
    steps = [f"{step.stage} {step.name}" for step in house.newest().steps]
    for n, step in enumerate(steps, start=1):
        canceling.at = n
        b = upstream.commit({"f": f"B{n}"})
        synced = house.sync()
        assert synced.result == "canceled", step
        assert "canceled by ada" in synced.why, step
        assert canceling.step.split(" ")[0] == step.split(" ")[0]
        assert (house.whole(), house.state().live) == (a, a), step
        assert [one.revision for one in house.state().holds] == [b], step
        assert house.sync(Reason.POLL).result == "held"
        house.settle()
    assert canceling.answers == [True, True] * len(steps)


@pytest.mark.parametrize("strategy", list(Strategy))
def test_a_cancel_of_the_way_back_or_of_what_went_well_is_too_late(
    house: House, upstream: Upstream, canceling: Canceling, strategy: Strategy
) -> None:
    house.track(
        house.hook("test ! -e bad", Stage.VERIFY), house.hook("true", Stage.SUCCESS),
        strategy=strategy,
    )  # fmt: skip
    canceling.at = 4 if strategy is Strategy.RELEASES else 3
    a = upstream.commit({"f": "A"})
    assert house.sync().result == "deployed"
    assert canceling.step.startswith("success")
    upstream.commit({"bad": "B"})
    assert house.sync().result == "rolled-back"
    assert canceling.step.startswith("tree")
    assert canceling.answers == [False] * 4
    assert house.whole() == a


@pytest.mark.parametrize("strategy", list(Strategy))
def test_a_canceled_rollback_leaves_what_was_live_before(
    house: House, upstream: Upstream, canceling: Canceling, strategy: Strategy
) -> None:
    house.track(house.hook("true", Stage.ACTIVATE), strategy=strategy)
    for name in "AB":
        b = upstream.commit({"f": name})
        house.sync()
    canceling.at = 2
    assert house.roll_back().result == "canceled"
    assert canceling.step.startswith("activate")
    assert (house.whole(), house.state().live, house.state().holds) == (b, b, ())
    canceling.at = 0
    assert house.sync(Reason.POLL).result == "up-to-date"


def test_the_first_deployment_canceled_leaves_nothing_live(
    house: House, upstream: Upstream, canceling: Canceling
) -> None:
    house.releases(house.hook("true", Stage.ACTIVATE))
    upstream.commit({"f": "A"})
    canceling.at = 3
    assert house.sync().result == "canceled"
    assert not (house.tree / "current").is_symlink()
    assert house.state().live is None
    canceling.at = 0
    assert house.sync(Reason.MANUAL, force=True).result == "deployed"
