"""What doctor asks of the host: git, the clock, folders and rights, hooks, room on the disks."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from agent import repository, submodules
from agent.config import Settings
from agent.doctor import Finding, note, ok, wrong
from agent.errors import GitFailed
from agent.model import Hook, Strategy, Target
from agent.plan import repository_identity
from agent.programs import fault_of

_TRIED_GIT = (2, 39)
_MOST_SKEW = 30.0
_PATIENCE = 10.0
_FEW = 5
_GIB, _MIB = 2**30, 2**20


def check(settings: Settings) -> Iterator[Finding]:
    """What of this can be known before the agent has ever run; for `check`."""
    yield from folders(settings)
    for target in settings.targets.values():
        yield from _taken_over(target, settings.state_dir / "saved" / target.name)
        yield from contents(target)
        yield from hooks(target)


# ---- git and the clock --------------------------------------------------------------------------


def git() -> Iterator[Finding]:
    program = shutil.which("git")
    if program is None:
        yield wrong("git", "there is none on PATH", "apt-get install git")
        return
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    number = re.search(r"(\d+)\.(\d+)[\d.]*", said.stdout)
    if number is None:
        yield wrong("git", f"{program} does not tell its version", f"{program} --version")
    elif (int(number[1]), int(number[2])) < _TRIED_GIT:
        yield note("git", f"{number[0]}; the agent was tried with 2.39 and newer")
    else:
        yield ok("git", number[0])


def clock(settings: Settings) -> Iterator[Finding]:
    """This host's clock against the one of a remote that tells the time (RFC 9110, 6.6.1)."""
    hosts = dict.fromkeys(filter(None, map(_web_host, settings.targets.values())))
    for host in list(hosts)[:3]:
        try:
            theirs, ours, took = _times(host)
        except (httpx.HTTPError, KeyError, ValueError):
            continue
        skew = ours - theirs
        # A Date header leaves out the fraction, and the answer was under way.
        if abs(skew) <= _MOST_SKEW + took:
            yield ok("clock", f"within {max(abs(skew), 1):.0f} s of {host}'s")
        else:
            way = "ahead of" if skew > 0 else "behind"
            yield wrong(
                "clock", f"{abs(skew):.0f} s {way} {host}'s",
                "have it set by NTP: `timedatectl set-ntp true`; certificates, tokens and the"
                " times in the history depend on it",
            )  # fmt: skip
        return
    yield note("clock", "not compared: no remote here tells the time")


def _web_host(target: Target) -> str | None:
    if target.repo.startswith(("http://", "https://")):
        return urlsplit(target.repo).netloc
    return repository_identity(target.repo).partition(":")[0] or None


def _times(host: str) -> tuple[float, float, float]:
    """The remote's clock, ours at that moment, and how long the question took. In Unix time."""
    scheme = "http" if host.startswith(("127.", "localhost", "[::1]")) else "https"
    started = time.monotonic()
    answer = httpx.head(f"{scheme}://{host}/", timeout=_PATIENCE)
    took = time.monotonic() - started
    theirs = parsedate_to_datetime(answer.headers["date"]).timestamp()
    return theirs, time.time() - took / 2, took


# ---- folders and rights -------------------------------------------------------------------------


def folders(settings: Settings) -> Iterator[Finding]:
    """Whether whoever runs this may write where the agent has to."""
    yield from _writable("state_dir", settings.state_dir)
    for target in settings.targets.values():
        yield from _writable(f"path {target.name}", target.path)


def _writable(about: str, path: Path) -> Iterator[Finding]:
    there = _nearest(path)
    who = f"uid {os.geteuid()}"
    if not os.statvfs(there).f_blocks:
        # As /proc and /sys, which the kernel makes up (statfs(2)).
        yield wrong(
            about, f"{there} is on no disk, so {path} cannot be kept", "name another folder"
        )
    elif not os.access(there, os.W_OK | os.X_OK, effective_ids=True):
        yield wrong(
            about, f"{there} cannot be written by {who}",
            f"`chown -R` it to the agent's user; under systemd also ReadWritePaths={path}",
        )  # fmt: skip
    elif there != path:
        yield ok(about, f"{path} is not there yet, and can be made")
    else:
        yield ok(about, f"{path} can be written by {who}")


def _nearest(path: Path) -> Path:
    """Of `path` and the folders that it is in, the first that is there and may be seen."""
    for one in (path, *path.parents):
        with suppress(PermissionError):
            if one.exists():
                return one
    return Path("/")


def space(settings: Settings) -> Iterator[Finding]:
    """Free room and inodes on each file system that the agent writes to."""
    seen = set()
    for path in (settings.state_dir, *(one.path for one in settings.targets.values())):
        there = _nearest(path)
        if there.stat().st_dev not in seen:
            seen.add(there.stat().st_dev)
            yield _room(there)


def _room(path: Path) -> Finding:
    found = os.statvfs(path)
    free, size = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    inodes = found.f_favail / found.f_files if found.f_files else 1.0
    said = f"{path}: {free / _GIB:.1f} GiB free of {size / _GIB:.1f}, {inodes:.0%} of the inodes"
    todo = "make room; the agent forgets deployments and logs older than `history`"
    if free < 200 * _MIB or inodes < 0.02:
        return wrong("space", said, todo)
    if free < _GIB or inodes < 0.05:
        return note("space", said, todo)
    return ok("space", said)


def _taken_over(target: Target, saved: Path) -> Iterator[Finding]:
    """What becomes of a folder that was there before the agent, and has something in it."""
    about, path = f"path {target.name}", target.path
    if target.strategy is Strategy.RELEASES or not _has_files(path):
        return
    if not (path / ".git").exists():
        said = f"{path} has files already: those that differ from the repository's are saved to"
        yield note(about, f"{said} {saved} and replaced; others stay")
    elif origin := _other_origin(target):
        said = f"{path} is a clone of {origin}: its tracked files make room for those of"
        yield note(about, f"{said} {target.repo}; what it has committed stays on its branches")


def _has_files(path: Path) -> bool:
    with suppress(OSError):
        return any(path.iterdir())
    return False


def _other_origin(target: Target) -> str | None:
    """Where a person's clone in the target's path comes from, if not from its repository.

    Without what credentials somebody has put into that URL.
    """
    git_dir = target.path / ".git"
    try:
        if not (git_dir / "HEAD").read_text().startswith("ref:"):
            # The agent's own trees have none; this one it has taken over already.
            return None
        get = ["config", "--file", str(git_dir / "config"), "--get", "remote.origin.url"]
        origin = repository.git(get, cwd=target.path).strip()
    except (OSError, GitFailed):
        return None
    same = repository_identity(origin) == repository_identity(target.repo)
    return None if same else re.sub(r"//[^/@]*@", "//", origin)


def contents(target: Target) -> Iterator[Finding]:
    """Whether what is live has all that its repository means it to have."""
    empty = submodules.empty(target.live)
    if empty:
        said = f"submodules stay empty, for none is fetched: {', '.join(empty[:_FEW])}"
        yield note(f"tree {target.name}", said, "a build hook can: deploy_hooks/README.md")


# ---- hooks --------------------------------------------------------------------------------------


def hooks(target: Target) -> Iterator[Finding]:
    """Whether each hook's file can be started."""
    for hook in target.hooks:
        yield _startable(target, hook, f"hook {target.name}/{hook.name}")


def _startable(target: Target, hook: Hook, about: str) -> Finding:
    if not hook.run[0].startswith("./"):
        program, tree = Path(hook.run[0]), None
    elif (target.live / hook.run[0]).is_file():
        program, tree = target.live / hook.run[0], target.live
    elif target.live.exists():
        return note(about, f"{hook.run[0]} is not in the tree that is live now")
    else:
        return ok(about, f"{hook.run[0]} comes with the first tree")
    fault = fault_of(program, tree)
    return wrong(about, fault.says, fault.todo) if fault else ok(about, str(program))
