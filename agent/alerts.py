"""Says to the sinks that want to know it what is failing now, and when it no longer is.

Not news but a state, kept with the outbox: said at each change, and again before an alert expires,
so that a sink that was away, or a start of this agent, changes nothing. What is said no more
resolves itself. Lives in the event loop's thread.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import structlog

from agent.bell import Bell
from agent.errors import AgentError
from agent.messages import Message
from agent.notices import Failing, Manner, Sink
from agent.notifier import Notifier, Occasion
from agent.outbox import Outbox

log = structlog.get_logger()

_TICK, _SOON = 60.0, 10.0
LASTS = 300.0
"""Seconds after which an alert that was not said again resolves itself."""

Standing = Mapping[tuple[str, str], Message]
"""The alerts that a sink has been given, by target and outcome."""


class Alerts:
    """One for an agent."""

    def __init__(
        self, outbox: Outbox, notifier: Notifier, clock: Callable[[], float] = time.time
    ) -> None:
        self._outbox = outbox
        self._notifier = notifier
        self._clock = clock
        self._bell = Bell()

    async def run(self) -> None:
        """Until it is cancelled; alerts that stand then expire, unless a start says them again."""
        self._outbox.listen(self._bell)
        standing: dict[str, Standing] = {}
        while True:
            pause = _TICK
            for sink in self._notifier.settings.sinks.values():
                if sink.manner is Manner.STANDING:
                    before = standing.get(sink.name, {})
                    now = await self._said(sink, before)
                    standing[sink.name] = before if now is None else now
                    pause = _SOON if now is None else pause
            await self._bell.heard(pause)

    async def _said(self, sink: Sink, before: Standing) -> Standing | None:
        """What stands at `sink` now; None where it could not be told."""
        try:
            return await self._say(sink, before)
        except AgentError as error:
            log.warning("alerts.wait", sink=sink.name, why=str(error))
        except Exception:
            # A fault of ours: it is tried again, and everything else goes on.
            log.exception("alerts.crashed", sink=sink.name)
        return None

    async def _say(self, sink: Sink, before: Standing) -> Standing:
        """Tell `sink` what stands, and of what stood `before` that it is over."""
        failing = await asyncio.wrap_future(self._outbox.failing(sink.name))
        known = [one for one in failing if one.target in sink.targets]
        if not known and not before:
            return {}
        standing: dict[tuple[str, str], Message] = {}

        def told() -> list[Message]:
            standing.update(self._standing(sink, known, before))
            over = [one for key, one in before.items() if key not in standing]
            now = self._clock()
            return [
                *(replace(one, until=now + LASTS) for one in standing.values()),
                *(replace(one, until=now) for one in over),
            ]

        await self._notifier.tell(sink, told)
        return standing

    def _standing(self, sink: Sink, failing: Iterable[Failing], before: Standing) -> Standing:
        """An alert for each failing target; one that stood before is not made again."""
        made = {one.deployment: one for one in before.values()}
        alerts = [made.get(one.deployment) or self._alert(sink, one) for one in failing]
        return {(one.target, one.event): one for one in alerts}

    def _alert(self, sink: Sink, failing: Failing) -> Message:
        occasion = Occasion(failing.deployment, "alert", failing.at, failing.outcome, failing.live)
        message = self._notifier.message(sink, failing.target, occasion)
        return replace(message, since=failing.since)
