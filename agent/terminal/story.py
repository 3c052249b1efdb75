"""What happened, what would happen, and what is wrong: history, looks, differences, findings."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from agent.doctor import Finding, Verdict
from agent.terminal.screen import STYLES, console
from agent.words import many, printable, short, span, stamp

_MARKS = {Verdict.OK: "green", Verdict.NOTE: "yellow", Verdict.WRONG: "bold red"}


def show_findings(findings: Sequence[Finding], *, every: bool) -> None:
    """What is not well, with what to do beneath it; of the rest the names, or `every` one too."""
    out = console()
    if not every:
        well = [one.about for one in findings if one.verdict is Verdict.OK]
        _hanging(out, Verdict.OK, ", ".join(well))
    for one in findings:
        if every or one.verdict is not Verdict.OK:
            _hanging(out, one.verdict, f"{one.about}: {printable(one.says)}")
            if one.todo:
                _hanging(out, "", f"-> {printable(one.todo)}")
    bad = sum(one.verdict is Verdict.WRONG for one in findings)
    said = f"{many(bad, 'thing')} to mend" if bad else "nothing is wrong"
    out.print(said, style="bold red" if bad else "bold green")


def show_reached(findings: Iterable[Mapping[str, Any]]) -> None:
    """Whether each target's remote could be read."""
    out = console()
    for one in findings:
        verdict = Verdict.OK if one["ok"] else Verdict.WRONG
        _hanging(out, verdict, f"{one['target']}: {printable(one['says'])}")


def _hanging(out: Console, mark: str, text: str) -> None:
    """A text beside its mark, in lines that end at the console's width."""
    style = _MARKS.get(Verdict(mark), "") if mark else ""
    for line in textwrap.wrap(text, out.width - 7, break_on_hyphens=False, break_long_words=False):
        out.print(Text.assemble((f"{mark:7}", style), line), soft_wrap=True)
        mark = ""


def show_history(deployments: Iterable[Mapping[str, Any]]) -> None:
    out = console()
    empty = True
    for one in deployments:
        empty = False
        outcome = one["outcome"] or "running"
        line = Text(f"{one['id']}  {one['target']}  {short(one['revision'])}  ")
        line.append(outcome, STYLES.get(outcome, "cyan"))
        if one["ended_at"]:
            line.append(f" in {span(one['ended_at'] - one['started_at'])}")
        if one["attempt"] > 1:
            line.append(f", attempt {one['attempt']}")
        out.print(line)
        if one["subject"]:
            out.print(f"    {printable(one['subject'])} ({printable(one['author'])})", style="dim")
        out.print(f"    {stamp(one['started_at'])}, {one['why']}", style="dim")
        if one["detail"]:
            out.print(f"    {printable(one['detail'])}")
    if empty:
        out.print("no deployments yet")


def show_looks(looks: Iterable[Mapping[str, Any]]) -> None:
    out = console()
    empty = True
    for one in looks:
        empty = False
        line = Text(f"{stamp(one['at'])}  {one['target']}  ")
        line.append(one["result"], STYLES.get(one["result"], ""))
        out.print(line)
        out.print(f"    {printable(one['why'])}", style="dim")
    if empty:
        out.print("no look has left anything alone")


def show_difference(difference: Mapping[str, Any]) -> None:
    """What a sync would bring, commits first; `git show REVISION` has the rest."""
    out, one = console(), difference
    out.print(f"{one['target']}: live {short(one['live'])}, the branch is at {short(one['tip'])}")
    out.print(f"a sync now: {printable(one['would'])}", style="bold")
    for commits, mark, style in ((one["commits"], "+", "green"), (one["taken_away"], "-", "red")):
        for commit in commits:
            who = printable(commit["author"])
            revision = (f"{mark} {short(commit['revision'])} ", style)
            out.print(Text.assemble(revision, f"{printable(commit['subject'])} ({who})"))
    for file in one["files"]:
        out.print(f"  {printable(file)}")
