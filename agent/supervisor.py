"""One hook, from its start to the end of the last process that it left. A process of its own.

Whoever wants a hook run hands over a *job* and three files, and may then die: the supervisor goes
on, holds the hook to its time, keeps its output, and writes down how it ended.

    log       the hook's output as it comes, head and tail
    result    JSON, written when nothing of the hook is left: the fields of `hooks.Result`
    lifeline  a FIFO, open for both: a byte in it says that the hook is to be ended. While anyone
              has it open for reading the run goes on; after that it is over, however it went

Started as `python -m agent.supervisor` this is the *spawner*: it forks a supervisor for each
connection that it is passed, which takes a process so small a millisecond.
"""

import ctypes
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from agent import cgroups, processes
from agent.cgroups import Cgroup
from agent.output import Output
from agent.programs import fault_of

_CHUNK = 65536
_LONGEST = 4 << 20
_PATIENCE = 10.0
_AT_ONCE = 10_000
_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_CHILD_SUBREAPER = 36
_NOT_FOR_US = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
_IGNORED = (*_NOT_FOR_US, signal.SIGPIPE, signal.SIGXFSZ)

Report = dict[str, Any]


@dataclass(frozen=True, slots=True)
class User:
    """Whom a hook runs as."""

    name: str
    uid: int
    gid: int

    def become(self) -> None:
        """Be this user for good, in this process; needs root."""
        os.initgroups(self.name, self.gid)
        os.setgid(self.gid)
        os.setuid(self.uid)


@dataclass(frozen=True, slots=True)
class Job:
    """What to run, where, and for how long."""

    name: str
    """Of its cgroup: `hook-`, the deployment's id and something of its own."""
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    timeout: float
    """Seconds until SIGTERM."""
    grace: float
    """Seconds from there to SIGKILL."""
    user: User | None = None
    """None is whoever the supervisor is."""


@dataclass(frozen=True, slots=True)
class Files:
    """The descriptors of a run, as the module's first lines have them."""

    log: int
    result: int
    lifeline: int


class NotStarted(Exception):
    """The hook's program could not be executed; the message says why."""


def supervise(job: Job, files: Files, cgroup: Cgroup | None) -> None:
    """Run `job` in `cgroup` to its end; gives up this process's own signals for that."""
    os.dup2(files.log, sys.stderr.fileno())
    _adopt_orphans()
    for number in _NOT_FOR_US:
        signal.signal(number, signal.SIG_IGN)
    with Output(os.fdopen(files.log, "wb", buffering=0)) as output:
        try:
            report = _run(job, files.lifeline, cgroup, output)
        except NotStarted as error:
            output.note(str(error))
            report = {"not_started": str(error)}
    if cgroup:
        report["over"] = cgroup.over()
        cgroup.remove()
    _tell(files, report)


def refuse(files: Files, why: str) -> None:
    """Tell that nothing is run, for the reason `why`, which is no fault of the revision's."""
    with Output(os.fdopen(files.log, "wb", buffering=0)) as output:
        output.note(why)
    _tell(files, {"lost": why})


def _tell(files: Files, report: Report) -> None:
    os.write(files.result, json.dumps(report).encode())
    os.close(files.lifeline)


def _adopt_orphans() -> None:
    """Have whatever loses its parent below this process become its child (prctl(2))."""
    if _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


# ---- starting it ----------------------------------------------------------------------------


def _run(job: Job, lifeline: int, cgroup: Cgroup | None, output: Output) -> Report:
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(writing, True)
    watch = _Watch(reading, lifeline, cgroup, output)
    watch.hook = _start(job, cgroup, writing)
    os.close(writing)
    return watch.to_the_end(job)


def _start(job: Job, cgroup: Cgroup | None, output: int) -> int:
    """The process id of the hook once it is what it is to be; NotStarted where it cannot be."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become_hook(job, cgroup, output, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        complaint = pipe.read()
    if complaint:
        os.waitpid(pid, 0)
        raise NotStarted(complaint.decode(errors="replace"))
    return pid


def _become_hook(job: Job, cgroup: Cgroup | None, output: int, complaints: int) -> NoReturn:
    """In the child: everything between fork and exec, in the order in which it must be."""
    try:
        os.setsid()
        if cgroup:
            cgroup.enter()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_DFL)
        if job.user:
            job.user.become()
        os.chdir(job.cwd)
        os.execve(job.argv[0], tuple(job.argv), job.env)
    except OSError as error:
        os.write(complaints, _complaint(job, error).encode(errors="replace"))
    finally:
        os._exit(127)


def _complaint(job: Job, error: OSError) -> str:
    """Why the hook could not be started, and what to do; as its user, who may read its program."""
    if error.filename == job.argv[0]:
        with suppress(OSError):
            if fault := fault_of(Path(job.argv[0]), Path(job.cwd)):
                return str(fault)
    return f"{error.filename or job.argv[0]}: {error.strerror or error}"


# ---- watching it ----------------------------------------------------------------------------


class _Watch:
    """A hook in its time: output taken, orphans reaped, signals given."""

    hook = 0

    def __init__(self, pipe: int, lifeline: int, cgroup: Cgroup | None, output: Output) -> None:
        self._pipe = pipe
        self._lifeline = lifeline
        self._cgroup = cgroup
        self._output = output
        self._status: int | None = None
        self._told_to_stop = False
        self._child_ended = _child_ended()
        self._poll = select.poll()
        for fd in (pipe, lifeline, self._child_ended):
            self._poll.register(fd, select.POLLIN)

    def to_the_end(self, job: Job) -> Report:
        """See the hook through; gives how it ended, when nothing of it is left."""
        in_time = self._until(time.monotonic() + job.timeout, heed_stop=True)
        canceled = not in_time and self._told_to_stop
        if not in_time:
            processes.tell(processes.below(os.getpid()), signal.SIGTERM)
            self._until(time.monotonic() + job.grace, heed_stop=False)
        left = self._end_all()
        self._drain()
        if not in_time:
            return {"canceled": True} if canceled else {"timed_out": job.timeout}
        if left:
            self._output.note(f"{left} processes that the hook left running were ended")
        code = os.waitstatus_to_exitcode(self._status or 0)
        return {"signal": -code, "left": left} if code < 0 else {"exit": code or None, "left": left}

    def _until(self, deadline: float, *, heed_stop: bool) -> bool:
        """Take output until the hook's own process ends; False at the deadline or when told to."""
        while self._status is None:
            left = deadline - time.monotonic()
            if left <= 0 or (heed_stop and self._told_to_stop):
                return False
            ready = {fd for fd, _ in self._poll.poll(left * 1000)}
            if self._pipe in ready:
                self._read()
            if self._child_ended in ready:
                os.read(self._child_ended, _CHUNK)
                self._reap()
            if self._lifeline in ready:
                self._told_to_stop = True
                self._poll.unregister(self._lifeline)
        return True

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
            self._poll.unregister(self._pipe)
        return False

    def _drain(self) -> None:
        """Take the rest. A pipe holds 64 KiB, or 1 MiB where the hook has seen to it (pipe(7))."""
        for _ in range((1 << 20) // _CHUNK + 1):
            if not self._read():
                return

    def _reap(self) -> bool:
        """Take note of children that have ended; False when there are none at all any more."""
        with suppress(ChildProcessError):
            # Not all of them: some hooks make orphans faster than they can be buried.
            for _ in range(_AT_ONCE):
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == self.hook:
                    self._status = status
                if pid == 0:
                    break
            return True
        return False

    # ---- ending it ------------------------------------------------------------------------------

    def _end_all(self) -> int:
        """SIGKILL until nothing runs; gives how many there were besides the hook itself.

        Every orphan of the hook's comes to this process: when it has no child, nothing is left.
        """
        found: set[int] = set()
        deadline = time.monotonic() + _PATIENCE
        if self._cgroup and self._reap():
            found |= {one.pid for one in processes.below(os.getpid())}
            self._cgroup.kill(_PATIENCE)
        while self._reap():
            running = processes.below(os.getpid())
            # One that never stays the same process is not seen each time.
            found |= {one.pid for one in running} or {0}
            processes.tell(running, signal.SIGKILL)
            if time.monotonic() > deadline:
                self._output.note(f"{len(running)} of its processes could not be ended")
                break
        return len(found - {self.hook})


def _child_ended() -> int:
    """A descriptor that becomes readable whenever a child of this process ends."""
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return reading


# ---- being asked ----------------------------------------------------------------------------


def _receive(connection: socket.socket, size: int, files: int) -> tuple[bytes, list[int]]:
    text, fds, _, _ = socket.recv_fds(connection, size, files)
    for fd in fds:
        # Python passes MSG_CMSG_CLOEXEC on to nobody, and no hook may have these.
        os.set_inheritable(fd, False)
    return text, fds


def receive(connection: socket.socket, files: int) -> tuple[dict[str, Any], list[int]]:
    """One request, JSON up to the end of what is sent, with at most so many `files`.

    ValueError where it is too long, or is not an object.
    """
    text, fds = _receive(connection, _CHUNK, files)
    while chunk := connection.recv(_CHUNK):
        text += chunk
        if len(text) > _LONGEST:
            raise ValueError(f"the request is longer than {_LONGEST} bytes")
    request = json.loads(text)
    if not isinstance(request, dict):
        raise ValueError("the request is not an object")
    return request, fds


def _serve(connection: socket.socket, parent: Path | None) -> NoReturn:
    """In the child: supervise the one job that comes over `connection`, and be gone."""
    try:
        with connection:
            request, fds = receive(connection, len(Files.__slots__))
        job = Job(**request)
        supervise(job, Files(*fds), Cgroup.make(parent, job.name))
    finally:
        if sys.exception():
            sys.excepthook(*sys.exc_info())
        # Not the interpreter's own way out, which takes longer than all of the above.
        os._exit(0)


def spawn(control: socket.socket) -> None:
    """Fork a supervisor for each connection that comes over `control`, until that is closed."""
    parent = cgroups.own()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for number in _NOT_FOR_US:
        signal.signal(number, signal.SIG_IGN)
    # What is never collected is never written to, and so stays shared with every child.
    gc.freeze()
    while fds := _receive(control, 1, 1)[1]:
        connection = socket.socket(fileno=fds[0])
        # Where there is no process to be had, the closed connection says so.
        with suppress(BlockingIOError), connection:
            if os.fork() == 0:
                control.close()
                _serve(connection, parent)


def _control() -> socket.socket:
    """What was passed as standard input, which no supervisor is to hold open after the spawner."""
    control = socket.socket(fileno=os.dup(0))
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    return control


if __name__ == "__main__":
    spawn(_control())
