"""Sinks and deployments for the tests of who is told what."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from agent.journal import Journal
from agent.messages import Message
from agent.model import Condition, Deployment, Outcome, Reason, SyncRequest
from agent.notices import FAILURES, Manner, Sink
from agent.notifier import Occasion
from agent.plan import Ending

A, B = "a" * 40, "b" * 40
WISH = SyncRequest("shop", Reason.PUSH)


def sink(name: str, manner: Manner = Manner.NEWS, **changes: Any) -> Sink:
    given = {"targets": frozenset(("shop", "blog")), "outcomes": FAILURES, **changes}
    return Sink(name, "webhook", manner, link=None, settings={}, **given)


def deployment(number: str, target: str = "shop", revision: str = B) -> Deployment:
    return Deployment(number, target, revision, A, Reason.PUSH, "why", 1, 1.0)


def deploy(
    journal: Journal, number: str, outcome: Outcome, at: float = 2.0, target: str = "shop"
) -> None:
    one = deployment(number, target)
    journal.begin(one, WISH, clears_holds=True)
    step = "build hook x" if outcome in FAILURES else ""
    journal.conclude(one, Ending(outcome, Condition.SETTLED, None, step, step=step), at)
    journal.end(number, at)


@dataclass
class Sinks:
    """Stands in for the notifier: keeps what it is told, or does as `answer` says."""

    sinks: dict[str, Sink]
    told: list[tuple[str, str]] = field(default_factory=list)
    alerts: list[list[Message]] = field(default_factory=list)
    answer: Callable[[str], None] = lambda _: None

    @property
    def settings(self) -> Any:
        return SimpleNamespace(sinks=self.sinks)

    def message(self, sink: Sink, target: str, occasion: Occasion) -> Message:
        event = occasion.outcome or "started"
        return Message(f"{occasion.deployment}-{occasion.key}", event, "t", "t", "h", target,
                       occasion.at, deployment=occasion.deployment)  # fmt: skip

    async def tell(self, sink: Sink, told: Callable[[], list[Message]]) -> None:
        messages = told()
        self.answer(sink.name)
        self.alerts.append(messages)
        self.told += [(sink.name, f"{one.deployment} {one.event}") for one in messages]


def until(condition: Callable[[], bool], work: Coroutine[Any, Any, None]) -> None:
    """Run `work` until `condition` holds."""

    async def both() -> None:
        task = asyncio.create_task(work)
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.001)
                assert not task.done(), task
        task.cancel()

    asyncio.run(both())


def three_sinks() -> dict[str, Sink]:
    """One that wants news, one that wants everything, and one that wants to know what stands."""
    return {
        "ops": sink("ops"),
        "github": sink("github", Manner.EVERYTHING),
        "am": sink("am", Manner.STANDING),
    }
