"""A deployment's hook output, read: as it grows, or all that one step has printed so far.

What `output` writes while a hook runs is read here, for the control socket and the page.
"""

import asyncio
import codecs
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from agent.journal import Journal
from agent.model import Deployment, Step
from agent.worker import Mailbox

_FOLLOW_EVERY = 0.1
_CHUNK = 65536


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a deployment's output: so many bytes into what step `step` has printed."""

    step: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class LeftAlone:
    """A look at a target that led to no deployment: what it came to, and why."""

    target: str
    result: str
    why: str


@dataclass(frozen=True, slots=True)
class LogPiece:
    """A line of a followed log: a step that begins, output, a step's end or the deployment's.

    Of a followed target also that it is being looked at, and that nothing came of that.
    """

    at: Place
    """Where the piece ends; who goes on from there misses nothing."""
    step: Step | None = None
    text: str | None = None
    end: Deployment | None = None
    waits: str | None = None
    """The target of which a look is waited for."""
    left: LeftAlone | None = None


def log_file(logs: Path, deployment: str, step: Step) -> Path:
    """Where the output of a step is; there is no such file while it has printed nothing."""
    return logs / deployment / f"{step.n:02d}-{step.stage}-{step.name}.log"


def printed(logs: Path, deployment: str, step: Step) -> bytes:
    """All that a step has printed so far. `output` keeps its size within bounds."""
    return _read(log_file(logs, deployment, step), 0, -1)


async def follow(
    journal: Journal, logs: Path, name: str, *, to_its_end: bool, after: Place | None = None
) -> AsyncIterator[LogPiece]:
    """The log of the deployment with the id `name`, step by step, from `after` on.

    What there is now; with `to_its_end` also what comes, until the deployment ends.
    """
    reader = _Reader(logs, after or Place())
    while True:
        one = await asyncio.wrap_future(journal.deployment(name))
        if one is None:
            return
        async for piece in reader.news(one):
            yield piece
        if one.ended_at is not None or not to_its_end:
            yield LogPiece(reader.at, end=one)
            return
        await asyncio.sleep(_FOLLOW_EVERY)


async def follow_target(
    journal: Journal, logs: Path, target: str, box: Mailbox
) -> AsyncIterator[LogPiece]:
    """What runs on a target, and what comes of each look that is under way or asked for.

    Where nothing is, its newest deployment. At the end what its last look came to, if nothing.
    """
    looking, known = box.running is not None, await _newest(journal, target)
    before = known.id if looking and known and known.ended_at is not None else None
    shown, waits = before, False
    while True:
        looking, known = box.running is not None, await _newest(journal, target)
        if known and known.id != shown:
            async for piece in follow(journal, logs, known.id, to_its_end=True):
                yield piece
            shown, waits = known.id, False
        elif not looking:
            break
        else:
            if not waits:
                yield LogPiece(Place(), waits=target)
            waits = True
            await asyncio.sleep(_FOLLOW_EVERY)
    last = box.last
    if last and last.deployment is None:
        yield LogPiece(Place(), left=LeftAlone(target, last.result, last.why))
    elif known and shown == before:
        # It ended as it was asked for: only what follows a deployment was still going on.
        async for piece in follow(journal, logs, known.id, to_its_end=True):
            yield piece


async def _newest(journal: Journal, target: str) -> Deployment | None:
    found = await asyncio.wrap_future(journal.history(target, 1))
    return found[0] if found else None


class _Reader:
    """How far one follower has come."""

    def __init__(self, logs: Path, at: Place) -> None:
        self.at = at
        self._logs = logs
        self._ended = False
        self._decoder = _decoder()

    async def news(self, one: Deployment) -> AsyncIterator[LogPiece]:
        """What has come since, by the journal's newest word on the deployment."""
        for step in one.steps:
            if step.n < self.at.step or (step.n == self.at.step and self._ended):
                continue
            if step.n > self.at.step:
                self.at, self._ended, self._decoder = Place(step.n), False, _decoder()
                yield LogPiece(self.at, step=step)
            async for text in self._grown(log_file(self._logs, one.id, step)):
                yield LogPiece(self.at, text=text)
            if step.ended_at is not None:
                if rest := self._decoder.decode(b"", final=True):
                    yield LogPiece(self.at, text=rest)
                self._ended = True
                yield LogPiece(self.at, step=step)

    async def _grown(self, path: Path) -> AsyncIterator[str]:
        """What the file has more; half a character at its end waits for the other half."""
        read = self.at.offset + len(self._decoder.getstate()[0])
        while chunk := await asyncio.to_thread(_read, path, read, _CHUNK):
            read += len(chunk)
            text = self._decoder.decode(chunk)
            self.at = Place(self.at.step, read - len(self._decoder.getstate()[0]))
            if text:
                yield text


def _decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")("replace")


def _read(path: Path, start: int, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(most)
    except FileNotFoundError:
        return b""
