"""Deployments drawn over time, as numbers for SVG. Pure.

One picture in every size: what was deployed stands on a line, what was not hangs below it, the
taller the longer it took, and a thin lead up to it is how long it was waited for. So colour is
never the only one to say it.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from agent.model import Outcome
from agent.records import Ran
from agent.words import short, span

_LONGEST = 3600.0
_NARROWEST = 3.0
_SHORTEST = 3.0
_GUIDES = ((10.0, "10 s"), (60.0, "1 min"), (600.0, "10 min"), (3600.0, "1 h"))
_TICKS = (300, 900, 3600, 3 * 3600, 6 * 3600, 86400, 7 * 86400)

TONES: Mapping[str | None, str] = {
    None: "busy",
    Outcome.DEPLOYED: "ok",
    Outcome.ROLLED_BACK: "warn",
    Outcome.INTERRUPTED: "warn",
    Outcome.CANCELED: "warn",
    Outcome.FAILED: "bad",
    Outcome.BROKEN: "bad",
}
_GOOD = ("ok", "busy")
_BADNESS = {"ok": 0, "busy": 1, "warn": 2, "bad": 3}


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time in Unix seconds, and how wide and high it is drawn."""

    start: float
    end: float
    width: float = 240.0
    height: float = 28.0

    def x(self, at: float) -> float:
        x = (at - self.start) / (self.end - self.start) * self.width
        return 0.0 if x < 0 else min(x, self.width)

    @property
    def line(self) -> float:
        """What good deployments stand on is two thirds down."""
        return self.height * 2 / 3


class Mark(NamedTuple):
    """One deployment's place in a picture; a tuple, for there may be thousands."""

    ran: Ran
    x: float
    y: float
    width: float
    height: float
    tone: str
    wait_x: float
    """Where the lead begins; `x` where there is none."""
    end: float
    """Unix time up to which it is drawn."""

    def d(self, line: float) -> str:
        """The bar and its lead along `line`, as an SVG path says it."""
        bar = f"M{self.x:.1f} {self.y:.1f}h{self.width:.1f}v{self.height:.1f}h-{self.width:.1f}z"
        if self.wait_x >= self.x:
            return bar
        return f"{bar}M{self.wait_x:.1f} {line - 1:.1f}H{self.x:.1f}v2H{self.wait_x:.1f}z"

    @property
    def label(self) -> str:
        one = self.ran
        outcome, took = one.outcome or "running", span(self.end - one.started_at)
        waited = "" if one.asked_at is None else f", waited {span(one.started_at - one.asked_at)}"
        return f"{one.target} {short(one.revision)}: {outcome}, {took}{waited}"


@dataclass(frozen=True, slots=True)
class Stroke:
    """All marks of one tone, as the `d` of one SVG path."""

    tone: str
    d: str


@dataclass(frozen=True, slots=True)
class Guide:
    """A line across or down the picture, and what it says."""

    at: float
    label: str


def marks(ran: Iterable[Ran], window: Window) -> tuple[Mark, ...]:
    """Each deployment where it ran. Of those on one spot, the last of the worst is drawn."""
    spots: dict[float, Ran] = {}
    for one in sorted(ran, key=lambda each: each.started_at):
        spot = window.x(one.started_at) // _NARROWEST
        there = spots.get(spot)
        if there is None or _badness(one) >= _badness(there):
            spots[spot] = one
    return tuple(_mark(one, window) for one in spots.values())


def _badness(one: Ran) -> int:
    return _BADNESS[TONES[one.outcome]]


def _mark(one: Ran, window: Window) -> Mark:
    end = window.end if one.ended_at is None else one.ended_at
    x = min(window.x(one.started_at), window.width - _NARROWEST)
    tone = TONES[one.outcome]
    room = window.line if tone in _GOOD else window.height - window.line
    height = max(_SHORTEST, _share(end - one.started_at) * room)
    return Mark(
        ran=one,
        x=x,
        y=window.line - height if tone in _GOOD else window.line,
        width=max(_NARROWEST, window.x(end) - x),
        height=height,
        tone=tone,
        wait_x=x if one.asked_at is None else min(x, window.x(one.asked_at)),
        end=end,
    )


def _share(seconds: float) -> float:
    """How much of the height a length of time fills: a second, a minute and an hour differ."""
    return min(1.0, math.log1p(max(0.0, seconds)) / math.log1p(_LONGEST))


def strokes(drawn: Iterable[Mark], window: Window) -> tuple[Stroke, ...]:
    """The marks as few paths, for where there are too many to tell each by itself."""
    found: dict[str, list[str]] = {}
    for one in drawn:
        found.setdefault(one.tone, []).append(one.d(window.line))
    return tuple(Stroke(tone, "".join(parts)) for tone, parts in found.items())


def grid(across: Iterable[Guide], down: Iterable[Guide], window: Window) -> str:
    """Thin lines at these places, as the `d` of one SVG path."""
    lines = [f"M0 {one.at:.1f}H{window.width:.0f}" for one in across]
    lines += [f"M{one.at:.1f} 0V{window.height:.0f}" for one in down]
    return "".join(lines)


def heights(window: Window) -> tuple[Guide, ...]:
    """How tall 10 seconds, a minute, ten minutes and an hour stand."""
    return tuple(
        Guide(round(window.line * (1 - _share(seconds)), 2), said) for seconds, said in _GUIDES
    )


def times(window: Window, most: int) -> tuple[Guide, ...]:
    """Round local times in the window, so many or fewer."""
    length = window.end - window.start
    step = next((one for one in _TICKS if length / one <= most), _TICKS[-1])
    first = datetime.fromtimestamp(window.start, UTC).astimezone()
    midnight = first.replace(hour=0, minute=0, second=0, microsecond=0)
    at = midnight + timedelta(seconds=step * math.ceil((first - midnight).total_seconds() / step))
    found = []
    while at.timestamp() < window.end:
        whole_day = step >= 86400 or (at.hour, at.minute) == (0, 0)
        label = f"{at.day} {at:%b}" if whole_day else f"{at:%H:%M}"
        found.append(Guide(window.x(at.timestamp()), label))
        at += timedelta(seconds=step)
    return tuple(found)
