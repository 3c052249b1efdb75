"""The page's buttons. Each does what the command of its name does, in the visitor's name."""

from dataclasses import dataclass
from typing import Annotated, TypeVar

from litestar import post
from litestar.enums import RequestEncodingType
from litestar.params import Body, FromPath
from litestar.response import Redirect

from agent import steering
from agent.page.room import Asked, Here

T = TypeVar("T")
Filled = Annotated[T, Body(media_type=RequestEncodingType.URL_ENCODED)]

PAUSES = {"1h": 3600.0, "8h": 8 * 3600.0, "3d": 3 * 86400.0}
_LONGEST_REASON = 500


@dataclass(frozen=True, slots=True)
class SyncForm:
    force: str = ""


@dataclass(frozen=True, slots=True)
class RollbackForm:
    to: str = ""
    """Empty for the last good one."""


@dataclass(frozen=True, slots=True)
class PauseForm:
    length: str = ""
    """One of PAUSES; anything else is until it is resumed."""
    reason: str = ""


@post("/targets/{name:str}/sync")
async def sync(room: Here, request: Asked, name: FromPath[str], data: Filled[SyncForm]) -> Redirect:
    """Have a target looked at now."""
    await steering.sync(room.sources, name, room.visitor(request), force=bool(data.force))
    return _back(name)


@post("/targets/{name:str}/rollback")
async def roll_back(
    room: Here, request: Asked, name: FromPath[str], data: Filled[RollbackForm]
) -> Redirect:
    """Have an earlier revision live again."""
    await steering.roll_back(room.sources, name, room.visitor(request), data.to or None)
    return _back(name)


@post("/targets/{name:str}/pause")
async def pause(
    room: Here, request: Asked, name: FromPath[str], data: Filled[PauseForm]
) -> Redirect:
    """Have nothing go out by itself."""
    reason = data.reason.strip()[:_LONGEST_REASON]
    seconds = PAUSES.get(data.length)
    await steering.pause(room.sources, name, room.visitor(request), seconds, reason)
    return _back(name)


@post("/targets/{name:str}/resume")
async def resume(room: Here, request: Asked, name: FromPath[str]) -> Redirect:
    """End a pause."""
    await steering.resume(room.sources, name, room.visitor(request))
    return _back(name)


@post("/targets/{name:str}/cancel")
async def cancel(room: Here, request: Asked, name: FromPath[str]) -> Redirect:
    """End a running deployment the way a failure would."""
    steering.cancel(room.sources, name, room.visitor(request))
    return _back(name)


BUTTONS = (sync, roll_back, pause, resume, cancel)


def _back(target: str) -> Redirect:
    return Redirect(f"/targets/{target}", status_code=303)
