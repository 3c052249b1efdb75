"""A running deployment as server-sent events: HTML that htmx puts into the open page."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

from jinja2 import Environment
from litestar.response.sse import ServerSentEventMessage

from agent import transcript
from agent.journal import Journal
from agent.model import Deployment
from agent.page import outputs, views
from agent.page.ansi import Painter
from agent.page.outputs import NOTHING, Html, StepLine
from agent.transcript import LogPiece, Place


def place(text: str) -> Place:
    """The Place that `3:4096` says; the beginning where it says none."""
    step, _, offset = text.partition(":")
    known = step.isdecimal() and offset.isdecimal() and len(text) < 20
    return Place(int(step), int(offset)) if known else Place()


class Live:
    """One deployment followed by one open page, which shows it up to `after` already."""

    def __init__(self, templates: Environment, logs: Path, one: Deployment, after: Place) -> None:
        self._templates = templates
        self._logs = logs
        self._one = one
        self._after = after
        self._shown = after.step
        self._failed = any(map(outputs.went_wrong, one.steps))
        self._painter = Painter()

    async def events(self, journal: Journal) -> AsyncIterator[ServerSentEventMessage]:
        """Until the deployment ends, and then that it has; each with the place to go on from."""
        await self._catch_up()
        pieces = transcript.follow(
            journal, self._logs, self._one.id, to_its_end=True, after=self._after
        )
        async for piece in pieces:
            at = f"{piece.at.step}:{piece.at.offset}"
            yield ServerSentEventMessage(self._html(piece), id=at, sep="\n")
        yield ServerSentEventMessage("", event="end", sep="\n")

    async def _catch_up(self) -> None:
        """Learn in which colours the output goes on."""
        for step in self._one.steps:
            if step.n == self._after.step:
                printed = await asyncio.to_thread(
                    transcript.printed, self._logs, self._one.id, step
                )
                self._painter.skip(printed[: self._after.offset].decode(errors="replace"))

    def _html(self, piece: LogPiece) -> str:
        if piece.text is not None:
            html = Html(self._painter.paint(piece.text))
            return self._render("live/text.html", n=piece.at.step, html=html)
        now = time.time()
        if piece.end:
            lines = outputs.step_lines(piece.end, now)
            return self._render("live/end.html", run=views.run(piece.end, None, now), lines=lines)
        assert piece.step
        line = outputs.step_line(piece.step, self._one, now, failed=self._failed)
        self._failed = self._failed or outputs.went_wrong(piece.step)
        return self._step(line)

    def _step(self, line: StepLine) -> str:
        if line.n <= self._shown:
            return self._render("live/step_ends.html", line=line)
        self._shown, self._painter = line.n, Painter()
        return self._render("live/step_begins.html", id=self._one.id, line=line, page=NOTHING)

    def _render(self, template: str, **context: object) -> str:
        return self._templates.get_template(template).render(context)
