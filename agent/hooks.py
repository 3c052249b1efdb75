"""A hook becomes argv and environment (pure), and then runs.

The environment is chosen, not inherited. A hook gets its time, then SIGTERM, then SIGKILL, it and
everything it started; what it leaves running when it ends by itself is ended too. Its output goes
to a file as it comes, head and tail, and never piles up in memory.
"""

import os
import pwd
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.cancel import Cancel
from agent.model import Hook, Outcome, Reason, Revision, Target
from agent.output import Output

EX_TEMPFAIL = 75
GRACE = 10.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CHUNK = 65536
_EXEC_READS = 4


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


def command(hook: Hook, situation: Situation) -> Command:
    """`hook` in `situation` as argv, environment and folder (CONTRACT: Hooks)."""
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
    return Command((program, *arguments), env, situation.tree, hook.timeout, situation.deployment)


def home() -> str:
    """The home folder of the user that hooks run as."""
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return "/"


# ---- how it went: pure ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Result:
    """How a hook ended. Exactly one of the first four says it; all None is exit 0."""

    exit: int | None = None
    signal: int | None = None
    timed_out: float | None = None
    not_started: str | None = None
    canceled: bool = False
    left: int = 0
    """Processes that it left running, which were ended."""

    @property
    def ok(self) -> bool:
        return self == Result(left=self.left)

    @property
    def temporary(self) -> bool:
        """It said EX_TEMPFAIL: it could not now (sysexits.h)."""
        return self.exit == EX_TEMPFAIL

    def __str__(self) -> str:
        if self.not_started:
            return f"could not be started: {self.not_started}"
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


# ---- the run of it --------------------------------------------------------------------------


def run(
    command: Command,
    log: Path,
    cancel: Cancel,
    *,
    timeout: float | None = None,
    grace: float = GRACE,
) -> Result:
    """Run `command` to its end, its output into the file `log`; blocks this thread.

    `timeout`, in seconds, shortens the command's own. After SIGTERM it has `grace` seconds left.
    """
    limit = command.timeout if timeout is None else min(command.timeout, timeout)
    with Output(log) as output:
        if _leads_outside(command):
            output.note(f"{command.argv[0]} is a link that leads outside the deployed tree")
            return Result(not_started=f"{command.argv[0]} leads outside the deployed tree")
        try:
            process = subprocess.Popen(
                command.argv,
                env=dict(command.env),
                cwd=command.cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return _not_started(command, error, output)
        with _Run(process, command.deployment, output, cancel) as running:
            result = running.wait(limit, grace)
        if result.left:
            output.note(f"{result.left} processes that the hook left running were ended")
        return result


def _leads_outside(command: Command) -> bool:
    """Whether a program of the tree is a link to one that is not, which nobody configured."""
    program = Path(command.argv[0])
    tree = command.cwd
    return program.is_relative_to(tree) and not program.resolve().is_relative_to(tree.resolve())


def _not_started(command: Command, error: OSError, output: Output) -> Result:
    reason = os.strerror(error.errno) if error.errno else str(error)
    if reason == "Exec format error":
        reason += " (does it begin with a #! line?)"
    reason = f"{command.argv[0]}: {reason}"
    output.note(reason)
    return Result(not_started=reason)


class _Run:
    """One started hook: watched, given its signals, reaped."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", deployment: str, output: Output, cancel: Cancel
    ) -> None:
        assert process.stdout is not None
        self._process = process
        self._deployment = deployment
        self._output = output
        self._cancel = cancel
        self._pipe = process.stdout.fileno()
        os.set_blocking(self._pipe, False)
        self._pidfd = os.pidfd_open(process.pid)
        self._watch = selectors.DefaultSelector()
        self._watch.register(self._pipe, selectors.EVENT_READ)
        self._watch.register(self._pidfd, selectors.EVENT_READ)
        self._watch.register(cancel, selectors.EVENT_READ)

    def __enter__(self) -> "_Run":
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.close()
        os.close(self._pidfd)
        if self._process.stdout:
            self._process.stdout.close()

    def wait(self, limit: float, grace: float) -> Result:
        ended = self._watch_until(time.monotonic() + limit, heed_cancel=True)
        canceled = not ended and self._cancel.is_set
        if not ended:
            self._signal_all(signal.SIGTERM)
            self._watch_until(time.monotonic() + grace, heed_cancel=False)
        left = self._end_strays()
        code = self._process.wait()
        self._drain()
        if not ended:
            return Result(canceled=True) if canceled else Result(timed_out=limit)
        if code < 0:
            return Result(signal=-code, left=left)
        return Result(exit=code or None, left=left)

    def _watch_until(self, deadline: float, *, heed_cancel: bool) -> bool:
        """Read output until the hook's own process ends; False at the deadline or when canceled."""
        while (left := deadline - time.monotonic()) > 0:
            ready = {key.fd for key, _ in self._watch.select(left)}
            if self._pipe in ready:
                self._read()
            if self._pidfd in ready:
                return True
            if heed_cancel and self._cancel.is_set:
                return False
            if self._cancel.is_set and self._cancel.fileno() in self._watch.get_map():
                self._watch.unregister(self._cancel)
        return False

    def _read(self) -> bool:
        """Take what is in the pipe, at most one chunk; False when there is nothing now."""
        try:
            chunk = os.read(self._pipe, _CHUNK)
        except BlockingIOError:
            return False
        if chunk:
            self._output.write(chunk)
            return True
        with suppress(KeyError):
            self._watch.unregister(self._pipe)
        return False

    def _drain(self) -> None:
        # Everything that wrote is gone by now, so this ends; a pipe holds 64 KiB, or what a
        # hostile hook has made it hold (1 MiB at most without privileges).
        while self._read():
            pass

    def _signal_all(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)
        for pid in strays(self._deployment):
            _kill(pid, number)

    def _end_strays(self) -> int:
        """SIGKILL whatever of it still runs; gives how many there were besides the hook itself."""
        found: set[int] = set()
        while True:
            running = strays(self._deployment)
            found |= running
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            for pid in running:
                _kill(pid, signal.SIGKILL)
            if not running:
                return len(found - {self._process.pid})


def _kill(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def strays(deployment: str) -> set[int]:
    """The processes of this user that carry the deployment's id in their environment.

    A group's kill misses a child that called setsid(); the environment it was started with is
    still its own (proc(5), /proc/pid/environ). Zombies have none left.
    """
    mark = f"DEPLOY_ID={deployment}".encode()
    found = set()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and mark in _environ(Path(entry.path)):
            found.add(int(entry.name))
    return found - {os.getpid()}


def _environ(process: Path) -> list[bytes]:
    """A process's environment; empty where it is not ours to read.

    In the middle of an exec it reads as empty too, so that is asked again.
    """
    with suppress(OSError, IndexError):
        for _ in range(_EXEC_READS):
            environ = (process / "environ").read_bytes()
            if environ or (process / "stat").read_bytes().rsplit(b")", 1)[1].split()[0] == b"Z":
                return environ.split(b"\0")
            time.sleep(0.001)
    return []


def end_strays(deployment: str) -> int:
    """SIGKILL what a deployment's hooks left behind when the agent died; gives how many."""
    found: set[int] = set()
    while running := strays(deployment):
        found |= running
        for pid in running:
            _kill(pid, signal.SIGKILL)
    return len(found)
