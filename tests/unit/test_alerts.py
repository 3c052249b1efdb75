"""What stands is said to who wants to know it; the outbox is real, the sinks are stand-ins."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent import alerts
from agent.alerts import Alerts
from agent.journal import Journal
from agent.model import Outcome
from agent.notifiers import Undelivered
from tests.notices import Sinks, deploy, three_sinks, until


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    one = Journal(tmp_path)
    one.outbox.track(three_sinks().values())
    yield one
    one.close()


@pytest.fixture
def sinks() -> Sinks:
    return Sinks(three_sinks())


def standing(journal: Journal, sinks: Any) -> Alerts:
    return Alerts(journal.outbox, sinks, lambda: 100.0)


def test_an_alert_stands_until_the_target_is_well(journal: Journal, sinks: Sinks) -> None:
    deploy(journal, "d1", Outcome.ROLLED_BACK, 5.0)
    work = standing(journal, sinks)

    def steps() -> bool:
        match (len(sinks.alerts), len(journal.history("shop", 9).result())):
            case (1, 1):
                deploy(journal, "d2", Outcome.BROKEN, 6.0)
            case (2, 2):
                deploy(journal, "d3", Outcome.DEPLOYED)
        return len(sinks.alerts) == 3

    until(steps, work.run())
    first, second, third = sinks.alerts
    assert [(one.deployment, one.since, one.until) for one in first] == [
        ("d1", 5.0, 100.0 + alerts.LASTS)
    ]
    assert [(one.deployment, one.since, one.until) for one in second] == [
        ("d2", 5.0, 100.0 + alerts.LASTS), ("d1", 5.0, 100.0),
    ]  # fmt: skip
    assert [(one.deployment, one.until) for one in third] == [("d2", 100.0)]


def test_an_alert_is_said_again_before_it_expires(
    journal: Journal, sinks: Sinks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "_TICK", 0.01)
    deploy(journal, "d1", Outcome.ROLLED_BACK, 5.0)
    until(lambda: len(sinks.alerts) == 3, standing(journal, sinks).run())
    assert {one.deployment for said in sinks.alerts for one in said} == {"d1"}


@pytest.mark.parametrize("error", [Undelivered("down"), TypeError("a fault of ours")])
def test_an_alertmanager_that_was_down_hears_what_is_true_then(
    journal: Journal, sinks: Sinks, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "_SOON", 0.001)
    failures = iter([error, None, error])

    def answer(_: str) -> None:
        if (failure := next(failures, None)) is not None:
            raise failure

    sinks.answer = answer
    deploy(journal, "d1", Outcome.ROLLED_BACK, 5.0)

    def steps() -> bool:
        if len(sinks.alerts) == 1 and len(journal.history("shop", 9).result()) == 1:
            deploy(journal, "d2", Outcome.DEPLOYED)
        return len(sinks.alerts) == 2

    until(steps, standing(journal, sinks).run())
    assert [one.until for one in sinks.alerts[1]] == [100.0]


def test_nothing_is_said_while_nothing_fails(journal: Journal, sinks: Sinks) -> None:
    deploy(journal, "d1", Outcome.DEPLOYED)
    work = standing(journal, sinks)
    rung = iter(range(5))
    until(lambda: work._bell.ring() or next(rung, None) is None, work.run())  # type: ignore[func-returns-value]
    assert sinks.alerts == []
