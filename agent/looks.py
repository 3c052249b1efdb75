"""Looks at remotes, shared: targets on one repository have one mirror, and one look at a time."""

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from agent.cancel import Cancel
from agent.model import Revision, Source, Target, Tip
from agent.repository import Mirror

T = TypeVar("T")
_LOOKS_AT_ONCE = 8


class Looks:
    """Whoever asks while a look has not begun gets that look."""

    def __init__(self, folder: Path, cancel: Cancel) -> None:
        self._folder = folder
        self._cancel = cancel
        self._mirrors: dict[Source, Mirror] = {}
        self._refs: dict[Source, frozenset[str]] = {}
        self._tips: dict[Source, dict[str, Tip]] = {}
        self._next: dict[Source, asyncio.Task[dict[str, Tip]]] = {}
        self._running: dict[Source, asyncio.Lock] = {}
        self._slots = asyncio.Semaphore(_LOOKS_AT_ONCE)
        self._threads = ThreadPoolExecutor(_LOOKS_AT_ONCE, "look")

    def track(self, targets: Iterable[Target]) -> None:
        refs: dict[Source, frozenset[str]] = {}
        for target in targets:
            refs[target.source] = refs.get(target.source, frozenset()) | {target.ref}
        self._refs = refs

    def close(self) -> None:
        self._threads.shutdown()

    def mirror(self, source: Source) -> Mirror:
        if source not in self._mirrors:
            self._mirrors[source] = Mirror(source, self._folder)
        return self._mirrors[source]

    def seen(self, target: Target) -> Tip:
        """What the newest look saw of the target's branch."""
        return self._tips[target.source][target.ref]

    async def look(self, source: Source) -> dict[str, Tip]:
        """A look at the remote that begins after this call. RemoteFailed if it cannot be read."""
        if source not in self._next:
            self._next[source] = asyncio.create_task(self._look(source))
        return await asyncio.shield(self._next[source])

    async def _look(self, source: Source) -> dict[str, Tip]:
        async with self._running.setdefault(source, asyncio.Lock()), self._slots:
            del self._next[source]
            mirror, refs = self.mirror(source), self._refs[source]
            tips = await self.in_thread(lambda: mirror.fetch(refs, self._cancel))
            self._tips[source] = tips
            return tips

    async def history(self, source: Source, tip: Tip) -> set[Revision]:
        revision = tip.revision
        if revision is None:
            return set()
        return await self.in_thread(lambda: self.mirror(source).history(revision))

    async def in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
