"""One deployment, from its first journal row to its last hook. The reconciler begins it.

    prepare a tree -> build -> switch -> activate -> verify -> outcome

and, where a gate fails or a person cancels, the way back: the same with the revision before. Each
step is in the journal before it is taken, so that a kill at any point leaves a fact to start from.
What follows from what is decided in `plan`.
"""

import random
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import structlog

from agent import health, hooks, plan, submodules
from agent.cancel import Cancel
from agent.errors import (
    AgentError,
    GitFailed,
    JournalUnavailable,
    LeftRunning,
    RevisionFault,
    Stopped,
)
from agent.journal import Journal
from agent.model import (
    GATES,
    Deployment,
    Failure,
    Hold,
    Outcome,
    Reason,
    Retry,
    Revision,
    Stage,
    SyncRequest,
    Target,
)
from agent.output import Output
from agent.runs import Runs, end_runs
from agent.steps import Diverged, Steps

log = structlog.get_logger()


class Trees(Protocol):
    """A target's trees on disk, as its strategy has them (`inplace`, `releases`)."""

    moved: bool
    """Whether what is live may be something else than before."""

    @property
    def atomic(self) -> bool:
        """Whether what is live changes with `switch`, and with `prepare` already where not."""

    @property
    def tree(self) -> Path:
        """The tree being deployed."""

    def head(self) -> Revision | None: ...
    def find_built(self, revision: Revision) -> bool: ...
    def prepare(self, revision: Revision, deployment: str, cancel: Cancel) -> str: ...
    def take_up(self, revision: Revision, switched: bool, /) -> None: ...
    def switch(self) -> None: ...
    def write_out(self) -> None: ...
    def give_up(self) -> None: ...
    def take_down(self) -> None: ...
    def list_changed(self, old: Revision | None, new: Revision, to: Path) -> None: ...
    def prune(self, cancel: Cancel) -> None: ...
    def repair(self) -> None: ...
    def tidy(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Synced:
    """What a sync came to."""

    result: str
    """An outcome, `up-to-date`, `held`, `paused`, `waiting`, `no-branch` or `error`."""
    why: str
    deployment: str | None = None
    retry_at: float | None = None
    """Unix time at which to look again."""


class Attempt:
    """One deployment. `run` or `go_on` is called once; `cancel` from any thread."""

    def __init__(
        self,
        journal: Journal,
        runs: Runs,
        state_dir: Path,
        stop: Cancel,
        clock: Callable[[], float],
        target: Target,
        trees: Trees,
        task: plan.Task,
        deployment: Deployment,
    ) -> None:
        """Its steps, where it has some, were taken by an agent that died since."""
        self._journal = journal
        self._runs = runs
        self._stop = stop
        self._clock = clock
        self._target = target
        self._trees = trees
        self._task = task
        self._deployment = deployment
        self._logs = state_dir / "logs" / deployment.id
        self._tmp = state_dir / "tmp" / deployment.id
        self._place = state_dir / "runs" / deployment.id
        self._log = log.bind(target=target.name, deployment=deployment.id)
        self._steps = Steps(journal, deployment, clock, self._log)
        self._lifetime = ExitStack()
        self._cancel = self._lifetime.enter_context(stop.child())
        self._canceling = threading.Lock()
        self._canceled_by: str | None = None
        self._too_late = False
        """It went through, or it is on its way back."""

    def cancel(self, by: str) -> bool:
        """End it the way a failure would; False where it is too late for that."""
        with self._canceling:
            if not self._too_late:
                self._canceled_by = by
                self._cancel.set()
            return not self._too_late

    def run(self, request: SyncRequest) -> Synced:
        """Bring the revision live, or the one before back; gives what came of it."""
        one, task = self._deployment, self._task
        self._journal.begin(one, request, clears_holds=isinstance(task, plan.Deploy))
        self._log.info(
            "deployment.started", revision=one.revision, previous=one.previous,
            reason=one.reason.value, why=one.why, attempt=one.attempt, delivery=one.delivery,
        )  # fmt: skip
        return self._see_through()

    def go_on(self) -> Synced:
        """Take up what an agent had begun that died: no step of it is taken twice."""
        one = self._deployment
        self._log.info("deployment.found_again", steps=len(one.steps))
        return self._see_through()

    def _see_through(self) -> Synced:
        one, task = self._deployment, self._task
        self._tmp.mkdir(mode=0o750, parents=True, exist_ok=True)
        kept = False
        try:
            again = not isinstance(task, plan.Deploy)
            failure = self._bring(one.revision, one.previous, one.reason, again=again)
            failure = self._last_word(failure)
            if failure is None:
                return self._finish(plan.ending_well(task, one), None)
            return self._finish(*self._give_up(failure))
        except LeftRunning:
            kept = True
            raise
        except Diverged as error:
            end_runs(self._place, one.id)
            return self._finish(*self._give_up(Failure("agent.toml", str(error), interrupted=True)))
        finally:
            self._lifetime.close()
            for folder in () if kept else (self._tmp, self._place):
                shutil.rmtree(folder, ignore_errors=True)

    def _last_word(self, failure: Failure | None) -> Failure | None:
        """From here on a person's cancel comes too late; one that came just now still counts."""
        with self._canceling:
            self._too_late = True
            if failure is None and self._canceled_by is not None:
                return Failure("cancel", f"canceled by {self._canceled_by}", canceled=True)
            return failure

    # ---- how it ends ------------------------------------------------------------------------

    def _give_up(self, failure: Failure) -> tuple[plan.Ending, float | None]:
        """It failed: hold the revision or try it again, and find the way back."""
        one, verdict = self._deployment, None
        if isinstance(self._task, plan.Restore):
            return self._give_up_restoring(failure)
        if isinstance(self._task, plan.Deploy) and not failure.interrupted:
            verdict = self._verdict(failure)
            self._journal.mark(self._target.name, verdict, self._clock())
        if not failure.interrupted:
            self._trees.give_up()
        back = self._go_back(failure)
        ending = plan.ending_badly(failure, back, self._trees.moved, one.previous)
        for stuck in plan.holds_of_rollback(self._task, ending, one):
            self._journal.mark(self._target.name, stuck, self._clock())
        if back and not isinstance(verdict, Retry):
            verdict = self._verdict(back)
        return ending, verdict.not_before if isinstance(verdict, Retry) else None

    def _give_up_restoring(self, failure: Failure) -> tuple[plan.Ending, float | None]:
        later = self._verdict(failure)
        ending = plan.ending_of_restore(failure, self._deployment.revision)
        return ending, later.not_before if isinstance(later, Retry) else None

    def _verdict(self, failure: Failure) -> Hold | Retry:
        one = self._deployment
        return plan.hold_or_retry(
            failure, one.revision, one.attempt, one.id, self._clock(), random.random()
        )

    def _go_back(self, failure: Failure) -> Failure | None:
        """Bring the revision before back, where this one had moved it; how that failed."""
        one, moved = self._deployment, self._trees.moved
        if moved and one.previous is None and not failure.interrupted:
            self._trees.take_down()
        if not plan.needs_way_back(failure, moved, one.previous):
            return None
        assert one.previous
        self._log.warning("deployment.going_back", to=one.previous, because=failure.cause)
        # What ended the way there must not end the way back; only a stop of the agent may.
        self._cancel = self._lifetime.enter_context(self._stop.child())
        return self._bring(one.previous, one.revision, Reason.ROLLBACK, again=True)

    def _finish(self, ending: plan.Ending, retry_at: float | None) -> Synced:
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
        return Synced(ending.outcome.value, ending.detail or one.why, one.id, retry_at)

    # ---- bringing a revision live -----------------------------------------------------------

    def _bring(
        self, revision: Revision, previous: Revision | None, why: Reason, *, again: bool
    ) -> Failure | None:
        """A tree of `revision`, then every gate; None when all went well.

        With `again` it was live before, and what was built for it then may still be there. A fault
        of ours is a failure as well: from there, too, there has to be a way back.
        """
        try:
            return self._take_steps(revision, previous, why, again=again)
        except (AgentError, Diverged):
            raise
        except Exception:
            log.exception(
                "deployment.crashed", target=self._target.name, deployment=self._deployment.id
            )
            return Failure("the agent", "it failed at this; its log says how", temporary=True)

    def _take_steps(
        self, revision: Revision, previous: Revision | None, why: Reason, *, again: bool
    ) -> Failure | None:
        deadline = time.monotonic() + self._target.timeout
        built = again and self._trees.find_built(revision)
        failure = None if built else self._prepare(revision)
        if failure:
            return failure
        try:
            situation = self._situation(revision, previous, why)
        except (GitFailed, OSError) as error:
            return Failure("changed files", str(error), temporary=True)
        for stage in GATES[1:] if built else GATES:
            if stage is Stage.ACTIVATE and self._trees.atomic:
                failure = self._switch(revision)
            failure = failure or self._run_stage(stage, situation, deadline)
            if failure:
                return failure
        found = self._trees.head()
        if found != revision:
            # Else every look would find a tree that is not the live revision, and deploy again.
            return Failure("check of the tree", f"a hook left it at {found or 'no commit'}")
        return self._write_out()

    def _write_out(self) -> Failure | None:
        """After a power cut nobody would look for what the journal says is live and is not."""
        try:
            self._trees.write_out()
        except OSError as error:
            return Failure("write out", str(error), temporary=True)
        return None

    def _prepare(self, revision: Revision) -> Failure | None:
        name = f"{'stage' if self._trees.atomic else 'check out'} {revision[:12]}"
        if self._steps.has_passed(self._steps.taken + 1):
            self._trees.take_up(revision, self._steps.has(_switching(revision)))
        return self._tree_step(name, lambda: self._made(revision))

    def _made(self, revision: Revision) -> str:
        """Have the tree made; gives how, and what is missing in it."""
        how = self._trees.prepare(revision, self._deployment.id, self._cancel)
        empty = submodules.empty(self._trees.tree)
        return "; ".join(filter(None, (how, submodules.NOT_FETCHED if empty else "")))

    def _switch(self, revision: Revision) -> Failure | None:
        def work() -> str:
            self._trees.switch()
            return ""

        return self._tree_step(_switching(revision), work)

    def _tree_step(self, name: str, work: Callable[[], str]) -> Failure | None:
        step = self._steps.begin("tree", name)
        if self._steps.has_passed(step):
            return None
        try:
            note = work()
        except Stopped as error:
            failure = self._ended(name, str(error))
        except JournalUnavailable:
            raise
        except RevisionFault as error:
            failure = Failure(name, str(error))
        except (AgentError, OSError) as error:
            # The host's fault and not the revision's: a full disk, a lock, missing rights.
            failure = Failure(name, str(error), temporary=True)
        else:
            self._steps.end(step, f"ok; {note}" if note else "ok")
            return None
        self._steps.end(step, "interrupted" if failure.interrupted else failure.cause)
        return failure

    def _ended(self, step: str, cause: str) -> Failure:
        """What it means that a step was ended before its time."""
        if self._canceled_by is None or self._too_late or self._stop.is_set:
            return Failure(step, cause, interrupted=True)
        return Failure(step, f"canceled by {self._canceled_by}", canceled=True)

    def _situation(
        self, revision: Revision, previous: Revision | None, why: Reason
    ) -> hooks.Situation:
        tmp = self._tmp / "tmp"
        tmp.mkdir(mode=0o700, parents=True, exist_ok=True)
        changed = self._tmp / "changed-files"
        if not self._steps.has_passed(self._steps.taken):
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

    # ---- gates ------------------------------------------------------------------------------

    def _run_stage(
        self, stage: Stage, situation: hooks.Situation, deadline: float
    ) -> Failure | None:
        if stage is Stage.VERIFY and self._target.verify:
            failure = self._watch_health(deadline)
            if failure:
                return failure
        for hook in self._target.hooks:
            if hook.stage is not stage:
                continue
            left = deadline - time.monotonic()
            name = f"{stage.value} hook {hook.name}"
            if left <= 0:
                return Failure(name, f"no time left of {self._target.timeout:g} s for the whole")
            result = self._run_hook(hooks.command(hook, situation), stage, hook.name, left)
            if result.canceled:
                return self._ended(name, str(result))
            if not result.ok:
                return Failure(name, str(result), result.temporary)
        return None

    def _watch_health(self, deadline: float) -> Failure | None:
        assert self._target.verify
        step, name = self._steps.begin(Stage.VERIFY.value, "url"), "verify url"
        if self._steps.has_passed(step):
            return None
        with Output.at(self._log_path(step, Stage.VERIFY, "url")) as output:
            wrong = health.watch(
                self._target.verify, deadline - time.monotonic(), self._cancel, output.line
            )
        self._steps.end(step, wrong or "ok")
        if wrong and self._cancel.is_set:
            return self._ended(name, "the agent is stopping")
        return Failure(name, wrong) if wrong else None

    def _run_hook(
        self, command: hooks.Command, stage: Stage, name: str, timeout: float
    ) -> hooks.Result:
        step = self._steps.begin(stage.value, name)
        if self._steps.has_passed(step):
            return hooks.Result()
        path = self._log_path(step, stage, name)
        result = self._runs.run(command, path, self._place, self._cancel, timeout=timeout)
        self._steps.end(
            step, self._ended(name, str(result)).cause if result.canceled else str(result)
        )
        return result

    def _log_path(self, step: int, stage: Stage, name: str) -> Path:
        return self._logs / f"{step:02d}-{stage.value}-{name}.log"

    def _tell_hooks(self, outcome: Outcome) -> None:
        """Run the success or failure hooks; how they end changes nothing."""
        one = self._deployment
        stage = Stage.SUCCESS if outcome is Outcome.DEPLOYED else Stage.FAILURE
        if not any(hook.stage is stage for hook in self._target.hooks):
            return
        self._cancel = self._lifetime.enter_context(self._stop.child())
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


def _switching(revision: Revision) -> str:
    return f"switch to {revision[:12]}"
