"""What a poll over https that finds nothing costs in processor time, beside a `git ls-remote`.

The agent polls many targets once a second, so that next to nothing of it is the agent's idling.
"""

import os
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from tests.bench.many import Many
from tests.bench.programs import python, started
from tests.bench.remote import remote
from tests.bench.settings import Effort
from tests.bench.table import Row, at_most
from tests.remotes import GIT_ENV, certificate

_TARGETS = 20
_ASKED = 10


def rows(root: Path, effort: Effort) -> Iterator[Row]:
    both, authorities = certificate(root)
    many = Many(root / "many", _TARGETS, poll="1s")
    trust = {"GIT_SSL_CAINFO": str(authorities)}
    with ExitStack() as running:
        served = running.enter_context(remote(many.remote, root / "remote.log", both))
        many.settle_all(f"https://127.0.0.1:{served.port}")
        command = python("agent", "run", "--config", str(many.config))
        agent = running.enter_context(
            started(command, root / "log", many.port, core=None, environ=trust)
        )
        many.looked_at_all()
        ours, theirs = [], []
        for _ in range(effort.rounds):
            before = agent.seconds()
            time.sleep(3 * effort.seconds)
            ours.append((agent.seconds() - before) / (3 * effort.seconds * _TARGETS) * 1000)
            theirs.append(ls_remote(many.url(0), trust))
    yield Row.of(
        "a poll over https that finds nothing: processor time", "ms", ours, "git ls-remote",
        theirs, at_most(1 / 50),
    )  # fmt: skip


def ls_remote(url: str, trust: dict[str, str]) -> float:
    """Milliseconds of processor time for one."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(_ASKED):
        subprocess.run(
            ["git", "ls-remote", url, "refs/heads/main"],
            env={**os.environ, **GIT_ENV, **trust}, check=True, capture_output=True,
        )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used * 1000 / _ASKED
