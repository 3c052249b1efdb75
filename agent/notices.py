"""Who is told what, pure: sinks, notices, and which outcomes are news to a sink.

The rule, in one place: a failure is told once (same target, same revision, same failing step),
the recovery from it too, and a hook that could not now only when it keeps on failing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from agent.model import Deployment, Outcome, Revision, Secret

FAILURES = frozenset((Outcome.FAILED, Outcome.ROLLED_BACK, Outcome.BROKEN))
PATIENCE = 3
"""Attempts in a row at a revision whose hook exits 75, before that is told."""
GIVEN_UP_AFTER = 86400.0
"""Seconds that a notice is tried for."""


# ---- the nouns ----------------------------------------------------------------------------------


class Manner(StrEnum):
    """What a sink is told of the targets it listens to."""

    NEWS = "news"
    """What a person wants to hear, once: the outcomes it asked for, and a recovery."""
    EVERYTHING = "everything"
    """Every start and every outcome."""
    STANDING = "standing"
    """What is failing now, for as long as it does."""


Setting = str | Secret | tuple[Secret, ...] | Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class Sink:
    """Somewhere that people or programs are told of deployments."""

    name: str
    kind: str
    manner: Manner
    targets: frozenset[str]
    outcomes: frozenset[Outcome]
    link: str | None
    """Where to read more: a URL with `{deployment}` and `{target}` to be filled in."""
    settings: Mapping[str, Setting]
    """What its kind needs; a secret as the place where it is."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A sink is to be told that a deployment started (no outcome), or how it ended."""

    id: int
    sink: str
    target: str
    deployment: str
    outcome: Outcome | None
    live: Revision | None
    """What was live after it."""
    recovered: bool
    """It went well, and the sink was told of a failure before."""
    at: float
    """When that was, in Unix time."""


@dataclass(frozen=True, slots=True)
class Failing:
    """A target that is failing, as far as a sink was told."""

    target: str
    deployment: str
    """The one that failed in the way it fails now."""
    outcome: Outcome
    live: Revision | None
    """What was live after it."""
    since: float
    """When it first failed; from then on no deployment went well."""
    at: float
    """When that deployment ended."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a sink has not been told yet, and why not."""

    sink: str
    waiting: int
    since: float
    why: str | None


# ---- the rule -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Happening:
    """A deployment started (no outcome), or ended."""

    deployment: Deployment
    outcome: Outcome | None
    live: Revision | None = None
    """What is live after it."""
    step: str = ""
    """The step that failed."""
    retrying: bool = False
    """The revision is tried again by itself (exit 75)."""

    @property
    def failure(self) -> str | None:
        """What failed, in a word that is equal for the same failure; None where nothing did."""
        one = self.deployment
        return f"{self.outcome} {one.revision} {self.step}" if self.outcome in FAILURES else None

    @property
    def early(self) -> bool:
        """It may yet go well by itself."""
        undone = self.outcome is not Outcome.BROKEN
        return self.retrying and undone and self.deployment.attempt < PATIENCE


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a sink is told of a happening, and what is failing for it from now on."""

    tell: bool
    failure: str | None
    recovered: bool = False


def verdict(sink: Sink, happening: Happening, failure: str | None) -> Verdict:
    """What `happening` means to `sink`, for which the target was failing with `failure` before."""
    if sink.manner is Manner.EVERYTHING:
        return Verdict(tell=True, failure=None)
    told = _news(sink, happening, failure)
    return told if sink.manner is Manner.NEWS else Verdict(tell=False, failure=told.failure)


def _news(sink: Sink, happening: Happening, failure: str | None) -> Verdict:
    outcome = happening.outcome
    wanted = outcome in sink.outcomes
    if outcome is Outcome.DEPLOYED:
        recovered = failure is not None
        return Verdict(tell=wanted or recovered, failure=None, recovered=recovered)
    if not wanted or happening.early:
        return Verdict(tell=False, failure=failure)
    if happening.failure is None:
        return Verdict(tell=True, failure=failure)
    return Verdict(tell=happening.failure != failure, failure=happening.failure)
