"""The control socket: what a running agent can be asked and told. Typed, with OpenAPI.

Whoever may open the socket (mode 0660) may use it; nothing here answers on the public listener.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from litestar import Litestar, Request, get, post
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.params import Parameter
from litestar.response import Response, Stream

from agent import __version__, reports, transcript
from agent.errors import JournalUnavailable
from agent.journal import RequestResult
from agent.model import Deployment, Reason, SyncRequest
from agent.reports import Sources, Status
from agent.transcript import LogPiece

_LONGEST_WAIT = 30.0


# ---- what is said -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SyncAsk:
    """What to sync how; `actor` is the person's name, for the history."""

    actor: str = "somebody"
    force: bool = False


@dataclass(frozen=True, slots=True)
class SyncAccepted:
    request: int
    target: str


# ---- what answers -----------------------------------------------------------------------------


def control_app(sources: Sources, pid: int) -> Litestar:
    """The control socket's application."""

    @get("/v1/status")
    async def status() -> Status:
        """Every target and webhook, now."""
        return await reports.status(sources, pid)

    @get("/v1/history")
    async def history(
        target: str | None = None, limit: Annotated[int, Parameter(ge=1, le=10_000)] = 20
    ) -> list[Deployment]:
        """Past deployments, newest first, without their steps."""
        if target is not None:
            _known(sources, target)
        return await asyncio.wrap_future(sources.journal.history(target, limit))

    @get("/v1/deployments/{name:str}")
    async def deployment(name: str) -> Deployment:
        """A deployment with its steps, by its id or the beginning or end of it."""
        return await _deployment(sources, name)

    @get("/v1/deployments/{name:str}/log")
    async def deployment_log(name: str, follow: bool = False) -> Stream:
        """The output of its hooks, as JSON lines of LogPiece; followed until it ends."""
        found = await _deployment(sources, name)
        logs = sources.settings.state_dir / "logs"
        pieces = transcript.follow(sources.journal, logs, found.id, to_its_end=follow)
        return Stream(_lines(pieces), media_type="application/x-ndjson")

    @post("/v1/targets/{name:str}/sync", status_code=202)
    async def sync(name: str, data: SyncAsk) -> SyncAccepted:
        """Have a target looked at now."""
        _known(sources, name)
        wish = SyncRequest(name, Reason.MANUAL, force=data.force, actor=data.actor)
        recorded = await asyncio.wrap_future(sources.journal.request(wish, time.time()))
        sources.worker.wish(recorded)
        assert recorded.id is not None
        return SyncAccepted(recorded.id, name)

    @get("/v1/requests/{number:int}")
    async def request(number: int, wait: float = 0.0) -> RequestResult:
        """What came of a sync that was asked for; `wait` seconds for it at most."""
        return await _request(sources, number, min(wait, _LONGEST_WAIT))

    metrics = metrics_route(sources)

    def unavailable(_: Any, error: JournalUnavailable) -> Response[dict[str, str]]:
        return Response({"detail": str(error)}, status_code=503)

    return Litestar(
        [status, history, deployment, deployment_log, sync, request, metrics],
        openapi_config=OpenAPIConfig("gitops-agent control", __version__),
        logging_config=None,
        exception_handlers={JournalUnavailable: unavailable},
        pdb_on_exception=False,
    )


def metrics_route(sources: Sources) -> HTTPRouteHandler:
    """GET /metrics, for Prometheus."""

    @get("/metrics", include_in_schema=False)
    async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
        text, kind = await sources.scrape(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": kind})

    return metrics


def metrics_app(sources: Sources) -> Litestar:
    """The metrics listener's application: /metrics and nothing else."""
    return Litestar(
        [metrics_route(sources)], openapi_config=None, logging_config=None, pdb_on_exception=False
    )


def _known(sources: Sources, target: str) -> None:
    if target not in sources.settings.targets:
        known = ", ".join(sorted(sources.settings.targets))
        raise NotFoundException(f"there is no target {target}; there are: {known}")


async def _deployment(sources: Sources, name: str) -> Deployment:
    if name in sources.settings.targets:
        newest = await asyncio.wrap_future(sources.journal.history(name, 1))
        if not newest:
            raise NotFoundException(f"target {name} has had no deployment yet")
        name = newest[0].id
    found = await asyncio.wrap_future(sources.journal.deployment(name))
    if found is None:
        raise NotFoundException(
            f"no one deployment's id is, begins or ends with {name}; `gitops-agent history`"
            " lists them"
        )
    return found


async def _request(sources: Sources, number: int, wait: float) -> RequestResult:
    deadline = time.monotonic() + wait
    while True:
        result = await asyncio.wrap_future(sources.journal.request_result(number))
        if result is None:
            raise NotFoundException(f"there is no sync request {number}")
        left = deadline - time.monotonic()
        if result.result is not None or left <= 0:
            return result
        finished = sources.worker.mailbox(result.target).finished
        again = await asyncio.wrap_future(sources.journal.request_result(number))
        if again == result:
            try:
                await asyncio.wait_for(finished.wait(), left)
            except TimeoutError:
                return result


async def _lines(pieces: AsyncIterator[LogPiece]) -> AsyncIterator[bytes]:
    async for piece in pieces:
        yield msgspec.json.encode(piece) + b"\n"
