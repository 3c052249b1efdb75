"""Where the page's answers come from: reports, the journal, what hooks printed; and the frame."""

import asyncio
import socket
from collections.abc import Iterable
from typing import Any

from litestar import Request
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.response import Template

from agent import __version__, reports, transcript
from agent.control import Sources
from agent.errors import UnknownTarget
from agent.model import Deployment, Step
from agent.page import views
from agent.page.rendering import environment
from agent.records import Ran
from agent.reports import Status, TargetReport

Asked = Request[Any, Any, Any]

NAMELESS = "somebody"
"""What the history calls a visitor who gave no name."""
_LISTED = 50
_DRAWN = 5000
"""Deployments of one target in one picture."""


class Room:
    """What every address has at hand."""

    def __init__(self, sources: Sources, pid: int) -> None:
        self.sources = sources
        self._pid = pid
        self.templates = environment(host=socket.gethostname(), version=__version__)
        self.logs = sources.settings.state_dir / "logs"

    async def status(self) -> Status:
        return await reports.status(self.sources, self._pid)

    async def target(self, name: str) -> TargetReport:
        found = next((one for one in await reports.targets(self.sources) if one.name == name), None)
        if found is None:
            raise UnknownTarget(f"there is no target {name}")
        return found

    async def ran(self, targets: Iterable[str], since: float) -> list[Ran]:
        """What there is to draw of these targets."""
        return await asyncio.wrap_future(self.sources.journal.ran(targets, since, _DRAWN))

    async def history(self, target: str | None, limit: int, before: float) -> list[Deployment]:
        """The newest deployments begun before a time, newest first."""
        found = self.sources.journal.history(target, limit, before=before)
        return await asyncio.wrap_future(found)

    async def listed(self, target: str | None, before: float | None, now: float) -> views.Listed:
        """The newest deployments, or those before a time, and where the next page begins."""
        past = await self.history(target, _LISTED + 1, now + 1 if before is None else before)
        names = [one.id for one in past]
        asked = await asyncio.wrap_future(self.sources.journal.asked_at(names))
        return views.listed(past, asked, _LISTED, now)

    async def deployment(self, name: str) -> Deployment:
        """By its id, or the beginning or end of it."""
        found = await asyncio.wrap_future(self.sources.journal.deployment(name))
        if found is None:
            raise NotFoundException(f"There is no deployment {name}; perhaps it was forgotten.")
        return found

    async def step(self, name: str, n: int) -> tuple[Deployment, Step]:
        one = await self.deployment(name)
        found = next((step for step in one.steps if step.n == n), None)
        if found is None:
            raise NotFoundException(f"Deployment {one.id} has no step {n}.")
        return one, found

    async def printed(self, one: Deployment, step: Step) -> bytes:
        return await asyncio.to_thread(transcript.printed, self.logs, one.id, step)

    def visitor(self, request: Asked) -> str:
        """Who presses a button, for the history."""
        return str(request.scope["state"]["visitor"])

    def show(self, template: str, request: Asked, status: int = 200, **context: Any) -> Template:
        """An answer in the frame that every page has: host, trouble, reload, visitor."""
        visit = request.scope["state"]
        frame = {
            "trouble": self.sources.trouble(),
            "reload": self.sources.reload,
            "visitor": visit["visitor"],
            "nameless": NAMELESS,
            "can_leave": visit["door"] is not None,
            "path": request.url.path,
            "here": f"{request.url.path}?{request.url.query}".rstrip("?"),
        }
        return Template(template, context={**frame, **context}, status_code=status)


Here = NamedDependency[Room]
"""The room, as an address asks for it."""
