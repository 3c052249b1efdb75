"""A deployment's log as it comes: each step, what its hook prints, and a clear end."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.ansi import AnsiDecoder
from rich.console import Console
from rich.live import Live
from rich.text import Text

from agent.escapes import Harmless
from agent.terminal.asked import show_left
from agent.terminal.screen import STYLES, console, say
from agent.words import printable, short, span

Report = Mapping[str, Any]


def show_pieces(pieces: Iterator[Report]) -> None:
    """Print a log as it comes, and how it ended.

    On a terminal a last line says what runs and for how long, and is gone when all is over.
    """
    shown = _Shown(console())
    with shown.footer():
        for piece in pieces:
            if piece["step"]:
                shown.step(piece["step"])
            elif piece["text"]:
                shown.text(piece["text"])
            elif piece["end"]:
                shown.end(piece["end"])
            elif piece["waits"]:
                shown.waits(piece["waits"])
            elif piece["left"]:
                show_left(piece["left"], shown.out)


class _Shown:
    """What has been printed of a log."""

    def __init__(self, out: Console) -> None:
        self.out = out
        self._running: Report | None = None
        self._waits = ""
        self._line = ""
        self._harmless = Harmless()
        self._colours = AnsiDecoder()

    def footer(self) -> AbstractContextManager[object]:
        """Beneath what is printed; on a terminal only."""
        if not self.out.is_terminal:
            return nullcontext()
        return Live(
            console=self.out, get_renderable=self._now, transient=True, refresh_per_second=4,
            redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip

    def _now(self) -> Text:
        if self._running is None:
            return Text(self._waits, "dim")
        took = span(time.time() - self._running["started_at"])
        return Text(f"{self._running['stage']}: {printable(self._running['name'])}, {took}", "dim")

    def step(self, step: Report) -> None:
        """A step begins, or ends."""
        if self._running and self._running["n"] == step["n"]:
            self._finish_line()
            self._running = None
            result = printable(step["result"])
            style = "green" if result.startswith("ok") else "red"
            took = span(step["ended_at"] - step["started_at"])
            say(self.out, f"    {result} ({took})", style)
        else:
            self._running, self._harmless, self._colours = step, Harmless(), AnsiDecoder()
            self._waits = ""
            heading = f"--> {step['stage']}: {printable(step['name'])}"
            say(self.out, heading, "bold")

    def waits(self, target: str) -> None:
        """What is going to be shown is not there yet."""
        self._waits = f"waiting for the look at {target}"
        if not self.out.is_terminal:
            sys.stderr.write(f"{self._waits}\n")

    def text(self, text: str) -> None:
        *lines, self._line = (self._line + self._harmless.feed(text)).split("\n")
        for line in lines:
            self._print(line)

    def end(self, deployment: Report) -> None:
        _show_end(self.out, deployment)

    def _finish_line(self) -> None:
        """What a hook printed last may have no line's end."""
        if self._line:
            self._print(self._line)
        self._line = ""

    def _print(self, line: str) -> None:
        self.out.print(self._colours.decode_line(line), soft_wrap=True)


def _show_end(out: Console, one: Report) -> None:
    """What a deployment came to, in a line; what follows, and what to do."""
    outcome = one["outcome"] or "running"
    line = Text().append(f"{one['target']} {short(one['revision'])} ", "bold")
    line.append(outcome, f"bold {STYLES.get(outcome, 'cyan')}")
    if one["ended_at"]:
        line.append(f" in {span(one['ended_at'] - one['started_at'])}")
    if one["detail"]:
        line.append(f": {printable(one['detail'])}")
    say(out, line)
    if left := _leaves(one):
        again = f"`gitops-agent sync {one['target']} --force` deploys the branch's end all the same"
        say(out, f"  {short(left)} is held until a newer revision comes; {again}", "dim")
    if outcome in _WHAT_NOW:
        say(out, f"  {_WHAT_NOW[outcome].format(name=one['target'])}", "dim")


def _leaves(one: Report) -> str:
    """The revision that a person's rollback has left, and so holds."""
    back = one["reason"] == "rollback" and one["outcome"] == "deployed"
    return one["previous"] or "" if back and one["previous"] != one["revision"] else ""


_WHAT_NOW = {
    "rolled-back": "what was live before is live again; `gitops-agent status` says what follows",
    "failed": "nothing live has changed; `gitops-agent status` says what follows",
    "broken": "what is live is neither revision; `gitops-agent status` says what to do",
    "interrupted": "the agent's next start goes on with it",
}
