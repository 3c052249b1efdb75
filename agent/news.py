"""Takes what is in the outbox to the sinks, beside everything else: no deployment waits for it.

Each sink's news of a target is told in its order, tried again with growing pauses, and given up
after a day. What a start finds in the outbox is tried at once. Lives in the event loop's thread.
"""

import asyncio
import random
import time
from collections.abc import Callable
from concurrent.futures import Future

import structlog

from agent import logs, plan
from agent.bell import Bell
from agent.errors import AgentError, JournalUnavailable
from agent.notices import GIVEN_UP_AFTER, Notice
from agent.notifier import Notifier, Occasion
from agent.notifiers import Undelivered
from agent.outbox import Outbox

log = structlog.get_logger()

_TICK = 60.0
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 900.0

Lane = tuple[str, str]
"""A sink and a target: what the one is told of the other goes in its order."""


class News:
    """One for an agent."""

    def __init__(
        self, outbox: Outbox, notifier: Notifier, clock: Callable[[], float] = time.time
    ) -> None:
        self._outbox = outbox
        self._notifier = notifier
        self._clock = clock
        self._lanes: dict[Lane, asyncio.Task[None]] = {}
        self._bell = Bell()

    async def run(self) -> None:
        """Until it is cancelled; what is then on its way is tried again at the next start."""
        self._outbox.listen(self._bell)
        async with asyncio.TaskGroup() as tasks:
            while True:
                for lane in await self._waiting():
                    if lane not in self._lanes:
                        name = "notices for {} of {}".format(*lane)
                        self._lanes[lane] = tasks.create_task(self._clear(lane), name=name)
                await self._bell.heard(_TICK)

    async def _waiting(self) -> dict[Lane, Notice]:
        """The oldest notice of each lane."""
        try:
            heads = await asyncio.wrap_future(self._outbox.heads())
        except JournalUnavailable as error:
            log.error("journal.failed", why=str(error))
            return {}
        return {(notice.sink, notice.target): notice for notice in heads}

    async def _clear(self, lane: Lane) -> None:
        """Tell what waits in a lane, one after the other, until nothing does."""
        failures = 0
        while notice := (await self._waiting()).get(lane):
            failures = 0 if await self._settled(notice) else failures + 1
            if failures:
                pause = plan.backoff(failures, _FIRST_PAUSE, _LONGEST_PAUSE, random.random())
                await asyncio.sleep(pause)
        del self._lanes[lane]
        # Something may have come between the last look and now.
        self._bell.ring()

    async def _settled(self, notice: Notice) -> bool:
        """Whether a notice needs no more work: it was told, or it never will be."""
        about = {"sink": notice.sink, "target": notice.target, "deployment": notice.deployment}
        try:
            await self._tell(notice)
            log.info("notice.told", **about, outcome=notice.outcome or "started")
        except Exception as error:
            if not isinstance(error, AgentError):
                # A fault of ours: this notice waits, and everything else goes on.
                log.exception("notice.crashed", **about)
            hopeless = isinstance(error, Undelivered) and not error.again
            if not hopeless and self._clock() - notice.at < GIVEN_UP_AFTER:
                log.warning("notice.waits", **about, why=str(error))
                await self._record(self._outbox.postpone(notice, logs.redact(str(error))))
                return False
            log.error("notice.given_up", **about, why=str(error))
        return await self._record(self._outbox.settle(notice))

    async def _tell(self, notice: Notice) -> None:
        sink = self._notifier.settings.sinks.get(notice.sink)
        if sink is None:
            raise Undelivered(f"there is no [notify.{notice.sink}] any more", again=False)
        occasion = Occasion(
            notice.deployment,
            str(notice.id),
            notice.at,
            notice.outcome,
            notice.live,
            notice.recovered,
        )
        message = self._notifier.message
        await self._notifier.tell(sink, lambda: [message(sink, notice.target, occasion)])

    async def _record(self, written: "Future[None]") -> bool:
        try:
            await asyncio.wrap_future(written)
        except JournalUnavailable as error:
            log.error("journal.failed", why=str(error))
            return False
        return True
