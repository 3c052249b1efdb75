"""What a remote's branches are at, asked in this process: protocol 2, `ls-refs`, a kept connection.

It costs a hundredth of a `git ls-remote`, and its answer is only a reason to look: what is deployed
comes from git's own fetch. Whatever is odd (another protocol, a redirect, a password wanted, too
long, too late) is no answer; git then looks by itself, and has its own words for what is wrong.

Sources: gitprotocol-v2(5), gitprotocol-common(5), gitprotocol-http(5). The only room that speaks
with a remote without git.
"""

import asyncio
import base64
import os
import re
import ssl
from collections.abc import Collection, Iterator
from typing import NamedTuple, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httptools
import structlog

from agent import __version__
from agent.errors import AgentError
from agent.kinds import reveal
from agent.mirror import Tips
from agent.model import REVISION, Revision, Source

log = structlog.get_logger()

_DEADLINE = 20.0
_MOST_BYTES = 256 * 1024
_SIZE = re.compile(rb"[0-9a-f]{4}")
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


class Odd(AgentError):
    """Not what a git server of our kind answers."""


# ---- the protocol: pure -----------------------------------------------------------------------


def question(refs: Collection[str]) -> bytes:
    """The body that asks for refs beginning with these names, in a repository of SHA-1."""
    prefixes = [_line(f"ref-prefix {ref}\n") for ref in sorted(refs)]
    return b"".join((_line("command=ls-refs\n"), b"0001", *prefixes, b"0000"))


def _line(text: str) -> bytes:
    content = text.encode()
    return b"%04x%s" % (len(content) + 4, content)


def answer(body: bytes, refs: Collection[str]) -> Tips:
    """What each of `refs` is at in the answer `body`; None for one that is not there. Odd."""
    found: dict[str, Revision | None] = dict.fromkeys(refs)
    for line in _lines(body):
        revision, _, rest = line.removesuffix("\n").partition(" ")
        name = rest.partition(" ")[0]
        if not REVISION.fullmatch(revision):
            raise Odd(f"a line of it is {line[:60]!r}")
        if name in found:
            found[name] = revision
    return found


def _lines(body: bytes) -> Iterator[str]:
    """The lines of a message that is whole: it ends with a flush, and nothing comes after that."""
    place = 0
    while (head := body[place : place + 4]) != b"0000":
        size = int(head, 16) if _SIZE.fullmatch(head) else 0
        if size <= 4 or place + size > len(body):
            raise Odd("it is no pkt-line, or cut short")
        yield body[place + 4 : place + size].decode(errors="replace")
        place += size
    if place + 4 != len(body):
        raise Odd("it goes on after its end")


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


def request(source: Source, refs: Collection[str]) -> bytes:
    """The whole request. ValueError where the URL has what no request line may have."""
    parts, body = urlsplit(source.url), question(refs)
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

    def ask(self, question: bytes) -> "asyncio.Future[bytes]":
        """The body of the answer; Odd where it is none of ours."""
        self._parser = httptools.HttpResponseParser(self)
        self._kind, self._body, self._size = b"", b"", 0
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(question)
        return self._answer

    def close(self) -> None:
        self._transport.close()

    # ---- what the loop and the parser call ----------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are transports by what they do, not by their class.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._size += len(data)
        if self._answer is None or self._size > _MOST_BYTES:
            self._fail("it says more than it was asked")
            return
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
            answer.set_result(self._body)

    def _fail(self, why: str, answer: "asyncio.Future[bytes] | None" = None) -> None:
        self.keep = False
        self._transport.close()
        answer = answer or self._answer
        if answer and not answer.done():
            answer.set_exception(Odd(why))


class Asker:
    """Asks remotes, over connections that it keeps. Lives in an event loop."""

    def __init__(self) -> None:
        self._idle: dict[Origin, list[Connection]] = {}
        self._tls: asyncio.Task[ssl.SSLContext] | None = None

    async def ask(self, source: Source, refs: Collection[str]) -> Tips | None:
        """What each of `refs` is at now; None where only git can tell."""
        try:
            to = origin(source.url)
            if to is None:
                return None
            async with asyncio.timeout(_DEADLINE):
                return answer(await self._exchange(to, request(source, refs)), refs)
        except (AgentError, OSError, ValueError) as error:
            log.debug("remote.odd", repo=source.url, why=str(error) or type(error).__name__)
            return None

    async def _exchange(self, to: Origin, question: bytes) -> bytes:
        connection = self._take_idle(to) or await self._connect(to)
        try:
            return await connection.ask(question)
        except BaseException:
            connection.keep = False
            raise
        finally:
            if connection.keep:
                self._idle.setdefault(to, []).append(connection)
            else:
                connection.close()

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
