"""The poll, the fallback for every webhook that was lost. The only room that knows APScheduler."""

import hashlib
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from time import monotonic

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger

from agent import plan
from agent.model import Reason, SyncRequest, Target

HEARTBEAT = 5.0


class Monotonic(tzinfo):
    """UTC as it was when the process began, moved on by the monotonic clock.

    APScheduler asks `datetime.now(timezone)` what time it is, and this zone answers. With the
    wall clock, an hour set back is an hour without a poll.
    """

    def __init__(self) -> None:
        self._start = datetime.now(UTC).replace(tzinfo=self)
        self._started = monotonic()

    def fromutc(self, _now: datetime) -> datetime:
        return self._start + timedelta(seconds=monotonic() - self._started)

    def utcoffset(self, _at: datetime | None) -> timedelta:
        return timedelta(0)

    def dst(self, _at: datetime | None) -> timedelta:
        return timedelta(0)

    def tzname(self, _at: datetime | None) -> str:
        return "monotonic"


class Every(BaseTrigger):
    """Every `interval` seconds, each time up to `jitter` later; the jitter does not add up."""

    def __init__(self, interval: float, jitter: float, offset: float) -> None:
        self._interval = interval
        self._jitter = jitter
        self._offset = offset
        self._due: datetime | None = None

    def get_next_fire_time(self, _previous: datetime | None, now: datetime) -> datetime:
        step = timedelta(seconds=self._interval)
        if self._due is None:
            self._due = now + timedelta(seconds=self._offset)
        while self._due <= now:
            self._due += step
        return self._due + timedelta(seconds=random.uniform(0, self._jitter))


class Poller:
    """Puts a wish for every target into the worker, each at its interval."""

    def __init__(self, poll: Callable[[SyncRequest], None]) -> None:
        self._poll = poll
        self._zone = Monotonic()
        self._scheduler = AsyncIOScheduler(
            timezone=self._zone,
            # No misfire time: a late poll is better than none.
            job_defaults={"misfire_grace_time": None, "coalesce": True},
        )
        self._beat_at = monotonic()

    def start(self) -> None:
        """Begin to tick, in the running event loop."""
        self._scheduler.start()
        self._scheduler.add_job(self._beat, Every(HEARTBEAT, 0, 0), id="heartbeat")

    def track(self, targets: Mapping[str, Target], jitter: float) -> None:
        """Poll these targets from now on, and no others.

        Those of one repository and one interval tick together and so share a look. Where in its
        interval each begins is hashed, which spreads many of them evenly.
        """
        for job in self._scheduler.get_jobs():
            if job.id != "heartbeat":
                job.remove()
        for (repo, interval), names in plan.groups(targets).items():
            trigger = Every(interval, min(jitter, interval / 2), _spread(repo) * interval)
            key = f"{interval:g} {repo}"
            self._scheduler.add_job(self._tick, trigger, args=[names], id=key)

    def stop(self) -> None:
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def next_polls(self) -> dict[str, float]:
        """Seconds until the next poll of each polled target."""
        now = datetime.now(self._zone)
        return {
            name: (job.next_run_time - now).total_seconds()
            for job in self._scheduler.get_jobs()
            if job.args and job.next_run_time
            for name in job.args[0]
        }

    def healthy(self) -> bool:
        """Whether the scheduler really ticks."""
        return monotonic() - self._beat_at < 6 * HEARTBEAT

    async def _beat(self) -> None:
        self._beat_at = monotonic()

    async def _tick(self, names: tuple[str, ...]) -> None:
        for name in names:
            self._poll(SyncRequest(name, Reason.POLL))


def _spread(repo: str) -> float:
    """A number from 0 to 1 that is always the same for a repository."""
    digest = hashlib.sha256(repo.encode()).digest()
    return int.from_bytes(digest[:4]) / 2**32
