"""What a hook is run as, and how it ended. Pure, but for a look at who we are; `runs` runs it.

The environment is chosen, not inherited.
"""

import os
import pwd
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.model import Hook, Outcome, Reason, Revision, Target

EX_TEMPFAIL = 75
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


# ---- what to run: pure ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Situation:
    """What a hook is told about the deployment it is part of."""

    deployment: str
    target: Target
    reason: Reason
    attempt: int
    revision: Revision
    previous: Revision | None
    tree: Path
    changed_files: Path
    tmp: Path
    home: str
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Command:
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    timeout: float
    """Seconds until SIGTERM."""
    deployment: str
    number: int = 0
    """Which of its target's hooks it is, counted from 0."""


def command(hook: Hook, situation: Situation) -> Command:
    """`hook` in `situation` as argv, environment and folder."""
    env = {
        "PATH": PATH,
        "HOME": situation.home,
        "LANG": "C.UTF-8",
        "TMPDIR": str(situation.tmp),
        **hook.env,
        "DEPLOY_ID": situation.deployment,
        "DEPLOY_TARGET": situation.target.name,
        "DEPLOY_STAGE": hook.stage.value,
        "DEPLOY_REASON": situation.reason.value,
        "DEPLOY_ATTEMPT": str(situation.attempt),
        "DEPLOY_REPO": situation.target.repo,
        "DEPLOY_REF": situation.target.ref,
        "DEPLOY_REVISION": situation.revision,
        "DEPLOY_PREVIOUS_REVISION": situation.previous or "",
        "DEPLOY_PATH": str(situation.target.live),
        "DEPLOY_TREE": str(situation.tree),
        "DEPLOY_CHANGED_FILES": str(situation.changed_files),
    }
    if situation.outcome:
        env["DEPLOY_OUTCOME"] = situation.outcome.value
    program, *arguments = hook.run
    if program.startswith("./"):
        program = str(situation.tree / program)
    return Command(
        (program, *arguments), env, situation.tree, hook.timeout, situation.deployment,
        situation.target.hooks.index(hook),
    )  # fmt: skip


def home() -> str:
    """The home folder of the user that hooks run as."""
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return "/"


# ---- how it went: pure ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Result:
    """How a hook ended. At most one of those before `left` says it; none of them is exit 0."""

    exit: int | None = None
    signal: int | None = None
    timed_out: float | None = None
    not_started: str | None = None
    lost: str | None = None
    """Why the host could not run it, or does not know how it ended. No fault of the revision's."""
    canceled: bool = False
    left: int = 0
    """Processes that it left running, which were ended."""
    over: str | None = None
    """Which of its limits it ran into on the way, by its key in agent.toml."""

    @property
    def ok(self) -> bool:
        return self == Result(left=self.left, over=self.over)

    @property
    def temporary(self) -> bool:
        """It said EX_TEMPFAIL: it could not now (sysexits.h). Or the host could not."""
        return self.exit == EX_TEMPFAIL or self.lost is not None

    def __str__(self) -> str:
        return f"{self._ending()}; it ran into its {self.over}" if self.over else self._ending()

    def _ending(self) -> str:
        if self.not_started:
            return f"could not be started: {self.not_started}"
        if self.lost:
            return self.lost
        if self.canceled:
            return "ended because the agent is stopping"
        if self.timed_out is not None:
            return f"timed out after {self.timed_out:g} s"
        if self.signal is not None:
            return f"killed by {_signal_name(self.signal)}"
        if self.temporary:
            return "exit 75, could not now"
        return "ok" if self.exit is None else f"exit {self.exit}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
