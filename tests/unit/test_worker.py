"""Mailboxes, with a reconciler that does as it is told, behind the same interface."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent import plan
from agent.attempt import Synced
from agent.errors import JournalUnavailable
from agent.journal import Journal
from agent.model import Reason, SyncRequest
from agent.worker import Worker


class Syncs:
    """Records what it is asked; each sync ends when it is told what it came to."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[
            tuple[SyncRequest, asyncio.Future[Synced], Callable[[], bool]]
        ] = asyncio.Queue()
        self.pruned: list[str] = []
        self.taking_up = asyncio.Event()
        self.found: asyncio.Future[Synced | None] = asyncio.get_running_loop().create_future()
        self.found.set_result(None)
        """What was begun by an agent that died, and what it came to."""

    async def sync(self, request: SyncRequest, superseded: Callable[[], bool]) -> Synced:
        answer: asyncio.Future[Synced] = asyncio.get_running_loop().create_future()
        await self.asked.put((request, answer, superseded))
        return await answer

    async def take_up(self, name: str) -> Synced | None:
        self.taking_up.set()
        return await self.found

    async def prune(self, name: str) -> None:
        self.pruned.append(name)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    one = Journal(tmp_path)
    yield one
    one.close()


DONE = Synced("deployed", "because", "d1")


def running(journal: Journal, test: Callable[[Worker, Syncs], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        syncs = Syncs()
        async with asyncio.timeout(20):
            await test(Worker(syncs, journal, lambda: 100.0), syncs)

    asyncio.run(main())


def test_while_one_runs_only_the_newest_wish_waits(journal: Journal) -> None:
    async def test(worker: Worker, syncs: Syncs) -> None:
        worker.wish(SyncRequest("shop", Reason.START))
        first, answer, superseded = await syncs.asked.get()
        assert not superseded()
        for n in range(1, 51):
            worker.wish(SyncRequest("shop", Reason.PUSH, n, expected=str(n)))
        assert superseded()
        worker.wish(SyncRequest("other", Reason.POLL))
        (await syncs.asked.get())[1].set_result(DONE)
        assert syncs.asked.empty()
        answer.set_result(DONE)
        second, answer, _ = await syncs.asked.get()
        answer.set_result(DONE)
        assert (first.reason, second.id, second.expected) == (Reason.START, 50, "50")
        await worker.drain()
        assert syncs.asked.empty()
        assert worker.busy() == []

    running(journal, test)


def test_what_a_dead_agent_had_begun_comes_before_every_wish(journal: Journal) -> None:
    async def test(worker: Worker, syncs: Syncs) -> None:
        told: list[str] = []
        worker.on_deployment.append(told.append)
        syncs.found = asyncio.get_running_loop().create_future()
        worker.wish(SyncRequest("shop", Reason.START))
        await syncs.taking_up.wait()
        worker.wish(SyncRequest("shop", Reason.PUSH, 1))
        worker.wish(SyncRequest("shop", Reason.PUSH, 2))
        assert syncs.asked.empty()
        syncs.found.set_result(DONE)
        first, answer, _ = await syncs.asked.get()
        assert first.id == 2
        assert worker.mailbox("shop").last == DONE
        assert worker.syncs == {("shop", Reason.START, "deployed"): 1}
        assert told == ["d1"]
        answer.set_result(DONE)
        await worker.drain()
        assert syncs.asked.empty()

    running(journal, test)


def test_after_a_rollback_that_failed_there_is_a_look(journal: Journal) -> None:
    """What was to be tried again by itself had its timer taken away."""

    async def test(worker: Worker, syncs: Syncs) -> None:
        for result, follows in (("rolled-back", True), ("deployed", False)):
            worker.wish(SyncRequest("shop", Reason.ROLLBACK, actor="ada", goal="a" * 40))
            (await syncs.asked.get())[1].set_result(Synced(result, "because", "d1"))
            if follows:
                request, answer, _ = await syncs.asked.get()
                assert request == SyncRequest("shop", Reason.POLL)
                answer.set_result(Synced("held", "because"))
        await worker.drain()
        assert syncs.asked.empty()

    running(journal, test)


def test_a_fault_in_taking_up_leaves_the_wishes(
    journal: Journal, capsys: pytest.CaptureFixture[str]
) -> None:
    async def test(worker: Worker, syncs: Syncs) -> None:
        syncs.found = asyncio.get_running_loop().create_future()
        syncs.found.set_exception(ZeroDivisionError())
        worker.wish(SyncRequest("shop", Reason.START))
        first, answer, _ = await syncs.asked.get()
        assert first.reason is Reason.START
        answer.set_result(DONE)
        await worker.drain()

    running(journal, test)
    assert "sync.crashed" in capsys.readouterr().out


def test_a_finished_request_is_closed_in_the_journal(journal: Journal) -> None:
    async def test(worker: Worker, syncs: Syncs) -> None:
        request = journal.request(SyncRequest("shop", Reason.PUSH), 1.0).result()
        worker.wish(request)
        finished = worker.mailbox("shop").finished
        (await syncs.asked.get())[1].set_result(DONE)
        await finished.wait()
        assert journal.open_requests().result() == []
        assert worker.mailbox("shop").looked_at == 100.0

    running(journal, test)


def test_an_acknowledged_push_stays_open_through_errors_and_is_tried_again(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[int] = []
    monkeypatch.setattr(plan, "error_pause", lambda failures, _: pauses.append(failures) or 0.0)

    async def test(worker: Worker, syncs: Syncs) -> None:
        request = journal.request(SyncRequest("shop", Reason.PUSH), 1.0).result()
        worker.wish(request)
        for _ in range(3):
            asked, answer, _ = await syncs.asked.get()
            assert asked == request
            assert journal.open_requests().result() == [request]
            answer.set_result(Synced("error", "the remote is down"))
        asked, answer, _ = await syncs.asked.get()
        finished = worker.mailbox("shop").finished
        answer.set_result(DONE)
        await finished.wait()
        assert journal.open_requests().result() == []
        assert worker.mailbox("shop").errors == 0

    running(journal, test)
    assert pauses == [1, 2, 3]


def test_a_person_s_request_is_answered_even_with_an_error(journal: Journal) -> None:
    async def test(worker: Worker, syncs: Syncs) -> None:
        request = journal.request(SyncRequest("shop", Reason.MANUAL), 1.0).result()
        worker.wish(request)
        finished = worker.mailbox("shop").finished
        (await syncs.asked.get())[1].set_result(Synced("error", "the remote is down"))
        await finished.wait()
        assert request.id
        result = journal.request_result(request.id).result()
        assert result
        assert result.result == "error"
        await worker.drain()

    running(journal, test)


def test_polls_wait_while_the_back_off_runs_and_pushes_do_not(journal: Journal) -> None:
    async def test(worker: Worker, syncs: Syncs) -> None:
        worker.poll(SyncRequest("shop", Reason.POLL))
        finished = worker.mailbox("shop").finished
        (await syncs.asked.get())[1].set_result(Synced("error", "down"))
        await finished.wait()
        worker.poll(SyncRequest("shop", Reason.POLL))
        assert worker.mailbox("shop").waiting is None
        assert worker.mailbox("shop").running is None
        worker.wish(SyncRequest("shop", Reason.PUSH))
        (await syncs.asked.get())[1].set_result(DONE)
        await worker.drain()

    running(journal, test)


def test_a_revision_that_could_not_now_is_tried_again_in_time(journal: Journal) -> None:
    async def test(worker: Worker, syncs: Syncs) -> None:
        worker.wish(SyncRequest("shop", Reason.PUSH, delivery="d"))
        (await syncs.asked.get())[1].set_result(Synced("failed", "exit 75", "d1", retry_at=100.0))
        again, answer, _ = await syncs.asked.get()
        assert (again.reason, again.delivery, again.id) == (Reason.PUSH, "d", None)
        answer.set_result(DONE)
        await worker.drain()

    running(journal, test)


def test_a_fault_of_ours_stops_no_other_target(
    journal: Journal, capsys: pytest.CaptureFixture[str]
) -> None:
    async def test(worker: Worker, syncs: Syncs) -> None:
        worker.wish(SyncRequest("shop", Reason.POLL))
        finished = worker.mailbox("shop").finished
        (await syncs.asked.get())[1].set_exception(ZeroDivisionError())
        await finished.wait()
        last = worker.mailbox("shop").last
        assert last
        assert last.result == "error"
        worker.wish(SyncRequest("other", Reason.POLL))
        (await syncs.asked.get())[1].set_result(DONE)
        await worker.drain()

    running(journal, test)
    assert "sync.crashed" in capsys.readouterr().out


def test_a_journal_that_fails_leaves_the_request_open(tmp_path: Path) -> None:
    journal = Journal(tmp_path)

    async def test(worker: Worker, syncs: Syncs) -> None:
        request = journal.request(SyncRequest("shop", Reason.PUSH), 1.0).result()
        worker.wish(request)
        finished = worker.mailbox("shop").finished
        answer = (await syncs.asked.get())[1]
        journal.close()
        answer.set_result(DONE)
        await finished.wait()
        with pytest.raises(JournalUnavailable):
            journal.open_requests().result()

    running(journal, test)
    again = Journal(tmp_path)
    assert len(again.open_requests().result()) == 1
    again.close()


def test_a_drain_begins_nothing_more_and_waits_for_what_runs(journal: Journal) -> None:
    async def test(worker: Worker, syncs: Syncs) -> None:
        worker.wish(SyncRequest("shop", Reason.START))
        _, answer, _ = await syncs.asked.get()
        worker.wish(SyncRequest("shop", Reason.PUSH, 1))
        assert worker.busy() == ["shop"]
        drain = asyncio.create_task(worker.drain())
        await asyncio.sleep(0)
        worker.wish(SyncRequest("other", Reason.PUSH, 2))
        assert not drain.done()
        answer.set_result(DONE)
        await drain
        assert syncs.asked.empty()

    running(journal, test)
