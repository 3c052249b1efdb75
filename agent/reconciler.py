"""Syncs: a look at a target, the decision what it leads to, and the deployment that closes it.

    fetch, resolve, decide -> an attempt at a revision -> what nobody needs any more is cleared

A person's rollback takes the same way without the look. What follows from what is decided in
`plan`; the order of a deployment's own steps is in `attempt`.
"""

import asyncio
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import structlog

from agent import plan
from agent.attempt import Attempt, Synced, Trees
from agent.cancel import Cancel
from agent.errors import AgentError, RemoteFailed, Stopped
from agent.inplace import InPlace
from agent.journal import Journal
from agent.looks import Looks
from agent.model import (
    Deployment,
    Difference,
    Look,
    Outcome,
    Reason,
    Strategy,
    SyncRequest,
    Target,
)
from agent.releases import Releases
from agent.runs import Runs, end_runs, is_found

T = TypeVar("T")
log = structlog.get_logger()


class Reconciler:
    """Syncs targets. One sync at a time on a target is the caller's promise."""

    def __init__(
        self,
        journal: Journal,
        state_dir: Path,
        parallel: int,
        cancel: Cancel,
        clock: Callable[[], float] = time.time,
        hook_runner: Path | None = None,
    ) -> None:
        """`hook_runner` is its socket, where there is one."""
        self._journal = journal
        self._state_dir = state_dir
        self._cancel = cancel
        self._clock = clock
        self._lifetime = ExitStack()
        self._no_more_looks = self._lifetime.enter_context(cancel.child())
        self._looks = Looks(state_dir / "mirrors", self._no_more_looks)
        self._slots = asyncio.Semaphore(parallel)
        self._paths: dict[Path, asyncio.Lock] = {}
        self._threads = ThreadPoolExecutor(parallel, "deployment")
        self._runs = Runs(hook_runner, cancel)
        self._targets: Mapping[str, Target] = {}
        self._running: dict[str, Attempt] = {}
        self._noted: dict[str, plan.Nothing] = {}
        self._unfinished: dict[str, Deployment] = {}

    def track(self, targets: Mapping[str, Target]) -> None:
        """The targets there are, from a configuration that was read (again)."""
        self._targets = targets
        self._looks.track(targets.values())

    def repair(self) -> None:
        """At start: end what a killed agent left running, and take up its half-done work."""
        for one in self._journal.unfinished():
            target, place = self._targets.get(one.target), self._state_dir / "runs" / one.id
            if target and plan.can_go_on(one) and is_found(place):
                self._unfinished[one.target] = one
            else:
                self._interrupt(one, place)
        for target in self._targets.values():
            if self._journal.state(target.name).condition == "moving":
                self._trees(target).repair()

    def _interrupt(self, one: Deployment, place: Path) -> None:
        # A success or failure hook changes nothing any more; it may go on to its own end.
        ended = 0 if one.outcome else end_runs(place, one.id)
        self._journal.interrupt(one.target, self._clock())
        log.warning("deployment.interrupted", deployment=one.id, ended=ended)
        for folder in (place, self._state_dir / "tmp" / one.id):
            shutil.rmtree(folder, ignore_errors=True)

    def tidy(self) -> None:
        """Have git pack mirrors and trees where that is worth it. Safe beside everything else."""
        for target in self._targets.values():
            try:
                self._looks.mirror(target.source).tidy()
                self._trees(target).tidy()
            except AgentError as error:
                log.warning("tidy.failed", target=target.name, why=str(error))

    def stop_looking(self) -> None:
        """The agent is about to stop: what is deployed goes on, and no remote is waited for."""
        self._no_more_looks.set()

    async def close(self) -> None:
        await self._looks.close()
        self._threads.shutdown()
        self._runs.close()
        self._lifetime.close()

    async def sync(self, request: SyncRequest, superseded: Callable[[], bool]) -> Synced:
        """Look at a target and close the difference. `superseded` says that a newer wish waits."""
        target = self._targets.get(request.target)
        if target is None:
            log.info("wish.dropped", target=request.target, why="no such target any more")
            return Synced(Outcome.CANCELED, "no such target any more")
        return await self._told(target, self._sync(target, request, superseded))

    async def take_up(self, name: str) -> Synced | None:
        """See a deployment through that was found at the start; None where there is none."""
        target = self._targets.get(name)
        if target is None or name not in self._unfinished:
            return None
        return await self._told(target, self._attempted(target, lambda: self._go_on(target)))

    async def _sync(
        self, target: Target, request: SyncRequest, superseded: Callable[[], bool]
    ) -> Synced:
        if request.reason is not Reason.ROLLBACK:
            await self._look(target, request, superseded)
        verdict = await self._looks.in_thread(lambda: self._decide(target, request))
        if isinstance(verdict, plan.Nothing):
            return self._leave(request, verdict)
        return await self._attempted(target, lambda: self._close_difference(target, request))

    async def _attempted(self, target: Target, work: Callable[[], Synced]) -> Synced:
        path = self._paths.setdefault(target.path, asyncio.Lock())
        if path.locked():
            # As after a reload that has given it to this target.
            log.info("deployment.waits", target=target.name, path=str(target.path))
        async with path, self._slots:
            synced = await self._in_thread(work)
        if synced.result != Outcome.DEPLOYED:
            self._looks.doubt(target.source)
        return synced

    async def _told(self, target: Target, work: Awaitable[Synced]) -> Synced:
        """What `work` comes to; an error of a kind that we know is told in its place."""
        try:
            return await work
        except RemoteFailed as error:
            log.warning("remote.failed", target=target.name, why=str(error))
            return Synced("error", str(error))
        except Stopped as error:
            return Synced("interrupted", str(error))
        except (AgentError, OSError) as error:
            self._looks.doubt(target.source)
            log.error("sync.failed", target=target.name, why=str(error))
            return Synced("error", str(error))

    def cancel(self, target: str, by: str) -> bool:
        """End a target's running deployment the way a failure would; False if that cannot be."""
        attempt = self._running.get(target)
        return attempt is not None and attempt.cancel(by)

    async def prune(self, name: str) -> None:
        """After a sync: clear away the trees that nobody needs any more."""
        target = self._targets.get(name)
        if target is None or target.strategy is not Strategy.RELEASES or self._cancel.is_set:
            return
        try:
            await asyncio.to_thread(lambda: self._trees(target).prune(self._cancel))
        except (AgentError, OSError, RecursionError) as error:
            log.warning("prune.failed", target=name, why=str(error))

    async def compare(self, name: str) -> Difference:
        """What a sync of target `name` would bring. RemoteFailed if the remote cannot be read."""
        target = self._targets[name]
        await self._looks.look(target.source)
        return await self._looks.in_thread(lambda: self._compare(target))

    def _compare(self, target: Target) -> Difference:
        tip, state = self._looks.seen(target), self._journal.state(target.name)
        verdict = self._decide(target, SyncRequest(target.name, Reason.POLL))
        verb = "nothing" if isinstance(verdict, plan.Nothing) else "deploy"
        mirror = self._looks.mirror(target.source)
        return Difference(
            target.name, state.live, tip, f"{verb}: {verdict.why}",
            mirror.commits(state.live, tip), mirror.commits(tip, state.live),
            mirror.changes(state.live, tip),
        )  # fmt: skip

    async def _look(
        self, target: Target, request: SyncRequest, superseded: Callable[[], bool]
    ) -> None:
        """Fetch, and again a little later while the remote does not show what was announced."""
        tip = (await self._looks.look(target.source)).get(target.ref)
        if request.expected in (None, tip):
            return
        seen = await self._looks.history(target.source, tip)
        for pause in plan.waits_for_announced(request.expected, seen):
            log.info("look.waits", target=target.name, expected=request.expected, seconds=pause)
            await asyncio.sleep(pause)
            if superseded() or self._no_more_looks.is_set:
                return
            tip = (await self._looks.look(target.source)).get(target.ref)
            if request.expected in await self._looks.history(target.source, tip):
                return

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _trees(self, target: Target) -> Trees:
        mirror = self._looks.mirror(target.source).path
        if target.strategy is Strategy.IN_PLACE:
            return InPlace(target, self._state_dir / "saved", mirror)
        live, good = self._journal.state(target.name).live, self._journal.last_good(target.name)
        return Releases(target, self._state_dir / "trees", mirror, filter(None, (live, good)))

    def _decide(self, target: Target, request: SyncRequest) -> plan.Verdict:
        state, head = self._journal.state(target.name), self._trees(target).head()
        if request.goal:
            return plan.roll_back(state, head, request.goal)
        tip = self._looks.seen(target)
        return plan.decide(target, state, head, tip, request, self._clock())

    def _leave(self, request: SyncRequest, verdict: plan.Nothing) -> Synced:
        """A look led to nothing; where somebody may ask why, that is noted."""
        if plan.worth_noting(verdict, request, self._noted.get(request.target)):
            why = f"{plan.explain(request)}: {verdict.why}"
            self._journal.note_look(
                Look(request.target, self._clock(), request.reason, verdict.result, why)
            )
            log.info("look.left_alone", target=request.target, result=verdict.result, why=why)
        self._noted[request.target] = verdict
        return Synced(verdict.result, verdict.why, retry_at=verdict.until)

    def _close_difference(self, target: Target, request: SyncRequest) -> Synced:
        """Decide, now that there is room for a deployment, and do it. In a thread of its own."""
        if self._cancel.is_set:
            raise Stopped("the agent is stopping")
        task = self._decide(target, request)
        if isinstance(task, plan.Nothing):
            return self._leave(request, task)
        one = self._new_deployment(target, request, task)
        with self._attempt(target, task, one) as attempt:
            return attempt.run(request)

    def _go_on(self, target: Target) -> Synced:
        """Take up the deployment that was found at the start. In a thread of its own."""
        one = self._unfinished.pop(target.name)
        task = plan.Deploy(one.revision, one.attempt, one.why)
        with self._attempt(target, task, one) as attempt:
            return attempt.go_on()

    @contextmanager
    def _attempt(self, target: Target, task: plan.Task, one: Deployment) -> Iterator[Attempt]:
        attempt = Attempt(
            self._journal, self._runs, self._state_dir, self._cancel, self._clock, target,
            self._trees(target), task, one,
        )  # fmt: skip
        self._running[target.name] = attempt
        try:
            yield attempt
        finally:
            del self._running[target.name]

    def _new_deployment(self, target: Target, request: SyncRequest, task: plan.Task) -> Deployment:
        now, live = self._clock(), self._journal.state(target.name).live
        if isinstance(task, plan.Deploy):
            subject, author = self._looks.mirror(target.source).describe(task.revision)
            previous, reason = live or self._trees(target).head(), request.reason
        else:
            subject, author = self._journal.described(target.name, task.revision)
            previous = live if isinstance(task, plan.RollBack) else self._trees(target).head()
            reason = Reason.ROLLBACK
        return Deployment(
            _new_id(now), target.name, task.revision, previous, reason,
            f"{plan.explain(request)}: {task.why}", task.attempt, now,
            subject=subject, author=author, delivery=request.delivery,
        )  # fmt: skip


def _new_id(now: float) -> str:
    """Sorts by time, is told apart on sight, and is unique on a host."""
    return f"{datetime.fromtimestamp(now, UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
