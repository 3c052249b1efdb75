"""Sockets and uvicorn, with the deadlines that uvicorn does not have. The only room that knows it.

uvicorn waits for ever on a silent connection, half a head or half a body. Here each has its time,
and where there are too many connections the one that has waited longest makes room, so that no
number of silent ones keeps a real delivery out.

Leans on these insides of uvicorn 0.54, and on no others: `HttpToolsProtocol`'s callbacks
(connection_made, connection_lost, data_received, on_headers_complete, on_message_complete,
on_response_complete), its `cycle` and `transport`; `Server.startup`, `capture_signals` and
`should_exit`.
"""

import asyncio
import logging
import os
import socket
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from agent.errors import AgentError

_BACKLOG = 2048
_MOST_HEAD = 64 * 1024
_IDLE = 5.0
_GRACE = 5


# ---- sockets ----------------------------------------------------------------------------------


def bind(address: str, *, mode: int = 0o660) -> socket.socket:
    """A listening socket on `host:port`, `[v6]:port` or `unix:/path` (with `mode`).

    AgentError where that is not possible.
    """
    try:
        if address.startswith("unix:"):
            return _bind_unix(Path(address.removeprefix("unix:")), mode)
        host, _, port = address.rpartition(":")
        return _bind_tcp(host.strip("[]"), int(port))
    except OSError as error:
        raise AgentError(
            f"cannot listen on {address}: {error.strerror}; is another agent or server there?"
            " `bind` in [server] names another address"
        ) from error


def _bind_tcp(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((host, port))
        one.listen(_BACKLOG)
    except BaseException:
        one.close()
        raise
    one.setblocking(False)
    return one


def _bind_unix(path: Path, mode: int) -> socket.socket:
    _remove_stale(path)
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Nobody can connect before listen(), so there is no moment at which it is too open.
        one.bind(str(path))
        path.chmod(mode)
        one.listen(_BACKLOG)
    except BaseException:
        one.close()
        raise
    one.setblocking(False)
    return one


def _remove_stale(path: Path) -> None:
    """Remove a socket's file on which nobody listens any more."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise AgentError(f"{path} is there and is no socket; move it away")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise AgentError(f"somebody listens on {path} already; stop that agent first")


# ---- limits -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds for a whole head and a whole body, and how many connections there may be."""

    headers: float = 5.0
    body: float = 8.0
    connections: int = 1024


class Phase(Enum):
    """What a connection waits for."""

    IDLE = auto()
    HEAD = auto()
    BODY = auto()
    ANSWER = auto()


class Crowd:
    """A server's connections by phase, each phase in the order in which they came to it."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._waiting: dict[Phase, dict[Bounded, float]] = {phase: {} for phase in Phase}
        self._time = {
            Phase.IDLE: min(_IDLE, limits.headers),
            Phase.HEAD: limits.headers,
            Phase.BODY: limits.body,
        }
        self._sweep: asyncio.TimerHandle | None = None

    def enter(self, one: "Bounded", phase: Phase) -> None:
        self._waiting[one.phase].pop(one, None)
        one.phase = phase
        self._waiting[phase][one] = one.loop.time()
        if self._sweep is None:
            self._arm(one.loop)

    def leave(self, one: "Bounded") -> None:
        self._waiting[one.phase].pop(one, None)

    def make_room(self) -> None:
        """If there are too many, close an idle one, or else whoever has waited longest."""
        if sum(map(len, self._waiting.values())) <= self.limits.connections:
            return
        idle, *asking = (self._waiting[phase] for phase in (Phase.IDLE, Phase.HEAD, Phase.BODY))
        oldest = [next(iter(crowd.items())) for crowd in ([idle] if idle else asking) if crowd]
        if oldest:
            min(oldest, key=lambda found: found[1])[0].leave()

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        every = min(self._time.values()) / 10
        self._sweep = loop.call_later(every, self._end_late, loop)

    def _end_late(self, loop: asyncio.AbstractEventLoop) -> None:
        """End those whose time is up; in each phase the first are the oldest."""
        now = loop.time()
        for phase, allowed in self._time.items():
            late = []
            for one, since in self._waiting[phase].items():
                if now - since < allowed:
                    break
                late.append(one)
            for one in late:
                one.time_is_up()
        self._sweep = None
        if any(self._waiting.values()):
            self._arm(loop)


_TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


class Bounded(HttpToolsProtocol):
    """uvicorn's HTTP protocol, with a time for each phase."""

    crowd: Crowd
    phase = Phase.HEAD
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.crowd.enter(self, Phase.HEAD)
        self.crowd.make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self.crowd.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self.phase is Phase.IDLE:
            self._head_bytes = 0
            self.crowd.enter(self, Phase.HEAD)
        super().data_received(data)
        if self.phase is Phase.HEAD:
            self._head_bytes += len(data)
            if self._head_bytes > _MOST_HEAD:
                self._end(_HEAD_TOO_LARGE)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self.crowd.enter(self, Phase.BODY)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        # Where the answer was sent before the whole body had come, the rest was just read away.
        self.crowd.enter(self, Phase.IDLE if self.cycle.response_complete else Phase.ANSWER)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.phase is Phase.ANSWER and self.cycle.response_complete:
            self.crowd.enter(self, Phase.IDLE)

    def time_is_up(self) -> None:
        """Close it: with a 408 where a request was begun and nothing was answered yet."""
        asked = self.phase is Phase.BODY or (self.phase is Phase.HEAD and self._head_bytes)
        answered = self.cycle is not None and self.cycle.response_started
        self._end(b"" if self.phase is Phase.IDLE or not asked or answered else _TIMEOUT)

    def leave(self) -> None:
        """Make room for another."""
        self._end(b"")

    def _end(self, last_words: bytes) -> None:
        self.crowd.leave(self)
        if self.cycle is not None and not self.cycle.response_complete:
            # The application sees http.disconnect, and what it still sends goes nowhere.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if last_words and not self.transport.is_closing():
            self.transport.write(last_words)
        self.transport.close()


# ---- the server -------------------------------------------------------------------------------


class Server(uvicorn.Server):
    """Serves one application on listening sockets until `stop`. Several can share a loop."""

    def __init__(
        self, app: Callable[..., Any], sockets: Sequence[socket.socket], limits: Limits | None
    ) -> None:
        # What is left of its log are our own bugs; refused requests would only fill it.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        http: Any = "httptools"
        if limits:
            http = type("Protocol", (Bounded,), {"crowd": Crowd(limits)})
        super().__init__(
            uvicorn.Config(
                app,
                http=http,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_GRACE,
            )
        )
        self._sockets = list(sockets)
        self._accepting = asyncio.Event()
        self._names = [_name(one) for one in sockets]

    async def run(self) -> None:  # type: ignore[override]
        """Serve until `stop`; then finish what is being answered."""
        await self.serve(self._sockets)

    async def ready(self) -> None:
        """Wait until connections are accepted."""
        await self._accepting.wait()

    def stop(self) -> None:
        self.should_exit = True

    def addresses(self) -> list[str]:
        """Where it listens, such as `127.0.0.1:9000`."""
        return self._names

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._accepting.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the service."""
        yield


def _name(one: socket.socket) -> str:
    address = one.getsockname()
    if one.family == socket.AF_UNIX:
        return f"unix:{os.fsdecode(address)}"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
