"""How answers look to a person: tables that fit 80 columns, times as one says them, plain words.

Colours and progress only on a terminal, never under NO_COLOR; elsewhere the same lines, plain.
"""

import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.doctor import Finding, Verdict
from agent.words import ago, many, printable, short, span, stamp

_STYLES = {
    "deployed": "green",
    "up-to-date": "green",
    "ok": "green",
    "failed": "red",
    "error": "red",
    "broken": "bold red",
    "rolled-back": "yellow",
    "interrupted": "yellow",
    "canceled": "yellow",
    "held": "yellow",
    "paused": "yellow",
    "retrying": "yellow",
    "syncing": "cyan",
}


_COLUMNS = (
    ("STATE", 10),
    ("LIVE", 10),
    ("LAST OUTCOME", 18),
    ("POLL IN", 7),
    ("WEBHOOK", 10),
)


def console() -> Console:
    """Rich for a terminal; without markup, so that nothing from a repository is taken for it."""
    return Console(
        markup=False, highlight=False, emoji=False, soft_wrap=False, file=sys.stdout,
        width=None if sys.stdout.isatty() else 80,
    )  # fmt: skip


def show_status(status: Mapping[str, Any]) -> None:
    out, now = console(), time.time()
    health = "" if status["healthy"] else f", STALLED: {status['trouble']}"
    up = span(now - status["started_at"])
    out.print(f"gitops-agent {status['version']}, pid {status['pid']}, up {up}{health}")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    left = out.width - sum(width + 2 for _, width in _COLUMNS)
    table.add_column("TARGET", max_width=max(12, left - 2), overflow="ellipsis", no_wrap=True)
    for name, width in _COLUMNS:
        table.add_column(name, min_width=width, overflow="ellipsis", no_wrap=True)
    for target in status["targets"]:
        word, last = target["state"], target["last"]
        ended = f"{last['outcome'] or 'running'} {ago(last['started_at'], now)}" if last else "-"
        poll = target["next_poll"]
        table.add_row(
            target["name"],
            Text(word, _STYLES.get(word, "")),
            short(target["live"]),
            ended.removesuffix(" ago"),
            "off" if poll is None else span(poll - now),
            ago(target["last_webhook"], now),
        )
    out.print(table)
    for target in status["targets"]:
        _show_trouble(out, target, now)
    for webhook in status["webhooks"]:
        if webhook["refused"]:
            out.print(
                f"webhook {webhook['name']}: {webhook['refused']} deliveries had no right"
                " signature; is the secret at the forge the one configured here?"
            )


def _show_trouble(out: Console, target: Mapping[str, Any], now: float) -> None:
    name, look = target["name"], target["look"]
    if target["condition"] == "broken":
        out.print(
            f"{name}: broken: {printable(target['last']['detail'])}\n"
            f"  see `gitops-agent logs {name}`; mend it, then `gitops-agent sync {name} --force`"
        )
    elif target["held"]:
        out.print(
            f"{name}: {short(target['held'])} is held: {printable(target['held_because'])}\n"
            f"  push a newer revision, or `gitops-agent sync {name} --force` to try it again"
        )
    if pause := target["paused"]:
        until = f" until {stamp(pause['until'])}" if pause["until"] else ""
        reason = f": {printable(pause['reason'])}" if pause["reason"] else ""
        by, since = printable(pause["by"]), ago(pause["since"], now)
        out.print(
            f"{name}: paused by {by} {since}{until}{reason}\n"
            f"  `gitops-agent resume {name}` ends that; what is pushed meanwhile goes out then"
        )
    if target["retry_at"]:
        out.print(f"{name}: tried again in {span(max(0, target['retry_at'] - now))}")
    if look and look["result"] in ("error", "no-branch"):
        out.print(f"{name}: {printable(look['why'])}")


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


def _hanging(out: Console, mark: str, text: str) -> None:
    """A text beside its mark, in lines that end at the console's width."""
    style = _MARKS.get(Verdict(mark), "") if mark else ""
    for line in textwrap.wrap(text, out.width - 7, break_on_hyphens=False):
        out.print(Text(f"{mark:7}", style).append(line, ""), soft_wrap=True)
        mark = ""


def show_history(deployments: Iterable[Mapping[str, Any]]) -> None:
    out = console()
    empty = True
    for one in deployments:
        empty = False
        outcome = one["outcome"] or "running"
        line = Text(f"{one['id']}  {one['target']}  {short(one['revision'])}  ")
        line.append(outcome, _STYLES.get(outcome, "cyan"))
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
        line.append(one["result"], _STYLES.get(one["result"], ""))
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
            line = Text(f"{mark} {short(commit['revision'])} ", style)
            out.print(line + Text(f"{printable(commit['subject'])} ({who})"))
    for file in one["files"]:
        out.print(f"  {printable(file)}")


def show_pieces(pieces: Iterator[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Print a deployment's log as it comes; gives the deployment at its end."""
    running: set[int] = set()
    at_line_start = True
    for piece in pieces:
        if step := piece["step"]:
            if not at_line_start:
                click.echo()
            _show_step(step, first=step["n"] not in running)
            running.add(step["n"])
            at_line_start = True
        elif text := piece["text"]:
            click.echo(text, nl=False)
            at_line_start = text.endswith("\n")
        elif end := piece["end"]:
            return end  # type: ignore[no-any-return]
    return None


def _show_step(step: Mapping[str, Any], *, first: bool) -> None:
    if first:
        click.secho(f"--> {step['stage']}: {step['name']}", bold=True)
    else:
        result = step["result"]
        colour = "green" if result.startswith("ok") else "red"
        took = span(step["ended_at"] - step["started_at"])
        click.secho(f"    {printable(result)} ({took})", fg=colour)


def show_end(deployment: Mapping[str, Any]) -> None:
    outcome = deployment["outcome"] or "running"
    detail = f": {printable(deployment['detail'])}" if deployment["detail"] else ""
    line = f"{deployment['target']} {short(deployment['revision'])} {outcome}{detail}"
    good = outcome in ("deployed", "running")
    click.secho(line, fg="green" if good else "red", bold=True)


@contextmanager
def progress(text: str) -> Iterator[None]:
    """While the block runs, a spinner on a terminal; a plain line elsewhere."""
    if sys.stderr.isatty():
        with Console(stderr=True).status(text):
            yield
    else:
        click.echo(text, err=True)
        yield
