"""What happened, what would happen, and what is wrong: history, looks, differences, findings."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from agent.doctor import Finding, Verdict
from agent.terminal.screen import STYLES, console, say
from agent.words import many, printable, short, span, stamp

_MARKS = {Verdict.OK: "green", Verdict.NOTE: "yellow", Verdict.WRONG: "bold red"}
_BESIDE = 7


def show_findings(findings: Sequence[Finding], *, every: bool) -> None:
    """What is not well, with what to do beneath it; of the rest the names, or `every` one too."""
    out = console()
    if not every:
        well = [one.about for one in findings if one.verdict is Verdict.OK]
        _marked(out, Verdict.OK, ", ".join(well))
    for one in findings:
        if every or one.verdict is not Verdict.OK:
            _finding(out, one)
    bad = sum(one.verdict is Verdict.WRONG for one in findings)
    said = f"{many(bad, 'thing')} to mend" if bad else "nothing is wrong"
    say(out, said, "bold red" if bad else "bold green")


def show_checked(findings: Iterable[Finding]) -> None:
    """Each in full, with what to do beneath it."""
    out = console()
    for one in findings:
        _finding(out, one)


def _finding(out: Console, one: Finding) -> None:
    _marked(out, one.verdict, f"{one.about}: {printable(one.says)}")
    if one.todo:
        say(out, f"{'':{_BESIDE}}-> {printable(one.todo)}", hang=_BESIDE + 3)


def _marked(out: Console, mark: Verdict, text: str) -> None:
    """A text beside its mark."""
    say(out, Text.assemble((f"{mark:{_BESIDE}}", _MARKS[mark]), text), hang=_BESIDE)


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
        say(out, line)
        if one["subject"]:
            say(out, f"    {printable(one['subject'])} ({printable(one['author'])})", "dim")
        say(out, f"    {stamp(one['started_at'])}, {one['why']}", "dim")
        if one["detail"]:
            say(out, f"    {printable(one['detail'])}")
    if empty:
        say(out, "no deployments yet")


def show_looks(looks: Iterable[Mapping[str, Any]]) -> None:
    out = console()
    empty = True
    for one in looks:
        empty = False
        line = Text(f"{stamp(one['at'])}  {one['target']}  ")
        line.append(one["result"], STYLES.get(one["result"], ""))
        say(out, line)
        say(out, f"    {printable(one['why'])}", "dim")
    if empty:
        say(out, "no look has left anything alone")


def show_difference(difference: Mapping[str, Any]) -> None:
    """What a sync would bring, commits first; `git show REVISION` has the rest."""
    out, one = console(), difference
    say(out, f"{one['target']}: live {short(one['live'])}, the branch is at {short(one['tip'])}")
    does = "do " if one["would"].startswith("nothing") else ""
    say(out, f"`gitops-agent sync {one['target']}` would {does}{printable(one['would'])}", "bold")
    for commits, mark, style in ((one["commits"], "+", "green"), (one["taken_away"], "-", "red")):
        for commit in commits:
            who = printable(commit["author"])
            revision = (f"{mark} {short(commit['revision'])} ", style)
            say(out, Text.assemble(revision, f"{printable(commit['subject'])} ({who})"))
    for file in one["files"]:
        say(out, f"  {printable(file)}")
