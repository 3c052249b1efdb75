"""One mailbox per target: one sync running, at most one wish waiting, and that the newest.

Whoever wants a look (a delivery, a poll, a start, a person, a retry) puts a wish in; nothing that
runs is ever cancelled by a newer one. Lives in the event loop's thread.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Protocol

import structlog

from agent import plan
from agent.attempt import Synced
from agent.errors import JournalUnavailable
from agent.journal import Journal
from agent.model import Outcome, Reason, SyncRequest

log = structlog.get_logger()


class Syncs(Protocol):
    """What the worker asks of the reconciler."""

    def take_up(self, name: str) -> Awaitable[Synced | None]: ...
    def sync(self, request: SyncRequest, superseded: Callable[[], bool]) -> Awaitable[Synced]: ...
    def prune(self, name: str) -> Awaitable[None]: ...


@dataclass(slots=True)
class Mailbox:
    """A target's waiting wish and running sync."""

    waiting: SyncRequest | None = None
    rollback: SyncRequest | None = None
    """A person's waiting wish for an earlier revision, which comes before any look."""
    running: asyncio.Task[None] | None = None
    retry: asyncio.TimerHandle | None = None
    last: Synced | None = None
    """What the newest look came to, whether or not it deployed anything."""
    looked_at: float | None = None
    """Unix time of the end of that look."""
    good_at: float | None = None
    """Unix time at which a look last ended with the branch's end live."""
    errors: int = 0
    """Syncs in a row that could not be finished: remote down, disk full."""
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced by a new one, whenever a sync ends."""


class Worker:
    """Takes wishes, has them fulfilled one at a time a target."""

    def __init__(
        self, syncs: Syncs, journal: Journal, clock: Callable[[], float] = time.time
    ) -> None:
        self._syncs = syncs
        self._journal = journal
        self._clock = clock
        self._boxes: dict[str, Mailbox] = {}
        self._stopping = False
        self.syncs: Counter[tuple[str, Reason, str]] = Counter()
        """Syncs since the start, by target, reason and result."""
        self.on_deployment: list[Callable[[str], None]] = []
        """Each is called with the id of every deployment that has ended. They must not block."""

    def mailbox(self, target: str) -> Mailbox:
        return self._boxes.setdefault(target, Mailbox())

    def poll(self, request: SyncRequest) -> None:
        """Like `wish`, but not while the target's own back-off after errors runs."""
        box = self.mailbox(request.target)
        if not (box.errors and box.retry):
            self.wish(request)

    def wish(self, request: SyncRequest) -> None:
        """Have the request's target looked at, as soon as no sync is running on it."""
        box = self.mailbox(request.target)
        if request.reason is Reason.ROLLBACK:
            box.rollback = request
        else:
            box.waiting = plan.newest(box.waiting, request)
        if box.running is None and not self._stopping:
            box.running = asyncio.create_task(
                self._work(request.target, box), name=f"sync {request.target}"
            )

    async def _work(self, name: str, box: Mailbox) -> None:
        try:
            in_vain = 0
            await self._take_up(name, box)
            while (box.rollback or box.waiting) and not self._stopping:
                await asyncio.sleep(plan.pause_between_looks(in_vain))
                request = self._next(box)
                await self._fulfil(box, request)
                in_vain = in_vain + 1 if box.last and box.last.result == "up-to-date" else 0
                if box.last and box.last.deployment:
                    await self._syncs.prune(name)
        finally:
            box.running = None

    async def _take_up(self, name: str, box: Mailbox) -> None:
        """What a dead agent had begun comes first; of the wishes meanwhile the newest is left."""
        try:
            synced = await self._syncs.take_up(name)
        except Exception:
            log.exception("sync.crashed", target=name)
            return
        if synced:
            self._remember(box, SyncRequest(name, Reason.START), synced)

    def _next(self, box: Mailbox) -> SyncRequest:
        if box.rollback:
            request, box.rollback = box.rollback, None
            return request
        assert box.waiting
        request, box.waiting = box.waiting, None
        return request

    async def _fulfil(self, box: Mailbox, request: SyncRequest) -> None:
        if box.retry:
            box.retry.cancel()
            box.retry = None
        try:
            synced = await self._syncs.sync(request, lambda: box.waiting is not None)
        except Exception:
            # A fault of ours: this target is tried again later, and the others go on.
            log.exception("sync.crashed", target=request.target)
            synced = Synced("error", "the agent failed at this; its log says how")
        self._remember(box, request, synced)
        failed = synced.result == "error"
        box.errors = box.errors + 1 if failed else 0
        if failed:
            self._try_again(box, request, plan.error_pause(box.errors, random.random()))
        elif synced.retry_at is not None:
            # Measured now; the delay itself then runs on the loop's monotonic clock.
            again = replace(request, expected=None, force=False)
            self._try_again(box, again, max(0.0, synced.retry_at - self._clock()))
        elif request.reason is Reason.ROLLBACK and synced.result != Outcome.DEPLOYED:
            # What was to be tried again before it still is.
            box.waiting = plan.newest(box.waiting, SyncRequest(request.target, Reason.POLL))
        # A push that could not be looked at, or must wait, stays open: it was acknowledged.
        postponed = failed or synced.result == "paused"
        open_still = synced.result == "interrupted" or (postponed and request.reason is Reason.PUSH)
        if request.id is not None and not open_still:
            await self._close(request, synced)
        finished, box.finished = box.finished, asyncio.Event()
        finished.set()

    def _remember(self, box: Mailbox, request: SyncRequest, synced: Synced) -> None:
        box.last, box.looked_at = synced, self._clock()
        if synced.result in ("deployed", "up-to-date"):
            box.good_at = box.looked_at
        self.syncs[request.target, request.reason, synced.result] += 1
        if synced.deployment:
            for tell in self.on_deployment:
                tell(synced.deployment)

    async def _close(self, request: SyncRequest, synced: Synced) -> None:
        closed: Future[None] = self._journal.close_requests(
            request, synced.result, synced.why, synced.deployment, self._clock()
        )
        try:
            await asyncio.wrap_future(closed)
        except JournalUnavailable as error:
            log.error("journal.failed", why=str(error))

    def _try_again(self, box: Mailbox, request: SyncRequest, delay: float) -> None:
        log.info("sync.tried_again", target=request.target, seconds=round(delay, 1))
        box.retry = asyncio.get_running_loop().call_later(delay, self.wish, request)

    def busy(self) -> list[str]:
        """The targets on which a sync is running."""
        return [name for name, box in self._boxes.items() if box.running]

    async def drain(self) -> None:
        """Begin nothing more, and wait until what runs has ended."""
        self._stopping = True
        for box in self._boxes.values():
            if box.retry:
                box.retry.cancel()
        running = [box.running for box in self._boxes.values() if box.running]
        if running:
            await asyncio.wait(running)
