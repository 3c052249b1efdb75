"""Deployments drawn over time, as numbers for SVG. Pure.

One picture in every size: what was deployed stands on a line, what was not hangs below it, the
taller the longer it took, and a thin lead up to it is how long it was waited for. So colour is
never the only one to say it.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from agent.model import Deployment, Outcome
from agent.words import short, span

_LONGEST = 3600.0
_NARROWEST = 3.0
_SHORTEST = 3.0
_GUIDES = ((10.0, "10 s"), (60.0, "1 min"), (600.0, "10 min"), (3600.0, "1 h"))
_TICKS = (300, 900, 3600, 3 * 3600, 6 * 3600, 86400, 7 * 86400)

TONES: Mapping[Outcome | None, str] = {
    None: "busy",
    Outcome.DEPLOYED: "ok",
    Outcome.ROLLED_BACK: "warn",
    Outcome.INTERRUPTED: "warn",
    Outcome.CANCELED: "warn",
    Outcome.FAILED: "bad",
    Outcome.BROKEN: "bad",
}
_GOOD = ("ok", "busy")
_BADNESS = ("ok", "busy", "warn", "bad")


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time in Unix seconds, and how wide and high it is drawn."""

    start: float
    end: float
    width: float = 240.0
    height: float = 28.0

    def x(self, at: float) -> float:
        share = (at - self.start) / (self.end - self.start)
        return round(max(0.0, min(1.0, share)) * self.width, 2)

    @property
    def line(self) -> float:
        """What good deployments stand on is two thirds down."""
        return round(self.height * 2 / 3, 2)


@dataclass(frozen=True, slots=True)
class Mark:
    """One deployment's place in a picture."""

    id: str
    x: float
    y: float
    width: float
    height: float
    tone: str
    label: str
    wait_x: float
    wait_width: float


@dataclass(frozen=True, slots=True)
class Guide:
    """A line across or down the picture, and what it says."""

    at: float
    label: str


def marks(
    deployments: Iterable[Deployment], asked: Mapping[str, float], window: Window
) -> tuple[Mark, ...]:
    """Each deployment where it ran. Of those on one spot, the last of the worst is drawn.

    `asked` has when a deployment was first asked for, by its id.
    """
    spots: dict[float, Mark] = {}
    for one in sorted(deployments, key=lambda each: each.started_at):
        mark = _mark(one, asked.get(one.id), window)
        spot = mark.x // _NARROWEST
        there = spots.get(spot)
        if there is None or _BADNESS.index(mark.tone) >= _BADNESS.index(there.tone):
            spots[spot] = mark
    return tuple(spots.values())


def _mark(one: Deployment, asked: float | None, window: Window) -> Mark:
    end = window.end if one.ended_at is None else one.ended_at
    x = min(window.x(one.started_at), window.width - _NARROWEST)
    wait_x = x if asked is None else min(x, window.x(asked))
    tone = TONES[one.outcome]
    room = window.line if tone in _GOOD else window.height - window.line
    height = round(max(_SHORTEST, _share(end - one.started_at) * room), 2)
    return Mark(
        id=one.id,
        x=x,
        y=round(window.line - height, 2) if tone in _GOOD else window.line,
        width=round(max(_NARROWEST, window.x(end) - x), 2),
        height=height,
        tone=tone,
        label=_label(one, asked, end),
        wait_x=wait_x,
        wait_width=round(x - wait_x, 2),
    )


def _share(seconds: float) -> float:
    """How much of the height a length of time fills: a second, a minute and an hour differ."""
    return min(1.0, math.log1p(max(0.0, seconds)) / math.log1p(_LONGEST))


def _label(one: Deployment, asked: float | None, end: float) -> str:
    outcome = one.outcome.value if one.outcome else "running"
    waited = "" if asked is None else f", waited {span(one.started_at - asked)}"
    return f"{one.target} {short(one.revision)}: {outcome}, {span(end - one.started_at)}{waited}"


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
