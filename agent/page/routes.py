"""The page's addresses: what is asked, which reports answer it, which template shows them."""

import asyncio
import time
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

import structlog
from litestar import Litestar, MediaType, get
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.plugins.jinja import JinjaTemplateEngine
from litestar.response import Response, ServerSentEvent, Template
from litestar.static_files import create_static_files_router
from litestar.template import TemplateConfig

from agent.control import Sources, status_of
from agent.errors import AgentError
from agent.page import ansi, live, login, outputs, steer, views
from agent.page.room import Asked, Here, Room
from agent.page.views import SPANS
from agent.reports import State

log = structlog.get_logger()

Before = Annotated[float | None, QueryParameter(name="before")]
InState = Annotated[str, QueryParameter(name="state")]
Bytes = Annotated[int, QueryParameter(ge=0)]

_MOST_BODY = 64 * 1024
_GOALS = 100
_LANES = 40


def page_app(sources: Sources, pid: int) -> Litestar:
    """Every address of the page."""
    room = Room(sources, pid)
    return Litestar(
        [
            targets, timeline, target, deployment, follow, earlier, whole, colours,
            *steer.BUTTONS, *login.ROUTES,
            create_static_files_router("/static", [Path(__file__).parent / "static"]),
        ],
        dependencies={"room": Provide(lambda: room, sync_to_thread=False)},
        template_config=TemplateConfig(instance=JinjaTemplateEngine(engine_instance=room.templates)),
        openapi_config=None,
        logging_config=None,
        exception_handlers={Exception: lambda request, error: _refuse(room, request, error)},
        request_max_body_size=_MOST_BODY,
        pdb_on_exception=False,
    )  # fmt: skip


@get("/")
async def targets(
    room: Here, request: Asked, wanted: InState = "", q: FromQuery[str] = ""
) -> Template:
    """Every target, the worst first."""
    now, status = time.time(), await room.status()
    day = await room.ran((one.name for one in status.targets), now - SPANS["24h"])
    state = wanted if wanted in list(State) else ""
    view = views.overview(status, day, now, state=state, text=q)
    return room.show("targets.html", request, view=view, state=state, q=q)


@get("/timeline")
async def timeline(
    room: Here,
    request: Asked,
    span: FromQuery[str] = "24h",
    q: FromQuery[str] = "",
    before: Before = None,
) -> Template:
    """All deployments, over time and in a list."""
    now, length = time.time(), span if span in SPANS else "24h"
    names = sorted(one for one in room.sources.settings.targets if q.lower() in one.lower())
    ran = await room.ran(names[:_LANES], now - SPANS[length])
    lanes = views.lanes(names, ran, length, now, 36.0)
    listed = await room.listed(None, before, now)
    return room.show(
        "timeline.html", request, lanes=lanes, listed=listed, before=before, q=q, span=length,
        more=max(0, len(names) - _LANES),
    )  # fmt: skip


@get("/targets/{name:str}")
async def target(
    room: Here,
    request: Asked,
    name: FromPath[str],
    span: FromQuery[str] = "7d",
    before: Before = None,
) -> Template:
    """One target: what it is, what it did."""
    now, length = time.time(), span if span in SPANS else "7d"
    report = await room.target(name)
    ran = await room.ran((name,), now - SPANS[length])
    lanes = views.lanes((name,), ran, length, now, 96.0)
    card = views.card(report, ran, lanes.window)
    listed = await room.listed(name, before, now)
    goals = views.goals(await room.history(name, _GOALS, now + 1), report.live, now)
    return room.show(
        "target.html", request, card=card, lanes=lanes, listed=listed, before=before, goals=goals
    )


@get("/deployments/{name:str}")
async def deployment(room: Here, request: Asked, name: FromPath[str]) -> Template:
    """One deployment: its steps, and what they print as they print it."""
    now, one = time.time(), await room.deployment(name)
    asked = await asyncio.wrap_future(room.sources.journal.asked_at([one.id]))
    printed = {step.n: await room.printed(one, step) for step in one.steps}
    last = max(printed, default=0)
    return room.show(
        "deployment.html",
        request,
        run=views.run(one, asked.get(one.id), now),
        lines=outputs.step_lines(one, now),
        pages={n: outputs.page(text) for n, text in printed.items()},
        after=f"{last}:{len(printed.get(last, b''))}",
    )


@get("/deployments/{name:str}/live")
async def follow(
    room: Here, request: Asked, name: FromPath[str], after: FromQuery[str] = ""
) -> ServerSentEvent:
    """What comes after a place in a deployment's output, as it comes."""
    one = await room.deployment(name)
    place = live.place(request.headers.get("last-event-id", after))
    shown = live.Live(room.templates, room.logs, one, place)
    return ServerSentEvent(shown.events(room.sources.journal))


@get("/deployments/{name:str}/output/{n:int}")
async def earlier(room: Here, name: FromPath[str], n: FromPath[int], before: Bytes) -> Template:
    """The stretch of a step's output that ends at `before`."""
    one, step = await room.step(name, n)
    page = outputs.page(await room.printed(one, step), before)
    return Template("earlier.html", context={"id": one.id, "n": n, "page": page})


@get("/deployments/{name:str}/output/{n:int}/all", media_type=MediaType.TEXT)
async def whole(room: Here, name: FromPath[str], n: FromPath[int]) -> bytes:
    """All that a step printed, as it is."""
    return await room.printed(*await room.step(name, n))


@get("/static/colours.css", media_type=MediaType.CSS, sync_to_thread=False)
def colours() -> str:
    """The colours of hooks' output."""
    return ansi.stylesheet()


def _refuse(room: Room, request: Asked, error: Exception) -> Response[Any]:
    """A page that says what went wrong, and what it means."""
    if isinstance(error, AgentError):
        status, said = status_of(error), str(error)
    elif isinstance(error, HTTPException):
        status, said = error.status_code, error.detail
    else:
        status, said = 500, "The agent failed at this page; its log says how. Deployments go on."
        log.exception("page.crashed", exc_info=error)
    title = "That cannot be" if status == 409 else HTTPStatus(status).phrase.capitalize()
    return room.show("error.html", request, status, title=title, said=said)
