"""What a person can tell a running agent about a target. On disk first, and then done.

For the control socket and the page. `actor` is the person's name, for the history. AgentError
says why something cannot be.
"""

import asyncio
import time
from typing import Protocol

from agent.config import Settings
from agent.errors import AgentError, UnknownTarget
from agent.journal import Journal
from agent.model import Difference, Pause, Reason, SyncRequest
from agent.reconciler import Reconciler
from agent.records import Goal
from agent.reload import Reload
from agent.worker import Worker


class Agent(Protocol):
    """What is steered; the service is it."""

    @property
    def settings(self) -> Settings: ...
    @property
    def journal(self) -> Journal: ...
    @property
    def worker(self) -> Worker: ...
    @property
    def reconciler(self) -> Reconciler: ...
    def take_configuration(self, by: str) -> Reload: ...


def check_target(agent: Agent, target: str) -> None:
    """UnknownTarget where the configuration has no such target."""
    if target not in agent.settings.targets:
        known = ", ".join(sorted(agent.settings.targets))
        raise UnknownTarget(f"there is no target {target}; there are: {known}")


async def sync(agent: Agent, target: str, actor: str, *, force: bool) -> SyncRequest:
    """Have a target looked at now; gives the wish as it was recorded."""
    return await _wish(agent, SyncRequest(target, Reason.MANUAL, force=force, actor=actor))


async def roll_back(
    agent: Agent, target: str, actor: str, to: str | None
) -> tuple[SyncRequest, Goal]:
    """Have an earlier revision live again: `to`, or the last good one before what is live."""
    check_target(agent, target)
    goal = await asyncio.wrap_future(agent.journal.goal_of_rollback(target, to))
    wish = SyncRequest(target, Reason.ROLLBACK, actor=actor, goal=goal.revision)
    return await _wish(agent, wish), goal


async def _wish(agent: Agent, wish: SyncRequest) -> SyncRequest:
    check_target(agent, wish.target)
    recorded = await asyncio.wrap_future(agent.journal.request(wish, time.time()))
    agent.worker.wish(recorded)
    return recorded


async def pause(agent: Agent, target: str, actor: str, seconds: float | None, reason: str) -> Pause:
    """Have nothing go out to a target by itself, for `seconds` or until it is resumed."""
    check_target(agent, target)
    now = time.time()
    one = Pause(now, actor, now + seconds if seconds else None, reason)
    await asyncio.wrap_future(agent.journal.set_pause(target, one))
    return one


async def resume(agent: Agent, target: str, actor: str) -> None:
    """End a pause. The newest push that came meanwhile goes out, or else there is a look."""
    check_target(agent, target)
    states = await asyncio.wrap_future(agent.journal.states([target]))
    if states[target].pause is None:
        raise AgentError(f"{target} is not paused")
    await asyncio.wrap_future(agent.journal.set_pause(target, None))
    waiting = await asyncio.wrap_future(agent.journal.open_requests(target))
    for request in waiting:
        agent.worker.wish(request)
    if not waiting:
        await sync(agent, target, actor, force=False)


def cancel(agent: Agent, target: str, actor: str) -> None:
    """End a target's running deployment the way a failure would."""
    check_target(agent, target)
    if not agent.reconciler.cancel(target, actor):
        raise AgentError(f"no deployment of {target} is running that could be canceled")


async def compare(agent: Agent, target: str) -> Difference:
    """What a sync of a target would bring; nothing is changed."""
    check_target(agent, target)
    return await agent.reconciler.compare(target)
