"""The order of a sync, and the only place that knows it.

    fetch, resolve, decide -> receive, save, move the tree -> build, activate, verify -> outcome

and, where a gate fails, the way back: the same with the revision before. Each step is in the
journal before it is taken, so that a kill at any point leaves a fact to start from. What follows
from what is decided in `plan`.
"""

import asyncio
import random
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import structlog

from agent import hooks, plan
from agent.cancel import Cancel
from agent.errors import AgentError, GitFailed, JournalUnavailable, RemoteFailed, Stopped
from agent.journal import Journal
from agent.looks import Looks
from agent.model import (
    GATES,
    Deployment,
    Failure,
    Outcome,
    Reason,
    Retry,
    Revision,
    Stage,
    SyncRequest,
    Target,
)
from agent.releases import InPlace

T = TypeVar("T")
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Synced:
    """What a sync came to."""

    result: str
    """An outcome, `up-to-date`, `held`, `waiting`, `no-branch` or `error`."""
    why: str
    deployment: str | None = None
    retry_at: float | None = None
    """Unix time at which the same revision is to be tried again."""


class Reconciler:
    """Syncs targets. One sync at a time on a target is the caller's promise."""

    def __init__(
        self,
        journal: Journal,
        state_dir: Path,
        parallel: int,
        cancel: Cancel,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._journal = journal
        self._state_dir = state_dir
        self._cancel = cancel
        self._clock = clock
        self._looks = Looks(state_dir / "mirrors", cancel)
        self._slots = asyncio.Semaphore(parallel)
        self._threads = ThreadPoolExecutor(parallel, "deployment")
        self._targets: Mapping[str, Target] = {}

    def track(self, targets: Mapping[str, Target]) -> None:
        """The targets there are, from a configuration that was read (again)."""
        self._targets = targets
        self._looks.track(targets.values())

    def repair(self) -> None:
        """At start: end what a killed agent left running, and take up its half-done work."""
        now = self._clock()
        for deployment in self._journal.recover(now):
            ended = hooks.end_strays(deployment)
            log.warning("deployment.interrupted", deployment=deployment, processes_ended=ended)
            shutil.rmtree(self._state_dir / "tmp" / deployment, ignore_errors=True)
        for target in self._targets.values():
            if self._journal.state(target.name).condition == "moving":
                self._trees(target).repair()

    def tidy(self) -> None:
        """Have git pack mirrors and trees where that is worth it. Safe beside everything else."""
        for target in self._targets.values():
            try:
                self._looks.mirror(target.source).tidy()
                self._trees(target).tidy()
            except AgentError as error:
                log.warning("tidy.failed", target=target.name, why=str(error))

    def close(self) -> None:
        self._looks.close()
        self._threads.shutdown()

    async def sync(self, request: SyncRequest, superseded: Callable[[], bool]) -> Synced:
        """Look at a target and close the difference. `superseded` says that a newer wish waits."""
        target = self._targets.get(request.target)
        if target is None:
            return Synced("error", "no such target any more")
        try:
            await self._look(target, request, superseded)
            verdict = await self._looks.in_thread(lambda: self._decide(target, request))
            if isinstance(verdict, plan.Nothing):
                return Synced(verdict.result, verdict.why)
            async with self._slots:
                return await self._in_thread(lambda: self._close_difference(target, request))
        except RemoteFailed as error:
            log.warning("remote.failed", target=target.name, why=str(error))
            return Synced("error", str(error))
        except Stopped as error:
            return Synced("interrupted", str(error))
        except AgentError as error:
            log.error("sync.failed", target=target.name, why=str(error))
            return Synced("error", str(error))

    async def _look(
        self, target: Target, request: SyncRequest, superseded: Callable[[], bool]
    ) -> None:
        """Fetch, and again a little later while the remote does not show what was announced."""
        tip = (await self._looks.look(target.source))[target.ref]
        if request.expected in (None, tip.revision):
            return
        seen = await self._looks.history(target.source, tip)
        for pause in plan.waits_for_announced(request.expected, seen):
            log.info("look.waits", target=target.name, expected=request.expected, seconds=pause)
            await asyncio.sleep(pause)
            if superseded() or self._cancel.is_set:
                return
            tip = (await self._looks.look(target.source))[target.ref]
            if request.expected in await self._looks.history(target.source, tip):
                return

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _trees(self, target: Target) -> InPlace:
        return InPlace(target, self._state_dir / "saved")

    def _decide(self, target: Target, request: SyncRequest) -> plan.Verdict:
        state, head = self._journal.state(target.name), self._trees(target).head()
        tip = self._looks.seen(target)
        return plan.decide(target, state, head, tip, request, self._clock())

    def _close_difference(self, target: Target, request: SyncRequest) -> Synced:
        """Decide, now that there is room for a deployment, and do it. In a thread of its own."""
        if self._cancel.is_set:
            raise Stopped("the agent is stopping")
        verdict = self._decide(target, request)
        if isinstance(verdict, plan.Nothing):
            return Synced(verdict.result, verdict.why)
        deployment = self._new_deployment(target, request, verdict)
        mirror = self._looks.mirror(target.source).path
        return _Attempt(
            self._journal, self._state_dir, self._cancel, self._clock, target,
            self._trees(target), mirror, deployment,
        ).run(request.id)  # fmt: skip

    def _new_deployment(
        self, target: Target, request: SyncRequest, verdict: plan.Deploy | plan.Restore
    ) -> Deployment:
        now, tip = self._clock(), self._looks.seen(target)
        why = f"{plan.explain(request)}: {verdict.why}"
        if isinstance(verdict, plan.Restore):
            return Deployment(
                _new_id(now), target.name, verdict.revision, tip.revision, Reason.ROLLBACK,
                why, verdict.attempt, now,
            )  # fmt: skip
        previous = self._journal.state(target.name).live or self._trees(target).head()
        return Deployment(
            _new_id(now), target.name, verdict.revision, previous, request.reason, why,
            verdict.attempt, now, subject=tip.subject, author=tip.author,
            delivery=request.delivery,
        )  # fmt: skip


def _new_id(now: float) -> str:
    """Sorts by time, is told apart on sight, and is unique on a host."""
    return f"{datetime.fromtimestamp(now, UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


# ---- one deployment -------------------------------------------------------------------------


class _Attempt:
    """One deployment, from its first journal row to its last hook."""

    def __init__(
        self,
        journal: Journal,
        state_dir: Path,
        cancel: Cancel,
        clock: Callable[[], float],
        target: Target,
        trees: InPlace,
        mirror: Path,
        deployment: Deployment,
    ) -> None:
        self._journal = journal
        self._cancel = cancel
        self._clock = clock
        self._target = target
        self._trees = trees
        self._mirror = mirror
        self._deployment = deployment
        self._logs = state_dir / "logs" / deployment.id
        self._tmp = state_dir / "tmp" / deployment.id
        self._log = log.bind(target=target.name, deployment=deployment.id)
        self._steps = 0
        self._moved = False

    def run(self, request: int | None) -> Synced:
        """Bring the revision live, or the one before back; gives what came of it."""
        one = self._deployment
        self._journal.begin(one, request, clears_hold=one.reason is not Reason.ROLLBACK)
        self._log.info(
            "deployment.started", revision=one.revision, previous=one.previous,
            reason=one.reason.value, why=one.why, attempt=one.attempt, delivery=one.delivery,
        )  # fmt: skip
        self._tmp.mkdir(mode=0o750, parents=True, exist_ok=True)
        try:
            failure = self._bring(one.revision, one.previous, one.reason)
            retry = None
            if failure is None:
                ending = plan.ending_well(one.revision, one.reason)
            else:
                ending, retry = self._give_up(failure)
            return self._finish(ending, retry)
        finally:
            shutil.rmtree(self._tmp, ignore_errors=True)

    def _give_up(self, failure: Failure) -> tuple[plan.Ending, Retry | None]:
        """The revision failed: hold it or try it again, and find the way back."""
        one, back, verdict = self._deployment, None, None
        restoring = one.reason is Reason.ROLLBACK
        if not failure.interrupted and not restoring:
            verdict = plan.hold_or_retry(
                failure, one.revision, one.attempt, one.id, self._clock(), random.random()
            )
            self._journal.mark(self._target.name, verdict)
        if restoring:
            back = failure
        elif plan.needs_way_back(failure, self._moved, one.previous):
            assert one.previous
            self._log.warning("deployment.going_back", to=one.previous, because=failure.cause)
            back = self._bring(one.previous, one.revision, Reason.ROLLBACK)
        goal = one.revision if restoring else one.previous
        ending = plan.ending_badly(failure, back, self._moved, goal)
        return ending, verdict if isinstance(verdict, Retry) else None

    def _finish(self, ending: plan.Ending, retry: Retry | None) -> Synced:
        one = self._deployment
        self._journal.conclude(one, ending, self._clock())
        if ending.outcome is not Outcome.INTERRUPTED:
            self._tell_hooks(ending.outcome)
        now = self._clock()
        self._journal.end(one.id, now)
        tell = self._log.info if ending.outcome is Outcome.DEPLOYED else self._log.error
        tell(
            "deployment.finished", revision=one.revision, outcome=ending.outcome.value,
            seconds=round(now - one.started_at, 3), detail=ending.detail, delivery=one.delivery,
        )  # fmt: skip
        return Synced(
            ending.outcome.value,
            ending.detail or one.why,
            one.id,
            retry.not_before if retry else None,
        )

    # ---- bringing a revision live -----------------------------------------------------------

    def _bring(self, revision: Revision, previous: Revision | None, why: Reason) -> Failure | None:
        """The tree to `revision`, then every gate's hooks; None when all went well."""
        deadline = time.monotonic() + self._target.timeout
        failure = self._move_tree(revision)
        if failure:
            return failure
        try:
            situation = self._situation(revision, previous, why)
        except (GitFailed, OSError) as error:
            return Failure("changed files", str(error), temporary=True)
        for stage in GATES:
            failure = self._run_stage(stage, situation, deadline)
            if failure:
                return failure
        found = self._trees.head()
        if found != revision:
            # Else every look would find a tree that is not the live revision, and deploy again.
            return Failure("check of the tree", f"a hook left it at {found or 'no commit'}")
        return None

    def _move_tree(self, revision: Revision) -> Failure | None:
        step = self._begin_step("tree", f"check out {revision[:12]}")
        before = self._trees.head()
        try:
            self._trees.receive(self._mirror, revision, self._cancel)
            saved = self._trees.save_changes(revision, self._deployment.id)
            if saved:
                self._log.warning("tree.changed_by_hand", saved=str(saved))
            self._moved = True
            self._trees.move(revision, self._cancel)
        except Stopped as error:
            self._end_step(step, "interrupted")
            return Failure("check out", str(error), interrupted=True)
        except JournalUnavailable:
            raise
        except (AgentError, OSError) as error:
            # The host's fault and not the revision's: a full disk, a lock, missing rights.
            self._moved = self._moved and not self._trees.is_whole(before)
            self._end_step(step, str(error))
            return Failure("check out", str(error), temporary=True)
        self._end_step(step, f"ok; changed by hand and saved: {saved}" if saved else "ok")
        return None

    def _situation(
        self, revision: Revision, previous: Revision | None, why: Reason
    ) -> hooks.Situation:
        tmp = self._tmp / "tmp"
        tmp.mkdir(mode=0o700, parents=True, exist_ok=True)
        changed = self._tmp / "changed-files"
        self._trees.list_changed(previous, revision, changed)
        return hooks.Situation(
            deployment=self._deployment.id,
            target=self._target,
            reason=why,
            attempt=self._deployment.attempt,
            revision=revision,
            previous=previous,
            tree=self._trees.tree,
            changed_files=changed,
            tmp=tmp,
            home=hooks.home(),
        )

    def _run_stage(
        self, stage: Stage, situation: hooks.Situation, deadline: float
    ) -> Failure | None:
        for hook in self._target.hooks:
            if hook.stage is not stage:
                continue
            left = deadline - time.monotonic()
            name = f"{stage.value} hook {hook.name}"
            if left <= 0:
                return Failure(name, f"no time left of {self._target.timeout:g} s for the whole")
            result = self._run_hook(hooks.command(hook, situation), stage, hook.name, left)
            if not result.ok:
                return Failure(name, str(result), result.temporary, result.canceled)
        return None

    def _run_hook(
        self, command: hooks.Command, stage: Stage, name: str, timeout: float
    ) -> hooks.Result:
        step = self._begin_step(stage.value, name)
        path = self._logs / f"{step:02d}-{stage.value}-{name}.log"
        result = hooks.run(command, path, self._cancel, timeout=timeout)
        self._end_step(step, str(result))
        return result

    def _tell_hooks(self, outcome: Outcome) -> None:
        """Run the success or failure hooks; how they end changes nothing."""
        one = self._deployment
        stage = Stage.SUCCESS if outcome is Outcome.DEPLOYED else Stage.FAILURE
        if not any(hook.stage is stage for hook in self._target.hooks):
            return
        try:
            situation = self._situation(one.revision, one.previous, one.reason)
        except (GitFailed, OSError) as error:
            self._log.warning("hooks.not_run", stage=stage.value, why=str(error))
            return
        situation = replace(situation, outcome=outcome)
        deadline = time.monotonic() + self._target.timeout
        for hook in self._target.hooks:
            if hook.stage is stage and not self._cancel.is_set:
                left = deadline - time.monotonic()
                self._run_hook(hooks.command(hook, situation), stage, hook.name, left)

    # ---- steps ------------------------------------------------------------------------------

    def _begin_step(self, stage: str, name: str) -> int:
        self._steps += 1
        self._journal.step_begins(self._deployment.id, self._steps, stage, name, self._clock())
        self._log.info("step.started", n=self._steps, stage=stage, name=name)
        return self._steps

    def _end_step(self, n: int, result: str) -> None:
        self._journal.step_ends(self._deployment.id, n, result, self._clock())
        tell = self._log.info if result.startswith("ok") else self._log.warning
        tell("step.finished", n=n, result=result)
