"""The built-in health check: a URL that has to answer, and to go on answering for a while."""

import http.client
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from agent.cancel import Cancel
from agent.model import Verify

_EVERY = 0.5
_LONGEST_ANSWER = 5.0


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
        answer = ask(check.url)
        good = answer == str(check.expect)
        if answer != told:
            say(f"after {asked - began:.1f} s {check.url} answers {answer}")
            told = answer
        good_since = (good_since or asked) if good else None
        now = time.monotonic()
        if good_since is not None and now - good_since >= check.stable_for:
            return None
        if now - began > limit or (good_since is None and now - began > check.within):
            return f"{check.url} answers {answer}, not {check.expect}, after {now - began:.0f} s"
        if cancel.wait(_EVERY):
            return "canceled"


def ask(url: str) -> str:
    """The status that `url` answers with, such as `200`, or why there is none. Follows nothing."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_LONGEST_ANSWER)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("GET", path, headers={"User-Agent": "gitops-agent"})
        return str(connection.getresponse().status)
    except (OSError, http.client.HTTPException) as error:
        return f"nothing ({getattr(error, 'strerror', None) or error})"
    finally:
        connection.close()
