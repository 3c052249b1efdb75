"""Runs one hook as the user that root's agent.toml names. The only room that runs as root.

systemd starts it for each connection to the hooks' socket, in a unit of its own, with the
connection as its standard input. Of whoever asks, the kernel says who it is; what runs, as whom
and within which limits is read here, from files that nobody but root can change. The asker says
which of these hooks, for which deployment and revision, and brings files of its own to write to.
"""

import os
import pwd
import re
import socket
import stat
import struct
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent import cgroups, hooks
from agent.cgroups import Cgroup, Unlimited
from agent.granted import CHANGED, Configuration, Refused, find_user
from agent.model import Outcome, Reason, Rights, Strategy, Target
from agent.supervisor import Files, Job, User, receive, refuse, supervise

GRACE = 10.0
_PATIENCE = 10.0
_COMMIT = r"[0-9a-f]{40}(?:[0-9a-f]{24})?"
_FACTS = {
    "DEPLOY_ID": r"[0-9A-Za-z-]{1,64}",
    "DEPLOY_REASON": "|".join(Reason),
    "DEPLOY_ATTEMPT": r"[0-9]{1,9}",
    "DEPLOY_REVISION": _COMMIT,
    "DEPLOY_PREVIOUS_REVISION": rf"(?:{_COMMIT})?",
    "DEPLOY_OUTCOME": "|".join(("", *Outcome)),
    "DEPLOY_TREE": r"/[^\0]{0,4000}",
}
_CHANGED_FILES = "changed-files"
_MOST_CHANGED = 64 << 20
_CHUNK = 65536
_INNER_TREE = re.compile(r"releases/[0-9a-f-]+")


# ---- who asks, and for what -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ask:
    """What the agent wants run. Every value is of the form that it has to be of."""

    target: str
    number: int
    argv: list[Any]
    """What the agent read in agent.toml; to be compared, never to be run."""
    timeout: float
    facts: Mapping[str, str]


def asker(connection: socket.socket) -> int:
    """The uid of the process at the other end (SO_PEERCRED, unix(7))."""
    size = struct.calcsize("3i")
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return int(struct.unpack("3i", told)[1])


def read_ask(request: Mapping[str, Any]) -> Ask:
    """The request, once every part of it is as it has to be; Refused."""
    match request:
        case {
            "target": str(target),
            "number": int(number),
            "argv": list(argv),
            "timeout": int() | float() as timeout,
            "facts": dict(facts),
        } if number >= 0 and timeout > 0:
            return Ask(target, number, argv, timeout, {key: _fact(facts, key) for key in _FACTS})
    raise Refused("the request is not of the form that an agent's is")


def _fact(facts: Mapping[str, Any], key: str) -> str:
    value = facts.get(key, "")
    if not isinstance(value, str) or not re.fullmatch(_FACTS[key], value):
        raise Refused(f"{key} is not what it can be")
    return value


def check_files(files: Files, changed: int) -> None:
    """Of the asker's descriptors, only plain files on a disk are written to, or read.

    What root writes into a file that the kernel makes up, as in /proc, may do what the one who
    opened it could not. File systems of that kind have no blocks to tell of (statfs(2)).
    """
    for fd in (files.log, files.result, changed):
        if not (stat.S_ISREG(os.fstat(fd).st_mode) and os.fstatvfs(fd).f_blocks):
            raise Refused("a file that came along is no plain file on a disk")
    if not stat.S_ISFIFO(os.fstat(files.lifeline).st_mode):
        raise Refused("the lifeline that came along is no FIFO")


# ---- the run of it --------------------------------------------------------------------------


def make_job(ask: Ask, configuration: Configuration, changed: int) -> tuple[Job, Rights]:
    """What is to be run, made of what root has configured and of the facts that were told."""
    target, facts = configuration.target(ask.target, ask.number), ask.facts
    (hook,) = target.hooks
    user = configuration.user(hook)
    tree = Path(os.path.normpath(facts["DEPLOY_TREE"]))
    check_tree(tree, target)
    tmp = make_tmp(user, changed)
    situation = hooks.Situation(
        facts["DEPLOY_ID"], target, Reason(facts["DEPLOY_REASON"]), int(facts["DEPLOY_ATTEMPT"]),
        facts["DEPLOY_REVISION"], facts["DEPLOY_PREVIOUS_REVISION"] or None, tree,
        tmp / _CHANGED_FILES, tmp, pwd.getpwuid(user.uid).pw_dir,
        Outcome(facts["DEPLOY_OUTCOME"]) if facts["DEPLOY_OUTCOME"] else None,
    )  # fmt: skip
    command = hooks.command(hook, situation)
    if list(command.argv) != ask.argv:
        raise Refused(CHANGED)
    timeout = min(command.timeout, ask.timeout)
    job = Job(
        f"hook-{command.deployment}", command.argv, command.env, str(tree), timeout, GRACE, user
    )
    return job, hook.rights


def check_tree(tree: Path, target: Target) -> None:
    """Refused where `tree` is not the target's folder, or one of its releases, or is a link.

    No more, for what is in a tree is the agent's to say, links included.
    """
    fine = tree == target.path
    if target.strategy is Strategy.RELEASES:
        inner = str(tree.relative_to(target.path)) if tree.is_relative_to(target.path) else ""
        fine = _INNER_TREE.fullmatch(inner) is not None
    if not fine or tree.resolve() != target.path.resolve() / tree.relative_to(target.path):
        raise Refused(f"{tree} is no tree of target {target.name}")


def make_tmp(user: User, changed: int) -> Path:
    """A folder of the user's own, with the list of changed files in it.

    Under systemd in a /tmp that is this unit's alone, and gone with it.
    """
    tmp = Path(tempfile.mkdtemp(prefix="hook-"))
    with os.fdopen(changed, "rb") as source, (tmp / _CHANGED_FILES).open("xb") as copy:
        left = _MOST_CHANGED
        while left and (chunk := source.read(min(left, _CHUNK))):
            left -= len(chunk)
            copy.write(chunk)
        os.fchmod(copy.fileno(), 0o644)
    os.chown(tmp, user.uid, user.gid)
    return tmp


def make_cgroup(rights: Rights) -> Cgroup | None:
    """A cgroup for the hook alone, below this unit's, with the limits in it. Refused without."""
    own, name = cgroups.own(), f"hook-{os.getpid()}"
    limited = rights.memory_max or rights.tasks_max
    if own and limited:
        # Processes are in the leaves only, where controllers are passed on (cgroups(7)).
        aside = Cgroup.make(own, f"runner-{os.getpid()}")
        if aside:
            aside.enter()
    try:
        if own and limited:
            cgroups.pass_on(own, ("memory", "pids"))
        made = Cgroup.make(own, name)
        if made is None and limited:
            raise Unlimited("there is no cgroup (version 2) to be had")
        if made and rights.memory_max:
            made.limit_memory(rights.memory_max)
        if made and rights.tasks_max:
            made.limit_tasks(rights.tasks_max)
    except Unlimited as error:
        raise Refused(f"memory_max and tasks_max cannot be kept on this host: {error}") from None
    return made


def serve(connection: socket.socket, agent: User, config: Path) -> None:
    """Run the one hook that is asked for over `connection`. Refused where it is not the agent's."""
    with connection:
        uid = asker(connection)
        if uid != agent.uid:
            raise Refused(f"uid {uid} asked, who is not {agent.name}")
        connection.settimeout(_PATIENCE)
        request, fds = receive(connection, 4)
    if len(fds) != 4:
        raise Refused(f"{len(fds)} files came along instead of 4")
    files, changed = Files(*fds[:3]), fds[3]
    check_files(files, changed)
    try:
        job, rights = make_job(read_ask(request), Configuration(config, agent), changed)
        cgroup = make_cgroup(rights)
    except Refused as error:
        refuse(files, f"the hook runner refused it: {error}")
        raise
    os.umask(0o022)
    supervise(job, files, cgroup)


def main() -> None:
    """`gitops-agent-hook-runner AGENT CONFIG`, as root: for the user AGENT, by the file CONFIG."""
    _, agent, config = sys.argv
    try:
        serve(socket.socket(fileno=os.dup(0)), find_user(agent), Path(config))
    except (Refused, TimeoutError, ValueError) as error:
        sys.exit(f"refused: {error}")


if __name__ == "__main__":
    main()
