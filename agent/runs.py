"""Hooks on their way: each is handed to a supervisor, waited for, and found again after a restart.

A run is its log, a result and a lifeline (`supervisor` says what each is for). They outlive the
agent as the supervisor does. Whoever finds the lifeline there knows that the hook was handed over,
and never hands it over twice.
"""

import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex
from typing import Any

import agent
from agent import cgroups, processes
from agent.cancel import Cancel
from agent.descriptors import give_back
from agent.errors import LeftRunning
from agent.hooks import Command, Result
from agent.places import real

GRACE = 10.0
_BOOT = "boot"
_PATIENCE = 10.0
_GONE = "it was killed with its supervisor, or the host went down"
_MORE = "`journalctl -u 'gitops-agent-hooks@*'` has more"


class Runs:
    """Has hooks run. One for the agent's whole life.

    With a `runner`, its socket, it runs them, and when `stop` is set they go on without the agent.
    """

    def __init__(self, runner: Path | None = None, stop: Cancel | None = None) -> None:
        self._runner = runner
        self._stop = stop if runner else None
        self._spawner = _Spawner()

    def warm(self) -> None:
        """Start what starts hooks, ahead of the first one."""
        if not self._runner:
            self._spawner.warm()

    def close(self) -> None:
        """No more hooks; those that run go on."""
        self._spawner.close()

    def run(
        self,
        command: Command,
        log: Path,
        place: Path,
        cancel: Cancel,
        *,
        timeout: float | None = None,
        grace: float = GRACE,
    ) -> Result:
        """Run `command` to its end, its output into the file `log`; blocks this thread.

        In the folder `place` are the other files of the run, until whoever named it clears it.
        `timeout`, in seconds, shortens the command's own; from SIGTERM to SIGKILL it is `grace`.
        A run that was begun before, by an agent that died, is waited for instead. LeftRunning
        when it is this one that stops.
        """
        files = _Files(log, place)
        try:
            if not files.begun():
                if _leads_outside(command):
                    return Result(not_started=f"{command.argv[0]} leads outside the deployed tree")
                limit = command.timeout if timeout is None else min(command.timeout, timeout)
                self._hand_over(command, files, limit, grace)
            result = _wait(files, cancel, self._stop)
        except OSError as error:
            return Result(lost=f"the host could not run it: {error.strerror}")
        if result.lost:
            end_leftovers(command.deployment)
            if self._runner and result.lost == _GONE:
                return replace(result, lost=f"{_GONE}; {_MORE}")
        return result

    def _hand_over(self, command: Command, files: "_Files", timeout: float, grace: float) -> None:
        with ExitStack() as opened:
            if self._runner:
                connection = opened.enter_context(_connect(self._runner))
                changed = opened.enter_context(Path(command.env["DEPLOY_CHANGED_FILES"]).open("rb"))
                request, fds = _ask(command, timeout), [changed.fileno()]
            else:
                connection = opened.enter_context(self._spawner.connect())
                request, fds = _job(command, timeout, grace), []
            fds = [*files.begin(), *fds]
            for fd in fds[:3]:
                opened.callback(os.close, fd)
            _send(connection, request, fds)


def _leads_outside(command: Command) -> bool:
    """Whether a program of the tree is a link to one that is not, which nobody configured."""
    program = Path(command.argv[0])
    tree = command.cwd
    return program.is_relative_to(tree) and not real(program).is_relative_to(real(tree))


def _job(command: Command, timeout: float, grace: float) -> dict[str, Any]:
    """What a supervisor of our own is asked: the fields of `supervisor.Job`."""
    return {
        "name": f"{_group(command.deployment)}{token_hex(4)}",
        "argv": command.argv,
        "env": dict(command.env),
        "cwd": str(command.cwd),
        "timeout": timeout,
        "grace": grace,
    }


def _ask(command: Command, timeout: float) -> dict[str, Any]:
    """What the hook runner is asked: which hook, and the facts that only the agent knows."""
    return {
        "target": command.env["DEPLOY_TARGET"],
        "number": command.number,
        "argv": command.argv,
        "timeout": timeout,
        "facts": {key: text for key, text in command.env.items() if key.startswith("DEPLOY_")},
    }


# ---- a run's files --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Files:
    log: Path
    place: Path

    @property
    def result(self) -> Path:
        return self.place / f"{self.log.name}.result"

    @property
    def lifeline(self) -> Path:
        return self.place / f"{self.log.name}.lifeline"

    def begun(self) -> bool:
        return self.lifeline.exists()

    def begin(self) -> tuple[int, int, int]:
        """Make them; gives the descriptors of log, result and lifeline for a supervisor."""
        for folder in (self.log.parent, self.place):
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        log = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        result = os.open(self.result, os.O_WRONLY | os.O_CREAT, 0o640)
        (self.place / _BOOT).write_text(processes.boot())
        os.mkfifo(self.lifeline, 0o600)
        return log, result, os.open(self.lifeline, os.O_RDWR)

    def outcome(self) -> Result:
        try:
            return Result(**json.loads(self.result.read_bytes()))
        except (OSError, ValueError, TypeError):
            return Result(lost=_GONE)


def _wait(files: _Files, cancel: Cancel, leave: Cancel | None = None) -> Result:
    """How the run ended, once it has; a set `cancel` has it ended. LeftRunning for `leave`."""
    try:
        lifeline = os.open(files.lifeline, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return files.outcome()
        raise
    try:
        _follow(lifeline, cancel, leave)
    finally:
        os.close(lifeline)
    return files.outcome()


def _follow(lifeline: int, cancel: Cancel, leave: Cancel | None) -> None:
    """Wait until nobody has the lifeline any more; that is an error to who may write (poll(2))."""
    watch = select.poll()
    watch.register(lifeline, 0)
    for flag in filter(None, (cancel, leave)):
        watch.register(flag, select.POLLIN)
    while lifeline not in (ready := {fd for fd, _ in watch.poll()}):
        if leave and leave.is_set:
            raise LeftRunning("the agent is stopping, and a hook goes on without it")
        if cancel.fileno() in ready:
            watch.unregister(cancel)
            with suppress(BrokenPipeError):
                os.write(lifeline, b"x")


# ---- the way to a supervisor ----------------------------------------------------------------


def _connect(runner: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(runner))
    except OSError as error:
        connection.close()
        why = f"the hook runner's socket {runner}: {error.strerror}"
        raise OSError(error.errno, why) from None
    return connection


def _send(connection: socket.socket, request: dict[str, Any], fds: list[int]) -> None:
    text = json.dumps(request).encode()
    sent = socket.send_fds(connection, [text], fds)
    connection.sendall(text[sent:])
    connection.shutdown(socket.SHUT_WR)


class _Spawner:
    """The small process that forks supervisors, as the user that the agent is."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def warm(self) -> None:
        with self._lock:
            if not self._control:
                self._start()

    def connect(self) -> socket.socket:
        """A connection to a supervisor of its own."""
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            control = self._control or self._start()
            try:
                socket.send_fds(control, [b"+"], [theirs.fileno()])
            except BrokenPipeError:
                self._stop()
                socket.send_fds(self._start(), [b"+"], [theirs.fileno()])
        return ours

    def _start(self) -> socket.socket:
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "agent.supervisor"],
                env={**os.environ, "PYTHONPATH": str(Path(agent.__file__).parent.parent)},
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
            give_back(self._process.pid)
        return self._control

    def _stop(self) -> None:
        if self._control and self._process:
            self._control.close()
            self._process.wait()
            self._control = self._process = None

    def close(self) -> None:
        with self._lock:
            self._stop()


# ---- what a dead agent's hooks have left ----------------------------------------------------


def is_found(place: Path) -> bool:
    """Whether the files of a run are in `place`, and of this start of the host.

    Of what was done before a power cut nobody knows how much is on the disk.
    """
    try:
        of_now = (place / _BOOT).read_text() == processes.boot()
    except OSError:
        return False
    return of_now and any(place.glob("*.lifeline"))


def end_runs(place: Path, deployment: str) -> int:
    """End the hooks of a deployment that still run, with all they started; gives how many.

    `place` is the folder of its runs' files.
    """
    stop = Cancel()
    stop.set()
    try:
        runs = [_Files(lifeline.with_suffix(""), place) for lifeline in place.glob("*.lifeline")]
        ended = sum(_wait(one, stop).canceled for one in runs)
    finally:
        stop.close()
    return ended + end_leftovers(deployment)


def _group(deployment: str) -> str:
    return f"hook-{deployment}-"


def end_leftovers(deployment: str) -> int:
    """SIGKILL what a deployment's hooks left when their supervisors died; gives how many."""
    found: set[int] = set()
    for cgroup in cgroups.leftovers(_group(deployment)):
        found |= cgroup.pids()
        cgroup.kill(_PATIENCE)
        cgroup.remove()
    deadline = time.monotonic() + _PATIENCE
    while (running := processes.marked(f"DEPLOY_ID={deployment}")) and time.monotonic() < deadline:
        found |= {one.pid for one in running}
        processes.tell(running, signal.SIGKILL)
    return len(found)
