"""The outbox on a real disk."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.journal import Journal
from agent.model import Condition, Deployment, Hold, Outcome, Reason, Retry
from agent.notices import Manner
from agent.plan import Ending
from tests.notices import WISH, A, B, deploy, deployment, sink, three_sinks


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    one = Journal(tmp_path)
    one.outbox.track(three_sinks().values())
    yield one
    one.close()


def waiting(journal: Journal, name: str) -> list[tuple[str, Outcome | None]]:
    found = []
    while one := next((n for n in journal.outbox.heads().result() if n.sink == name), None):
        found.append((one.deployment, one.outcome))
        journal.outbox.settle(one).result()
    return found


def test_each_sink_has_its_own(journal: Journal) -> None:
    for number in ("d1", "d2"):
        deploy(journal, number, Outcome.ROLLED_BACK)
    deploy(journal, "d3", Outcome.DEPLOYED)
    assert waiting(journal, "ops") == [("d1", Outcome.ROLLED_BACK), ("d3", Outcome.DEPLOYED)]
    assert waiting(journal, "am") == []
    assert waiting(journal, "github") == [
        ("d1", None), ("d1", Outcome.ROLLED_BACK), ("d2", None), ("d2", Outcome.ROLLED_BACK),
        ("d3", None), ("d3", Outcome.DEPLOYED),
    ]  # fmt: skip


def test_it_is_there_after_a_restart(journal: Journal, tmp_path: Path) -> None:
    deploy(journal, "d1", Outcome.BROKEN)
    journal.close()
    again = Journal(tmp_path)
    assert waiting(again, "ops") == [("d1", Outcome.BROKEN)]
    assert again.outbox.failing("am").result()[0].deployment == "d1"
    again.close()


def test_a_crash_is_told_to_who_wants_everything(journal: Journal) -> None:
    journal.begin(deployment("d1"), WISH, clears_holds=True)
    journal.interrupt("shop", 9.0)
    assert waiting(journal, "ops") == []
    assert waiting(journal, "github") == [("d1", None), ("d1", Outcome.INTERRUPTED)]


def test_what_is_tried_again_by_itself_is_not_told_at_once(journal: Journal) -> None:
    journal.begin(deployment("d1"), WISH, clears_holds=True)
    journal.mark("shop", Retry(B, 9.0), 1.0)
    journal.conclude(
        deployment("d1"), Ending(Outcome.ROLLED_BACK, Condition.SETTLED, A, "x", step="x"), 2.0
    )
    assert waiting(journal, "ops") == []
    journal.mark("blog", Hold(B, "because", "d2"), 1.0)
    deploy(journal, "d2", Outcome.ROLLED_BACK, target="blog")
    assert waiting(journal, "ops") == [("d2", Outcome.ROLLED_BACK)]


def test_what_is_failing_is_known_until_it_is_not(journal: Journal) -> None:
    deploy(journal, "d1", Outcome.ROLLED_BACK, 5.0)
    deploy(journal, "d2", Outcome.BROKEN, 6.0)
    deploy(journal, "e1", Outcome.FAILED, 7.0, target="blog")
    found = {one.target: one for one in journal.outbox.failing("am").result()}
    assert (found["shop"].deployment, found["shop"].outcome) == ("d2", Outcome.BROKEN)
    assert (found["shop"].since, found["shop"].at) == (5.0, 6.0)
    deploy(journal, "d3", Outcome.DEPLOYED)
    assert [one.target for one in journal.outbox.failing("am").result()] == ["blog"]


def test_a_sink_that_is_configured_no_more_is_failing_for_nobody(journal: Journal) -> None:
    deploy(journal, "d1", Outcome.ROLLED_BACK)
    journal.outbox.track([sink("am", Manner.STANDING, targets=frozenset(("blog",)))])
    assert journal.outbox.failing("am").result() == []
    assert journal.outbox.failing("ops").result() == []


def test_the_backlog_says_how_much_and_why(journal: Journal) -> None:
    assert journal.outbox.backlog().result() == []
    deploy(journal, "d1", Outcome.ROLLED_BACK, 5.0)
    (notice,) = (one for one in journal.outbox.heads().result() if one.sink == "ops")
    journal.outbox.postpone(notice, "down").result()
    found = {one.sink: one for one in journal.outbox.backlog().result()}
    assert (found["ops"].waiting, found["ops"].since, found["ops"].why) == (1, 5.0, "down")
    assert found["github"].waiting == 2


def test_a_deployment_that_is_still_told_of_is_not_forgotten(journal: Journal) -> None:
    deploy(journal, "d1", Outcome.ROLLED_BACK)
    later = Deployment("d2", "shop", B, A, Reason.PUSH, "why", 1, 10.0)
    journal.begin(later, WISH, clears_holds=True)
    assert journal.forget(100.0) == []
    waiting(journal, "ops")
    waiting(journal, "github")
    assert journal.forget(100.0) == []
    deploy(journal, "d3", Outcome.DEPLOYED)
    waiting(journal, "ops")
    waiting(journal, "github")
    assert "d1" in journal.forget(100.0)


def test_a_row_that_makes_no_sense_is_put_aside(journal: Journal) -> None:
    deploy(journal, "d1", Outcome.ROLLED_BACK)
    journal.submit(lambda db: db.execute("UPDATE notices SET outcome = 'nonsense'")).result()
    journal.submit(lambda db: db.execute("UPDATE failing SET outcome = 'nonsense'")).result()
    assert journal.outbox.heads().result() == []
    assert journal.outbox.failing("am").result() == []
