"""Every target at a glance, in 80 columns: for `status`, and again and again for `watch`."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.text import Text

from agent.places import SYSTEM_CONTROL
from agent.remedies import after_look
from agent.terminal.screen import STYLES, console, say
from agent.words import ago, many, printable, short, span, stamp

Report = Mapping[str, Any]

_HEADS = ("TARGET", "STATE", "LIVE", "LAST OUTCOME", "AGO", "POLL IN", "PUSH AGO")
_GAP = 2
_LEAST_NAME = 12
_FEW = 10
_RELOAD = "systemctl reload gitops-agent gitops-agent-receiver"
_RESTART = "systemctl restart gitops-agent gitops-agent-receiver"
ALL = slice(None)


def show_status(status: Report) -> None:
    out, now = console(), time.time()
    say(out, headline(status, now))
    if len(status["targets"]) > _FEW:
        say(out, summary(status["targets"]))
    for line in (
        *table(status["targets"], now, out.width),
        *troubles(status, status["targets"], now),
    ):
        say(out, line)


def headline(status: Report, now: float) -> Text:
    up = span(now - status["started_at"])
    line = Text(f"gitops-agent {status['version']}, pid {status['pid']}, up {up}")
    if not status["healthy"]:
        line.append(f", STALLED: {printable(status['trouble'])}", "bold red")
    return line


def summary(targets: Sequence[Report]) -> Text:
    """How many targets are in which state, the most first."""
    line = Text()
    for state, count in Counter(one["state"] for one in targets).most_common():
        line.append(", " if line else "", "").append(f"{count} {state}", STYLES.get(state, ""))
    return line


# ---- the table ----------------------------------------------------------------------------------


def table(targets: Sequence[Report], now: float, width: int, part: slice = ALL) -> list[Text]:
    """The heads, and a line for each target; of `part` of them only, in the columns of all.

    Names are cut in their middle, where they are most alike, if `width` columns are too few.
    """
    rows = [_row(one, now) for one in targets]
    widths = [max(len(head), *(len(row[n]) for row in rows)) for n, head in enumerate(_HEADS)]
    widths[0] = min(widths[0], max(_LEAST_NAME, width - sum(widths[1:]) - _GAP * len(widths[1:])))
    heads = tuple(Text(head, "bold") for head in _HEADS)
    named = ((Text(clipped(name.plain, widths[0])), *cells) for name, *cells in rows[part])
    return [_line(row, widths) for row in (heads, *named)]


def _line(row: Iterable[Text], widths: Iterable[int]) -> Text:
    line = Text()
    for cell, wide in zip(row, widths, strict=True):
        line.append_text(cell).append(" " * (wide - len(cell) + _GAP))
    line.rstrip()
    return line


def _row(one: Report, now: float) -> tuple[Text, ...]:
    last, poll, pushed = one["last"], one["next_poll"], one["last_webhook"]
    outcome = (last["outcome"] or "running") if last else "-"
    since = (last["ended_at"] or last["started_at"]) if last else None
    return (
        Text(one["name"]),
        Text(one["state"], STYLES.get(one["state"], "")),
        Text(short(one["live"])),
        Text(outcome, STYLES.get(outcome, "")),
        Text("" if since is None else span(now - since)),
        Text("off" if poll is None else span(poll - now)),
        Text("never" if pushed is None else span(now - pushed)),
    )


def clipped(text: str, width: int) -> str:
    """`text` in `width` columns: `customer-porta…uction-eu`."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[-tail:]}"


# ---- what is wrong ------------------------------------------------------------------------------


def troubles(status: Report, targets: Iterable[Report], now: float) -> Iterator[Text]:
    """What is wrong with agent.toml, each of these targets, and each webhook and sink.

    And what to type.
    """
    yield from _not_in_force(status, now)
    for target in targets:
        for says, todo in _trouble(target, now):
            yield Text.assemble((f"{target['name']}: ", "bold"), says)
            if todo:
                yield Text(f"  {todo}", "dim")
    for webhook in status["webhooks"]:
        if webhook["refused"]:
            refused = f"{many(webhook['refused'], 'delivery')} had no right signature"
            yield Text.assemble((f"webhook {webhook['name']}: ", "bold"), refused)
            yield Text("  `gitops-agent doctor` says why that is likely", "dim")
    for sink in status["sinks"]:
        why = f": {printable(sink['why'])}" if sink["why"] else ""
        waits = f"{many(sink['waiting'], 'notice')} not told yet, from {ago(sink['since'], now)} on"
        yield Text.assemble((f"notify.{sink['sink']}: ", "bold"), f"{waits}{why}")


def _not_in_force(status: Report, now: float) -> Iterator[Text]:
    """What the newest reload did not take."""
    reload = status["reload"]
    if not reload:
        return
    when = ago(reload["at"], now)
    for fault in reload["refused"]:
        yield Text.assemble(("agent.toml: ", "bold"), f"reload refused {when}: {printable(fault)}")
    if reload["refused"]:
        again = f"`{_RELOAD if _is_service(status) else 'gitops-agent reload'}`"
        yield Text(f"  the configuration before goes on; mend it, then {again}", "dim")
    for what in reload["needs_restart"]:
        yield Text.assemble(("agent.toml: ", "bold"), f"{what} was changed, and is not in force")
    if reload["needs_restart"]:
        again = f"`{_RESTART}`" if _is_service(status) else "stop it, and start it again"
        yield Text(f"  {again}", "dim")


def _is_service(status: Report) -> bool:
    return str(status["control"]) == str(SYSTEM_CONTROL)


def _trouble(target: Report, now: float) -> Iterator[tuple[str, str]]:
    name, look = target["name"], target["look"]
    if target["condition"] == "broken":
        again = f"`gitops-agent sync {name} --force`"
        yield (
            f"broken: {printable(target['last']['detail'])}",
            f"see `gitops-agent logs {name}`; mend it, then {again}",
        )
    elif target["condition"] == "moving" and not target["syncing"]:
        why = printable(target["last"]["detail"])
        yield f"left between two revisions: {why}", "it is gone on with by itself"
    if target["held"] and target["condition"] != "broken":
        yield held(target)
    if target["paused"]:
        yield paused(target, now)
    if target["retry_at"]:
        when, why = span(max(0, target["retry_at"] - now)), printable(target["retry_because"])
        said = f"{short(target['retry'])} is tried again in {when}: {why}"
        yield said, after_look("waiting", said, name)
    if look and look["result"] in ("error", "no-branch"):
        yield printable(look["why"]), after_look(look["result"], look["why"], name)


def held(target: Report) -> tuple[str, str]:
    """Which revision is held and why, and what to do about it."""
    said = f"{short(target['held'])} is held: {printable(target['held_because'])}"
    return said, after_look("held", said, target["name"])


def paused(target: Report, now: float) -> tuple[str, str]:
    """By whom it is paused, for how long and why, and what to do about it."""
    said = pause_said(target["paused"], now)
    return said, after_look("paused", said, target["name"])


def pause_said(pause: Report, now: float) -> str:
    until = f" until {stamp(pause['until'])}" if pause["until"] else ""
    return f"paused by {printable(pause['by'])} {ago(pause['since'], now)}{until}{because(pause)}"


def because(pause: Report) -> str:
    return f": {printable(pause['reason'])}" if pause["reason"] else ""
