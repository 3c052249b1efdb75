"""What the page shows, from what the agent reports: every text ready, nothing left to decide. Pure.

A template only puts these into place; it escapes them all.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from agent.model import Condition, Deployment, Outcome, Pause, Reason
from agent.page.timeline import (
    TONES,
    Guide,
    Mark,
    Stroke,
    Window,
    grid,
    heights,
    marks,
    strokes,
    times,
)
from agent.records import Ran
from agent.remedies import after_look
from agent.reports import State, Status, TargetReport, WebhookReport
from agent.words import ago, many, printable, short, span, stamp

SPANS: Mapping[str, float] = {"1h": 3600, "24h": 86400, "7d": 7 * 86400, "30d": 30 * 86400}
_STATES: Mapping[State, str] = {
    State.BROKEN: "bad",
    State.ERROR: "bad",
    State.HELD: "warn",
    State.RETRYING: "warn",
    State.PAUSED: "idle",
    State.SYNCING: "busy",
    State.WAITING: "idle",
    State.UP_TO_DATE: "ok",
}
"""Each state's tone; what needs a person stands first."""
_MOST_LINKS = 1000
_SCHEME = re.compile(r"^(?:[a-z+]+://)?(?:[^@/]+@)?")


# ---- small things -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time: for machines, in full, and as one says it."""

    iso: str
    stamp: str
    said: str


def moment(at: float | None, now: float) -> Moment | None:
    if at is None:
        return None
    iso = datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
    return Moment(iso, stamp(at), ago(at, now))


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with a target, and what to do about it."""

    what: str
    advice: str


@dataclass(frozen=True, slots=True)
class Run:
    """One deployment in a line."""

    id: str
    target: str
    revision: str
    subject: str
    author: str
    outcome: str
    tone: str
    detail: str
    reason: str
    why: str
    attempt: int
    started: Moment
    took: str
    waited: str
    """How long it was waited for; empty where nobody asked, or for a moment only."""
    running: bool


def run(one: Deployment, asked: float | None, now: float) -> Run:
    started = moment(one.started_at, now)
    assert started
    end = now if one.ended_at is None else one.ended_at
    waited = 0.0 if asked is None else one.started_at - asked
    return Run(
        id=one.id,
        target=one.target,
        revision=short(one.revision),
        subject=printable(one.subject),
        author=printable(one.author),
        outcome=one.outcome.value if one.outcome else "running",
        tone=TONES[one.outcome],
        detail=printable(one.detail),
        reason=one.reason.value,
        why=printable(one.why),
        attempt=one.attempt,
        started=started,
        took=span(end - one.started_at),
        waited=span(waited) if waited >= 1 else "",
        running=one.ended_at is None,
    )


# ---- pictures -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Picture:
    """A target's deployments over time."""

    target: str
    window: Window
    marks: tuple[Mark, ...]
    words: str
    """What it shows, for those who do not see it."""

    @property
    def strokes(self) -> tuple[Stroke, ...]:
        return strokes(self.marks, self.window)


def picture(target: str, ran: Sequence[Ran], window: Window) -> Picture:
    bad = sum(one.outcome not in (Outcome.DEPLOYED, None) for one in ran)
    words = many(len(ran), "deployment") if ran else "no deployments"
    if bad:
        words += f", {bad} of which did not go well"
    return Picture(target, window, marks(ran, window), words)


def by_target(ran: Iterable[Ran]) -> dict[str, list[Ran]]:
    found: dict[str, list[Ran]] = {}
    for one in ran:
        found.setdefault(one.target, []).append(one)
    return found


@dataclass(frozen=True, slots=True)
class Choice:
    """A link that narrows or widens what is shown."""

    label: str
    value: str
    chosen: bool
    tone: str = ""
    count: int | None = None


def spans(chosen: str) -> tuple[Choice, ...]:
    return tuple(Choice(one, one, one == chosen) for one in SPANS)


# ---- every target -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Card:
    """One target, at a glance."""

    name: str
    state: str
    tone: str
    repo: str
    branch: str
    path: str
    live: str
    subject: str
    since: Moment | None
    last: Run | None
    troubles: tuple[Trouble, ...]
    next_poll: str
    webhook: Moment | None
    paused: bool
    syncing: bool
    picture: Picture


def card(report: TargetReport, ran: Sequence[Ran], window: Window) -> Card:
    """A target as it stands at the window's end."""
    now, last = window.end, report.last
    return Card(
        name=report.name,
        state=report.state.value,
        tone=_STATES[report.state],
        repo=_called(report.repo),
        branch=report.branch,
        path=report.path,
        live=short(report.live),
        subject=printable(report.live_subject),
        since=moment(report.live_since, now),
        last=run(last, None, now) if last else None,
        troubles=tuple(_troubles(report, now)),
        next_poll="off" if report.next_poll is None else f"in {span(report.next_poll - now)}",
        webhook=moment(report.last_webhook, now),
        paused=report.paused is not None,
        syncing=report.syncing,
        picture=picture(report.name, ran, window),
    )


def _called(repo: str) -> str:
    """A repository as one says it; a folder on this host by its whole name."""
    plain = _SCHEME.sub("", repo)
    return plain if plain.startswith("/") else plain.removesuffix(".git")


def _troubles(report: TargetReport, now: float) -> Iterable[Trouble]:
    """What stands in a target's way, in the order in which to see to it."""
    if report.state is State.BROKEN:
        why = report.last.detail if report.last else "the way back failed"
        advice = "Mend it, then sync with force, or push a newer revision."
        yield Trouble(f"Broken: {printable(why)}", advice)
    elif report.condition is Condition.MOVING and not report.syncing and report.last:
        why = printable(report.last.detail)
        yield Trouble(f"Left between two revisions: {why}", "It is gone on with by itself.")
    if report.held and report.state is not State.BROKEN:
        why = printable(report.held_because or "")
        advice = "Push a newer revision, or sync with force to try it again."
        yield Trouble(f"{short(report.held)} is held: {why}", advice)
    if report.paused:
        yield Trouble(_paused(report.paused, now), "Resuming lets out what was pushed meanwhile.")
    if report.retry_at is not None:
        when = span(max(0.0, report.retry_at - now))
        why = printable(report.retry_because or "")
        yield Trouble(
            f"{short(report.retry)} is tried again in {when}: {why}", "Sync tries it at once."
        )
    if report.look and report.look.result in ("error", "no-branch"):
        advice = (
            after_look(report.look.result, report.look.why, report.name)
            or "it is tried again by itself"
        )
        yield Trouble(printable(report.look.why), f"{advice[0].upper()}{advice[1:]}.")


def _paused(pause: Pause, now: float) -> str:
    until = f" until {stamp(pause.until)}" if pause.until else ""
    reason = f": {printable(pause.reason)}" if pause.reason else ""
    return f"Paused by {printable(pause.by)} {ago(pause.since, now)}{until}{reason}."


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A webhook, and whether the forge and we agree on its secret."""

    name: str
    verified: Moment | None
    refused: str
    """How many deliveries were refused and why; empty where none was."""


@dataclass(frozen=True, slots=True)
class Overview:
    """All targets, or those that were asked for; the hours of the day gone by; the webhooks."""

    cards: tuple[Card, ...]
    choices: tuple[Choice, ...]
    window: Window
    hours: tuple[Guide, ...]
    grid: str
    webhooks: tuple[Endpoint, ...]


def overview(status: Status, day: Iterable[Ran], now: float, *, state: str, text: str) -> Overview:
    """Of the targets in `state` whose name or repository has `text` in it, the worst first."""
    window, order, of = Window(now - SPANS["24h"], now), list(_STATES), by_target(day)
    wanted = [
        one for one in status.targets
        if state in ("", one.state) and text.lower() in f"{one.name} {one.repo}".lower()
    ]  # fmt: skip
    wanted.sort(key=lambda one: (order.index(one.state), one.name))
    cards = tuple(card(one, of.get(one.name, ()), window) for one in wanted)
    webhooks = tuple(_endpoint(one, now) for one in status.webhooks)
    hours = times(window, 4)
    return Overview(
        cards, tuple(_states(status, state)), window, hours, grid((), hours, window), webhooks
    )


def _endpoint(report: WebhookReport, now: float) -> Endpoint:
    reasons = ", ".join(f"{one.count} {why.value}" for why, one in report.refusals.items())
    return Endpoint(report.name, moment(report.last_verified, now), reasons)


def _states(status: Status, chosen: str) -> Iterable[Choice]:
    yield Choice("all", "", not chosen, count=len(status.targets))
    for state, tone in _STATES.items():
        count = sum(one.state is state for one in status.targets)
        if count or state == chosen:
            yield Choice(state.value, state.value, state == chosen, tone, count)


# ---- one target, and all of them over time ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listed:
    """Deployments in lines, newest first, and where the older ones begin."""

    runs: tuple[Run, ...]
    before: float | None


def listed(past: Sequence[Deployment], asked: Mapping[str, float], most: int, now: float) -> Listed:
    """The first `most` of `past`, which has one more where there are older ones.

    `asked` has when a deployment was first asked for, by its id.
    """
    runs = tuple(run(one, asked.get(one.id), now) for one in past[:most])
    return Listed(runs, past[most - 1].started_at if len(past) > most else None)


@dataclass(frozen=True, slots=True)
class Goal:
    """A revision that a rollback can bring back."""

    revision: str
    words: str


def goals(past: Iterable[Deployment], live: str | None, now: float) -> tuple[Goal, ...]:
    """What was deployed before what is live, the newest first, each revision once."""
    found: dict[str, Goal] = {}
    for one in past:
        good = one.outcome is Outcome.DEPLOYED and one.reason is not Reason.ROLLBACK
        if good and one.revision != live and one.revision not in found:
            words = f"{short(one.revision)}, {ago(one.started_at, now)}: {printable(one.subject)}"
            found[one.revision] = Goal(one.revision, words)
    return tuple(found.values())


@dataclass(frozen=True, slots=True)
class Lanes:
    """Every target that was deployed in a stretch of time, each with its picture."""

    pictures: tuple[Picture, ...]
    each: bool
    """Whether each deployment can be picked out, or there are too many."""
    window: Window
    times: tuple[Guide, ...]
    heights: tuple[Guide, ...]
    grid: str
    spans: tuple[Choice, ...]


def lanes(
    names: Iterable[str], ran: Iterable[Ran], chosen: str, now: float, height: float
) -> Lanes:
    """Pictures of `chosen`'s length for those of `names` that `ran`, side by side in time."""
    window, of = Window(now - SPANS[chosen], now, 960.0, height), by_target(ran)
    pictures = tuple(picture(name, of[name], window) for name in names if name in of)
    each = sum(len(one.marks) for one in pictures) <= _MOST_LINKS
    across, down = heights(window), times(window, 8)
    lines = grid(across if len(pictures) == 1 else (), down, window)
    return Lanes(pictures, each, window, down, across, lines, spans(chosen))
