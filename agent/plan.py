"""Every decision, pure: what a push is for, what a look leads to, retry or hold.

Values in, values out; a table of cases can compare them. The reconciler, the worker and the
poller do what these say.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from agent.model import (
    GATES,
    Condition,
    Deployment,
    Failure,
    Hold,
    Outcome,
    Push,
    Reason,
    Retry,
    Revision,
    SyncRequest,
    Target,
    TargetState,
    Tracked,
)
from agent.words import no_branch

# ---- which targets a push is for ------------------------------------------------------------

_SCP = re.compile(r"(?:[^@/]+@)?([^:/]+):(?!/?/)(.+)")
_FOR_ANNOUNCED = (1.0, 2.0, 4.0)
_RETRY_FIRST, _RETRY_MOST = 5.0, 600.0
_ERROR_MOST = 900.0
_LOOKS_IN_VAIN = 3


@lru_cache(4096)
def repository_identity(url: str) -> str:
    """What `url` names: host and path, whatever the scheme, user, port or a `.git` at the end.

    A local path, or a file:// URL, names itself. Two URLs are one repository exactly when their
    identities are equal. A wrong match can only cause a look that finds nothing.
    """
    if url.startswith("/"):
        return _named("", url)
    if "://" in url:
        try:
            parts = urlsplit(url)
            return _named(parts.hostname or "", unquote(parts.path))
        except ValueError:
            return f"unreadable {url}"
    scp = _SCP.fullmatch(url)
    return _named(scp[1], scp[2]) if scp else f"unreadable {url}"


def _named(host: str, path: str) -> str:
    kept = str(PurePosixPath("/", path.lstrip("/"))).removesuffix(".git")
    return f"{host.lower()}:{kept}"


class Routes:
    """Which targets a repository's branch is for."""

    def __init__(self, targets: Iterable[Target | Tracked]) -> None:
        self._by_ref: dict[tuple[str, str], tuple[str, ...]] = {}
        for target in targets:
            key = (repository_identity(target.repo), target.ref)
            self._by_ref[key] = (*self._by_ref.get(key, ()), target.name)
        self._repositories = {identity for identity, _ in self._by_ref}

    def match(self, push: Push) -> "Matched | Ignored":
        """The targets that `push` should wake, or why there are none."""
        known = {repository_identity(url) for url in push.repositories} & self._repositories
        if not known:
            return Ignored("no target tracks this repository")
        if push.revision is None:
            return Ignored("the branch was deleted")
        if not push.ref.startswith("refs/heads/"):
            return Ignored("not a branch")
        targets = [name for one in sorted(known) for name in self._by_ref.get((one, push.ref), ())]
        return Matched(tuple(targets)) if targets else Ignored("no target tracks this branch")


@dataclass(frozen=True, slots=True)
class Matched:
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ignored:
    reason: str


# ---- which of two wishes is kept ------------------------------------------------------------

_WEIGHT = {Reason.POLL: 0, Reason.START: 1, Reason.PUSH: 2, Reason.MANUAL: 2}


def newest(waiting: SyncRequest | None, new: SyncRequest) -> SyncRequest:
    """The one wish that stands for both: the newer, unless it says less than the one it meets.

    A poll tells nothing that a push or a person did not; a wish to force is never lost.
    """
    if waiting is None:
        return new
    kept = waiting if _WEIGHT[new.reason] < _WEIGHT[waiting.reason] else new
    number = max(waiting.id or 0, new.id or 0) or None
    return replace(kept, id=number, force=waiting.force or new.force)


# ---- what a look leads to -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Deploy:
    """Bring `revision` live."""

    revision: Revision
    attempt: int
    why: str


@dataclass(frozen=True, slots=True)
class Restore:
    """A crash left the target between two revisions: bring the settled one back."""

    revision: Revision
    attempt: int
    why: str


@dataclass(frozen=True, slots=True)
class RollBack:
    """A person wants an earlier revision back, and `leaves` not tried again."""

    revision: Revision
    leaves: tuple[Revision, ...]
    """What was live, and what was to be tried again by itself."""
    attempt: int
    why: str


@dataclass(frozen=True, slots=True)
class Nothing:
    """Leave the target as it is, for the reason `why`."""

    result: str
    """One of `up-to-date`, `held`, `paused`, `waiting`, `no-branch`."""
    why: str
    until: float | None = None
    """Unix time at which to look again, where that is known."""


Task = Deploy | Restore | RollBack
Verdict = Task | Nothing


def can_go_on(one: Deployment) -> bool:
    """Whether a deployment whose agent died can be gone on with, if its last hook is found again.

    On the way forward, with every step before that hook gone well; else it is begun anew.
    """
    if not one.steps or one.outcome or one.reason is Reason.ROLLBACK:
        return False
    *before, last = one.steps
    well = all((step.result or "").startswith("ok") for step in before)
    return well and last.ended_at is None and last.stage in GATES


def decide(
    target: Target,
    state: TargetState,
    head: Revision | None,
    tip: Revision | None,
    request: SyncRequest,
    now: float,
) -> Verdict:
    """What to do about `tip`, the branch's end at the remote, when `head` is what is found live.

    The rules stand in the order in which they win. `now` is Unix time.
    """
    revision = tip
    if revision is None:
        return Nothing("no-branch", no_branch(target.repo, target.branch))
    attempt = state.attempts + 1 if state.attempted == revision else 1
    if request.force:
        return Deploy(revision, attempt, "forced")
    left_alone = _left_alone(state, revision, now)
    if state.condition is Condition.MOVING and left_alone and state.live:
        why = f"what is live was left between two revisions, and {left_alone.why}"
        return Restore(state.live, state.attempts + 1, why)
    if left_alone:
        return left_alone
    if state.condition is Condition.MOVING:
        return Deploy(revision, attempt, "the deployment before was left half done")
    if state.condition is Condition.BROKEN:
        return Deploy(revision, attempt, "the target is broken, and this is another revision")
    if revision != state.live:
        return _newer(state, revision, attempt, request, now)
    if head != revision:
        found = head[:12] if head else "nothing"
        return Deploy(revision, attempt, f"the tree was found at {found}")
    return Nothing("up-to-date", f"{revision[:12]} is live")


def _left_alone(state: TargetState, revision: Revision, now: float) -> Nothing | None:
    """Why `revision` must not go out by itself, if there is a reason."""
    pause, hold = state.pause, state.hold_on(revision)
    if pause and pause.holds(now):
        reason = f": {pause.reason}" if pause.reason else ""
        return Nothing("paused", f"{state.target} was paused by {pause.by}{reason}", pause.until)
    return Nothing("held", f"{revision[:12]} is held: {hold.because}") if hold else None


def _newer(
    state: TargetState, revision: Revision, attempt: int, request: SyncRequest, now: float
) -> Verdict:
    retry = state.retry
    if not (retry and retry.revision == revision):
        return Deploy(revision, attempt, f"the branch is at {revision[:12]}")
    if request.reason is Reason.POLL and now < retry.not_before:
        why = f"{revision[:12]} could not be deployed yet; it is tried again"
        return Nothing("waiting", why, retry.not_before)
    return Deploy(revision, attempt, f"{revision[:12]} could not be deployed before; tried again")


def roll_back(state: TargetState, head: Revision | None, goal: Revision) -> RollBack | Nothing:
    """What to do about a person's wish to have `goal` live again."""
    if goal == state.live == head and state.condition is Condition.SETTLED:
        return Nothing("up-to-date", f"{goal[:12]} is live")
    ahead = (state.live, state.retry.revision if state.retry else None)
    leaves = tuple(one for one in ahead if one not in (None, goal))
    return RollBack(goal, leaves, state.attempts + 1, f"back to {goal[:12]}")


def explain(request: SyncRequest) -> str:
    """Who or what asked, in words: `push delivery 72d3…`, `poll`, `alice`."""
    if request.delivery:
        return f"push, delivery {request.delivery}"
    return f"asked for by {request.actor}" if request.actor else request.reason.value


def worth_noting(verdict: Nothing, request: SyncRequest, before: Nothing | None) -> bool:
    """Whether a look that led to nothing belongs into the history; `before` is the last that did.

    A poll that finds the same as the one before tells nobody anything.
    """
    if verdict.result == "up-to-date":
        return False
    return request.reason not in (Reason.POLL, Reason.START) or verdict != before


# ---- waiting for what was announced ---------------------------------------------------------


def waits_for_announced(expected: Revision | None, seen: Iterable[Revision]) -> tuple[float, ...]:
    """Seconds before each further look, while the remote does not show `expected` yet.

    A forge's replicas lag: a push is announced before every server shows it. `seen` is the
    branch's history from its end; a revision in it was shown.
    """
    if expected is None or expected in seen:
        return ()
    return _FOR_ANNOUNCED


# ---- how a deployment ends ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ending:
    """A deployment's outcome, and what the target is afterwards.

    A None for `live` leaves the live revision as it was.
    """

    outcome: Outcome
    condition: Condition
    live: Revision | None
    detail: str
    leaves: tuple[Hold, ...] = ()
    """On what a person rolled back from: that is no goal of a later rollback either."""
    step: str = ""
    """The step that failed."""


def ending_well(task: Task, deployment: Deployment) -> Ending:
    if isinstance(task, Restore):
        return Ending(Outcome.ROLLED_BACK, Condition.SETTLED, task.revision, task.why)
    leaves = _held_by(task, f"rolled back, {deployment.why}", deployment)
    return Ending(Outcome.DEPLOYED, Condition.SETTLED, task.revision, "", leaves)


def _held_by(task: Task, because: str, deployment: Deployment) -> tuple[Hold, ...]:
    """On what a person does not want, where `task` is a rollback."""
    leaves = task.leaves if isinstance(task, RollBack) else ()
    return tuple(Hold(one, because, deployment.id) for one in leaves)


def needs_way_back(failure: Failure, moved: bool, previous: Revision | None) -> bool:
    """Whether the live tree has to be brought back to `previous`."""
    return moved and previous is not None and not failure.interrupted


def ending_badly(
    failure: Failure, back: Failure | None, moved: bool, previous: Revision | None
) -> Ending:
    """The end of a deployment that failed with `failure`; `back` is how the way back failed."""
    detail = f"{failure.step}: {failure.cause}"
    if failure.interrupted or (back and back.interrupted):
        return Ending(Outcome.INTERRUPTED, Condition.MOVING, None, detail)
    if back and previous:
        detail = f"{detail}; and on the way back to {previous[:12]}, {back.step}: {back.cause}"
        # What the host could not do now, as with a full disk, the next look goes on with.
        condition = Condition.MOVING if back.temporary else Condition.BROKEN
        return Ending(Outcome.BROKEN, condition, None, detail, step=failure.step)
    live = previous if moved else None
    if failure.canceled:
        return Ending(Outcome.CANCELED, Condition.SETTLED, live, detail)
    outcome = Outcome.ROLLED_BACK if moved and previous else Outcome.FAILED
    return Ending(outcome, Condition.SETTLED, live, detail, step=failure.step)


def ending_of_restore(failure: Failure, revision: Revision) -> Ending:
    """The end of a restoring that failed. What could not be done now is tried at the next look."""
    detail = f"{failure.step}: {failure.cause}"
    if failure.interrupted:
        return Ending(Outcome.INTERRUPTED, Condition.MOVING, None, detail)
    if failure.temporary:
        return Ending(Outcome.FAILED, Condition.MOVING, None, detail, step=failure.step)
    detail = f"back to {revision[:12]}: {detail}"
    return Ending(Outcome.BROKEN, Condition.BROKEN, None, detail, step=failure.step)


def holds_of_rollback(task: Task, ending: Ending, deployment: Deployment) -> tuple[Hold, ...]:
    """On what a person's rollback was to leave, where it has broken the target.

    No look may take that for a newer revision: a person is needed.
    """
    broken = ending.condition is Condition.BROKEN
    return _held_by(task, f"{deployment.why}, {ending.detail}", deployment) if broken else ()


def hold_or_retry(
    failure: Failure, revision: Revision, attempt: int, deployment: str, now: float, jitter: float
) -> Hold | Retry:
    """What a failure means for its revision. `jitter` is a number from 0 to 1."""
    if failure.temporary:
        return Retry(revision, now + backoff(attempt, _RETRY_FIRST, _RETRY_MOST, jitter))
    return Hold(revision, f"{failure.step}: {failure.cause}", deployment)


def backoff(failures: int, first: float, most: float, jitter: float) -> float:
    """Seconds to wait after so many failures in a row: doubling, up to a tenth more by jitter."""
    doubled = first * 2.0 ** min(failures - 1, 30)
    return min(doubled, most) * (1 + jitter / 10)


def error_pause(failures: int, jitter: float) -> float:
    """Seconds until a look that could not be finished so many times in a row is tried again."""
    return backoff(failures, _RETRY_FIRST, _ERROR_MOST, jitter)


def pause_between_looks(in_vain: int) -> float:
    """Seconds before the next look at a target whose last ones found nothing, in a burst of wishes.

    A few in a row are looked at at once; ten thousand need not be ten thousand fetches.
    """
    return 0.0 if in_vain < _LOOKS_IN_VAIN else 1.0


# ---- the poll's time table ------------------------------------------------------------------


def groups(targets: Mapping[str, Target]) -> dict[tuple[str, float], tuple[str, ...]]:
    """Targets polled together: those of one repository and one interval share each look."""
    found: dict[tuple[str, float], tuple[str, ...]] = {}
    for target in targets.values():
        if target.poll is not None:
            key = (target.repo, target.poll)
            found[key] = (*found.get(key, ()), target.name)
    return found
