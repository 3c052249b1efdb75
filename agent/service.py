"""The composition root: every part is built here once, and every long-running task stands here.

Start and stop are written sequences, the one the other backwards.
"""

import asyncio
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any

import structlog
import uvloop

from agent import config, descriptors, logs, reload, systemd, traces
from agent.alerts import Alerts
from agent.cancel import Cancel
from agent.config import Settings
from agent.connections import Limits
from agent.control import control_app, metrics_app
from agent.doors import SocketDoor, TokenDoor
from agent.errors import AgentError, ConfigError, JournalUnavailable
from agent.feed import Follower
from agent.inbox import Letters
from agent.intake import Intake
from agent.journal import Journal
from agent.lock import own
from agent.metrics import Metrics
from agent.model import Reason, SyncRequest, Target
from agent.news import News
from agent.notifier import Notifier, hide
from agent.page import with_page
from agent.poller import Poller
from agent.reception import Reception
from agent.reconciler import Reconciler
from agent.reload import Reload
from agent.server import Server, bind
from agent.tally import Tally
from agent.traces import Traces
from agent.words import ago, many, short
from agent.worker import Worker

log = structlog.get_logger()

# shutil goes down a tree by recursion, and git checks out one half as deep as a path is long
# (PATH_MAX, 4,096 bytes).
_DEEPEST = 3000
_PROBE_EVERY = 5.0
_TIDY_EVERY = 3600.0


def run(settings: Settings, environ: Mapping[str, str], *, apart: bool = False) -> None:
    """Be the agent until SIGTERM; only its core, where the receiver is a process `apart`.

    `environ` is the process's own, before it is scrubbed.
    """
    logs.set_up(environ=environ)
    descriptors.take_all()
    sys.setrecursionlimit(_DEEPEST)
    tracing = traces.begin(environ)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(Service(settings, environ, tracing, apart=apart).run())


class Service:
    """One running agent."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        tracing: Traces | None = None,
        *,
        apart: bool = False,
    ) -> None:
        self.settings = self.started_with = settings
        self.reload: Reload | None = None
        self.started_at = time.time()
        self.listening: list[str] = []
        self._environ = environ
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._cancel = Cancel()
        self._path_locks: dict[str, int] = {}
        self.journal = Journal(settings.state_dir)
        self.reconciler = Reconciler(
            self.journal, settings.state_dir, settings.parallel, self._cancel,
            hook_runner=settings.hooks_socket,
        )  # fmt: skip
        self.notifier = Notifier(self.journal, settings, self._cancel, socket.gethostname())
        self.news = News(self.journal.outbox, self.notifier)
        self.alerts = Alerts(self.journal.outbox, self.notifier)
        self.worker = Worker(self.reconciler, self.journal)
        self.poller = Poller(self.worker.poll)
        self.front: Reception | Follower
        source: Letters | Follower
        if apart:
            self.front = source = Follower(settings.feed_socket, self._works)
        else:
            self.front = Reception(settings.state_dir)
            source = self.front.letters
        self.intake = Intake(source, self.journal, self.worker.wish)
        self._metrics = Metrics(self)
        self.worker.on_deployment.append(self._metrics.deployed)
        self._tracing = tracing
        if tracing:
            tracing.follow(self)

    # ---- start and stop -----------------------------------------------------------------------

    async def run(self) -> None:
        """Start in this order, wait for a signal, stop in the opposite order."""
        try:
            self._own_paths(self.settings.targets)
            self._track(self.settings)
            self.reconciler.repair()
            inward, outward = self._inward(), self._outward()
            self.listening = [address for one in outward for address in one.addresses()]
            self._heed_signals()
            async with asyncio.TaskGroup() as tasks:
                inward_tasks = [
                    tasks.create_task(one.serve_all(), name="control") for one in inward
                ]
                outward_tasks = [
                    tasks.create_task(one.serve_all(), name="receiver") for one in outward
                ]
                watching = [tasks.create_task(one) for one in self._watches()]
                tidying = [tasks.create_task(one) for one in self._tidies()]
                await asyncio.gather(*(one.ready() for one in (*inward, *outward)))
                self.poller.start()
                self.poller.track(self.settings.targets, self.settings.poll_jitter)
                self._wish_at_start()
                intake = tasks.create_task(self.intake.run(), name="intake")
                self._say_ready()

                await self._stop.wait()

                log.info("agent.stopping", running=self.worker.busy())
                systemd.notify(self._environ, "STOPPING=1")
                self.poller.stop()
                await _end(outward, outward_tasks)
                for one in (*tidying, intake):
                    one.cancel()
                await self._drain()
                for one in watching:
                    one.cancel()
                await _end(inward, inward_tasks)
                if self._tracing:
                    await self._tracing.end()
        finally:
            self._cancel.set()
            await self.reconciler.close()
            self.notifier.close()
            self.front.close()
            self.journal.close()
            for lock in self._path_locks.values():
                os.close(lock)
        log.info("agent.stopped")

    def _inward(self) -> list[Server]:
        """The servers for those inside: the control socket; on TCP, where configured, the same
        behind a token, and the metrics."""
        socket, address = self.settings.control_socket, self.settings.metrics_bind
        few = Limits(connections=descriptors.connections(8))
        socket.parent.mkdir(parents=True, exist_ok=True)
        control = with_page(control_app(self, os.getpid()), self, os.getpid())
        servers = [Server(SocketDoor(control), [bind(f"unix:{socket}", mode=0o660)], None)]
        if entrance := self.settings.entrance:
            door = TokenDoor(control, lambda: _token_hash(self.settings))
            servers.append(Server(door, [bind(entrance.bind)], few))
        if address:
            servers.append(Server(metrics_app(self), [bind(address)], few))
        return servers

    def _outward(self) -> list[Server]:
        """The public listener, where it is in this process."""
        if not isinstance(self.front, Reception):
            return []
        passed = [one for _, one in systemd.passed_sockets(self._environ)]
        return [self.front.server(passed, self.settings.bind, self._works)]

    def _watches(self) -> list[Coroutine[Any, Any, None]]:
        """What runs from the beginning to the very end."""
        found = [
            self._probe(),
            self._watch_descriptors(),
            self.news.run(),
            self.alerts.run(),
            systemd.watch(self._environ, self.poller.healthy, self._words),
        ]
        if isinstance(self.front, Reception):
            found.append(self.front.probe())
        return found

    def _tidies(self) -> list[Coroutine[Any, Any, None]]:
        """What makes room now and then."""
        found = [self._tidy()]
        if isinstance(self.front, Reception):
            found.append(self.front.forget(self.settings.history, lambda: self.intake.read))
        return found

    def _say_ready(self) -> None:
        count = len(self.settings.targets)
        log.info(
            "agent.ready", pid=os.getpid(), targets=count, listening=self.listening,
            control=str(self.settings.control_socket), config=str(self.settings.path),
        )  # fmt: skip
        systemd.notify(self._environ, "READY=1")

    def _heed_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop)
        loop.add_signal_handler(signal.SIGHUP, self.take_configuration, "SIGHUP")

    def _on_stop(self) -> None:
        """The first signal drains; the second does not wait for running hooks."""
        if self._stop.is_set():
            self._stop_now.set()
        self._stop.set()

    async def _drain(self) -> None:
        """Let what runs end, for a while; then end it, to be gone on with at the next start."""
        self.reconciler.stop_looking()
        draining = asyncio.create_task(self.worker.drain())
        hurry = asyncio.create_task(self._stop_now.wait())
        await asyncio.wait(
            (draining, hurry),
            timeout=self.settings.drain,
            return_when=asyncio.FIRST_COMPLETED,
        )
        hurry.cancel()
        if not draining.done():
            log.warning("agent.interrupts", running=self.worker.busy())
            self._cancel.set()
        await draining

    # ---- configuration ------------------------------------------------------------------------

    def _track(self, settings: Settings) -> None:
        hide(settings.secrets())
        self.notifier.settings = settings
        self.journal.outbox.track(settings.sinks.values())
        self.reconciler.track(settings.targets)
        if isinstance(self.front, Reception):
            self.front.track(settings)
        self.intake.track(settings.targets)

    def take_configuration(self, by: str) -> Reload:
        """Read the configuration again. One with faults changes nothing."""
        self.reload = self._reload(by)
        return self.reload

    def _reload(self, by: str) -> Reload:
        try:
            new = self.reread()
            self._own_paths(new.targets)
        except AgentError as error:
            faults = error.faults if isinstance(error, ConfigError) else (str(error),)
            log.error("reload.refused", by=by, faults=faults, kept="the configuration before")
            return Reload(time.time(), refused=faults)
        later = tuple(reload.needs_restart(self.started_with, new))
        old, new = self.settings, reload.in_force(self.started_with, new)
        self.settings = new
        self._track(new)
        self.poller.track(new.targets, new.poll_jitter)
        for name, target in new.targets.items():
            if old.targets.get(name) != target:
                self.worker.wish(SyncRequest(name, Reason.START))
        log.info("agent.reloaded", by=by, targets=len(new.targets), needs_restart=later)
        return Reload(time.time(), needs_restart=later)

    def _own_paths(self, targets: Mapping[str, Target]) -> None:
        """Make each target's path and take it for this agent alone."""
        for target in targets.values():
            key = str(target.path)
            if key not in self._path_locks:
                with suppress(OSError):
                    target.path.mkdir(parents=True, exist_ok=True)
                    flags = os.O_RDONLY | os.O_DIRECTORY
                    self._path_locks[key] = own(target.path, flags, "the path")

    def _wish_at_start(self) -> None:
        """What was acknowledged and not looked at yet; then one look at everything."""
        for request in self.journal.open_requests().result():
            if request.target in self.settings.targets:
                self.worker.wish(request)
        self._wish_for_all()

    def _wish_for_all(self) -> None:
        for name in self.settings.targets:
            self.worker.wish(SyncRequest(name, Reason.START))

    # ---- what runs beside ---------------------------------------------------------------------

    async def _probe(self) -> None:
        """While the journal fails, try it now and then, so that it is known when it works again."""
        while True:
            await asyncio.sleep(_PROBE_EVERY)
            if not self.journal.healthy():
                with suppress(JournalUnavailable):
                    await asyncio.wrap_future(self.journal.probe(time.time()))
                    log.info("journal.recovered")
                    self._wish_for_all()

    async def _watch_descriptors(self) -> None:
        """Say when there are none left, and look at everything when there are some again."""
        before = None
        while True:
            now = descriptors.trouble()
            if now and not before:
                log.error("descriptors.exhausted", why=now)
            elif before and not now:
                log.info("descriptors.recovered")
                self._wish_for_all()
            before = now
            await asyncio.sleep(_PROBE_EVERY)

    def _works(self) -> bool:
        """Whether the journal and the poll really move."""
        return self._ails() is None

    def _ails(self) -> str | None:
        found = self.journal.trouble() or descriptors.trouble()
        return found or (None if self.poller.healthy() else "the poll has stalled")

    async def _words(self) -> str:
        """A line for `systemctl status`."""
        targets = many(len(self.settings.targets), "target")
        running = "".join(f"; syncing {name}" for name in self.worker.busy())
        try:
            newest = await asyncio.wrap_future(self.journal.history(None, 1))
        except JournalUnavailable as error:
            return f"{targets}{running}; STALLED: {error}"
        last = "".join(
            f"; last: {one.target} {one.outcome or 'begun'} {short(one.revision)},"
            f" {ago(one.ended_at or one.started_at, time.time())}"
            for one in newest
        )
        return f"{targets}{running}{last}"

    async def _tidy(self) -> None:
        """Forget what is older than the configured history, logs included; have git pack."""
        while True:
            before = time.time() - self.settings.history
            try:
                gone = await asyncio.to_thread(self.journal.forget, before)
            except JournalUnavailable as error:
                log.warning("journal.failed", why=str(error))
                gone = []
            for deployment in gone:
                folder = self.settings.state_dir / "logs" / deployment
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            await asyncio.sleep(_TIDY_EVERY)
            await asyncio.to_thread(self.reconciler.tidy)

    # ---- what control asks --------------------------------------------------------------------

    def healthy(self) -> bool:
        return self.trouble() is None

    def trouble(self) -> str | None:
        """Why not everything moves, in words; None where it does."""
        return self.front.trouble() or self._ails()

    @property
    def tally(self) -> Tally:
        return self.front.tally

    def next_polls(self) -> dict[str, float]:
        return self.poller.next_polls()

    def reread(self) -> Settings:
        """The configuration as it is in the file now; ConfigError where that has faults."""
        apart = isinstance(self.front, Follower)
        return config.load(self.settings.path, self._environ, apart=apart)

    async def scrape(self, accept: str) -> tuple[bytes, str]:
        return await self._metrics.scrape(accept)


async def _end(servers: Sequence[Server], tasks: Sequence[asyncio.Task[None]]) -> None:
    """Have the servers finish what they are answering, and wait for that."""
    for one in servers:
        one.stop()
    await asyncio.gather(*tasks)


def _token_hash(settings: Settings) -> str:
    """What opens the control application on TCP; nothing fits an empty one."""
    return settings.entrance.token_hash if settings.entrance else ""
