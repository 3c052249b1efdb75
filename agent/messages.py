"""What a sink is told, pure: a message made of a deployment and what is known around it.

A message is text for a person who was asleep a minute ago: what, where, who, why, how long, what
was changed, the last lines of what failed, and what to type. The facts are in it one by one too,
for programs. Commit messages and hook output come from others, and are made harmless here.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from agent.escapes import without_escapes
from agent.model import (
    GATES,
    MOST_COMMITS,
    Commit,
    Deployment,
    Outcome,
    Reason,
    Revision,
    Step,
    Target,
    TargetState,
)
from agent.notices import FAILURES
from agent.words import many, moment, printable, short, span

TAIL_LINES = 12
_NAMED = 5
_LINE = 160

_MENTION = re.compile(r"(<)(?=[!@#])|(@)(?=(?:everyone|here|channel|all)\b)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of what a failing step printed."""

    step: str
    result: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a message is made of."""

    deployment: Deployment
    target: Target
    state: TargetState
    outcome: Outcome | None
    """None where it has only started."""
    live: Revision | None
    """What was live after it."""
    recovered: bool
    at: float
    host: str
    commits: tuple[Commit, ...] = ()
    """What the revision has that the one before had not, the newest first."""
    files: int = 0
    """In how many files the two differ."""
    tails: tuple[Tail, ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """What a sink is told: the text for people, and the facts for programs. Unix times, UTC."""

    id: str
    """The same each time this message is tried."""
    event: str
    """`started`, an outcome, or `test`."""
    title: str
    text: str
    host: str
    target: str
    at: float
    """When it happened."""
    since: float | None = None
    until: float | None = None
    """From when to when an alert stands; it is said again before then."""
    recovered: bool = False
    link: str | None = None
    repo: str = ""
    branch: str = ""
    path: str = ""
    deployment: str = ""
    revision: str = ""
    previous: str | None = None
    live: str | None = None
    reason: str = ""
    why: str = ""
    attempt: int = 1
    subject: str = ""
    author: str = ""
    started_at: float | None = None
    detail: str = ""
    commits: tuple[Commit, ...] = ()
    files: int = 0
    output: tuple[Tail, ...] = ()


# ---- making others' text harmless -----------------------------------------------------------


def harmless(text: str) -> str:
    """One line of somebody else's text: no control characters, and it calls nobody by name.

    `@everyone` and `<!channel>` would wake a whole company where a chat takes them at their word.
    """
    return _MENTION.sub("\\g<0>\u200b", printable(without_escapes(text).replace("\t", " ")))


def tail(step: Step, printed: bytes) -> Tail:
    """The last lines that a step printed; of a progress bar only what stood there at the end."""
    text = printed.decode(errors="replace")
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    kept = [harmless(line)[:_LINE].rstrip() for line in lines]
    last = [line for line in kept if line][-TAIL_LINES:]
    return Tail(f"{step.stage} hook {step.name}", step.result or "", tuple(last))


def failing_hooks(steps: Iterable[Step]) -> list[Step]:
    """The hooks that failed the deployment: one, or on the way back another."""
    return [
        step
        for step in steps
        if step.stage in GATES and step.result is not None and not step.result.startswith("ok")
    ]


# ---- the message ----------------------------------------------------------------------------


def compose(facts: Facts, key: str, link: str | None) -> Message:
    """The message of a deployment; `key` tells it from every other of that deployment."""
    one, target = facts.deployment, facts.target
    return Message(
        id=f"{one.id}-{key}",
        event=facts.outcome or "started",
        title=_title(facts),
        text="\n".join(_lines(facts, link)),
        host=facts.host,
        target=target.name,
        at=facts.at,
        recovered=facts.recovered,
        link=link,
        repo=target.repo,
        branch=target.branch,
        path=str(target.path),
        deployment=one.id,
        revision=one.revision,
        previous=one.previous,
        live=facts.live,
        reason=one.reason,
        why=harmless(one.why),
        attempt=one.attempt,
        subject=harmless(one.subject),
        author=harmless(one.author),
        started_at=one.started_at,
        detail=harmless(one.detail),
        commits=tuple(map(_harmless, facts.commits)),
        files=facts.files,
        output=facts.tails,
    )


def trial(sink: str, host: str, target: Target, revision: Revision, at: float) -> Message:
    """A message that says only that a sink works."""
    title = f"{target.name} on {host}: a test of [notify.{sink}]"
    text = f"gitops-agent on {host} can reach this place. Nothing was deployed."
    return Message(
        f"test-{sink}-{at:.0f}", "test", title, text, host, target.name, at, until=at + 60,
        repo=target.repo, branch=target.branch, path=str(target.path), revision=revision,
    )  # fmt: skip


def _harmless(commit: Commit) -> Commit:
    return replace(commit, subject=harmless(commit.subject), author=harmless(commit.author))


_HAPPENED: Mapping[Outcome | None, str] = {
    None: "deploying {new}",
    Outcome.DEPLOYED: "{new} is live",
    Outcome.FAILED: "{new} FAILED, {live} is live as before",
    Outcome.ROLLED_BACK: "{new} FAILED, {live} is live again",
    Outcome.BROKEN: "BROKEN at {new}, going back failed too: a person is needed",
    Outcome.INTERRUPTED: "{new} was interrupted; the agent goes on from there when it starts",
    Outcome.CANCELED: "{new} was canceled",
}


def _title(facts: Facts) -> str:
    one, form = facts.deployment, _HAPPENED[facts.outcome]
    if facts.outcome is Outcome.ROLLED_BACK and one.revision == facts.live:
        # A crash came between, and this deployment went back for the one before it.
        form = "what was interrupted is undone, {live} is live again"
    elif facts.outcome is Outcome.FAILED and facts.live is None:
        form = "{new} FAILED, and nothing is live yet"
    elif facts.outcome is Outcome.DEPLOYED and one.reason is Reason.ROLLBACK:
        form = "went back, {new} is live"
    if facts.recovered:
        form = f"recovered, {form}"
    said = form.format(new=short(one.revision), live=short(facts.live))
    return f"{one.target} on {facts.host}: {said}"


def _lines(facts: Facts, link: str | None) -> Iterable[str]:
    one, target = facts.deployment, facts.target
    subject = f" {harmless(one.subject)}, by {harmless(one.author)}" if one.subject else ""
    yield f"What: {short(one.revision)}{subject}"
    yield f"Where: {target.path} on {facts.host}, from {target.repo} ({target.branch})"
    attempt = f" (attempt {one.attempt})" if one.attempt > 1 else ""
    yield f"Why: {harmless(one.why)}{attempt}"
    if facts.outcome is None:
        yield f"Since: {moment(one.started_at)}"
    else:
        yield f"Took: {span(facts.at - one.started_at)}, until {moment(facts.at)}"
    if one.detail:
        yield f"{'Failed' if facts.outcome in FAILURES else 'Because'}: {harmless(one.detail)}"
    yield from _changed(facts)
    for last in facts.tails:
        yield f"Last lines of {last.step} ({last.result}):"
        yield from (f"    {line}" for line in last.lines or ("(it printed nothing)",))
    yield from _next(facts)
    yield f"Log: {link or f'gitops-agent logs {one.id}'}"


def _changed(facts: Facts) -> Iterable[str]:
    commits, previous = facts.commits, facts.deployment.previous
    if previous is None or not facts.files:
        return
    least = "at least " if len(commits) == MOST_COMMITS else ""
    counted = f"{least}{many(len(commits), 'commit')}, " if commits else ""
    yield f"Changed: {counted}{many(facts.files, 'file')} since {short(previous)}"
    for one in commits[:_NAMED]:
        yield f"    {short(one.revision)} {harmless(one.subject)[:_LINE]} ({harmless(one.author)})"
    if len(commits) > _NAMED:
        yield f"    and {len(commits) - _NAMED} more"


def _next(facts: Facts) -> Iterable[str]:
    """What happens now by itself, and what a person can type."""
    one, state = facts.deployment, facts.state
    again = f"`gitops-agent sync {one.target} --force`"
    if facts.outcome is Outcome.BROKEN:
        yield f"Next: mend it on {facts.host}, then {again}; or push a newer revision"
    elif facts.outcome not in FAILURES:
        return
    elif state.retry and state.retry.revision == one.revision:
        at = moment(state.retry.not_before)
        yield f"Next: it is tried again by itself, the next time at {at}"
    elif hold := state.hold_on(one.revision) or state.hold:
        held = short(hold.revision)
        yield f"Next: {held} is held: push a newer revision, or {again} to try it again"
