"""Looks at remotes, shared: targets on one repository have one mirror, and one look at a time.

Where the remote says in a moment that nothing has changed since the last fetch, git need not; what
little has changed comes over the same connection.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from agent import plan
from agent.cancel import Cancel
from agent.errors import AgentError
from agent.mirror import Mirror, Tips
from agent.model import Revision, Source, Target
from agent.repository import FETCH_DEADLINE
from agent.uploadpack import Asker

T = TypeVar("T")
_LOOKS_AT_ONCE = 8
"""At one host, so that one which hangs keeps nobody from looking at another."""
_THREADS = 8 * _LOOKS_AT_ONCE


class Looks:
    """Whoever asks while a look has not begun gets that look."""

    def __init__(self, folder: Path, cancel: Cancel) -> None:
        self._folder = folder
        self._cancel = cancel
        self._asker = Asker()
        self._mirrors: dict[Source, Mirror] = {}
        self._refs: dict[Source, frozenset[str]] = {}
        self._deadlines: dict[Source, float] = {}
        self._tips: dict[Source, Tips] = {}
        self._doubted: set[Source] = set()
        self._next: dict[Source, asyncio.Task[Tips]] = {}
        self._running: dict[Source, asyncio.Lock] = {}
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._threads = ThreadPoolExecutor(_THREADS, "look")

    def track(self, targets: Iterable[Target]) -> None:
        refs: dict[Source, frozenset[str]] = {}
        deadlines: dict[Source, float] = {}
        for target in targets:
            refs[target.source] = refs.get(target.source, frozenset()) | {target.ref}
            deadlines[target.source] = max(deadlines.get(target.source, 0.0), target.timeout)
        self._refs, self._deadlines = refs, deadlines
        self._mirrors.clear()

    async def close(self) -> None:
        await self._asker.close()
        self._threads.shutdown()

    def mirror(self, source: Source) -> Mirror:
        if source not in self._mirrors:
            deadline = self._deadlines.get(source, FETCH_DEADLINE)
            self._mirrors[source] = Mirror(source, self._folder, deadline)
        return self._mirrors[source]

    def seen(self, target: Target) -> Revision | None:
        """What the newest look saw the target's branch at."""
        return self._tips[target.source].get(target.ref)

    def doubt(self, source: Source) -> None:
        """Something went wrong with what was fetched: the next look is a fetch, come what may."""
        self._doubted.add(source)

    async def look(self, source: Source) -> Tips:
        """A look at the remote that begins after this call. RemoteFailed if it cannot be read."""
        if source not in self._next:
            self._next[source] = asyncio.create_task(self._look(source))
        return await asyncio.shield(self._next[source])

    async def _look(self, source: Source) -> Tips:
        async with self._running.setdefault(source, asyncio.Lock()), self._slot(source):
            del self._next[source]
            refs = self._refs.get(source)
            if refs is None:
                raise AgentError("no target is on this repository any more")
            asked = None if source in self._doubted else self._asker.tips(source, refs)
            told = await self._unless_stopped(asked) if asked else None
            if told is None or told != self._known(source, refs):
                told = await self._bring(source, refs, told)
            self._doubted.discard(source)
            self._tips[source] = told
            return told

    def _slot(self, source: Source) -> asyncio.Semaphore:
        host = plan.repository_identity(source.url).partition(":")[0]
        return self._slots.setdefault(host, asyncio.Semaphore(_LOOKS_AT_ONCE))

    async def _bring(self, source: Source, refs: frozenset[str], told: Tips | None) -> Tips:
        """Bring the mirror up to date: by a small pack where that can be, else by git's fetch."""
        mirror = self.mirror(source)
        if told and await self._take(source, mirror, told):
            return told
        return await self.in_thread(lambda: mirror.fetch(refs, told, self._cancel))

    async def _take(self, source: Source, mirror: Mirror, told: Tips) -> bool:
        if not mirror.exists():
            return False
        haves = {one for one in mirror.kept(told).values() if one}
        wants = {one for one in told.values() if one}
        if not haves or None in told.values():
            return False
        pack = await self._unless_stopped(self._asker.pack(source, wants - haves, haves))
        if pack is None:
            return False
        return await self.in_thread(lambda: mirror.take(pack, told, self._cancel))

    async def _unless_stopped(self, asked: Coroutine[Any, Any, T]) -> T | None:
        """What the remote itself says; None where it does not, or where the agent is stopping."""
        asking = asyncio.create_task(asked)
        loop = asyncio.get_running_loop()

        def stop() -> None:
            loop.call_soon_threadsafe(asking.cancel)

        with self._cancel.calling(stop):
            try:
                return await asking
            except asyncio.CancelledError:
                if self._cancel.is_set:
                    return None
                raise

    def _known(self, source: Source, refs: frozenset[str]) -> Tips | None:
        """What git has fetched of these refs; None where it has to fetch, whatever they are at."""
        mirror = self.mirror(source)
        if not mirror.exists():
            return None
        known = self._tips.get(source)
        return known if known and known.keys() == refs else mirror.kept(refs)

    async def history(self, source: Source, tip: Revision | None) -> set[Revision]:
        if tip is None:
            return set()
        return await self.in_thread(lambda: self.mirror(source).history(tip))

    async def in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
