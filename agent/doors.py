"""What stands in front of the control application, as ASGI: one door on its socket, one on TCP.

A door turns a request away, or lets it in with the visitor's name in its state. The rules are
in `access`. Used by the service; knows no Litestar.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import quote

import msgspec
import structlog

from agent import tokens
from agent.access import Sessions, Tries, by_name, is_foreign, is_local
from agent.errors import AgentError

log = structlog.get_logger()

App = Callable[[Any, Any, Any], Any]
"""An ASGI application."""

COOKIE = "gitops-agent"
_OPEN = ("/login", "/static/")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HARDENED = (
    (b"content-security-policy", _POLICY.encode()),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    # Not no-referrer: under that a browser sends `Origin: null` with our own forms.
    (b"referrer-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
)
_RELOAD = b'<!doctype html><title>gitops-agent</title><meta http-equiv="refresh" content="0">'


class TooManyTries(AgentError):
    """An address has tried tokens too often; it may again in `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"too many tries; try again in {seconds:.0f} s")


class SocketDoor:
    """Whoever may open the socket may use it; a visitor's name is what the kernel says."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers, send = by_name(scope["headers"]), _hardened(scope, send)
        if not is_local(headers.get("host", "")):
            await _refuse(send, 421, "ask for localhost; through a tunnel, http://localhost:PORT/")
        elif is_foreign(scope["method"], headers):
            await _refuse(send, 403, "this request was sent by a page of another site")
        else:
            name = scope["client"][0] if scope["client"] else "somebody"
            scope["state"] = {"visitor": name, "door": None}
            await self._app(scope, receive, send)


class TokenDoor:
    """Whoever has the token, of which only a hash is known here, or a session opened with it."""

    def __init__(self, app: App, token_hash: Callable[[], str]) -> None:
        self._app = app
        self._token_hash = token_hash
        self._hash = token_hash()
        self._good: bytes | None = None
        self._one_at_a_time = asyncio.Lock()
        self._sessions = Sessions()
        self._tries = Tries()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers, send = by_name(scope["headers"]), _hardened(scope, send)
        if is_foreign(scope["method"], headers):
            await _refuse(send, 403, "this request was sent by a page of another site")
            return
        try:
            visitor = await self._visitor(headers, _address(scope))
        except TooManyTries as error:
            await _refuse(send, 429, str(error), ("retry-after", f"{error.seconds:.0f}"))
            return
        scope["state"] = {"visitor": visitor, "door": self}
        if visitor or scope["path"].startswith(_OPEN):
            await self._app(scope, receive, send)
        else:
            await _turn_away(scope, headers, send)

    async def log_in(self, token: str, name: str, address: str) -> str | None:
        """A new session's id; None where the token is wrong. TooManyTries after a few a minute."""
        return self._sessions.open(name) if await self._fits(token, address) else None

    def log_out(self, headers: Mapping[str, str]) -> None:
        self._sessions.close(_session_id(headers))

    async def _visitor(self, headers: Mapping[str, str], address: str) -> str | None:
        self._heed_new_hash()
        session = self._sessions.find(_session_id(headers))
        if session:
            return session.name
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and await self._fits(token.strip(), address):
            return "the token's holder"
        return None

    async def _fits(self, token: str, address: str) -> bool:
        """Whether it is the token. Found good once, it is known again without the slow hash."""
        digest = hashlib.sha256(token.encode(errors="replace")).digest()
        if self._good and hmac.compare_digest(self._good, digest):
            return True
        wait = self._tries.wait(address)
        if wait:
            raise TooManyTries(wait)
        async with self._one_at_a_time:
            against = self._hash
            fits = await asyncio.to_thread(tokens.fits, token, against)
        if not fits:
            log.warning("token.refused", address=address)
        elif against == self._hash:
            self._good = digest
        return fits

    def _heed_new_hash(self) -> None:
        """A configuration with another hash was read: what the old token opened is closed."""
        if self._hash != self._token_hash():
            self._hash = self._token_hash()
            self._good = None
            self._sessions.close_all()


def _address(scope: Any) -> str:
    return scope["client"][0] if scope["client"] else ""


def _session_id(headers: Mapping[str, str]) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


# ---- answers ------------------------------------------------------------------------------------


async def _turn_away(scope: Any, headers: Mapping[str, str], send: Any) -> None:
    """No token and no session: a person is led to /login, a program is told what is missing."""
    if "hx-request" in headers:
        await _refuse(send, 401, "log in again", ("hx-refresh", "true"))
    elif "text/html" not in headers.get("accept", "") or scope["method"] != "GET":
        detail = "send `Authorization: Bearer TOKEN`; [control] in agent.toml has the token's hash"
        await _refuse(send, 401, detail, ("www-authenticate", "Bearer"))
    elif headers.get("sec-fetch-site") == "cross-site":
        # A link from elsewhere came without the cookie (SameSite=Strict); our own page has it.
        await _answer(send, 200, _RELOAD, ("content-type", "text/html"))
    else:
        asked = quote(scope["path"]) + ("?" + scope["query_string"].decode("latin-1")).rstrip("?")
        await _answer(send, 303, b"", ("location", f"/login?next={quote(asked, safe='/')}"))


async def _refuse(send: Any, status: int, detail: str, *headers: tuple[str, str]) -> None:
    body = msgspec.json.encode({"detail": detail})
    await _answer(send, status, body, ("content-type", "application/json"), *headers)


async def _answer(send: Any, status: int, body: bytes, *headers: tuple[str, str]) -> None:
    told = [(name.encode(), value.encode()) for name, value in headers]
    told.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": told})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _hardened(scope: Any, send: Any) -> Any:
    """`send`, adding to every answer what keeps a browser from doing more with it than meant."""
    keep = b"max-age=3600" if scope["path"].startswith("/static/") else b"no-store"

    async def hardened(message: Any) -> None:
        if message["type"] == "http.response.start":
            headers = (one for one in message["headers"] if one[0] != b"cache-control")
            told = [*headers, *_HARDENED, (b"cache-control", keep)]
            message = {**message, "headers": told}
        await send(message)

    return hardened
