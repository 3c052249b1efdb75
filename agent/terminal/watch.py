"""`watch`: all targets on the whole screen, again and again, those in trouble first."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from agent.client import Client
from agent.errors import AgentError
from agent.terminal.keys import keys
from agent.terminal.overview import headline, summary, table, troubles
from agent.terminal.screen import STYLES, console, folded
from agent.words import printable, span, stamp

Report = Mapping[str, Any]

_TICK = 0.5
_WORST_FIRST = (
    "broken", "error", "held", "retrying", "paused", "syncing", "waiting", "up-to-date",
)  # fmt: skip
_AROUND = 5
"""Lines beside the targets and their troubles: two at the head, a blank, the titles, the foot."""


def watch(client: Client, every: float) -> None:
    """Until q or Ctrl-C; asks the agent `every` so many seconds."""
    out, view = console(), View()
    with keys() as read, Live(console=out, screen=True, auto_refresh=False) as live:
        asked_at = -every
        while True:
            if time.monotonic() - asked_at >= every:
                asked_at = time.monotonic()
                view.ask(client)
            live.update(view.shown(out.width, out.height, time.time()), refresh=True)
            try:
                if not all(map(view.heed, read(min(_TICK, every)))):
                    return
            except KeyboardInterrupt:
                return


@dataclass
class View:
    """What was learned last, and how far one has scrolled."""

    status: Report | None = None
    steps: dict[str, Report] = field(default_factory=dict)
    """What is running, by target."""
    lost: str = ""
    """Why the agent did not answer the last time."""
    top: int = 0
    page: int = 1

    def ask(self, client: Client) -> None:
        try:
            self.status, self.lost = client.status(), ""
            self.steps = dict(_running(client, self.status))
        except AgentError as error:
            self.lost = str(error)

    def heed(self, key: str) -> bool:
        """Scroll as the key says; False if it says to end."""
        moves = {
            "up": self.top - 1, "down": self.top + 1, "home": 0, "end": 10**6,
            "page up": self.top - self.page, "page down": self.top + self.page,
        }  # fmt: skip
        self.top = moves.get(key, self.top)
        return key != "quit"

    def shown(self, width: int, height: int, now: float) -> RenderableType:
        """The whole screen, in `width` columns and `height` lines."""
        if self.status is None:
            return Text(self.lost or "asking the agent", "red" if self.lost else "")
        targets = sorted(self.status["targets"], key=lambda one: _WORST_FIRST.index(one["state"]))
        below = self._below(targets, width, now)
        room = max(2, height - _AROUND - 1)
        self.page = max(1, min(len(targets), room - min(len(below), room // 3)))
        self.top = max(0, min(self.top, len(targets) - self.page))
        lines: list[RenderableType] = [
            _one_line(headline(self.status, now)),
            _one_line(Text(self.lost, "bold red") if self.lost else summary(targets)),
            "",
            *map(_one_line, table(targets, now, width, slice(self.top, self.top + self.page))),
            "",
            *below[: room - self.page],
        ]
        blanks = [""] * (room - self.page - len(below))
        return Group(*lines, *blanks, self._foot(len(targets), now))

    def _below(self, targets: Sequence[Report], width: int, now: float) -> list[Text]:
        """What runs and what is wrong, in lines of their own."""
        assert self.status
        told = [*_doing(self.steps, now), *troubles(self.status, targets, now)]
        return [line for text in told for line in folded(text, width)]

    def _foot(self, count: int, now: float) -> Text:
        shown = f"{self.top + 1}-{self.top + self.page} of {count}, arrows scroll"
        scrolls = f"  {shown}" if self.page < count else ""
        return _one_line(Text(f"{stamp(now)}  q ends{scrolls}", "dim"))


def _one_line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _running(client: Client, status: Report) -> Iterator[tuple[str, Report]]:
    """What each deployment that runs is at."""
    for target in status["targets"]:
        last = target["last"]
        if last and last["ended_at"] is None:
            steps = client.deployment(last["id"])["steps"]
            if steps:
                yield target["name"], steps[-1]


def _doing(steps: Mapping[str, Report], now: float) -> Iterator[Text]:
    for name, step in steps.items():
        at = f"{step['stage']}: {printable(step['name'])}, {span(now - step['started_at'])}"
        yield Text.assemble((f"{name}: ", "bold"), (at, STYLES["running"]))
