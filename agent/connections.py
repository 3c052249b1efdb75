"""A connection: uvicorn's HTTP protocol, with the deadlines and the short path it does not have.

uvicorn waits for ever on a silent connection, half a head or half a body. Here each has its time,
and where there are too many connections the one that has waited longest makes room, so that no
number of silent ones keeps a real delivery out.

The short path: a request that somebody takes as soon as its head is there (`Taker`) is answered
without the application, which costs half as much. All others go to the application.

Leans on these insides of uvicorn 0.54, and on no others: `HttpToolsProtocol`'s callbacks
(connection_made, connection_lost, data_received, on_header, on_headers_complete, on_body,
on_message_complete, on_response_complete, shutdown), its `cycle`, `transport`, `parser`, `url`,
`headers`, `client`, `expect_100_continue` and `server_state.default_headers`.
"""

import asyncio
import pwd
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, auto
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol, cast

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = structlog.get_logger()

_MOST_HEAD = 64 * 1024
_MOST_BESIDE = 256 * 1024
"""Bytes that come with a body and are none of it: the sizes of its pieces, and what trails it."""
_IDLE = 5.0


# ---- how long and how many --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds for a whole head and a whole body, and how many connections there may be."""

    headers: float = 5.0
    body: float = 8.0
    connections: int = 1024


class Phase(IntEnum):
    """What a connection waits for. By number, for a plain Enum is slow as a key."""

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


# ---- the short path ---------------------------------------------------------------------------


class Head(NamedTuple):
    """A request until its body. Names of headers are in lower case."""

    method: bytes
    path: bytes
    """As it came, without the query."""
    headers: list[tuple[bytes, bytes]]
    client: str


class Taken(Protocol):
    """A request on the short path, told of its body as that comes."""

    def begin(self) -> None:
        """The head is there. Whoever replies already is told nothing more."""

    def feed(self, chunk: bytes) -> None:
        """A piece of the body."""

    def complete(self) -> None:
        """The body is whole; the reply comes now or later."""

    def lost(self) -> None:
        """The body will never be whole, and nobody waits for a reply."""


Reply = Callable[[int, bytes], None]
"""Answers with a status and JSON, the first time; after that it does nothing."""

Taker = Callable[[Head, Reply], Taken | None]
"""Whoever takes requests on the short path; None for one that is the application's."""


def guarded(reply: Reply, step: Callable[..., None], *given: Any) -> None:
    """Take a step; whatever fault of ours is in it is logged, and answered with a 500."""
    try:
        step(*given)
    except Exception:
        # Of which kind nobody can know, and every other connection has to go on.
        log.exception("request.crashed")
        reply(500, b'{"error":"error"}')


_TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUS = {one.value: f"HTTP/1.1 {one.value} {one.phrase}\r\n".encode() for one in HTTPStatus}


def _relative(url: bytes) -> bytes:
    """The path of a URL that came whole, as to a proxy (RFC 9112, 3.2.2)."""
    return b"/" + url.partition(b"://")[2].partition(b"/")[2]


class Bounded(HttpToolsProtocol):
    """uvicorn's HTTP protocol, with a time for each phase, and the short path."""

    crowd: Crowd
    taker: Taker | None = None
    phase = Phase.HEAD
    _now = Phase.HEAD
    """The phase that what was just read has led to; entered once it is all read."""
    _head_bytes = 0
    _beside = 0
    _taken: Taken | None = None
    _replied = False
    _whole = False
    _keep_alive = True
    _last = False
    """The server stops: no request after this one."""

    # ---- what uvicorn and the event loop call --------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        self.crowd.enter(self, Phase.HEAD)
        self.crowd.make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self.crowd.leave(self)
        self._lose()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self.phase is Phase.IDLE:
            self._head_bytes = 0
            self._now = Phase.HEAD
        if self.phase is Phase.BODY:
            self._beside += len(data)
        super().data_received(data)
        if self._now is not self.phase and not self.transport.is_closing():
            self.crowd.enter(self, self._now)
        if self.phase is Phase.HEAD:
            self._head_bytes += len(data)
            if self._head_bytes > _MOST_HEAD:
                self._end(_HEAD_TOO_LARGE)
        elif self._beside > _MOST_BESIDE:
            self._end(b"")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Nobody asks for what trails a body, and of that there may be any amount."""
        if self._now is not Phase.BODY:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.taker is None:
            super().on_headers_complete()
        elif self._taken or (self.cycle and not self.cycle.response_complete):
            self._refuse_to_hurry()
            return
        elif not self._take(self.taker):
            super().on_headers_complete()
        if self._last and self.cycle is not None:
            self.cycle.keep_alive = False
        self._now, self._beside = Phase.BODY, 0

    def on_body(self, body: bytes) -> None:
        self._beside -= len(body)
        if self._taken is None:
            super().on_body(body)
        elif not (self._replied or self._whole):
            guarded(self._reply, self._taken.feed, body)

    def on_message_complete(self) -> None:
        if self._taken is None:
            super().on_message_complete()
            # Where the answer was sent before the whole body had come, the rest was read away.
            self._now = Phase.IDLE if self.cycle.response_complete else Phase.ANSWER
        elif not self._whole:
            self._complete(self._taken)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._now is Phase.ANSWER and self.cycle.response_complete:
            self._now = Phase.IDLE
            self.crowd.enter(self, Phase.IDLE)

    def shutdown(self) -> None:
        """The server stops: what was begun is answered, and who was let in may still ask once."""
        self._last = True
        self._keep_alive = False
        if self._taken is None and self.phase is not Phase.HEAD:
            super().shutdown()

    # ---- the short path ------------------------------------------------------------------------

    def _take(self, taker: Taker) -> bool:
        """Offer the request whose head is there to the short path; whether it was taken."""
        self._replied = self._whole = False
        self._keep_alive = self.parser.should_keep_alive() and not self._last
        client = self.client[0] if self.client else "unix"
        path = (self.url if self.url[:1] == b"/" else _relative(self.url)).partition(b"?")[0]
        head = Head(self.parser.get_method(), path, self.headers, client)
        self._taken = taker(head, self._reply)
        if self._taken is None:
            return False
        guarded(self._reply, self._taken.begin)
        if self.expect_100_continue and not self._replied:
            self.transport.write(_CONTINUE)
        return True

    def _complete(self, taken: Taken) -> None:
        self._whole = True
        self._now = Phase.ANSWER
        if self._replied:
            self._begin_anew()
        else:
            guarded(self._reply, taken.complete)

    def _reply(self, status: int, content: bytes) -> None:
        if self._replied or self.transport.is_closing():
            return
        self._replied = True
        head = [_STATUS[status]]
        for name, value in self.server_state.default_headers:
            head += (name, b": ", value, b"\r\n")
        if not self._keep_alive:
            head.append(b"connection: close\r\n")
        head.append(b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(content))
        self.transport.write(b"".join((*head, content)))
        if self._whole:
            self._begin_anew()

    def _begin_anew(self) -> None:
        """Answered, and all of it read: the next request may come."""
        self._taken = None
        self._now = Phase.IDLE
        self.server_state.total_requests += 1
        if self._keep_alive:
            self.crowd.enter(self, Phase.IDLE)
        else:
            self.transport.close()

    def _refuse_to_hurry(self) -> None:
        """A request behind one that is not answered yet: read no more, and close after that one.

        No forge sends so, and a client must not with a POST (RFC 9112, 9.3.2).
        """
        self._keep_alive = False
        if self.cycle is not None:
            self.cycle.keep_alive = False
        self.transport.pause_reading()

    def _lose(self) -> None:
        taken, self._taken = self._taken, None
        if taken is not None and not self._replied:
            taken.lost()

    # ---- deadlines -----------------------------------------------------------------------------

    def time_is_up(self) -> None:
        """Close it: with a 408 where a request was begun and nothing was answered yet."""
        asked = self.phase is Phase.BODY or (self.phase is Phase.HEAD and self._head_bytes)
        answered = self._replied if self._taken else self.cycle and self.cycle.response_started
        self._end(b"" if self.phase is Phase.IDLE or not asked or answered else _TIMEOUT)

    def leave(self) -> None:
        """Make room for another."""
        self._end(b"")

    def _end(self, last_words: bytes) -> None:
        self.crowd.leave(self)
        self._lose()
        if self.cycle is not None and not self.cycle.response_complete:
            # The application sees http.disconnect, and what it still sends goes nowhere.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if last_words and not self.transport.is_closing():
            self.transport.write(last_words)
        self.transport.close()


class Introduced(HttpToolsProtocol):
    """uvicorn's HTTP protocol on a Unix socket, where the kernel says who the client is."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        self.client = _peer(transport.get_extra_info("socket"))


def _peer(connection: Any) -> tuple[str, int]:
    """The name and the number of the user at the other end (unix(7), SO_PEERCRED)."""
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", told)
    try:
        return pwd.getpwuid(uid).pw_name, uid
    except KeyError:
        return f"uid {uid}", uid
