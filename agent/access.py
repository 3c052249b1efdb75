"""Who may ask the control application: rules about requests, and who is logged in. No I/O.

On its socket, whoever may open it. On TCP, whoever has the token: as `Authorization: Bearer` for
programs, or exchanged at /login for a session, whose cookie tells nothing. On either, a page of
another site is kept from reaching through somebody's browser: nothing that changes anything is
taken from another origin, and on the socket (which `ssh -L` puts on a person's own machine) no
request to a name that is not the machine's own, so that a name made to point there opens nothing.
"""

import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

SESSION = 12 * 3600.0
_MOST_SESSIONS = 1000
_TRIES, _PER = 5, 60.0
_MOST_TRIERS = 1000

_SAFE = ("GET", "HEAD", "OPTIONS")


# ---- where a request comes from: pure -----------------------------------------------------------


def is_local(host: str) -> bool:
    """Whether a Host header names the machine itself, as it does through a socket or a tunnel."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return name in ("agent", "localhost", "127.0.0.1", "[::1]")


def is_foreign(method: str, headers: Mapping[str, str]) -> bool:
    """Whether another site's page made a browser send this request, and it would change something.

    By what every browser says of it (Fetch Metadata, else the Origin header); whoever says
    neither is no browser.
    """
    if method in _SAFE:
        return False
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None and site not in ("same-origin", "none"):
        return True
    return origin is not None and origin.partition("://")[2] != headers.get("host", "")


def own_path(text: str) -> str:
    """`text` where it is a path of our own to go on to, else `/`; never another host's address."""
    own = text.startswith("/") and not text.startswith("//") and "\\" not in text
    return text if own and text.isprintable() else "/"


def by_name(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """A request's headers. One that came twice is both, joined, which is nothing that fits."""
    found: dict[str, str] = {}
    for name, value in headers:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found


# ---- sessions and tries -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Session:
    name: str
    """What the visitor wants to be called in the history."""
    until: float


class Sessions:
    """Who is logged in. In memory only: a restart of the agent ends every session."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: dict[str, Session] = {}

    def open(self, name: str) -> str:
        """A new session; gives its secret id."""
        while len(self._open) >= _MOST_SESSIONS:
            del self._open[next(iter(self._open))]
        number = secrets.token_urlsafe(32)
        self._open[number] = Session(name, self._clock() + SESSION)
        return number

    def find(self, number: str) -> Session | None:
        found = self._open.get(number)
        if found and found.until < self._clock():
            del self._open[number]
            return None
        return found

    def close(self, number: str) -> None:
        self._open.pop(number, None)

    def close_all(self) -> None:
        self._open.clear()


class Tries:
    """How often each address has tried a token in the last minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_address: dict[str, deque[float]] = {}

    def wait(self, address: str) -> float:
        """Seconds until `address` may try again; 0 counts as a try."""
        now = self._clock()
        tried = self._by_address.pop(address, deque())
        while tried and tried[0] <= now - _PER:
            tried.popleft()
        self._by_address[address] = tried
        while len(self._by_address) > _MOST_TRIERS:
            del self._by_address[next(iter(self._by_address))]
        if len(tried) >= _TRIES:
            return tried[0] + _PER - now
        tried.append(now)
        return 0.0
