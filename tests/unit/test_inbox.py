"""The inbox on a real disk, and those who read it."""

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import wait
from contextlib import closing
from pathlib import Path

import pytest

from agent.errors import JournalUnavailable, StateLocked
from agent.inbox import Inbox, Letters
from agent.intake import Intake
from agent.journal import Journal
from agent.model import Delivery, Letter, Push, SyncRequest

A = "a" * 40
PUSH = Push("refs/heads/main", A, frozenset({"https://x.example/shop"}))
PATIENCE = 10.0


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[Inbox]:
    one = Inbox(tmp_path)
    yield one
    one.close()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    one = Journal(tmp_path)
    yield one
    one.close()


def put(inbox: Inbox, number: str, *targets: str, at: float = 1.0) -> Letter | None:
    delivery = Delivery("github", number, "push", 0)
    return inbox.receive([(delivery, PUSH, targets or ("shop",))], at).result()[0]


def test_a_delivery_is_there_once_and_after_a_restart(tmp_path: Path) -> None:
    first = Inbox(tmp_path)
    one = put(first, "1", "shop", "copy", at=5.0)
    assert one == Letter(1, "1", A, ("shop", "copy"), 5.0)
    assert put(first, "1") is None
    first.close()
    second = Inbox(tmp_path)
    assert second.id == first.id
    assert put(second, "1") is None
    two = put(second, "2")
    assert second.after(0).result() == [one, two]
    assert second.after(1).result() == [two]
    second.close()


def test_another_inbox_is_told_from_the_one_before(tmp_path: Path) -> None:
    first, second = Inbox(tmp_path / "1"), Inbox(tmp_path / "2")
    assert first.id != second.id
    first.close()
    second.close()


def test_a_burst_from_many_threads_is_all_there(inbox: Inbox) -> None:
    def send(start: int) -> None:
        deliveries = [Delivery("github", f"{start}-{n}", "push", 0) for n in range(200)]
        wait([inbox.receive([(one, PUSH, ("shop",))], 1.0) for one in deliveries])

    threads = [threading.Thread(target=send, args=(n,)) for n in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    letters = inbox.after(0).result()
    assert [one.n for one in letters] == list(range(1, 801))
    assert len({one.delivery for one in letters}) == 800


def test_a_full_disk_acknowledges_nothing_and_is_got_over(tmp_path: Path, inbox: Inbox) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    small = Inbox(folder)
    limit = "PRAGMA max_page_count = {}"
    pages = "PRAGMA page_count"
    database = small._db
    count = database.do(lambda db: db.execute(pages).fetchone()[0])
    database.do(lambda db: db.execute(limit.format(count)).fetchone())
    with pytest.raises(JournalUnavailable, match="the inbox cannot be used: .*full"):
        for n in range(1000):
            put(small, f"{n}" + "x" * 1000)
    assert not small.healthy()
    database.do(lambda db: db.execute(limit.format(1_000_000)).fetchone())
    small.probe(1.0).result()
    assert small.healthy()
    assert put(small, "after")
    small.close()


def test_what_was_read_is_forgotten_but_places_are_given_once(inbox: Inbox) -> None:
    for n in range(1, 6):
        put(inbox, f"{n}", at=float(n))
    inbox.forget(before=100.0, read=3)
    assert [one.n for one in inbox.after(0).result()] == [4, 5]
    inbox.forget(before=5.0, read=5)
    assert [one.n for one in inbox.after(0).result()] == [5]
    inbox.forget(before=100.0, read=5)
    later = put(inbox, "6")
    assert later
    assert later.n == 6


@pytest.mark.parametrize("targets", ["not JSON", "7", b"\xff"])
def test_a_row_that_makes_no_sense_stops_none_that_follow(
    tmp_path: Path, targets: object, capsys: pytest.CaptureFixture[str]
) -> None:
    first = Inbox(tmp_path)
    put(first, "1")
    put(first, "2")
    first.close()
    with closing(sqlite3.connect(tmp_path / "inbox.db")) as db, db:
        db.execute("UPDATE letters SET targets = ? WHERE n = 1", (targets,))
    second = Inbox(tmp_path)
    assert [(one.n, one.targets) for one in second.after(0).result()] == [(1, ()), (2, ("shop",))]
    assert "inbox.letter_unreadable" in capsys.readouterr().out
    second.close()


def test_a_second_opener_is_refused(tmp_path: Path, inbox: Inbox) -> None:
    with pytest.raises(StateLocked, match="is using the inbox"):
        Inbox(tmp_path)


def test_after_close_everything_is_refused(tmp_path: Path) -> None:
    one = Inbox(tmp_path)
    one.close()
    one.close()
    with pytest.raises(JournalUnavailable, match="the inbox is closed"):
        put(one, "1")


# ---- waiting for letters ----------------------------------------------------------------------


def test_a_reader_waits_for_the_next_letter(inbox: Inbox) -> None:
    async def test() -> None:
        letters = Letters(inbox)
        waiting = asyncio.create_task(letters.after(0))
        await asyncio.sleep(0)
        one = put(inbox, "1")
        assert one
        letters.ring(one)
        assert await waiting == [one]
        assert await letters.after(1, patience=0.01) == []

    asyncio.run(test())


def test_a_reader_that_is_behind_or_missed_a_bell_reads_the_file(inbox: Inbox) -> None:
    async def test() -> None:
        first = put(inbox, "1")
        letters = Letters(inbox)
        assert await letters.after(0) == [first]
        second, third = put(inbox, "2"), put(inbox, "3")
        assert third
        letters.ring(third)
        assert await letters.after(1) == [second, third]
        assert second
        letters.ring(second)
        assert await letters.after(2) == [third]

    asyncio.run(test())


# ---- the core's side --------------------------------------------------------------------------


class House:
    """An inbox, a journal and the intake between them; wishes are kept."""

    def __init__(self, inbox: Inbox, journal: Journal) -> None:
        self.journal = journal
        self.letters = Letters(inbox)
        self.wishes: list[SyncRequest] = []
        self.wished = asyncio.Event()
        self.intake = Intake(self.letters, journal, self._wish)
        self.intake.track({"shop", "copy"})

    def _wish(self, request: SyncRequest) -> None:
        self.wishes.append(request)
        self.wished.set()

    async def until(self, wishes: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(self.wishes) < wishes:
                self.wished.clear()
                await self.wished.wait()


def following(
    inbox: Inbox, journal: Journal, test: Callable[[House], Awaitable[None]]
) -> list[SyncRequest]:
    """Run `test` beside an intake, as in a process that dies at its end; gives the wishes."""

    async def work() -> list[SyncRequest]:
        house = House(inbox, journal)
        task = asyncio.create_task(house.intake.run())
        await test(house)
        task.cancel()
        return house.wishes

    return asyncio.run(work())


def test_letters_wake_their_targets_once_over_restarts(inbox: Inbox, journal: Journal) -> None:
    async def first(house: House) -> None:
        one = put(inbox, "1", "shop", "copy")
        assert one
        house.letters.ring(one)
        await house.until(2)

    async def second(house: House) -> None:
        await house.until(1)

    assert [one.target for one in following(inbox, journal, first)] == ["shop", "copy"]
    put(inbox, "2", "shop")
    assert [one.delivery for one in following(inbox, journal, second)] == ["2"]
    assert [one.delivery for one in journal.open_requests().result()] == ["1", "1", "2"]


def test_a_letter_for_a_target_there_is_not_wakes_none(inbox: Inbox, journal: Journal) -> None:
    put(inbox, "1", "gone")
    put(inbox, "2", "shop", "gone")

    async def test(house: House) -> None:
        await house.until(1)

    assert [one.target for one in following(inbox, journal, test)] == ["shop"]
    assert journal.read_up_to(inbox.id).result() == 2


def test_what_the_journal_could_not_record_is_read_again(
    inbox: Inbox, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.intake._PAUSE", 0.0)
    taken = (
        "INSERT INTO requests (id, target, reason, force, made_at) VALUES (1, 'x', 'push', 0, 1)"
    )
    journal.submit(lambda db: db.execute(taken)).result()
    put(inbox, "1", "shop")

    async def test(house: House) -> None:
        await house.until(2)

    wishes = following(inbox, journal, test)
    assert [(one.id, one.delivery) for one in wishes] == [(1, "1"), (2, "1")]
    assert [one.id for one in journal.open_requests().result() if one.delivery] == [2]
