"""What a running agent says of itself: every target and webhook, now, as frozen values.

For whoever shows it: the control socket's answers, the page, the metrics. Times are Unix seconds,
UTC.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from agent import __version__
from agent.config import Settings
from agent.errors import JournalUnavailable
from agent.forges.signature import Refusal
from agent.journal import Journal
from agent.model import (
    Condition,
    Deployment,
    Pause,
    Retry,
    Revision,
    Strategy,
    Target,
    TargetState,
)
from agent.notices import Backlog
from agent.reload import Reload
from agent.tally import Refused, Tally
from agent.worker import Mailbox, Worker


class State(StrEnum):
    """A target's state in one word; the first of these that is true of it."""

    SYNCING = "syncing"
    BROKEN = "broken"
    ERROR = "error"
    """The newest look could not be finished: remote down, disk full."""
    PAUSED = "paused"
    RETRYING = "retrying"
    HELD = "held"
    UP_TO_DATE = "up-to-date"
    WAITING = "waiting"
    """Nothing is live yet."""


@dataclass(frozen=True, slots=True)
class LookReport:
    """The newest look at a target, whether or not it led to anything."""

    result: str
    why: str
    at: float


@dataclass(frozen=True, slots=True)
class TargetReport:
    """One target, now."""

    name: str
    state: State
    standing: State
    """Its state but for a sync that is running, so that it does not change with every poll."""
    repo: str
    branch: str
    path: str
    strategy: Strategy
    live: Revision | None
    live_subject: str
    """The first line of its commit message, where it is remembered."""
    live_since: float | None
    condition: Condition
    held: Revision | None
    held_because: str | None
    retry: Revision | None
    retry_at: float | None
    retry_because: str | None
    paused: Pause | None
    syncing: bool
    waiting: bool
    last: Deployment | None
    look: LookReport | None
    good_at: float | None
    """When a look last ended with the branch's end live; since the start, else its live_since."""
    next_poll: float | None
    last_webhook: float | None


@dataclass(frozen=True, slots=True)
class WebhookReport:
    """One webhook since the start: when it last verified anything, and what it refused."""

    name: str
    last_verified: float | None
    refused: int
    """How many deliveries had no right signature; `refusals` has them by reason."""
    refusals: dict[Refusal, Refused]
    ignored: dict[str, int]
    """How many verified deliveries led to nothing, by reason."""


def webhook_report(name: str, tally: Tally) -> WebhookReport:
    refusals = tally.refused.get(name, {})
    return WebhookReport(
        name=name,
        last_verified=tally.verified.get(name),
        refused=sum(one.count for one in refusals.values()),
        refusals=refusals,
        ignored={why: count for (one, why), count in tally.ignored.items() if one == name},
    )


@dataclass(frozen=True, slots=True)
class Status:
    version: str
    pid: int
    healthy: bool
    trouble: str | None
    """Why it is not healthy, in words; without the journal there are no targets here."""
    started_at: float
    config: str
    control: str
    """Its control socket."""
    targets: list[TargetReport]
    webhooks: list[WebhookReport]
    sinks: list[Backlog]
    """Those that have not been told everything yet."""
    reload: Reload | None
    """What came of the newest; None where there was none since the start."""


class Sources(Protocol):
    """Where the answers come from; the service has all of it."""

    @property
    def settings(self) -> Settings:
        """What is in force."""

    @property
    def started_with(self) -> Settings: ...
    @property
    def reload(self) -> Reload | None: ...
    @property
    def journal(self) -> Journal: ...
    @property
    def worker(self) -> Worker: ...
    @property
    def tally(self) -> Tally: ...
    @property
    def started_at(self) -> float: ...
    @property
    def listening(self) -> Sequence[str]: ...
    def healthy(self) -> bool: ...
    def reread(self) -> Settings: ...
    def trouble(self) -> str | None: ...
    def next_polls(self) -> dict[str, float]: ...
    async def scrape(self, accept: str) -> tuple[bytes, str]: ...


async def status(sources: Sources, pid: int) -> Status:
    """Every target and webhook, now; no targets where the journal cannot be read."""
    try:
        found = await targets(sources)
        backlog = await asyncio.wrap_future(sources.journal.outbox.backlog())
    except JournalUnavailable:
        found, backlog = [], []
    trouble = sources.trouble()
    return Status(
        __version__, pid, trouble is None, trouble, sources.started_at,
        str(sources.settings.path), str(sources.settings.control_socket), found,
        [webhook_report(name, sources.tally) for name in sources.settings.webhooks],
        backlog, sources.reload,
    )  # fmt: skip


async def targets(sources: Sources, some: Iterable[str] | None = None) -> list[TargetReport]:
    """Every target, or some, now. JournalUnavailable where the journal cannot be read."""
    settings, journal = sources.settings, sources.journal
    names = tuple(settings.targets if some is None else some)
    states, last, pushes, subjects = await asyncio.gather(
        asyncio.wrap_future(journal.states(names)),
        asyncio.wrap_future(journal.last(names)),
        asyncio.wrap_future(journal.last_pushes(names)),
        asyncio.wrap_future(journal.live_subjects()),
    )
    polls, now = sources.next_polls(), time.time()
    return [
        _target(
            settings.targets[name], sources.worker.mailbox(name), states[name], last.get(name),
            pushes.get(name), subjects.get(name, ""), now + polls[name] if name in polls else None,
        )
        for name in names
    ]  # fmt: skip


def _target(
    target: Target, box: Mailbox, state: TargetState, last: Deployment | None,
    pushed: float | None, subject: str, next_poll: float | None,
) -> TargetReport:  # fmt: skip
    look = None
    if box.last and box.looked_at:
        look = LookReport(box.last.result, box.last.why, box.looked_at)
    standing = standing_of(state, look)
    hold = state.hold if standing is not State.UP_TO_DATE else None
    return TargetReport(
        name=target.name,
        state=State.SYNCING if box.running else standing,
        standing=standing,
        repo=target.repo,
        branch=target.branch,
        path=str(target.path),
        strategy=target.strategy,
        live=state.live,
        live_subject=subject,
        live_since=state.live_since,
        condition=state.condition,
        held=hold.revision if hold else None,
        held_because=hold.because if hold else None,
        retry=state.retry.revision if state.retry else None,
        retry_at=state.retry.not_before if state.retry else None,
        retry_because=_because(state.retry, last) if state.retry else None,
        paused=state.pause if state.pause and state.pause.holds(time.time()) else None,
        syncing=box.running is not None,
        waiting=box.waiting is not None,
        last=last,
        look=look,
        good_at=box.good_at or state.live_since,
        next_poll=next_poll,
        last_webhook=pushed,
    )


def _because(retry: Retry, last: Deployment | None) -> str:
    """Why the revision is tried again: what its last deployment failed at."""
    return last.detail if last and last.revision == retry.revision else "not yet deployed"


def standing_of(known: TargetState, look: LookReport | None) -> State:
    """The word for a target of which the journal knows `known` and `look` was the newest."""
    if known.condition is Condition.BROKEN:
        return State.BROKEN
    if look and look.result == "error":
        return State.ERROR
    if known.pause and known.pause.holds(time.time()):
        return State.PAUSED
    if known.retry:
        return State.RETRYING
    # A hold on what the branch has left again keeps nothing back.
    if known.hold and not (look and look.result == "up-to-date"):
        return State.HELD
    return State.UP_TO_DATE if known.live else State.WAITING
