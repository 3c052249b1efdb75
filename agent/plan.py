"""Every decision, pure: what a push is for, what a look leads to, retry or hold.

Values in, values out; a table of cases can compare them. The reconciler, the worker and the
poller do what these say.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from agent.model import (
    Condition,
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
    Tip,
)

# ---- which targets a push is for ------------------------------------------------------------

_SCP = re.compile(r"(?:[^@/]+@)?([^:/]+):(?!/?/)(.+)")
_FOR_ANNOUNCED = (1.0, 2.0, 4.0)
_RETRY_FIRST, _RETRY_MOST = 5.0, 600.0
_ERROR_MOST = 900.0
_LOOKS_IN_VAIN = 3


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

    def __init__(self, targets: Iterable[Target]) -> None:
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

_WEIGHT = {Reason.POLL: 0, Reason.START: 1, Reason.ROLLBACK: 1, Reason.PUSH: 2, Reason.MANUAL: 2}


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
    """A crash came in the middle of a way back: finish it."""

    revision: Revision
    attempt: int
    why: str


@dataclass(frozen=True, slots=True)
class Nothing:
    """Leave the target as it is, for the reason `why`."""

    result: str
    """One of `up-to-date`, `held`, `waiting`, `no-branch`."""
    why: str


Verdict = Deploy | Restore | Nothing


def decide(
    target: Target,
    state: TargetState,
    head: Revision | None,
    tip: Tip,
    request: SyncRequest,
    now: float,
) -> Verdict:
    """What to do about `tip`, the branch's end at the remote, when `head` is in the tree.

    The rules stand in the order in which they win. `now` is Unix time.
    """
    revision = tip.revision
    if revision is None:
        return Nothing("no-branch", f"the remote shows no branch {target.branch}; is it empty?")
    attempt = state.attempts + 1 if state.attempted == revision else 1
    hold = state.hold
    if hold and hold.revision == revision and not request.force:
        if state.condition is Condition.MOVING and state.live:
            why = f"the agent died on the way back from {revision[:12]}"
            return Restore(state.live, state.attempts, why)
        return Nothing("held", f"{revision[:12]} is held: {hold.because}")
    if request.force:
        return Deploy(revision, attempt, "forced")
    if state.condition is Condition.MOVING:
        return Deploy(revision, attempt, "the deployment before was interrupted")
    if state.condition is Condition.BROKEN:
        return Deploy(revision, attempt, "the target is broken, and this is another revision")
    if revision != state.live:
        return _newer(state, revision, attempt, request, now)
    if head != revision:
        found = head[:12] if head else "nothing"
        return Deploy(revision, attempt, f"the tree was found at {found}")
    return Nothing("up-to-date", f"{revision[:12]} is live")


def _newer(
    state: TargetState, revision: Revision, attempt: int, request: SyncRequest, now: float
) -> Verdict:
    retry = state.retry
    if not (retry and retry.revision == revision):
        return Deploy(revision, attempt, f"the branch is at {revision[:12]}")
    if request.reason is Reason.POLL and now < retry.not_before:
        return Nothing("waiting", f"{revision[:12]} could not be deployed yet; it is tried again")
    return Deploy(revision, attempt, f"{revision[:12]} could not be deployed before; tried again")


def explain(request: SyncRequest) -> str:
    """Who or what asked, in words: `push delivery 72d3…`, `poll`, `alice`."""
    if request.delivery:
        return f"push, delivery {request.delivery}"
    return f"asked for by {request.actor}" if request.actor else request.reason.value


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


def ending_well(revision: Revision, reason: Reason) -> Ending:
    outcome = Outcome.ROLLED_BACK if reason is Reason.ROLLBACK else Outcome.DEPLOYED
    return Ending(outcome, Condition.SETTLED, revision, "")


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
    if not moved or previous is None:
        return Ending(Outcome.FAILED, Condition.SETTLED, None, detail)
    if back is None:
        return Ending(Outcome.ROLLED_BACK, Condition.SETTLED, previous, detail)
    detail = f"{detail}; and on the way back to {previous[:12]}, {back.step}: {back.cause}"
    return Ending(Outcome.BROKEN, Condition.BROKEN, None, detail)


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
