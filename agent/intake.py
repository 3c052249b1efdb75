"""Makes sync requests of letters, each once and in order. The core's side of the inbox."""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Protocol

import structlog

from agent.errors import AgentError
from agent.journal import Journal
from agent.model import Letter, SyncRequest

log = structlog.get_logger()

_PAUSE = 1.0


class Source(Protocol):
    """Where letters come from: the inbox in this process, or the receiver's feed."""

    async def inbox(self) -> str:
        """Which inbox it is, once it can be read."""

    async def after(self, n: int) -> list[Letter]:
        """The letters after the `n`th, oldest first, as soon as there are any."""


class Intake:
    """Follows the letters; wakes their targets at once, and the journal remembers."""

    def __init__(
        self, source: Source, journal: Journal, wish: Callable[[SyncRequest], None]
    ) -> None:
        self._source = source
        self._journal = journal
        self._wish = wish
        self._targets: frozenset[str] = frozenset()
        self.read = 0
        """The place of the last letter whose requests are in the journal."""

    def track(self, targets: Collection[str]) -> None:
        """The targets there are; a letter for another wakes none."""
        self._targets = frozenset(targets)

    async def run(self) -> None:
        """For ever. What fails is read again, from where the journal says that it has come to."""
        while True:
            try:
                await self._follow()
            except AgentError as error:
                log.warning("letters.unread", why=str(error), again_in=_PAUSE)
            await asyncio.sleep(_PAUSE)

    async def _follow(self) -> None:
        inbox = await self._source.inbox()
        self.read = await asyncio.wrap_future(self._journal.read_up_to(inbox))
        while True:
            letters = [self._known(one) for one in await self._source.after(self.read)]
            if letters:
                requests, recorded = self._journal.take(inbox, letters)
                for one in requests:
                    self._wish(one)
                await asyncio.wrap_future(recorded)
                self.read = letters[-1].n

    def _known(self, letter: Letter) -> Letter:
        if self._targets >= set(letter.targets):
            return letter
        return replace(letter, targets=tuple(n for n in letter.targets if n in self._targets))
