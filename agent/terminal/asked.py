"""What a person has asked for, and what keeps it from being done."""

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from agent.remedies import after_look
from agent.terminal.overview import because, held, pause_said, paused
from agent.terminal.screen import STYLES, console, say
from agent.words import printable, short, stamp

Report = Mapping[str, Any]


def show_asked(target: Report, *, force: bool) -> None:
    """That a sync was asked for, and what will keep it from deploying what the branch says."""
    out, name = console(), target["name"]
    if force or not (target["paused"] or target["held"]):
        say(out, f"{name} is looked at now; `gitops-agent logs -f {name}` follows it")
        return
    if target["paused"]:
        so, (why, todo) = "nothing goes out", paused(target, time.time())
    else:
        so, (why, todo) = "only a newer revision goes out", held(target)
    say(out, Text.assemble((f"{name}: ", "bold"), f"{so}: {why}"))
    say(out, f"  {todo}", "dim")


def show_pause(name: str, pause: Report, before: Report | None) -> None:
    """What holds from now on, and which pause that has replaced."""
    out = console()
    until = stamp(pause["until"]) if pause["until"] else "somebody resumes it"
    ends = f"`gitops-agent resume {name}` ends that"
    says = f"is paused until {until}{because(pause)}; {ends}"
    say(out, Text.assemble((f"{name} ", "bold"), says))
    if before:
        say(out, f"  it was {pause_said(before, time.time())}", "dim")


def show_goal(name: str, goal: str, subject: str) -> None:
    """To which revision a rollback is going to go."""
    called = f" ({printable(subject)})" if subject else ""
    say(console(), Text.assemble((f"{name} ", "bold"), f"goes back to {short(goal)}{called}"))


def show_left(look: Report, out: Console | None = None) -> None:
    """That a look has led to no deployment, why, and what to type."""
    out, result = out or console(), look["result"]
    so = result if result in ("up-to-date", "error", "interrupted") else "nothing is deployed"
    line = Text.assemble((f"{look['target']}: ", "bold"), (so, STYLES.get(result, "")))
    say(out, line.append(f": {printable(look['why'])}"))
    if todo := after_look(result, look["why"], look["target"]):
        say(out, f"  {todo}", "dim")
