"""/metrics for Prometheus. Everything is read when it is scraped, so that counting costs nothing.

The receiver and the worker count in memory, for themselves; the rest is read from the journal and
added up here. `exposition` makes the text of it, and is imported only by the first scrape.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

from agent import figures, reports
from agent.errors import JournalUnavailable
from agent.metrics.totals import Totals
from agent.reports import Sources, TargetReport

_MOST_UNREAD = 10_000
_PATIENCE = 5.0


class Metrics:
    """Keeps what must add up between scrapes."""

    def __init__(self, sources: Sources, clock: Callable[[], float] = time.time) -> None:
        self._sources = sources
        self._clock = clock
        self._totals = Totals()
        self._unread: deque[str] = deque(maxlen=_MOST_UNREAD)
        self._judged_until = sources.started_at
        self._targets: list[TargetReport] = []
        self._one_at_a_time = asyncio.Lock()

    def deployed(self, deployment: str) -> None:
        """A deployment has ended; it is read at the next scrape."""
        self._unread.append(deployment)

    async def scrape(self, accept: str) -> tuple[bytes, str]:
        """The metrics now, in the format that `accept` asks for, and that format's name.

        Where the journal does not answer, what it told the last time stands.
        """
        async with self._one_at_a_time:
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self._read(self._clock())
            except (JournalUnavailable, TimeoutError):
                pass  # gitops_agent_healthy tells it.
            return await asyncio.to_thread(self._expose, accept, self._clock())

    async def _read(self, now: float) -> None:
        journal, unread = self._sources.journal, tuple(self._unread)
        finished = await asyncio.wrap_future(
            journal.submit(lambda db: figures.finished(db, unread))
        )
        for one in finished:
            self._totals.add(one)
        for _ in unread:
            self._unread.popleft()
        since, until = self._judged_until, max(self._judged_until, now - figures.JUDGED_AFTER)
        missed = await asyncio.wrap_future(
            journal.submit(lambda db: figures.missed(db, since, until))
        )
        self._judged_until = until
        if self._sources.settings.webhooks:
            self._totals.missed.update(one.target for one in missed)
        self._targets = await reports.targets(self._sources)

    def _expose(self, accept: str, now: float) -> tuple[bytes, str]:
        from agent.metrics import exposition

        return exposition.expose(self._sources, self._totals, self._targets, accept, now)
