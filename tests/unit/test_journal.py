"""The journal on a real disk."""

import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import AgentError, JournalUnavailable, StateLocked
from agent.journal import SCHEMA_VERSION, Journal
from agent.model import (
    Condition,
    Deployment,
    Hold,
    Letter,
    Outcome,
    Reason,
    Retry,
    SyncRequest,
    TargetState,
)
from agent.plan import Ending

A, B = "a" * 40, "b" * 40


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    one = Journal(tmp_path)
    yield one
    one.close()


def letter(n: int, *targets: str) -> Letter:
    return Letter(n, f"id-{n}", A, targets or ("shop",), 5.0)


POLL = SyncRequest("shop", Reason.POLL)


def deployment(number: str = "d1", target: str = "shop", at: float = 1.0) -> Deployment:
    return Deployment(number, target, B, A, Reason.PUSH, "why", 1, at, subject="s", author="a")


def test_letters_become_requests_and_how_far_was_read(tmp_path: Path) -> None:
    first = Journal(tmp_path)
    requests, recorded = first.take("inbox", [letter(1, "shop", "copy"), letter(2)])
    recorded.result()
    assert [(one.id, one.target, one.delivery, one.expected) for one in requests] == [
        (1, "shop", "id-2", A),
        (2, "copy", "id-1", A),
    ]
    first.close()
    second = Journal(tmp_path)
    assert second.read_up_to("inbox").result() == 2
    assert second.read_up_to("another").result() == 0
    assert second.open_requests().result() == requests
    assert second.last_pushes(["shop", "none"]).result() == {"shop": 5.0}
    later, _ = second.take("inbox", [letter(3)])
    assert later[0].id == 3
    second.close()


def test_a_goal_that_is_none_says_nothing_about_the_disk(journal: Journal) -> None:
    with pytest.raises(AgentError, match="^'fffffff' was never deployed to shop") as error:
        journal.goal_of_rollback("shop", "fffffff").result()
    assert not isinstance(error.value, JournalUnavailable)
    assert journal.healthy()


def test_what_is_live_and_what_was_good_before_are_never_forgotten(journal: Journal) -> None:
    """However old: of a target to which nothing has come for years, or nothing good."""
    revisions = [letter * 40 for letter in "abcd"]
    for n, revision in enumerate(revisions):
        one = replace(deployment(f"d{n}", at=float(n)), revision=revision)
        journal.begin(one, POLL, clears_holds=True)
        outcome = Outcome.FAILED if revision == revisions[-1] else Outcome.DEPLOYED
        live = None if outcome is Outcome.FAILED else revision
        journal.conclude(one, Ending(outcome, Condition.SETTLED, live, ""), float(n))
        journal.end(one.id, float(n))
    assert journal.forget(100.0) == ["d0"]
    assert journal.last_good("shop") == revisions[1]
    assert journal.goal_of_rollback("shop", revisions[2]).result().revision == revisions[2]


def test_letters_are_not_read_where_their_requests_cannot_be_written(journal: Journal) -> None:
    taken = (
        "INSERT INTO requests (id, target, reason, force, made_at) VALUES (1, 'x', 'push', 0, 1)"
    )
    journal.submit(lambda db: db.execute(taken)).result()
    _, recorded = journal.take("inbox", [letter(1)])
    with pytest.raises(JournalUnavailable):
        recorded.result()
    assert journal.read_up_to("inbox").result() == 0


def test_a_request_and_the_older_ones_it_stands_for_are_closed(journal: Journal) -> None:
    old = journal.request(SyncRequest("shop", Reason.MANUAL, actor="ada"), 1.0).result()
    other = journal.request(SyncRequest("other", Reason.MANUAL), 1.0).result()
    new = journal.request(SyncRequest("shop", Reason.PUSH), 2.0).result()
    later = journal.request(SyncRequest("shop", Reason.PUSH), 3.0).result()
    journal.close_requests(new, "deployed", "because", "d1", 4.0).result()
    assert journal.open_requests().result() == [other, later]
    assert old.id
    found = journal.request_result(old.id).result()
    assert found
    assert (found.result, found.why, found.deployment) == ("deployed", "because", "d1")
    assert journal.request_result(99).result() is None


def test_a_deployment_from_begin_to_end(journal: Journal) -> None:
    journal.begin(deployment(), POLL, clears_holds=True)
    assert journal.state("shop") == TargetState(
        "shop", condition=Condition.MOVING, attempts=1, attempted=B
    )
    journal.step_begins("d1", 1, "tree", "check out", 1.0)
    journal.step_ends("d1", 1, "ok", 2.0).result()
    journal.conclude(deployment(), Ending(Outcome.DEPLOYED, Condition.SETTLED, B, ""), 3.0)
    journal.end("d1", 4.0)
    assert journal.state("shop") == TargetState("shop", B, 3.0)
    found = journal.deployment("d1").result()
    assert found
    assert (found.outcome, found.ended_at, len(found.steps)) == (Outcome.DEPLOYED, 4.0, 1)
    assert journal.last(["shop"]).result()["shop"].id == "d1"
    assert journal.states(["shop", "new"]).result()["new"] == TargetState("new")


def test_a_hold_and_a_retry_are_kept_until_the_next_revision(journal: Journal) -> None:
    journal.begin(deployment(), POLL, clears_holds=True)
    journal.mark("shop", Hold(B, "exit 1", "d1"), 3.0)
    journal.mark("shop", Retry(B, 9.0), 3.0)
    state = journal.state("shop")
    assert (state.hold, state.retry) == (Hold(B, "exit 1", "d1"), Retry(B, 9.0))
    journal.begin(deployment("d2"), POLL, clears_holds=False)
    assert journal.state("shop").hold
    journal.begin(deployment("d3"), POLL, clears_holds=True)
    assert journal.state("shop").hold is None
    assert journal.state("shop").retry is None


def test_what_was_running_is_interrupted(journal: Journal) -> None:
    journal.begin(deployment("d1"), POLL, clears_holds=True)
    journal.step_begins("d1", 1, "build", "x", 1.0)
    journal.begin(deployment("e1", "other"), POLL, clears_holds=True)
    journal.conclude(
        deployment("e1", "other"), Ending(Outcome.DEPLOYED, Condition.SETTLED, B, ""), 2.0
    )
    assert sorted(one.id for one in journal.unfinished()) == ["d1", "e1"]
    journal.interrupt("shop", 5.0)
    journal.interrupt("other", 5.0)
    one, other = journal.deployment("d1").result(), journal.deployment("e1").result()
    assert one
    assert other
    assert (one.outcome, one.steps[0].result) == (Outcome.INTERRUPTED, "interrupted")
    assert other.outcome is Outcome.DEPLOYED
    assert journal.state("shop").condition is Condition.MOVING
    assert journal.unfinished() == []


def test_a_deployment_is_found_by_a_part_of_its_id_that_is_one_only(journal: Journal) -> None:
    for number in ("20260101-000000-aaaaaa", "20260101-000001-bbbbbb"):
        journal.begin(deployment(number), POLL, clears_holds=True)
    assert journal.deployment("bbbbbb").result()
    assert journal.deployment("20260101-000000").result()
    with pytest.raises(AgentError, match="several deployments' ids begin or end with 20260101"):
        journal.deployment("20260101").result()
    assert journal.healthy()
    assert journal.deployment("nothing").result() is None


def test_history_is_newest_first(journal: Journal) -> None:
    for n in range(5):
        journal.begin(deployment(f"d{n}", "shop" if n % 2 else "other", n), POLL, clears_holds=True)
    assert [one.id for one in journal.history(None, 3).result()] == ["d4", "d3", "d2"]
    assert [one.id for one in journal.history("shop", 9).result()] == ["d3", "d1"]


def test_old_things_are_forgotten_but_not_the_newest_of_a_target(journal: Journal) -> None:
    for n in range(3):
        journal.begin(deployment(f"d{n}", at=n), POLL, clears_holds=True)
        journal.step_begins(f"d{n}", 1, "tree", "x", n)
        journal.end(f"d{n}", n)
    journal.request(SyncRequest("shop", Reason.MANUAL), 1.0).result()
    open_still = journal.open_requests().result()
    assert sorted(journal.forget(100.0)) == ["d0", "d1"]
    assert [one.id for one in journal.history("shop", 9).result()] == ["d2"]
    assert journal.open_requests().result() == open_still


# ---- when the disk does not do its part -------------------------------------------------------


def test_a_job_at_fault_leaves_the_others_of_its_batch(journal: Journal) -> None:
    gate = threading.Event()
    held = journal.submit(lambda _: gate.wait(10))
    good = journal.request(SyncRequest("shop", Reason.MANUAL), 1.0)

    def bad(_: sqlite3.Connection) -> None:
        raise ZeroDivisionError

    faulty = journal.submit(bad)
    also_good = journal.request(SyncRequest("shop", Reason.MANUAL), 1.0)
    gate.set()
    held.result()
    with pytest.raises(ZeroDivisionError):
        faulty.result()
    assert journal.open_requests().result() == [good.result(), also_good.result()]
    assert journal.healthy()


def test_a_full_disk_is_told_and_got_over(journal: Journal) -> None:
    pages = journal.submit(lambda db: db.execute("PRAGMA page_count").fetchone()[0]).result()
    journal.submit(lambda db: db.execute(f"PRAGMA max_page_count = {pages}")).result()
    with pytest.raises(JournalUnavailable, match="full"):
        for n in range(1000):
            actor = f"{n}" + "x" * 1000
            journal.request(SyncRequest("shop", Reason.MANUAL, actor=actor), 1.0).result()
    assert not journal.healthy()
    assert journal.state("shop") == TargetState("shop")
    journal.submit(lambda db: db.execute("PRAGMA max_page_count = 1000000")).result()
    journal.probe(1.0).result()
    assert journal.healthy()
    assert journal.request(SyncRequest("shop", Reason.MANUAL), 1.0).result().id


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("requests", "reason = 'nonsense'"),
        ("deployments", "outcome = 'nonsense'"),
        ("deployments", "started_at = 'yesterday'"),
        ("states", "condition = 'nonsense'"),
        ("states", "live_since = x'00ff'"),
    ],
)
def test_a_row_that_makes_no_sense_is_put_aside(journal: Journal, table: str, change: str) -> None:
    journal.request(SyncRequest("shop", Reason.MANUAL), 1.0).result()
    journal.begin(deployment(), POLL, clears_holds=True)
    journal.submit(lambda db: db.execute(f"UPDATE {table} SET {change}")).result()
    left = len(journal.open_requests().result()), len(journal.history(None, 9).result())
    assert journal.last(["shop"]).result().keys() <= {"shop"}
    assert journal.deployment("d1").result() is None or table != "deployments"
    state = journal.state("shop")
    assert left == (int(table != "requests"), int(table != "deployments"))
    assert (state == TargetState("shop")) == (table == "states")
    kept = journal.submit(lambda db: db.execute("SELECT kind FROM quarantine").fetchall()).result()
    assert [row["kind"] for row in kept] == [table]
    assert journal.request(SyncRequest("shop", Reason.MANUAL), 1.0).result().id


def test_after_close_everything_is_refused(tmp_path: Path) -> None:
    one = Journal(tmp_path)
    one.close()
    one.close()
    assert not one.healthy()
    with pytest.raises(JournalUnavailable):
        one.open_requests().result()


def test_a_second_opener_is_refused_and_told_who_has_it(tmp_path: Path, journal: Journal) -> None:
    code = f"from agent.journal import Journal; from pathlib import Path; Journal(Path({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "StateLocked: another agent (pid " in done.stderr
    with pytest.raises(StateLocked):
        Journal(tmp_path)


def test_a_newer_schema_is_refused_with_a_message(tmp_path: Path) -> None:
    Journal(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "journal.db")) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(AgentError, match="newer gitops-agent"):
        Journal(tmp_path)


def test_a_file_that_is_no_database_is_refused_with_a_message(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_text(json.dumps({"not": "a database"}) * 100)
    with pytest.raises(JournalUnavailable, match="cannot be opened"):
        Journal(tmp_path)
    (tmp_path / "journal.db").unlink()
    Journal(tmp_path).close()


def test_history_before_a_time_and_since_one(journal: Journal) -> None:
    for n in range(5):
        journal.begin(deployment(f"d{n}", at=10.0 + n), POLL, clears_holds=True)
    got = journal.history("shop", 3, before=14.0).result()
    assert [one.id for one in got] == ["d3", "d2", "d1"]
    assert [one.id for one in journal.history(None, 1, before=12.0).result()] == ["d1"]
    assert journal.history("other", 9).result() == []
    ran = journal.ran(["shop", "other"], 11.0, 3).result()
    assert [(one.id, one.started_at) for one in ran] == [("d4", 14.0), ("d3", 13.0), ("d2", 12.0)]


def test_when_a_deployment_was_first_asked_for(journal: Journal) -> None:
    wish = SyncRequest("shop", Reason.MANUAL, actor="ada")
    journal.request(wish, 7.0).result()
    newest = journal.request(wish, 8.0).result()
    journal.begin(deployment("asked", at=10.0), newest, clears_holds=True)
    journal.close_requests(newest, "deployed", "", "asked", 20.0).result()
    journal.begin(deployment("polled", at=30.0), POLL, clears_holds=True)
    assert journal.asked_at(["asked", "polled", "unknown"]).result() == {"asked": 7.0}
    assert [one.asked_at for one in journal.ran(["shop"], 0.0, 9).result()] == [None, 7.0]


def test_what_is_queued_is_done_though_nobody_waits_any_more(journal: Journal) -> None:
    gate = threading.Event()
    held = journal.submit(lambda _: gate.wait(10))
    asked = journal.request(SyncRequest("shop", Reason.MANUAL), 1.0)
    assert not asked.cancel()
    gate.set()
    held.result()
    assert journal.open_requests().result() == [asked.result()]


def test_what_the_live_revision_says_of_itself(journal: Journal) -> None:
    one = deployment("d1")
    journal.begin(one, POLL, clears_holds=True)
    journal.conclude(one, Ending(Outcome.DEPLOYED, Condition.SETTLED, B, ""), 2.0)
    journal.end("d1", 2.0)
    assert journal.live_subjects().result() == {"shop": "s"}
    newer = replace(deployment("d2", at=3.0), revision="c" * 40, subject="bad")
    journal.begin(newer, POLL, clears_holds=True)
    journal.conclude(newer, Ending(Outcome.ROLLED_BACK, Condition.SETTLED, B, "x"), 4.0)
    assert journal.live_subjects().result() == {"shop": "s"}


def test_a_folder_that_cannot_be_is_said_in_words() -> None:
    with pytest.raises(JournalUnavailable, match=r"/proc/nope/journal\.db cannot be opened"):
        Journal(Path("/proc/nope"))


def test_an_id_that_could_be_several_is_no_id(journal: Journal) -> None:
    for name in ("20261126-120000-aaaaaa", "20261126-130000-bbbbbb"):
        journal.begin(deployment(name), POLL, clears_holds=True)
    assert journal.deployment("bbbbbb").result().id == "20261126-130000-bbbbbb"  # type: ignore[union-attr]
    assert journal.deployment("1999").result() is None
    with pytest.raises(AgentError, match="^several deployments' ids begin or end with 20261126$"):
        journal.deployment("20261126").result()
