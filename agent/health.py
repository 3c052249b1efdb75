"""The built-in health check: a URL that has to answer, and to go on answering for a while."""

import asyncio
import os
import re
import ssl
import time
from collections.abc import Callable
from urllib.parse import SplitResult, urlsplit

from agent.cancel import Cancel
from agent.model import Verify
from agent.words import printable

_EVERY = 0.5
_LONGEST_ANSWER = 5.0
"""Seconds, from the connecting to the end of the status line, however it comes."""
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\n]*)?\r?\n")


def watch(check: Verify, limit: float, cancel: Cancel, say: Callable[[str], None]) -> str | None:
    """Ask until the answers were good for `check.stable_for` seconds; what is wrong, or None.

    A bad answer begins the wait anew, and is the end once `check.within` has passed, or `limit`
    seconds in all. `say` is told of each answer that is not like the one before.
    """
    began = time.monotonic()
    good_since: float | None = None
    told = None
    while True:
        asked = time.monotonic()
        answer = ask(check.url, cancel)
        if cancel.is_set:
            return "canceled"
        good = answer == str(check.expect)
        if answer != told:
            say(f"after {asked - began:.1f} s {check.url} answers {answer}")
            told = answer
        good_since = (good_since or asked) if good else None
        now = time.monotonic()
        if good_since is not None and now - good_since >= check.stable_for:
            return None
        if good_since is None and now - began > min(check.within, limit):
            return f"{check.url} answers {answer}, not {check.expect}, after {now - began:.0f} s"
        if now - began > limit:
            return f"{check.url} answers {answer}, but the deployment has no time left to watch it"
        if cancel.wait(_EVERY):
            return "canceled"


def ask(url: str, cancel: Cancel) -> str:
    """The status that `url` answers with, such as `200`, or why there is none. Follows nothing."""
    return asyncio.run(_ask(urlsplit(url), cancel))


async def _ask(url: SplitResult, cancel: Cancel) -> str:
    asking = asyncio.ensure_future(_status(url))
    loop = asyncio.get_running_loop()
    loop.add_reader(cancel.fileno(), asking.cancel)
    try:
        return await asyncio.wait_for(asking, _LONGEST_ANSWER)
    except asyncio.CancelledError:
        return "nothing (canceled)"
    except TimeoutError:
        return f"nothing (within {_LONGEST_ANSWER:g} s)"
    except (OSError, ValueError) as error:
        return f"nothing ({_why(error)})"
    finally:
        loop.remove_reader(cancel.fileno())


async def _status(url: SplitResult) -> str:
    """What the status line says (RFC 9112, 4); of the rest of an answer nothing is read."""
    secure = ssl.create_default_context() if url.scheme == "https" else None
    port = url.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(url.hostname, port, ssl=secure)
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    try:
        head = (f"GET {path} HTTP/1.1", f"Host: {url.netloc}", "User-Agent: gitops-agent")
        writer.write("\r\n".join((*head, "Connection: close", "", "")).encode())
        while True:
            line = await reader.readline()
            found = _STATUS_LINE.fullmatch(line)
            if not found:
                raise ValueError(f"no HTTP but {line[:40]!r}" if line else "it said nothing")
            if not found[1].startswith(b"1"):
                return found[1].decode()
            # Such as 103: the status itself is still to come.
            while (await reader.readline()).strip():
                pass
    finally:
        writer.transport.abort()


def _why(error: Exception) -> str:
    if isinstance(error, ConnectionError):
        return os.strerror(error.errno) if error.errno else "it closed the connection"
    return printable(getattr(error, "strerror", None) or str(error))
