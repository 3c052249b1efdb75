"""A bell that any thread may ring, for one listener in an event loop."""

import asyncio
from contextlib import suppress


class Bell:
    """Rung before anybody listens, it is heard by who comes next."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def ring(self) -> None:
        if self._loop is None:
            self._rung.set()
        else:
            self._loop.call_soon_threadsafe(self._rung.set)

    async def heard(self, longest: float) -> None:
        """Wait until it rings, or for `longest` seconds."""
        self._loop = asyncio.get_running_loop()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._rung.wait(), longest)
        self._rung.clear()
