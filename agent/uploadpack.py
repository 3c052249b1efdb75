"""What a remote is asked in this process, as git's fetch would, but over a connection that is kept.

What its branches are at costs a hundredth of a `git ls-remote`; a small pack costs one round trip,
where git needs five and as many processes. What is in a pack, git itself checks (`Mirror.take`).
Whatever is odd (another protocol, a redirect, a password wanted, too long, too late) is no answer;
git then fetches by itself, and has its own words for what is wrong.

Source: gitprotocol-http(5). The only room that speaks with a remote without git.
"""

import asyncio
import base64
import os
import re
import ssl
from collections.abc import Callable, Collection
from typing import NamedTuple, TypeVar, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httptools
import structlog

from agent import __version__, wire
from agent.errors import AgentError
from agent.kinds import reveal
from agent.mirror import Tips
from agent.model import Revision, Source
from agent.wire import Odd

T = TypeVar("T")
log = structlog.get_logger()

_DEADLINE = 20.0
_MOST_BYTES = 256 * 1024
_MOST_OF_A_PACK = 4 * 1024 * 1024
"""It is held in memory; a larger one git fetches to the disk."""
_PATH = re.compile(r"[!-~]*")
_ANSWERS = b"application/x-git-upload-pack-result"
_REQUEST = """\
POST {path}/git-upload-pack HTTP/1.1\r
Host: {host}\r
User-Agent: git/gitops-agent-{version}\r
Git-Protocol: version=2\r
Content-Type: application/x-git-upload-pack-request\r
Accept: application/x-git-upload-pack-result\r
{credentials}Content-Length: {size}\r
\r
"""
# Servers tell git from a browser by how its User-Agent begins.


# ---- over HTTP --------------------------------------------------------------------------------


class Origin(NamedTuple):
    """Who is connected to."""

    host: str
    port: int
    tls: bool


def origin(url: str) -> Origin | None:
    """Who serves `url`; None where it is not http, or only reached by way of a proxy."""
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        return None
    proxies = getproxies()
    proxied = parts.scheme in proxies or "all" in proxies
    if proxied and not proxy_bypass(parts.netloc):
        return None
    tls = parts.scheme == "https"
    return Origin(parts.hostname, parts.port or (443 if tls else 80), tls)


def request(source: Source, body: bytes) -> bytes:
    """The whole request. ValueError where the URL has what no request line may have."""
    parts = urlsplit(source.url)
    if parts.query or not _PATH.fullmatch(parts.path):
        raise ValueError("its path has letters that a request cannot have")
    head = _REQUEST.format(
        path=parts.path.rstrip("/"), host=parts.netloc.rpartition("@")[2], version=__version__,
        credentials=_credentials(source), size=len(body),
    )  # fmt: skip
    return head.encode("ascii") + body


def _credentials(source: Source) -> str:
    """As git sends them, read anew each time."""
    if source.access.token is None:
        return ""
    pair = source.access.username.encode() + b":" + reveal(source.access.token)
    return f"Authorization: Basic {base64.b64encode(pair).decode()}\r\n"


class Connection(asyncio.Protocol):
    """One connection that is kept, with one question on it at a time."""

    def __init__(self) -> None:
        self.keep = True
        self._answer: asyncio.Future[bytes] | None = None

    def ask(self, question: bytes, most: int) -> "asyncio.Future[bytes]":
        """The body of the answer; Odd where it is none of ours, or over `most` bytes in all."""
        self._parser = httptools.HttpResponseParser(self)
        self._kind, self._body, self._left = b"", bytearray(), most
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(question)
        return self._answer

    def close(self) -> None:
        # At once: nothing is on its way, and a farewell in TLS would outlast the loop.
        self._transport.abort()

    # ---- what the loop and the parser call ----------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are transports by what they do, not by their class.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._answer is None or len(data) > self._left:
            self._fail("it says more than it was asked")
            return
        self._left -= len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"it is no HTTP: {error}")

    def connection_lost(self, _error: Exception | None) -> None:
        self._fail("the connection was closed")

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-type":
            self._kind = value

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        status, self.keep = self._parser.get_status_code(), self._parser.should_keep_alive()
        answer, self._answer = self._answer, None
        if status != 200 or self._kind != _ANSWERS:
            self._fail(f"it answered {status}, {self._kind!r}", answer)
        elif answer and not answer.done():
            answer.set_result(bytes(self._body))

    def _fail(self, why: str, answer: "asyncio.Future[bytes] | None" = None) -> None:
        self.keep = False
        self.close()
        answer = answer or self._answer
        if answer and not answer.done():
            answer.set_exception(Odd(why))


def _note(source: Source, error: Exception) -> None:
    log.debug("remote.odd", repo=source.url, why=str(error) or type(error).__name__)


class Asker:
    """Asks remotes, over connections that it keeps. Lives in an event loop."""

    def __init__(self) -> None:
        self._idle: dict[Origin, list[Connection]] = {}
        self._tls: asyncio.Task[ssl.SSLContext] | None = None

    async def tips(self, source: Source, refs: Collection[str]) -> Tips | None:
        """What each of `refs` is at now; None where only git can tell."""
        body = await self._ask(source, wire.ls_refs(refs), _MOST_BYTES)
        return self._read(source, body, lambda body: wire.tips(body, refs))

    async def pack(
        self, source: Source, wants: Collection[Revision], haves: Collection[Revision]
    ) -> bytes | None:
        """A pack of what `wants` have and `haves` have not; None where only git can fetch it."""
        body = await self._ask(source, wire.fetch(wants, haves), _MOST_OF_A_PACK)
        return self._read(source, body, wire.pack)

    async def _ask(self, source: Source, question: bytes, most: int) -> bytes | None:
        try:
            to = origin(source.url)
            if to is None:
                return None
            async with asyncio.timeout(_DEADLINE):
                return await self._exchange(to, request(source, question), most)
        except (AgentError, OSError, ValueError) as error:
            _note(source, error)
            return None

    def _read(self, source: Source, body: bytes | None, read: Callable[[bytes], T]) -> T | None:
        try:
            return None if body is None else read(body)
        except Odd as error:
            _note(source, error)
            return None

    async def _exchange(self, to: Origin, question: bytes, most: int) -> bytes:
        connection = self._take_idle(to) or await self._connect(to)
        answered = False
        try:
            answer = await connection.ask(question, most)
            answered = True
        finally:
            # One whose answer nobody waits for any more would give it to the next who asks.
            if answered and connection.keep:
                self._idle.setdefault(to, []).append(connection)
            else:
                connection.close()
        return answer

    def _take_idle(self, to: Origin) -> Connection | None:
        """The one that was used last, for others are closed by their server sooner."""
        idle = self._idle.get(to, [])
        while idle:
            connection = idle.pop()
            if connection.keep:
                return connection
        return None

    async def _connect(self, to: Origin) -> Connection:
        tls = await self._authorities() if to.tls else None
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, to.host, to.port, ssl=tls)
        return connection

    async def _authorities(self) -> ssl.SSLContext:
        """Those that git on this host trusts; read once, beside the loop, for it takes long."""
        if self._tls is None:
            self._tls = asyncio.create_task(
                asyncio.to_thread(
                    ssl.create_default_context, cafile=os.environ.get("GIT_SSL_CAINFO")
                )
            )
        return await asyncio.shield(self._tls)

    async def close(self) -> None:
        for connection in (one for idle in self._idle.values() for one in idle):
            connection.close()
