"""The control socket: what a running agent can be asked and told. Typed, with OpenAPI.

Whoever may open the socket (mode 0660) may use it; nothing here answers on the public listener.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import msgspec
from litestar import Litestar, Request, get, post
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.params import Parameter
from litestar.response import Response, Stream

from agent import __version__, figures, reports, steering, transcript
from agent.doctor import Finding
from agent.errors import AgentError, JournalUnavailable, RemoteFailed, UnknownTarget
from agent.model import (
    LONGEST_PAUSE,
    Deployment,
    Difference,
    Look,
    Pause,
    Revision,
    SyncRequest,
)
from agent.records import RequestResult
from agent.reload import Reload
from agent.reports import Status, TargetReport
from agent.transcript import LogPiece

_LONGEST_WAIT = 30.0


# ---- what is said -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SyncAsk:
    """What to sync how; `actor` is the person's name, for the history."""

    actor: str = "somebody"
    force: bool = False


@dataclass(frozen=True, slots=True)
class RollbackAsk:
    """Where to go back to: a revision, the beginning of one, or the last good one."""

    actor: str = "somebody"
    to: str | None = None


@dataclass(frozen=True, slots=True)
class PauseAsk:
    """How long to pause, in seconds (None: until it is resumed), and why."""

    actor: str = "somebody"
    seconds: Annotated[float, msgspec.Meta(gt=0, le=LONGEST_PAUSE)] | None = None
    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""


@dataclass(frozen=True, slots=True)
class Actor:
    actor: str = "somebody"


@dataclass(frozen=True, slots=True)
class DoctorAsk:
    """`url` is the listener's public address, where the configuration does not know it."""

    url: str | None = None


@dataclass(frozen=True, slots=True)
class SyncAccepted:
    request: int
    target: str


@dataclass(frozen=True, slots=True)
class RollbackAccepted:
    request: int
    target: str
    goal: Revision
    """What is going to be live again."""
    subject: str
    """The first line of its commit message."""


class Sources(reports.Sources, steering.Agent, Protocol):
    """What answers and is steered; the service is it."""


# ---- what answers -----------------------------------------------------------------------------


def control_app(sources: Sources, pid: int) -> Litestar:
    """The control socket's application."""
    return Litestar(
        [*_answers(sources, pid), *_orders(sources)],
        openapi_config=OpenAPIConfig(
            "gitops-agent control", __version__, render_plugins=[JsonRenderPlugin()]
        ),
        logging_config=None,
        exception_handlers={AgentError: _refusal},
        pdb_on_exception=False,
    )


def _answers(sources: Sources, pid: int) -> list[HTTPRouteHandler]:
    """What can be asked. Nothing here changes anything."""

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
            steering.check_target(sources, target)
        return await asyncio.wrap_future(sources.journal.history(target, limit))

    @get("/v1/deployments/{name:str}")
    async def deployment(name: str) -> Deployment:
        """A deployment with its steps, by its id or the beginning or end of it."""
        return await _deployment(sources, name)

    @get("/v1/deployments/{name:str}/log")
    async def deployment_log(name: str, follow: bool = False) -> Stream:
        """The output of its hooks, as JSON lines of LogPiece; followed until it ends.

        Of a target the newest; followed, also what comes of each look until nothing more does.
        """
        pieces = await _pieces(sources, name, follow=follow)
        return Stream(_lines(pieces), media_type="application/x-ndjson")

    @get("/v1/looks")
    async def looks(
        target: str | None = None, limit: Annotated[int, Parameter(ge=1, le=10_000)] = 20
    ) -> list[Look]:
        """Looks that found something and left it alone, newest first, and why."""
        if target is not None:
            steering.check_target(sources, target)
        return await asyncio.wrap_future(sources.journal.looks(target, limit))

    @get("/v1/requests/{number:int}")
    async def request(number: int, wait: float = 0.0) -> RequestResult:
        """What came of a sync that was asked for; `wait` seconds for it at most."""
        return await _request(sources, number, min(wait, _LONGEST_WAIT))

    return [
        status, history, deployment, deployment_log, looks, request,
        *_of_one_target(sources), _doctor_route(sources, pid), metrics_route(sources),
    ]  # fmt: skip


def _of_one_target(sources: Sources) -> list[HTTPRouteHandler]:
    @get("/v1/targets/{name:str}")
    async def target(name: str) -> TargetReport:
        """What status has of one target."""
        steering.check_target(sources, name)
        return (await reports.targets(sources, [name]))[0]

    @get("/v1/targets/{name:str}/diff")
    async def diff(name: str) -> Difference:
        """What a sync would bring: commits and files. Changes nothing."""
        return await steering.compare(sources, name)

    return [target, diff]


def _orders(sources: Sources) -> list[HTTPRouteHandler]:
    """What can be told."""

    @post("/v1/targets/{name:str}/sync", status_code=202)
    async def sync(name: str, data: SyncAsk) -> SyncAccepted:
        """Have a target looked at now."""
        wish = await steering.sync(sources, name, data.actor, force=data.force)
        return SyncAccepted(_number(wish), name)

    @post("/v1/targets/{name:str}/rollback", status_code=202)
    async def rollback(name: str, data: RollbackAsk) -> RollbackAccepted:
        """Have an earlier revision live again; what it leaves is held."""
        wish, goal = await steering.roll_back(sources, name, data.actor, data.to)
        return RollbackAccepted(_number(wish), name, goal.revision, goal.subject)

    @post("/v1/targets/{name:str}/pause", status_code=200)
    async def pause(name: str, data: PauseAsk) -> Pause:
        """Have nothing go out by itself."""
        return await steering.pause(sources, name, data.actor, data.seconds, data.reason)

    @post("/v1/targets/{name:str}/resume", status_code=204)
    async def resume(name: str, data: Actor) -> None:
        """End a pause; what was pushed meanwhile goes out."""
        await steering.resume(sources, name, data.actor)

    @post("/v1/targets/{name:str}/cancel", status_code=204)
    async def cancel(name: str, data: Actor) -> None:
        """End a running deployment the way a failure would."""
        steering.cancel(sources, name, data.actor)

    @post("/v1/reload", status_code=200)
    async def reload(data: Actor) -> Reload:
        """Have agent.toml read again; gives what was not taken of it."""
        return sources.take_configuration(data.actor)

    return [sync, rollback, pause, resume, cancel, reload]


def _doctor_route(sources: Sources, pid: int) -> HTTPRouteHandler:
    @post("/v1/doctor", status_code=200)
    async def doctor(data: DoctorAsk) -> list[Finding]:
        """What is wrong, as the agent itself finds it. Takes some seconds."""
        return await _doctor(sources, pid, data.url)

    return doctor


async def _doctor(sources: Sources, pid: int, url: str | None) -> list[Finding]:
    from agent.doctor import examine

    now, since = time.time(), time.time() - examine.DAYS * 86400
    missed = await asyncio.wrap_future(
        sources.journal.submit(lambda db: figures.missed(db, since, now - figures.JUDGED_AFTER))
    )
    status = await reports.status(sources, pid)
    seen = examine.Seen(status, sources.tally.unknown, missed, sources.listening, now)
    return await asyncio.to_thread(
        examine.from_inside, sources.settings, sources.started_with, seen, sources.tally, url,
        sources.reread,
    )  # fmt: skip


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


def _refusal(_: Any, error: AgentError) -> Response[dict[str, str]]:
    return Response({"detail": str(error)}, status_code=status_of(error))


def status_of(error: AgentError) -> int:
    """The HTTP status that goes with it."""
    statuses = {UnknownTarget: 404, JournalUnavailable: 503, RemoteFailed: 502}
    return statuses.get(type(error), 409)


def _number(request: SyncRequest) -> int:
    assert request.id is not None
    return request.id


async def _deployment(sources: Sources, name: str) -> Deployment:
    if name in sources.settings.targets:
        newest = await asyncio.wrap_future(sources.journal.history(name, 1))
        if not newest:
            raise NotFoundException(
                f"{name} has had no deployment yet; `gitops-agent status` says why"
            )
        name = newest[0].id
    found = await asyncio.wrap_future(sources.journal.deployment(name))
    if found is None:
        known = ", ".join(sorted(sources.settings.targets)) or "none"
        raise NotFoundException(
            f"there is no target and no deployment {name}; targets: {known};"
            " `gitops-agent history` lists the deployments"
        )
    return found


async def _pieces(sources: Sources, name: str, *, follow: bool) -> AsyncIterator[LogPiece]:
    logs = sources.settings.state_dir / "logs"
    box = sources.worker.mailbox(name) if name in sources.settings.targets else None
    if follow and box and box.running:
        return transcript.follow_target(sources.journal, logs, name, box)
    found = await _deployment(sources, name)
    if follow and box:
        return transcript.follow_target(sources.journal, logs, name, box)
    return transcript.follow(sources.journal, logs, found.id, to_its_end=follow)


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
