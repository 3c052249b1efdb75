"""Every noun of the agent, frozen. No I/O, no clock, no decisions.

The words, in the order a push meets them: a *delivery* is an untrusted request, an *event* a
verified one. A *letter* is a push delivery in the inbox: on disk, and so acknowledged. A *target*
is a repository, a branch, a path and its hooks. A *sync request* is a wish for a look at a target,
with its reason; a *sync* is that look and what follows from it. A *deployment* is one attempt at a
*revision*, with *steps* and an *outcome*. A *hold* means that a revision is not tried again by
itself.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

Revision = str
"""A full commit id: 40 (SHA-1) or 64 (SHA-256) lower-case hex digits."""

REVISION = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


class Stage(StrEnum):
    """When a hook runs. The first three are gates: a failure there undoes the deployment."""

    BUILD = "build"
    ACTIVATE = "activate"
    VERIFY = "verify"
    SUCCESS = "success"
    FAILURE = "failure"


GATES = (Stage.BUILD, Stage.ACTIVATE, Stage.VERIFY)


class Strategy(StrEnum):
    """How a revision becomes live."""

    IN_PLACE = "in-place"
    """The target's path is one clone, which every deployment moves."""
    RELEASES = "releases"
    """Each revision is a tree of its own; a link is switched from one to the next."""


class Reason(StrEnum):
    """Why a sync, and so a hook, runs."""

    PUSH = "push"
    POLL = "poll"
    START = "start"
    MANUAL = "manual"
    ROLLBACK = "rollback"


class Outcome(StrEnum):
    """How a deployment ended."""

    DEPLOYED = "deployed"
    FAILED = "failed"
    ROLLED_BACK = "rolled-back"
    BROKEN = "broken"
    INTERRUPTED = "interrupted"
    CANCELED = "canceled"


class Condition(StrEnum):
    """What a target's live tree is between and during deployments."""

    SETTLED = "settled"
    """The live tree is the live revision, hooks and all."""
    MOVING = "moving"
    """A deployment has begun and not ended; found at a start, it means a crash."""
    BROKEN = "broken"
    """The way back failed too: a person, or a newer revision, is needed."""


# ---- configuration -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Secret:
    """Where a secret comes from: a file read anew each time, or a value taken at start."""

    name: str
    """What to call it in a message, such as `file /etc/gitops-agent/token`; never the secret."""
    path: Path | None = None
    value: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class GitAccess:
    """How git may read a private repository."""

    token: Secret | None = None
    username: str = "x-access-token"
    ssh_key: Path | None = None
    known_hosts: Path | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """One remote as git reaches it. Targets with equal sources share a mirror and its looks."""

    url: str
    access: GitAccess = GitAccess()


@dataclass(frozen=True, slots=True)
class Rights:
    """Whom a hook runs as, and how much it may take. None leaves it as it is."""

    user: str | None = None
    memory_max: int | None = None
    """Bytes, of it and all that it starts."""
    tasks_max: int | None = None
    """Processes and threads at once."""


@dataclass(frozen=True, slots=True)
class Hook:
    """One executable of the operator's, run at one stage."""

    name: str
    stage: Stage
    run: tuple[str, ...]
    """argv. The first is an absolute path, or `./x` inside the deployed tree."""
    timeout: float
    """Seconds until SIGTERM."""
    env: Mapping[str, str] = field(default_factory=dict)
    rights: Rights = Rights()


@dataclass(frozen=True, slots=True)
class Verify:
    """The built-in health check: `url` has to answer `expect`. Times are in seconds."""

    url: str
    expect: int = 200
    within: float = 30.0
    """How long it may take until the first good answer."""
    stable_for: float = 10.0
    """How long the answers have to stay good from then on."""


@dataclass(frozen=True, slots=True)
class Target:
    """A repository's branch, kept live at a path on this host."""

    name: str
    repo: str
    branch: str
    path: Path
    poll: float | None
    """Seconds between polls; None is off."""
    timeout: float
    """Seconds a whole deployment may take; the way back has as long again, and so has a fetch."""
    access: GitAccess = GitAccess()
    hooks: tuple[Hook, ...] = ()
    strategy: Strategy = Strategy.IN_PLACE
    shared: tuple[str, ...] = ()
    """Paths that every release has as links into one shared folder."""
    keep: int = 5
    """How many releases stay on disk."""
    reuse: tuple[str, ...] = ()
    """What hooks left in a tree, and the next revision in that tree may begin with."""
    verify: Verify | None = None

    @property
    def live(self) -> Path:
        """The folder in which the live revision is found."""
        return self.path / "current" if self.strategy is Strategy.RELEASES else self.path

    @property
    def ref(self) -> str:
        """The full name of the branch: `refs/tags/main` is not `refs/heads/main`."""
        return f"refs/heads/{self.branch}"

    @property
    def source(self) -> Source:
        return Source(self.repo, self.access)


@dataclass(frozen=True, slots=True)
class Tracked:
    """Of a target, what tells whether a push is for it."""

    name: str
    repo: str
    branch: str

    @property
    def ref(self) -> str:
        return f"refs/heads/{self.branch}"


@dataclass(frozen=True, slots=True)
class Webhook:
    """One address under /webhook/, its forge, and the secrets of which any may match."""

    name: str
    provider: str
    secrets: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Entrance:
    """Where the control application listens on TCP, and what opens it there."""

    bind: str
    token_hash: str = field(repr=False)


# ---- from a delivery to a wish --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Delivery:
    """A verified delivery: what a forge sent, once the signature has matched."""

    webhook: str
    id: str
    event: str
    secret: int
    """Which of the webhook's secrets matched, counted from 0."""


@dataclass(frozen=True, slots=True)
class Push:
    """A branch or tag moved, as a delivery tells it. A doorbell: nothing here reaches git."""

    ref: str
    revision: Revision | None
    """What the ref is said to be at now; None when it was deleted."""
    repositories: frozenset[str]
    """The URLs by which the delivery names its repository; compared, never fetched."""


@dataclass(frozen=True, slots=True)
class Ping:
    """The forge asks whether anyone is there."""


@dataclass(frozen=True, slots=True)
class Other:
    """An event that the agent has no use for."""

    name: str


Event = Push | Ping | Other


@dataclass(frozen=True, slots=True)
class Letter:
    """An acknowledged push delivery in the inbox, and the targets that it wakes."""

    n: int
    """Its place in the inbox, from 1; a later one has a higher place."""
    delivery: str
    revision: Revision | None
    targets: tuple[str, ...]
    received_at: float


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """A wish for a look at a target, and its reason."""

    target: str
    reason: Reason
    id: int | None = None
    """Its place in the journal; polls and starts have none."""
    delivery: str | None = None
    expected: Revision | None = None
    """The revision that a push announced."""
    force: bool = False
    actor: str | None = None
    """Who asked, where a person did."""
    goal: Revision | None = None
    """The revision to go back to, for a rollback."""


# ---- deployments ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hold:
    """A revision that is not tried again by itself."""

    revision: Revision
    because: str
    deployment: str


@dataclass(frozen=True, slots=True)
class Retry:
    """A revision that could not be deployed just then, and when it is tried again.

    A hook said so (exit 75), or the host could not: no room, a lock, missing rights.
    """

    revision: Revision
    not_before: float
    """Unix time, UTC."""


LONGEST_PAUSE = 10 * 365 * 86400.0
"""In seconds; for longer there are pauses until they are ended."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing goes out by itself meanwhile. Times are Unix seconds, UTC."""

    since: float
    by: str
    until: float | None = None
    reason: str = ""

    def holds(self, now: float) -> bool:
        """Whether it is not over yet."""
        return self.until is None or now < self.until


@dataclass(frozen=True, slots=True)
class TargetState:
    """What the journal knows of a target."""

    target: str
    live: Revision | None = None
    live_since: float | None = None
    condition: Condition = Condition.SETTLED
    holds: tuple[Hold, ...] = ()
    """The newest last."""
    retry: Retry | None = None
    attempts: int = 0
    """Deployments begun in a row, at `attempted` or back from it, without one going through."""
    attempted: Revision | None = None
    pause: Pause | None = None

    @property
    def hold(self) -> Hold | None:
        """The newest."""
        return self.holds[-1] if self.holds else None

    def hold_on(self, revision: Revision) -> Hold | None:
        return next((one for one in self.holds if one.revision == revision), None)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing a deployment did: a move of the tree, or a hook."""

    n: int
    stage: str
    name: str
    started_at: float
    ended_at: float | None = None
    result: str | None = None
    """`ok`, or what went wrong, such as `exit 3` or `timed out after 300 s`."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """One attempt at a revision."""

    id: str
    target: str
    revision: Revision
    previous: Revision | None
    reason: Reason
    why: str
    """Which delivery, poll or person, and by which rule, in words."""
    attempt: int
    started_at: float
    ended_at: float | None = None
    outcome: Outcome | None = None
    detail: str = ""
    subject: str = ""
    """The first line of the commit message."""
    author: str = ""
    delivery: str | None = None
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a step did not do, and what that means for the revision."""

    step: str
    cause: str
    temporary: bool = False
    """It could not now: try the same revision again."""
    interrupted: bool = False
    """The agent is stopping: the start after it goes on from here."""
    canceled: bool = False
    """A person ended it."""


@dataclass(frozen=True, slots=True)
class Look:
    """A look at a target that led to no deployment although something was there to deploy."""

    target: str
    at: float
    reason: Reason
    result: str
    """`held`, `paused`, `waiting` or `no-branch`."""
    why: str
    """Which delivery, poll or person, and by which rule, in words."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit as a person reads it."""

    revision: Revision
    subject: str
    author: str
    at: float
    """Unix time of the commit."""


MOST_COMMITS = 100
"""In a list of what lies between two revisions."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What a sync of a target would bring."""

    target: str
    live: Revision | None
    tip: Revision | None
    would: str
    """What a sync would do now, in words."""
    commits: tuple[Commit, ...]
    """Those on the branch that are not live, the newest first."""
    taken_away: tuple[Commit, ...]
    """Those live that are not on the branch any more, after a force-push."""
    files: tuple[str, ...]
    """The paths that differ, each after git's letter for how, such as `M index.html`."""
