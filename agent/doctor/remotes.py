"""What doctor asks of the remotes: can each be read, how fast, and if not, what is likely wrong."""

import re
import stat
import threading
import time
from collections.abc import Iterator

from agent.cancel import Cancel
from agent.doctor import Finding, ok, wrong
from agent.errors import AgentError, Stopped
from agent.model import Source, Target
from agent.repository import list_branches

_PATIENCE = 25.0
_SLOW = 5.0

# git's own words (git 2.39, OpenSSH 9, curl 7.88), and what is behind them.
_REMEDIES = {
    r"terminal prompts disabled|could not read (Username|Password)|Authentication failed": (
        "it wants a password: put a token with the right to read contents into"
        " [targets.{name}.git] token = {{ file = … }}, or renew the one there"
    ),
    r"Permission denied \(.*publickey": (
        "ssh's key is not known there: add the public half of ssh_key as a deploy key"
    ),
    r"Host key verification failed|No .* host key is known": (
        "the host's key is not the one in known_hosts: compare `ssh-keyscan HOST` with what its"
        " operator publishes, and put it there"
    ),
    r"UNPROTECTED PRIVATE KEY|bad permissions": "chmod 600 the file of ssh_key",
    r"Could not resolve host|Name or service not known|Temporary failure in name": (
        "the name server does not know the host: `getent hosts HOST`"
    ),
    r"not found|does not appear to be a git repository|does not exist|error: 40[34]": (
        "the name is wrong, or the token or key may not see it: a forge says the same for both"
    ),
    r"timed out|no answer|Connection refused|unreachable|Failed to connect|Could not connect": (
        "nobody answers there: a firewall, a proxy, or it is down: `curl -v` its URL"
    ),
    r"certificate|SSL|TLS": (
        "its certificate is not trusted here: `apt-get install ca-certificates`, or name your own"
        " CA in SSL_CERT_FILE; a wrong clock does it too"
    ),
    r"dubious ownership": "the repository belongs to another user than the agent runs as",
    r"error: 30\d|redirect": "the repository has moved: put its new URL into `repo`",
    r"error: 5\d\d": "the remote has trouble of its own; the agent tries again by itself",
}


def remedy(words: str, name: str) -> str:
    """What to do about a remote of target `name` that could not be read, by what git said."""
    for pattern, todo in _REMEDIES.items():
        if re.search(pattern, words, re.IGNORECASE):
            return todo.format(name=name)
    return "try it by hand: `git ls-remote URL`"


def reach(targets: list[Target]) -> Iterator[Finding]:
    """Look once at the remote that these targets share."""
    first = targets[0]
    about = f"remote {first.name}"
    yield from _key(first)
    started = time.monotonic()
    try:
        branches = _look(first.source)
    except Stopped:
        said = f"{first.repo}: no answer in {_PATIENCE:g} s"
        yield wrong(about, said, remedy("timed out", first.name))
        return
    except AgentError as error:
        yield wrong(about, f"{first.repo}: {error}", remedy(str(error), first.name))
        return
    took = time.monotonic() - started
    if took > _SLOW:
        todo = "each push waits for this: look at DNS (IPv6 first?), a proxy, or the remote itself"
        yield wrong(about, f"{first.repo} took {took:.1f} s to answer", todo)
    else:
        yield ok(about, f"{first.repo} answers in {took:.2f} s")
    for target in targets:
        if target.ref not in branches:
            said = f"{target.repo} has no branch {target.branch}"
            yield wrong(f"branch {target.name}", said, "push one, or change `branch`")


def _look(source: Source) -> dict[str, str]:
    """Stopped where it takes too long."""
    cancel = Cancel()
    timer = threading.Timer(_PATIENCE, cancel.set)
    timer.start()
    try:
        return list_branches(source, cancel)
    finally:
        timer.cancel()
        timer.join()
        cancel.close()


def _key(target: Target) -> Iterator[Finding]:
    key = target.access.ssh_key
    if key and key.is_file() and stat.S_IMODE(key.stat().st_mode) & 0o077:
        said = f"ssh refuses {key}, which others may read"
        yield wrong(f"credentials {target.name}", said, f"chmod 600 {key}")
