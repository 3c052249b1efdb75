"""What doctor asks of the remotes: can each be read, how fast, and if not, what is likely wrong."""

import stat
import threading
import time
from collections.abc import Iterator

from agent.cancel import Cancel
from agent.doctor import Finding, ok, wrong
from agent.errors import AgentError, Stopped
from agent.model import Source, Target
from agent.remedies import remedy
from agent.repository import list_branches
from agent.words import no_branch

_PATIENCE = 25.0
_SLOW = 5.0


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
            said = no_branch(target.repo, target.branch, branches)
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
