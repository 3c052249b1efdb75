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
from typing import TYPE_CHECKING

import structlog

from agent import __version__
from agent.errors import AgentError
from agent.kinds import reveal
from agent.mirror import Tips
from agent.model import REVISION, Revision, Source

if TYPE_CHECKING:
    import httpx

log = structlog.get_logger()

_DEADLINE = 20.0
_MOST_BYTES = 256 * 1024
# Longer than the usual interval of a poll; whoever serves may close sooner, and does.
_KEPT = 300.0
_SIZE = re.compile(rb"[0-9a-f]{4}")
_ASKS = "application/x-git-upload-pack-request"
_ANSWERS = "application/x-git-upload-pack-result"


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


# ---- the asking -------------------------------------------------------------------------------


class Asker:
    """Asks https remotes, over connections that it keeps. Lives in an event loop."""

    def __init__(self) -> None:
        self._http: asyncio.Task[httpx.AsyncClient] | None = None

    async def ask(self, source: Source, refs: Collection[str]) -> Tips | None:
        """What each of `refs` is at now; None where only git can tell."""
        if not source.url.startswith(("https://", "http://")):
            return None
        import httpx

        try:
            async with asyncio.timeout(_DEADLINE):
                return answer(await self._post(source, question(refs)), refs)
        except (httpx.HTTPError, httpx.InvalidURL, AgentError, OSError, ValueError) as error:
            log.debug("remote.odd", repo=source.url, why=str(error) or type(error).__name__)
            return None

    async def _post(self, source: Source, content: bytes) -> bytes:
        http = await self._client()
        url = f"{source.url.rstrip('/')}/git-upload-pack"
        headers = {} if source.access.token is None else {"Authorization": _credentials(source)}
        async with http.stream("POST", url, content=content, headers=headers) as response:
            kind = response.headers.get("content-type")
            if response.status_code != 200 or kind != _ANSWERS:
                raise Odd(f"it answered {response.status_code}, {kind}")
            body = b""
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > _MOST_BYTES:
                    raise Odd("it is too long")
            return body

    async def _client(self) -> "httpx.AsyncClient":
        """Made when first needed, beside the loop: reading the host's certificates takes long."""
        if self._http is None:
            self._http = asyncio.create_task(asyncio.to_thread(_make_client))
        return await asyncio.shield(self._http)

    async def close(self) -> None:
        if self._http is not None:
            await (await self._http).aclose()


def _make_client() -> "httpx.AsyncClient":
    import httpx

    return httpx.AsyncClient(
        headers={
            # Servers tell git from a browser by how this begins.
            "User-Agent": f"git/gitops-agent-{__version__}",
            "Git-Protocol": "version=2",
            "Content-Type": _ASKS,
            "Accept": _ANSWERS,
            "Accept-Encoding": "identity",
        },
        # The authorities that git on this host trusts.
        verify=ssl.create_default_context(cafile=os.environ.get("GIT_SSL_CAINFO")),
        limits=httpx.Limits(keepalive_expiry=_KEPT),
        timeout=_DEADLINE,
        follow_redirects=False,
    )


def _credentials(source: Source) -> str:
    """As git sends them, read anew each time."""
    assert source.access.token
    pair = source.access.username.encode() + b":" + reveal(source.access.token)
    return f"Basic {base64.b64encode(pair).decode()}"
