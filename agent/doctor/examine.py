"""Everything that doctor looks at, in its order.

Where an agent runs it is asked to look for itself, with its own rights, secrets and memory; where
none does, the command looks.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

from agent import reload
from agent.config import Settings
from agent.doctor import Finding, deliveries, host, listener, remotes
from agent.errors import ConfigError
from agent.figures import Missed
from agent.model import Source, Target
from agent.reports import Status
from agent.tally import Tally

DAYS = 7.0
"""How far back missed webhooks are looked for."""
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Seen:
    """What a running agent has seen; taken before anything is tried, which would add to it."""

    status: Status
    unknown: int
    missed: Sequence[Missed]
    listening: Sequence[str]
    now: float


def from_inside(
    settings: Settings, started: Settings, seen: Seen, tally: Tally, url: str | None,
    read: Callable[[], Settings],
) -> list[Finding]:  # fmt: skip
    """What a running agent finds that began with `started`. `read` reads its configuration anew."""
    return [
        *deliveries.agent(seen.status, seen.now),
        *_configuration(settings, started, read),
        *_outside(settings),
        *listener.local(settings.webhooks, seen.listening),
        *listener.public(settings.webhooks, url or settings.url, tally),
        *deliveries.webhooks(seen.status, seen.unknown, seen.now),
        *(deliveries.missed(seen.missed, DAYS, seen.now) if settings.webhooks else ()),
        *deliveries.targets(seen.status.targets, seen.now),
    ]


def from_outside(settings: Settings, url: str | None) -> list[Finding]:
    """What can be found without a running agent."""
    return [*_outside(settings), *listener.public(settings.webhooks, url or settings.url, None)]


def _outside(settings: Settings) -> Iterator[Finding]:
    targets = settings.targets.values()
    sharing: dict[Source, list[Target]] = {}
    for target in targets:
        sharing.setdefault(target.source, []).append(target)
    yield from host.git()
    yield from host.clock(settings)
    yield from host.folders(settings)
    yield from host.space(settings)
    for target in targets:
        yield from host.contents(target)
        yield from host.hooks(target)
    with ThreadPoolExecutor(_AT_ONCE, "doctor") as threads:
        for found in threads.map(_all, map(remotes.reach, sharing.values())):
            yield from found


def _all(findings: Iterable[Finding]) -> list[Finding]:
    return list(findings)


def _configuration(
    settings: Settings, started: Settings, read: Callable[[], Settings]
) -> Iterator[Finding]:
    try:
        new = read()
    except ConfigError as error:
        return deliveries.configuration([], [], error.faults)
    now, later = reload.in_force(started, new), list(reload.needs_restart(started, new))
    names = (one.name for one in fields(Settings))
    changed = [name for name in names if getattr(settings, name) != getattr(now, name)]
    return deliveries.configuration(changed, later, ())
