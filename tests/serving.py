"""A server for tests, in a thread of its own, on a loop as the agent has it."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvloop

from agent.connections import Limits, Taker
from agent.server import Server, bind


@contextmanager
def serving(
    app: Any, limits: Limits | None, taker: Taker | None = None
) -> Iterator[tuple[str, int]]:
    """The address of a server of `app`, until the block ends."""
    one = bind("127.0.0.1:0")
    address = one.getsockname()
    box: list[Any] = []
    ready = threading.Event()

    async def main() -> None:
        server = Server(app, [one], limits, taker)
        box.extend([server, asyncio.get_running_loop()])
        task = asyncio.create_task(server.serve_all())
        await server.ready()
        ready.set()
        await task

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait(10)
    try:
        yield address
    finally:
        server, loop = box
        loop.call_soon_threadsafe(server.stop)
        thread.join(20)
        assert not thread.is_alive()
