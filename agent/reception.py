"""What faces the internet: listener, receiver and inbox. In the agent's process, or in its own.

In its own it has the webhooks' secrets and nothing else: no way to git, no hooks, no journal.
"""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import structlog
import uvloop

from agent import descriptors, logs, public, sandbox, systemd
from agent.config import Settings
from agent.connections import Limits
from agent.errors import ConfigError, JournalUnavailable
from agent.feed import Feed
from agent.inbox import Inbox, Letters
from agent.plan import Routes
from agent.public import Public
from agent.receiver import Receiver, public_app
from agent.server import Server, bind
from agent.words import many

log = structlog.get_logger()

_PROBE_EVERY = 5.0
_FORGET_EVERY = 3600.0


class Reception:
    """The parts, however many processes they are in."""

    def __init__(self, folder: Path) -> None:
        self.inbox = Inbox(folder)
        self.letters = Letters(self.inbox)
        self.receiver = Receiver(self.inbox, self.letters.ring)
        self.tally = self.receiver.tally
        self.close = self.inbox.close

    def trouble(self) -> str | None:
        """Why deliveries cannot all be taken, in words; None where they can."""
        return self.inbox.trouble() or descriptors.trouble()

    def track(self, settings: Settings | Public) -> None:
        """The webhooks and targets there are, from a configuration that was read (again)."""
        webhooks, targets = settings.webhooks, settings.targets
        logs.hide(secret for webhook in webhooks.values() for secret in webhook.secrets)
        self.receiver.track(webhooks, Routes(targets.values()))
        self.receiver.trusted_proxies = settings.trusted_proxies

    def server(
        self, sockets: Sequence[socket.socket], address: str, healthy: Callable[[], bool]
    ) -> Server:
        """The public listener, on the sockets that were passed or else on `address`."""
        app = public_app(self.receiver, lambda: self.trouble() is None and healthy())
        limits = Limits(connections=descriptors.connections(2))
        return Server(app, sockets or [bind(address)], limits, self.receiver.take)

    async def probe(self) -> None:
        """While the inbox fails, try it now and then, so that it is known when it works again."""
        while True:
            await asyncio.sleep(_PROBE_EVERY)
            if not self.inbox.healthy():
                with suppress(JournalUnavailable):
                    await asyncio.wrap_future(self.inbox.probe(time.time()))
                    log.info("inbox.recovered")

    async def forget(self, history: float, read: Callable[[], int]) -> None:
        """Drop letters that the core has read and that are older than `history` seconds."""
        while True:
            try:
                before = time.time() - history
                await asyncio.to_thread(self.inbox.forget, before, read())
            except JournalUnavailable as error:
                log.warning("inbox.failed", why=str(error))
            await asyncio.sleep(_FORGET_EVERY)


# ---- as a process of its own ------------------------------------------------------------------


def run(settings: Public, environ: Mapping[str, str]) -> None:
    """Be the receiver until SIGTERM."""
    logs.set_up(environ=environ)
    descriptors.take_all()
    _give_up_programs()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_Process(settings, environ).run())


def _give_up_programs() -> None:
    """Before any thread is there: whoever takes this process over shall start nothing with it."""
    try:
        sandbox.start_no_program()
    except OSError as error:
        log.warning("receiver.unsealed", why=f"it could start programs: {error}")


class _Process:
    def __init__(self, settings: Public, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._environ = environ
        self._stop = asyncio.Event()
        self._reception = one = Reception(settings.inbox_dir)
        self._feed = Feed(one.inbox, one.letters, one.tally)

    async def run(self) -> None:
        """Start in this order, wait for a signal, stop in the opposite order."""
        reception, feed = self._reception, self._feed
        try:
            reception.track(self._settings)
            inward, outward = self._sockets()
            server = reception.server(outward, self._settings.bind, feed.core_is_well)
            self._heed_signals()
            async with asyncio.TaskGroup() as tasks:
                serving = tasks.create_task(server.serve_all(), name="receiver")
                core = await feed.open(inward)
                beside = [
                    tasks.create_task(reception.probe(), name="probe"),
                    tasks.create_task(
                        reception.forget(self._settings.history, lambda: feed.read), name="forget"
                    ),
                    tasks.create_task(systemd.watch(self._environ, lambda: True, self._words)),
                ]
                await server.ready()
                log.info("receiver.ready", pid=os.getpid(), listening=server.addresses())
                systemd.notify(self._environ, "READY=1")

                await self._stop.wait()

                systemd.notify(self._environ, "STOPPING=1")
                for one in beside:
                    one.cancel()
                server.stop()
                await serving
                core.close()
        finally:
            reception.inbox.close()
        log.info("receiver.stopped")

    def _sockets(self) -> tuple[socket.socket, list[socket.socket]]:
        """The core's socket, and the public ones that were passed."""
        passed = systemd.passed_sockets(self._environ)
        inward = [one for name, one in passed if name == systemd.FEED]
        outward = [one for name, one in passed if name != systemd.FEED]
        own = f"unix:{self._settings.feed_socket}"
        return inward[0] if inward else bind(own, mode=0o600), outward

    def _heed_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._on_reload)

    def _on_reload(self) -> None:
        """SIGHUP: read the configuration again. One with faults changes nothing."""
        try:
            new = public.load(self._settings.path, self._environ)
        except ConfigError as error:
            log.error("reload.refused", faults=error.faults, kept="the configuration before")
            return
        self._settings = new
        self._reception.track(new)
        log.info("receiver.reloaded", webhooks=len(new.webhooks), targets=len(new.targets))

    async def _words(self) -> str:
        answered = sum(self._reception.tally.answers.values())
        trouble = self._reception.trouble()
        stalled = f"; STALLED: {trouble}" if trouble else ""
        core = "" if self._feed.core_is_well() else "; the core does not answer"
        webhooks = many(len(self._settings.webhooks), "webhook")
        return f"{webhooks}, {many(answered, 'delivery')} answered{stalled}{core}"
