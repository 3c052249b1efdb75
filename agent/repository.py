"""Git as the agent runs it, and our own bare mirrors. The only room that starts git.

Every call has an environment chosen here, a deadline that ends the whole process group, and
options under which nothing in a repository can run anything. Revisions are full ids and refs full
names; nothing from a delivery is ever among the arguments.
"""

import errno
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from shlex import quote
from typing import IO
from urllib.parse import urlsplit

import structlog
from git.cmd import Git
from git.exc import GitCommandNotFound

from agent.cancel import Cancel
from agent.descriptors import give_back
from agent.errors import GitFailed, RemoteFailed, Stopped
from agent.kinds import reveal
from agent.model import REVISION, GitAccess, Revision, Source
from agent.words import without_credentials

log = structlog.get_logger()

FETCH_DEADLINE = 1800.0
LOCAL_DEADLINE = 3600.0
"""Seconds. Here git hangs only with the disk, and for a huge repository it takes long."""

# Old histories have these; git and every forge accept them.
_OLD_HISTORIES = ("zeroPaddedFilemode", "badTimezone", "missingSpaceBeforeDate")
_OPTIONS = (
    "protocol.allow=never",
    "protocol.version=2",
    "core.hooksPath=/dev/null",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.fsmonitor=false",
    "core.quotePath=false",
    "transfer.fsckObjects=true",
    *(f"{check}.{found}=ignore" for check in ("fsck", "fetch.fsck") for found in _OLD_HISTORIES),
    "fetch.recurseSubmodules=false",
    "submodule.recurse=false",
    "http.followRedirects=false",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=30",
    "credential.helper=",
    "gc.auto=0",
    "maintenance.auto=false",
    "advice.detachedHead=false",
)
# The same for a pack that git is handed.
STRICT = "--strict=" + ",".join(f"{found}=ignore" for found in _OLD_HISTORIES)
_PROTOCOLS = ("https", "http", "ssh", "file")
# What a branch has left behind may still be somebody's goal of a rollback.
TIDY = ("gc.auto=2000", "gc.autoDetach=false", "gc.pruneExpire=never")
_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "LANG": "C",
}
# The token is in a memory file that only git and its children have open: never in an argument,
# in an environment or on a disk.
_HELPER = (
    'credential.helper=!f() { test "$1" = get || exit 0;'
    ' printf "username=%s\\npassword=%s\\n" "$GITOPS_AGENT_USERNAME"'
    ' "$(cat "$GITOPS_AGENT_TOKEN")"; }; f'
)
_WANTS_PASSWORD = re.compile(
    "terminal prompts disabled|could not read (Username|Password)|Authentication failed"
)
_SAYS_NOTHING = ("Please make sure", "and the repository exists", "hint:", "warning:")
_NOT_STARTED = "git could not be started"
# The host's doing, as the C library puts it: a new repository would mend none of that.
_OF_THE_HOST = re.compile(
    "|".join(
        (
            _NOT_STARTED,
            *map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)),
            *map(os.strerror, (errno.EMFILE, errno.ENFILE, errno.ENOMEM)),
            *map(os.strerror, (errno.EAGAIN, errno.EEXIST)),
        )
    )
)


# ---- running git ----------------------------------------------------------------------------


def git(
    arguments: Sequence[str],
    *,
    cwd: Path,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    fds: Sequence[int] = (),
    stdin: bytes | None = None,
    deadline: float = LOCAL_DEADLINE,
    cancel: Cancel | None = None,
) -> str:
    """git's standard output; GitFailed with the last of its standard error.

    Ends git with everything it started after `deadline` seconds, or with Stopped when canceled.
    """
    settings = [word for option in (*_OPTIONS, *options) for word in ("-c", option)]
    verb = "git " + next(word for word in arguments if not word.startswith("-"))
    # Held on to while it runs: GitPython ends a process whose wrapper is forgotten.
    started = _start(
        verb,
        ["git", *settings, *arguments],
        cwd,
        # A broken repository is never mistaken for one that it lies in.
        {**_ENVIRONMENT, "GIT_CEILING_DIRECTORIES": str(cwd.parent), **(environment or {})},
        stdin=stdin is not None,
        fds=fds,
    )
    process = started.proc
    assert process is not None

    def end() -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    with cancel.calling(end) if cancel is not None else nullcontext():
        try:
            output, errors = process.communicate(stdin, timeout=deadline)
        except subprocess.TimeoutExpired:
            end()
            process.communicate()
            raise GitFailed(f"{verb} did not end within {deadline:g} s", killed=True) from None
    if cancel is not None and cancel.is_set:
        raise Stopped(f"{verb} was ended because the agent is stopping")
    if process.returncode < 0:
        raise GitFailed(f"{verb} was killed by signal {-process.returncode}", killed=True)
    if process.returncode:
        raise GitFailed(f"{verb} failed", _last_words(errors))
    return os.fsdecode(output)


def _start(
    verb: str, command: Sequence[str], cwd: Path, environment: Mapping[str, str],
    *, stdin: bool, fds: Sequence[int] = (),
) -> Git.AutoInterrupt:  # fmt: skip
    """A git with pipes, in a session of its own; GitFailed where the host has none to give."""
    try:
        started = Git(cwd).execute(
            command,
            as_process=True,
            env=dict(environment),
            istream=subprocess.PIPE if stdin else None,
            start_new_session=True,
            pass_fds=tuple(fds),
        )
    except (GitCommandNotFound, OSError) as error:
        why = f"{_NOT_STARTED}: {_why_not(error, cwd)}"
        raise GitFailed(f"{verb} failed", why) from None
    assert started.proc is not None
    give_back(started.proc.pid)
    return started


def _why_not(error: Exception, cwd: Path) -> str:
    if isinstance(error, OSError):
        return os.strerror(error.errno or 0)
    return "there is no git in PATH" if cwd.is_dir() else f"{cwd} is not there any more"


@contextmanager
def blobs(
    git_dir: Path, ids: Sequence[bytes], cancel: Cancel
) -> Iterator[Iterator[tuple[int, IO[bytes]]]]:
    """The content of each of `ids`, a thousand at most, in their order: its size and a stream.

    Whoever takes one reads just so many bytes from the stream before the next. GitFailed where
    one is not there.
    """
    if not ids:
        yield iter(())
        return
    settings = [word for option in _OPTIONS for word in ("-c", option)]
    command = ["git", *settings, "cat-file", "--batch"]
    started = _start("git cat-file", command, git_dir, _ENVIRONMENT, stdin=True)
    process = started.proc
    assert process is not None
    with process, cancel.calling(process.kill):
        assert process.stdin
        assert process.stdout
        try:
            # A pipe holds 64 KiB, so that this never waits for what is not read yet.
            process.stdin.write(b"".join(one + b"\n" for one in ids))
            process.stdin.close()
            yield _contents(process.stdout)
        finally:
            process.kill()
    if cancel.is_set:
        raise Stopped("git cat-file was ended because the agent is stopping")


def _contents(stream: IO[bytes]) -> Iterator[tuple[int, IO[bytes]]]:
    """What `cat-file --batch` says (git-cat-file(1), Batch output)."""
    while header := stream.readline():
        words = header.split()
        if len(words) != 3:
            raise GitFailed("git cat-file failed", header.decode(errors="replace").strip())
        yield int(words[2]), stream
        stream.read(1)


def _last_words(errors: bytes) -> str:
    """git's complaint, and that of the ssh it ran, in one line, without credentials."""
    lines = [line.strip() for line in errors.decode(errors="replace").splitlines()]
    told = [line for line in lines if line and not line.startswith(_SAYS_NOTHING)]
    return without_credentials("; ".join(dict.fromkeys(told[:4])))[:500]


def check_revision(revision: str) -> Revision:
    """`revision`, if it is a full commit id; anything else never reaches git."""
    if not REVISION.fullmatch(revision):
        raise GitFailed(f"not a full commit id: {revision!r}")
    return revision


# ---- reaching a remote ----------------------------------------------------------------------


def _protocol(url: str) -> str:
    if url.startswith(("/", "file://")):
        return "file"
    return urlsplit(url).scheme if "://" in url else "ssh"


def _ssh_command(access: GitAccess) -> str:
    """ssh without anybody's configuration; host keys are always checked. git runs it by sh."""
    words = ["ssh", "-F", "/dev/null", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]
    words += ["-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=10"]
    if access.ssh_key:
        words += ["-i", str(access.ssh_key), "-o", "IdentitiesOnly=yes"]
    if access.known_hosts:
        words += ["-o", f'UserKnownHostsFile="{access.known_hosts}"']
    return " ".join(map(quote, words))


@contextmanager
def reaching(source: Source) -> Iterator[tuple[list[str], dict[str, str], list[int]]]:
    """Options, environment and descriptors with which git may read `source`."""
    protocol = _protocol(source.url)
    options = [f"protocol.{protocol}.allow=always"] if protocol in _PROTOCOLS else []
    environment = {"GIT_SSH_COMMAND": _ssh_command(source.access), "GIT_SSH_VARIANT": "ssh"}
    token = source.access.token
    if token is None:
        yield options, environment, []
        return
    memory = os.memfd_create("token", os.MFD_CLOEXEC)
    try:
        os.write(memory, reveal(token))
        environment["GITOPS_AGENT_USERNAME"] = source.access.username
        environment["GITOPS_AGENT_TOKEN"] = f"/proc/self/fd/{memory}"
        yield [*options, _HELPER], environment, [memory]
    finally:
        os.close(memory)


def unread(source: Source, what: str, failed: GitFailed) -> RemoteFailed:
    """That `source` could not be read: `what`, and git's own words for it.

    Of a password git only says that it could ask nobody; here that is said in our own.
    """
    detail, token = failed.detail or str(failed), source.access.token
    if not _WANTS_PASSWORD.search(detail):
        return RemoteFailed(what, detail, killed=failed.killed)
    none = "demands a password, and no token is configured for it"
    does = f"refused the token of {token.name}" if token else none
    return RemoteFailed(f"the remote {does}: nothing new is fetched, and what is live stays")


def list_branches(source: Source, cancel: Cancel | None = None) -> dict[str, Revision]:
    """What the remote's branches are at, by full ref. RemoteFailed if it cannot be read."""
    with reaching(source) as (options, environment, fds):
        try:
            lines = git(
                ["ls-remote", "--heads", "--", source.url],
                cwd=Path("/"),
                options=options,
                environment=environment,
                fds=fds,
                deadline=60.0,
                cancel=cancel,
            )
        except GitFailed as error:
            raise unread(source, "the remote could not be read", error) from None
    pairs = (line.split("\t", 1) for line in lines.splitlines())
    return {ref: revision for revision, ref in pairs}


# ---- damage -----------------------------------------------------------------------------------


def is_damaged(git_dir: Path, failed: GitFailed) -> bool:
    """Whether git `failed` because this repository's own files are broken; has git check them."""
    if failed.killed or _OF_THE_HOST.search(failed.detail):
        return False
    try:
        check(git_dir)
    except GitFailed as error:
        return not (error.killed or _OF_THE_HOST.search(error.detail))
    return False


def check(git_dir: Path) -> None:
    """GitFailed where git cannot use a repository: its objects, its refs, its configuration."""
    # fsck does not read what the configuration says of remotes, which every fetch needs.
    for arguments in (["remote"], ["fsck", "--no-progress", "--no-dangling", "--no-reflogs"]):
        git([f"--git-dir={git_dir}", *arguments], cwd=Path("/"))


def discard_damaged(mirror: Path, failed: GitFailed) -> None:
    """Have the next look make a mirror anew, if taking from it `failed` because it is broken."""
    if is_damaged(mirror, failed):
        log.warning("mirror.discarded", mirror=mirror.name, because=str(failed))
        shutil.rmtree(mirror, ignore_errors=True)


def clear_leftovers(git_dir: Path, age: float) -> None:
    """Remove what gits that failed have left of packs, where that is `age` seconds old.

    git's own gc does it too, but not where it is to forget nothing (TIDY).
    """
    for path in (git_dir / "objects" / "pack").glob("tmp_*"):
        with suppress(OSError):
            if time.time() - path.lstat().st_mtime > age:
                path.unlink()


def clear_locks(folder: Path) -> list[Path]:
    """Remove the lock files of a git that was killed; gives those that there were.

    For a repository that this agent alone writes to, or whose deployment it knows was killed.
    """
    names = ("index.lock", "HEAD.lock", "shallow.lock", "packed-refs.lock", "config.lock")
    found = [folder / name for name in names] + list((folder / "refs").rglob("*.lock"))
    removed = []
    for path in found:
        with suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()
            removed.append(path)
    return removed
