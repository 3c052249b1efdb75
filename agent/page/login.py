"""A token is exchanged for a session, and a session ended: on TCP, for a socket needs neither."""

from dataclasses import dataclass
from typing import Annotated

import structlog
from litestar import get, post
from litestar.datastructures import Cookie
from litestar.enums import RequestEncodingType
from litestar.params import Body, QueryParameter
from litestar.response import Redirect, Template

from agent.access import SESSION, by_name, own_path
from agent.doors import COOKIE, TokenDoor, TooManyTries
from agent.page.room import NAMELESS, Asked, Here
from agent.words import printable

log = structlog.get_logger()

Goal = Annotated[str, QueryParameter(name="next")]
_LONGEST_NAME = 40


@dataclass(frozen=True, slots=True)
class LoginForm:
    token: str = ""
    name: str = ""
    next: str = "/"


@get("/login")
async def form(room: Here, request: Asked, goal: Goal = "/") -> Template | Redirect:
    """Ask for the token."""
    if request.scope["state"]["visitor"]:
        return Redirect(own_path(goal), status_code=303)
    return room.show("login.html", request, next=own_path(goal), wrong="")


@post("/login")
async def log_in(
    room: Here,
    request: Asked,
    data: Annotated[LoginForm, Body(media_type=RequestEncodingType.URL_ENCODED)],
) -> Template | Redirect:
    """Open a session, and go on to where one wanted to be."""
    door, goal = _door(request), own_path(data.next)
    if door is None:
        return Redirect("/", status_code=303)
    name = printable(data.name.strip())[:_LONGEST_NAME] or NAMELESS
    address = request.client.host if request.client else ""
    try:
        session = await door.log_in(data.token.strip(), name, address)
    except TooManyTries as error:
        return room.show("login.html", request, 429, next=goal, wrong=f"{error}.")
    if session is None:
        return room.show("login.html", request, 401, next=goal, wrong="That is not the token.")
    log.info("session.opened", name=name, address=address)
    return _leading_to(goal, request, session, int(SESSION))


@post("/logout")
async def log_out(request: Asked) -> Redirect:
    """End the session."""
    if door := _door(request):
        door.log_out(by_name(request.scope["headers"]))
    return _leading_to("/login", request, "", 0)


ROUTES = (form, log_in, log_out)


def _door(request: Asked) -> TokenDoor | None:
    door: TokenDoor | None = request.scope["state"]["door"]
    return door


def _leading_to(path: str, request: Asked, session: str, seconds: int) -> Redirect:
    """With a cookie that no script reads, no other site sends, and that stays within TLS."""
    answer = Redirect(path, status_code=303)
    secure = request.headers.get("x-forwarded-proto", "") == "https"
    answer.set_cookie(
        Cookie(
            COOKIE, value=session, max_age=seconds, httponly=True, samesite="strict", secure=secure
        )
    )
    return answer
