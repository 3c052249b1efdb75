"""Who takes notices from a real outbox; only the sinks are stand-ins."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent import news
from agent.errors import AgentError
from agent.journal import Journal
from agent.model import Outcome
from agent.news import News
from agent.notices import GIVEN_UP_AFTER
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


def taking(journal: Journal, sinks: Any, clock: Callable[[], float] = lambda: 10.0) -> News:
    return News(journal.outbox, sinks, clock)


def empty(journal: Journal) -> Callable[[], bool]:
    return lambda: not journal.outbox.heads().result()


def test_all_is_told_in_its_order(journal: Journal, sinks: Sinks) -> None:
    deploy(journal, "d1", Outcome.ROLLED_BACK)
    deploy(journal, "d2", Outcome.DEPLOYED)
    until(empty(journal), taking(journal, sinks).run())
    assert [what for name, what in sinks.told if name == "ops"] == ["d1 rolled-back", "d2 deployed"]
    assert [what for name, what in sinks.told if name == "github"] == [
        "d1 started", "d1 rolled-back", "d2 started", "d2 deployed",
    ]  # fmt: skip


def test_what_is_written_while_it_runs_is_told_at_once(journal: Journal, sinks: Sinks) -> None:
    numbers = iter(range(1000))

    def one_more() -> bool:
        if not journal.outbox.heads().result():
            deploy(journal, f"d{next(numbers)}", Outcome.BROKEN)
        return len(sinks.told) > 20

    until(one_more, taking(journal, sinks).run())


def test_a_sink_that_is_down_keeps_no_other_waiting(
    journal: Journal, sinks: Sinks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(news, "_FIRST_PAUSE", 0.001)
    failures = iter(range(3))

    def down_at_first(name: str) -> None:
        if name == "ops" and next(failures, None) is not None:
            raise Undelivered("down")

    sinks.answer = down_at_first
    deploy(journal, "d1", Outcome.ROLLED_BACK)
    deploy(journal, "d2", Outcome.DEPLOYED)
    until(empty(journal), taking(journal, sinks).run())
    assert [what for name, what in sinks.told if name == "ops"] == ["d1 rolled-back", "d2 deployed"]


@pytest.mark.parametrize(
    ("error", "late"),
    [
        (Undelivered("gone", again=False), 0.0),
        (Undelivered("down"), GIVEN_UP_AFTER),
        (AgentError("file x cannot be read"), GIVEN_UP_AFTER),
        (TypeError("a fault of ours"), GIVEN_UP_AFTER),
    ],
)
def test_what_never_will_be_told_is_given_up(
    journal: Journal, sinks: Sinks, error: Exception, late: float
) -> None:
    def fail(_: str) -> None:
        raise error

    sinks.answer = fail
    deploy(journal, "d1", Outcome.ROLLED_BACK, at=10.0)
    until(empty(journal), taking(journal, sinks, lambda: 10.0 + late).run())
    assert sinks.told == []


def test_a_fault_of_ours_waits_like_any_other(journal: Journal, sinks: Sinks) -> None:
    def fail(_: str) -> None:
        raise TypeError("a fault of ours")

    def known() -> bool:
        return any(one.why for one in journal.outbox.backlog().result())

    sinks.answer = fail
    deploy(journal, "d1", Outcome.ROLLED_BACK)
    until(known, taking(journal, sinks).run())


def test_notices_for_a_sink_that_is_gone_are_dropped(journal: Journal, sinks: Sinks) -> None:
    deploy(journal, "d1", Outcome.ROLLED_BACK)
    sinks.sinks = {}
    until(empty(journal), taking(journal, sinks).run())
    assert sinks.told == []
