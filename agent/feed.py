"""The wire between receiver and core where they are two processes: a unix socket.

The core asks for the letters after a place; the receiver answers as soon as there are any, and
after _PATIENCE seconds with none. Each question tells how the core is, for /healthz; each answer
what became of deliveries, for status and metrics. A message is msgpack behind its length.

The core believes the receiver nothing but that targets want a look: a message's size is bounded,
its shape checked, and what is in it is never a place, a command or something to give to git.
"""

import asyncio
import re
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

from agent.errors import AgentError, JournalUnavailable
from agent.inbox import Inbox, Letters
from agent.model import REVISION, Letter
from agent.tally import Tally

T = TypeVar("T")
log = structlog.get_logger()

_PATIENCE = 2.0
_SILENCE = 15.0
_MOST = 4 * 1024 * 1024
_LENGTH = struct.Struct("!I")
_DELIVERY = re.compile(r"[A-Za-z0-9-]{0,64}")


class FeedLost(AgentError):
    """The other side is away, or said something that makes no sense."""


@dataclass(frozen=True, slots=True)
class Question:
    """The core asks: what is after this place? None asks only which inbox there is."""

    after: int | None
    healthy: bool


@dataclass(frozen=True, slots=True)
class Answer:
    inbox: str
    letters: list[Letter]
    tally: Tally


async def _send(writer: asyncio.StreamWriter, message: object) -> None:
    content = msgspec.msgpack.encode(message)
    writer.write(_LENGTH.pack(len(content)) + content)
    await writer.drain()


async def _receive(reader: asyncio.StreamReader, kind: type[T]) -> T:
    """The next message. Errors: FeedLost where the other side went away or made no sense."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > _MOST:
            raise FeedLost(f"a message of {length} bytes")
        return msgspec.msgpack.decode(await reader.readexactly(length), type=kind)
    except msgspec.DecodeError as error:
        raise FeedLost(str(error)) from None
    except (asyncio.IncompleteReadError, OSError):
        raise FeedLost("the other side went away") from None


# ---- the receiver's side ----------------------------------------------------------------------


class Feed:
    """Answers the core. What it was last told of the core is what /healthz tells."""

    def __init__(self, inbox: Inbox, letters: Letters, tally: Tally) -> None:
        self._inbox = inbox
        self._letters = letters
        self._tally = tally
        self._well_at = time.monotonic()
        self.read = 0
        """The place up to which the core has read."""

    def core_is_well(self) -> bool:
        """Whether the core has said so lately. A moment of silence is a restart."""
        return time.monotonic() - self._well_at < _SILENCE

    async def open(self, listening: socket.socket) -> asyncio.Server:
        return await asyncio.start_unix_server(self._talk, sock=listening)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                question = await _receive(reader, Question)
                if question.healthy:
                    self._well_at = time.monotonic()
                await _send(writer, await self._answer(question))
        except (FeedLost, ConnectionError) as error:
            log.info("core.left", why=str(error))
        except JournalUnavailable as error:
            log.warning("letters.unread", why=str(error))
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, question: Question) -> Answer:
        if question.after is None:
            return Answer(self._inbox.id, [], self._tally)
        self.read = question.after
        letters = await self._letters.after(question.after, _PATIENCE)
        return Answer(self._inbox.id, letters, self._tally)


# ---- the core's side --------------------------------------------------------------------------


class Follower:
    """The receiver's letters, as the core reads them from its socket."""

    def __init__(self, path: Path, healthy: Callable[[], bool]) -> None:
        self._path = path
        self._healthy = healthy
        self._wire: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._heard_at = time.monotonic()
        self.tally = Tally()

    def trouble(self) -> str | None:
        """What is wrong: the receiver has not answered lately."""
        silent = time.monotonic() - self._heard_at > _SILENCE
        return f"the receiver does not answer on {self._path}" if silent else None

    async def inbox(self) -> str:
        """Which inbox the receiver has, over a connection made anew."""
        self.close()
        try:
            self._wire = await asyncio.open_unix_connection(self._path)
        except OSError as error:
            raise FeedLost(f"no receiver on {self._path}: {error.strerror}") from None
        return (await self._ask(None)).inbox

    async def after(self, n: int) -> list[Letter]:
        """The letters after the `n`th, oldest first, as soon as there are any."""
        while True:
            answer = await self._ask(n)
            if answer.letters:
                _check(answer.letters, n)
                return answer.letters

    async def _ask(self, after: int | None) -> Answer:
        if self._wire is None:
            raise FeedLost("not connected")
        reader, writer = self._wire
        try:
            async with asyncio.timeout(_SILENCE):
                await _send(writer, Question(after, self._healthy()))
                answer = await _receive(reader, Answer)
        except (OSError, TimeoutError):
            raise FeedLost("the receiver does not answer") from None
        self._heard_at = time.monotonic()
        self.tally = answer.tally
        return answer

    def close(self) -> None:
        if self._wire:
            self._wire[1].close()
            self._wire = None


def _check(letters: list[Letter], after: int) -> None:
    """Letters are in order, and what they tell looks like it; else FeedLost."""
    for one in letters:
        sound = one.revision is None or REVISION.fullmatch(one.revision)
        if one.n <= after or not sound or not _DELIVERY.fullmatch(one.delivery):
            raise FeedLost(f"the receiver sent a letter that makes no sense, after {after}")
        after = one.n
