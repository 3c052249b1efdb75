"""A thousand targets on a thousand https repositories, polled every three minutes.

What they cost beside a `git ls-remote` for each poll, and what a start and the memory come to
beside an agent with one target.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from tests.bench.many import Many
from tests.bench.polls import ls_remote
from tests.bench.programs import python, started
from tests.bench.remote import remote
from tests.bench.settings import Effort
from tests.bench.table import Row, under
from tests.remotes import certificate

_TARGETS = 1000
_EVERY = 180.0
_WATCHED = 30.0


def rows(root: Path, effort: Effort) -> Iterator[Row]:
    both, authorities = certificate(root)
    trust = {"GIT_SSL_CAINFO": str(authorities)}
    count = max(2, int(_TARGETS * effort.scale))
    watched = _WATCHED if effort.scale == 1 else 2.0
    many, one = Many(root / "many", count), Many(root / "one", 1)
    found: dict[int, tuple[float, float, float]] = {}
    with ExitStack() as running:
        served = running.enter_context(remote(many.remote, root / "remote.log", both))
        base = f"https://127.0.0.1:{served.port}"
        # Both are served the one repository of `many`.
        one.upstream, one.revision = many.upstream, many.revision
        for house in (one, many):
            house.settle_all(base)
            found[house.count] = _watch(house, root / "log", trust, watched)
        git = ls_remote(many.url(0), trust) / 1000
    ready, memory, used = found[count]
    ready_one, memory_one, _ = found[1]
    what = f"{count:,} targets, one https repository each"
    yield Row.of(
        f"{what}, polled every 3 min: of one core", "%", [used * 100],
        "git ls-remote for each", [git * count / _EVERY * 100], under(2, "%"),
    )  # fmt: skip
    yield Row.of(f"{what}: start to ready", "s", [ready], "1 target", [ready_one], under(3, "s"))
    yield Row.of(
        f"{what}: memory for each more", "KB", [(memory - memory_one) / (count - 1) * 1000],
        "all of an agent with one", [memory_one * 1000], under(40, "KB"),
    )  # fmt: skip


def _watch(
    house: Many, log: Path, trust: dict[str, str], seconds: float
) -> tuple[float, float, float]:
    """Seconds to ready, MB of memory once all were looked at, and the part of a core then."""
    command = python("agent", "run", "--config", str(house.config))
    began = time.monotonic()
    with started(command, log, house.port, core=None, environ=trust) as agent:
        ready = time.monotonic() - began
        house.looked_at_all()
        memory, before = agent.memory(), agent.seconds()
        time.sleep(seconds)
        return ready, memory, (agent.seconds() - before) / seconds
