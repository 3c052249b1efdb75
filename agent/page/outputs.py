"""One deployment's steps and what they printed, ready to be shown. Pure."""

from dataclasses import dataclass
from typing import NewType

from agent.model import Deployment, Step
from agent.page.ansi import Painter
from agent.words import printable, span

Html = NewType("Html", str)
"""Escaped already."""

PAGE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Page:
    """A stretch of what a step printed, from a line's start, and how much is before it."""

    html: Html
    start: int
    """In bytes; 0 where nothing is before it."""


NOTHING = Page(Html(""), 0)


def page(printed: bytes, before: int | None = None) -> Page:
    """At most PAGE bytes that end at `before`, or at the end, in the colours of what is earlier."""
    end = len(printed) if before is None else min(before, len(printed))
    start = _line_start(printed, max(0, end - PAGE), end)
    painter = Painter()
    painter.skip(printed[:start].decode(errors="replace"))
    return Page(Html(painter.paint(printed[start:end].decode(errors="replace"))), start)


def _line_start(printed: bytes, at: int, end: int) -> int:
    """The first line that begins at or after `at`; `at` itself in one enormous line."""
    if at == 0:
        return 0
    found = printed.find(b"\n", at - 1, end - 1) + 1
    return found or at


@dataclass(frozen=True, slots=True)
class StepLine:
    """One step: what it is, how it went, and when in the deployment it ran."""

    n: int
    stage: str
    name: str
    result: str
    tone: str
    took: str
    x: float
    width: float
    """Where it lies in the whole, in percent."""
    hook: bool
    back: bool
    """Whether it brings back the tree that was live before, because a step went wrong."""


def step_lines(one: Deployment, now: float) -> tuple[StepLine, ...]:
    return tuple(
        step_line(step, one, now, failed=any(map(went_wrong, one.steps[:n])))
        for n, step in enumerate(one.steps)
    )


def went_wrong(step: Step) -> bool:
    return step.result is not None and not step.result.startswith("ok")


def step_line(step: Step, one: Deployment, now: float, *, failed: bool) -> StepLine:
    """`failed` says that a step before it went wrong."""
    whole = max((now if one.ended_at is None else one.ended_at) - one.started_at, 0.001)
    end = now if step.ended_at is None else step.ended_at
    return StepLine(
        n=step.n,
        stage=step.stage,
        name=printable(step.name),
        result=printable(step.result or "running"),
        tone=_tone(step),
        took=span(end - step.started_at),
        x=round(100 * (step.started_at - one.started_at) / whole, 2),
        width=round(max(100 * (end - step.started_at) / whole, 0.5), 2),
        hook=step.stage != "tree",
        back=failed and step.stage == "tree",
    )


def _tone(step: Step) -> str:
    if step.result is None:
        return "busy"
    return "bad" if went_wrong(step) else "ok"
