"""Every decision, as a table of cases."""

from dataclasses import replace
from pathlib import Path

import pytest

from agent import plan
from agent.model import (
    Condition,
    Deployment,
    Failure,
    Hold,
    Outcome,
    Pause,
    Push,
    Reason,
    Retry,
    Step,
    SyncRequest,
    Target,
    TargetState,
)
from agent.plan import Deploy, Ignored, Matched, Nothing, Restore, RollBack

A, B, C = "a" * 40, "b" * 40, "c" * 40
URL = "https://github.com/acme/shop.git"


def target(
    name: str = "shop", repo: str = URL, branch: str = "main", poll: float | None = 180.0
) -> Target:
    return Target(name, repo, branch, Path("/srv") / name, poll, 1800.0)


# ---- identities -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/acme/shop.git",
        "https://github.com/acme/shop",
        "https://github.com/acme/shop/",
        "https://GitHub.com/acme/shop.git",
        "https://someone@github.com/acme/shop.git",
        "https://github.com:443/acme/shop.git",
        "git://github.com/acme/shop.git",
        "ssh://git@github.com/acme/shop.git",
        "ssh://git@github.com:22/acme/shop",
        "git@github.com:acme/shop.git",
        "github.com:acme/shop",
    ],
)
def test_forms_of_one_repository_have_one_identity(url: str) -> None:
    assert plan.repository_identity(url) == "github.com:/acme/shop"


@pytest.mark.parametrize(
    "other",
    [
        "https://github.com/acme/shop2",
        "https://github.com/acme/Shop",
        "https://github.com/acme",
        "https://gitlab.com/acme/shop",
        "/acme/shop",
        "https://github.com.evil.example/acme/shop",
        "https://[bad/acme/shop",
        "nonsense",
        "",
    ],
)
def test_another_repository_has_another(other: str) -> None:
    assert plan.repository_identity(other) != plan.repository_identity(URL)


def test_a_local_path_names_itself() -> None:
    assert plan.repository_identity("/srv/git/shop.git") == plan.repository_identity(
        "file:///srv/git/shop.git"
    )
    assert plan.repository_identity("/srv/git/shop.git") != plan.repository_identity(
        "/srv/git/other.git"
    )


# ---- routes -----------------------------------------------------------------------------------


def push(ref: str = "refs/heads/main", revision: str | None = A, *urls: str) -> Push:
    return Push(ref, revision, frozenset(urls or (URL,)))


ROUTES = plan.Routes(
    [target(), target("copy", "git@github.com:acme/shop.git"), target("next", branch="next")]
)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (push(), Matched(("shop", "copy"))),
        (push("refs/heads/next"), Matched(("next",))),
        (push("refs/heads/main", A, "https://elsewhere.example/x", "git@github.com:acme/shop"), Matched(("shop", "copy"))),
        (push("refs/heads/other"), Ignored("no target tracks this branch")),
        (push("refs/tags/main"), Ignored("not a branch")),
        (push("refs/heads/main", None), Ignored("the branch was deleted")),
        (push("refs/heads/main", A, "https://github.com/acme/other"), Ignored("no target tracks this repository")),
    ],
)  # fmt: skip
def test_a_push_is_matched(event: Push, expected: Matched | Ignored) -> None:
    assert ROUTES.match(event) == expected


# ---- wishes -----------------------------------------------------------------------------------


def wish(reason: Reason, number: int | None = None, *, force: bool = False) -> SyncRequest:
    return SyncRequest("shop", reason, number, force=force)


@pytest.mark.parametrize(
    ("waiting", "new", "kept"),
    [
        (None, wish(Reason.POLL), wish(Reason.POLL)),
        (wish(Reason.PUSH, 1), wish(Reason.PUSH, 2), wish(Reason.PUSH, 2)),
        (wish(Reason.PUSH, 2), wish(Reason.PUSH, 1), wish(Reason.PUSH, 2)),
        (wish(Reason.PUSH, 1), wish(Reason.POLL), wish(Reason.PUSH, 1)),
        (wish(Reason.POLL), wish(Reason.PUSH, 1), wish(Reason.PUSH, 1)),
        (wish(Reason.START), wish(Reason.POLL), wish(Reason.START)),
        (wish(Reason.MANUAL, 1, force=True), wish(Reason.PUSH, 2), wish(Reason.PUSH, 2, force=True)),
    ],
)  # fmt: skip
def test_one_wish_stands_for_both(
    waiting: SyncRequest | None, new: SyncRequest, kept: SyncRequest
) -> None:
    assert plan.newest(waiting, new) == kept


# ---- decisions --------------------------------------------------------------------------------

NOW = 1000.0
HELD = Hold(B, "build hook x: exit 1", "d1")
PAUSED = Pause(NOW - 60, "ada", NOW + 60, "audit")
OVER = Pause(NOW - 60, "ada", NOW - 1)
FOR_EVER = Pause(NOW - 60, "ada")
LIVE = TargetState("shop", live=A)


@pytest.mark.parametrize(
    ("state", "head", "tip", "reason", "force", "expected"),
    [
        (TargetState("shop"), None, A, Reason.START, False, Deploy(A, 1, f"the branch is at {A[:12]}")),
        (TargetState("shop"), A, A, Reason.START, False, Deploy(A, 1, f"the branch is at {A[:12]}")),
        (LIVE, A, A, Reason.POLL, False, Nothing("up-to-date", f"{A[:12]} is live")),
        (LIVE, A, B, Reason.PUSH, False, Deploy(B, 1, f"the branch is at {B[:12]}")),
        (LIVE, A, A, Reason.MANUAL, True, Deploy(A, 1, "forced")),
        (LIVE, B, A, Reason.POLL, False, Deploy(A, 1, f"the tree was found at {B[:12]}")),
        (LIVE, None, A, Reason.POLL, False, Deploy(A, 1, "the tree was found at nothing")),
        (LIVE, A, None, Reason.POLL, False, Nothing("no-branch", "https://github.com/acme/shop.git has no branch main")),
        (TargetState("shop", A, holds=(HELD,)), A, B, Reason.PUSH, False, Nothing("held", f"{B[:12]} is held: {HELD.because}")),
        (TargetState("shop", A, holds=(HELD,), attempts=1, attempted=B), A, B, Reason.MANUAL, True, Deploy(B, 2, "forced")),
        (TargetState("shop", A, holds=(HELD,)), A, C, Reason.POLL, False, Deploy(C, 1, f"the branch is at {C[:12]}")),
        (TargetState("shop", A, holds=(HELD,)), A, A, Reason.POLL, False, Nothing("up-to-date", f"{A[:12]} is live")),
        (TargetState("shop", A, condition=Condition.MOVING, attempts=1, attempted=B), B, B, Reason.START, False,
         Deploy(B, 2, "the deployment before was left half done")),
        (TargetState("shop", A, condition=Condition.MOVING, holds=(HELD,), attempts=1, attempted=B), B, B, Reason.START, False,
         Restore(A, 2, f"what is live was left between two revisions, and {B[:12]} is held: {HELD.because}")),
        (TargetState("shop", A, pause=PAUSED), A, B, Reason.PUSH, False, Nothing("paused", "shop was paused by ada: audit", NOW + 60)),
        (TargetState("shop", A, pause=PAUSED), A, B, Reason.MANUAL, True, Deploy(B, 1, "forced")),
        (TargetState("shop", A, pause=OVER), A, B, Reason.POLL, False, Deploy(B, 1, f"the branch is at {B[:12]}")),
        (TargetState("shop", A, pause=FOR_EVER), A, B, Reason.POLL, False, Nothing("paused", "shop was paused by ada")),
        (TargetState("shop", A, condition=Condition.MOVING, pause=FOR_EVER, attempts=1, attempted=B), B, B, Reason.START, False,
         Restore(A, 2, "what is live was left between two revisions, and shop was paused by ada")),
        (TargetState("shop", condition=Condition.MOVING, holds=(HELD,)), B, B, Reason.START, False,
         Nothing("held", f"{B[:12]} is held: {HELD.because}")),
        (TargetState("shop", A, condition=Condition.BROKEN, holds=(HELD,)), B, B, Reason.POLL, False,
         Nothing("held", f"{B[:12]} is held: {HELD.because}")),
        (TargetState("shop", A, condition=Condition.BROKEN, holds=(HELD,)), B, A, Reason.POLL, False,
         Deploy(A, 1, "the target is broken, and this is another revision")),
        (TargetState("shop", A, retry=Retry(B, NOW + 5), attempts=1, attempted=B), A, B, Reason.POLL, False,
         Nothing("waiting", f"{B[:12]} could not be deployed yet; it is tried again", NOW + 5)),
        (TargetState("shop", A, retry=Retry(B, NOW), attempts=1, attempted=B), A, B, Reason.POLL, False,
         Deploy(B, 2, f"{B[:12]} could not be deployed before; tried again")),
        (TargetState("shop", A, retry=Retry(B, NOW + 5), attempts=1, attempted=B), A, B, Reason.START, False,
         Deploy(B, 2, f"{B[:12]} could not be deployed before; tried again")),
        (TargetState("shop", A, retry=Retry(B, NOW + 5)), A, C, Reason.POLL, False,
         Deploy(C, 1, f"the branch is at {C[:12]}")),
    ],
)  # fmt: skip
def test_what_a_look_leads_to(
    state: TargetState,
    head: str | None,
    tip: str | None,
    reason: Reason,
    force: bool,
    expected: plan.Verdict,
) -> None:
    request = SyncRequest("shop", reason, force=force)
    assert plan.decide(target(), state, head, tip, request, NOW) == expected


def test_who_asked_is_explained() -> None:
    assert plan.explain(SyncRequest("shop", Reason.PUSH, 1, "72d3")) == "push, delivery 72d3"
    assert (
        plan.explain(SyncRequest("shop", Reason.MANUAL, 1, actor="alice")) == "asked for by alice"
    )
    assert plan.explain(SyncRequest("shop", Reason.POLL)) == "poll"


def test_what_was_announced_is_waited_for_only_while_it_is_not_seen() -> None:
    assert plan.waits_for_announced(None, {A}) == ()
    assert plan.waits_for_announced(B, {A, B}) == ()
    assert plan.waits_for_announced(C, {A, B}) == (1.0, 2.0, 4.0)


# ---- endings ----------------------------------------------------------------------------------

FAILED = Failure("build hook x", "exit 1")
STOPPED = Failure("build hook x", "stopping", interrupted=True)
CANCELED = Failure("build hook x", "canceled by ada", canceled=True)
LATER = Failure("check out", "disk full", temporary=True)
DEPLOYMENT = Deployment("d1", "shop", A, B, Reason.ROLLBACK, "asked for by ada: back to A", 1, NOW)


def test_a_good_end_makes_the_revision_live() -> None:
    end = plan.ending_well(Deploy(B, 1, "x"), DEPLOYMENT)
    assert (end.outcome, end.condition, end.live) == (Outcome.DEPLOYED, Condition.SETTLED, B)
    assert end.leaves == ()
    assert plan.ending_well(Restore(A, 1, "x"), DEPLOYMENT).outcome is Outcome.ROLLED_BACK


def test_what_a_person_rolls_back_from_is_held() -> None:
    end = plan.ending_well(RollBack(A, (B, C), 1, "back to A"), DEPLOYMENT)
    assert (end.outcome, end.live) == (Outcome.DEPLOYED, A)
    because = "rolled back, asked for by ada: back to A"
    assert end.leaves == (Hold(B, because, "d1"), Hold(C, because, "d1"))


@pytest.mark.parametrize(
    ("state", "head", "verdict"),
    [
        (TargetState("shop", B), B, RollBack(A, (B,), 1, f"back to {A[:12]}")),
        (
            TargetState("shop", B, retry=Retry(C, NOW)),
            B,
            RollBack(A, (B, C), 1, f"back to {A[:12]}"),
        ),
        (TargetState("shop", B, retry=Retry(A, NOW)), B, RollBack(A, (B,), 1, f"back to {A[:12]}")),
        (TargetState("shop"), None, RollBack(A, (), 1, f"back to {A[:12]}")),
        (TargetState("shop", A), A, Nothing("up-to-date", f"{A[:12]} is live")),
        (TargetState("shop", A), B, RollBack(A, (), 1, f"back to {A[:12]}")),
        (
            TargetState("shop", A, condition=Condition.BROKEN),
            A,
            RollBack(A, (), 1, f"back to {A[:12]}"),
        ),
    ],
)
def test_a_person_s_rollback(state: TargetState, head: str, verdict: RollBack | Nothing) -> None:
    assert plan.roll_back(state, head, A) == verdict


@pytest.mark.parametrize(
    ("result", "reason", "before", "noted"),
    [
        ("up-to-date", Reason.PUSH, None, False),
        ("held", Reason.PUSH, "held", True),
        ("held", Reason.MANUAL, "held", True),
        ("held", Reason.POLL, None, True),
        ("held", Reason.POLL, "held", False),
        ("held", Reason.POLL, "paused", True),
    ],
)
def test_which_looks_belong_into_the_history(
    result: str, reason: Reason, before: str | None, noted: bool
) -> None:
    last = Nothing(before, "why") if before else None
    assert plan.worth_noting(Nothing(result, "why"), SyncRequest("shop", reason), last) is noted


@pytest.mark.parametrize(
    ("failure", "back", "moved", "previous", "outcome", "condition", "live"),
    [
        (FAILED, None, False, A, Outcome.FAILED, Condition.SETTLED, None),
        (FAILED, None, True, None, Outcome.FAILED, Condition.SETTLED, None),
        (FAILED, None, True, A, Outcome.ROLLED_BACK, Condition.SETTLED, A),
        (FAILED, FAILED, True, A, Outcome.BROKEN, Condition.BROKEN, None),
        (FAILED, LATER, True, A, Outcome.BROKEN, Condition.MOVING, None),
        (STOPPED, None, True, A, Outcome.INTERRUPTED, Condition.MOVING, None),
        (FAILED, STOPPED, True, A, Outcome.INTERRUPTED, Condition.MOVING, None),
        (CANCELED, None, False, A, Outcome.CANCELED, Condition.SETTLED, None),
        (CANCELED, None, True, A, Outcome.CANCELED, Condition.SETTLED, A),
        (CANCELED, FAILED, True, A, Outcome.BROKEN, Condition.BROKEN, None),
    ],
)
def test_a_bad_end(
    failure: Failure, back: Failure | None, moved: bool, previous: str | None,
    outcome: Outcome, condition: Condition, live: str | None,
) -> None:  # fmt: skip
    end = plan.ending_badly(failure, back, moved, previous)
    assert (end.outcome, end.condition, end.live) == (outcome, condition, live)
    assert failure.step in end.detail


@pytest.mark.parametrize(
    ("failure", "outcome", "condition"),
    [
        (FAILED, Outcome.BROKEN, Condition.BROKEN),
        (LATER, Outcome.FAILED, Condition.MOVING),
        (STOPPED, Outcome.INTERRUPTED, Condition.MOVING),
    ],
)
def test_the_end_of_a_restoring(failure: Failure, outcome: Outcome, condition: Condition) -> None:
    end = plan.ending_of_restore(failure, A)
    assert (end.outcome, end.condition, end.live) == (outcome, condition, None)


@pytest.mark.parametrize(
    ("failure", "moved", "previous", "needed"),
    [
        (FAILED, True, A, True),
        (FAILED, False, A, False),
        (FAILED, True, None, False),
        (STOPPED, True, A, False),
    ],
)
def test_when_the_way_back_is_taken(
    failure: Failure, moved: bool, previous: str | None, needed: bool
) -> None:
    assert plan.needs_way_back(failure, moved, previous) is needed


def test_a_failure_holds_and_a_temporary_one_is_tried_again() -> None:
    assert plan.hold_or_retry(FAILED, B, 1, "d1", NOW, 0) == Hold(B, "build hook x: exit 1", "d1")
    temporary = Failure("build hook x", "exit 75", temporary=True)
    waits = [plan.hold_or_retry(temporary, B, n, "d1", NOW, 0) for n in (1, 2, 3, 50)]
    assert [one.not_before - NOW for one in waits if isinstance(one, Retry)] == [5, 10, 20, 600]


def test_back_off_doubles_up_to_its_most_and_jitters_upwards() -> None:
    assert [plan.backoff(n, 1, 60, 0) for n in (1, 2, 3, 7, 100)] == [1, 2, 4, 60, 60]
    assert plan.backoff(1, 10, 60, 1) == 11
    assert plan.error_pause(1, 0) == 5
    assert plan.error_pause(99, 0) == 900


def test_only_a_burst_of_looks_in_vain_is_slowed() -> None:
    assert [plan.pause_between_looks(n) for n in (0, 1, 2, 3, 4)] == [0, 0, 0, 1, 1]


def test_targets_of_one_repository_and_interval_are_polled_together() -> None:
    targets = [target(), target("copy"), target("slow", poll=600.0), target("off", poll=None)]
    assert plan.groups({one.name: one for one in targets}) == {
        (URL, 180.0): ("shop", "copy"),
        (URL, 600.0): ("slow",),
    }


# ---- going on after a crash -------------------------------------------------------------------

TREE = Step(1, "tree", "check out aaaaaaaaaaaa", 1.0, 2.0, "ok; brought forward")
BUILT = Step(2, "build", "install", 2.0, 3.0, "ok")
RUNS = Step(3, "activate", "restart", 3.0)


@pytest.mark.parametrize(
    ("steps", "reason", "outcome", "can"),
    [
        ((TREE, BUILT, RUNS), Reason.PUSH, None, True),
        ((TREE, replace(RUNS, n=2)), Reason.START, None, True),
        ((), Reason.PUSH, None, False),
        ((replace(TREE, ended_at=None, result=None),), Reason.PUSH, None, False),
        ((TREE, BUILT), Reason.PUSH, None, False),
        ((TREE, replace(BUILT, result="exit 3"), RUNS), Reason.PUSH, None, False),
        ((TREE, BUILT, RUNS), Reason.ROLLBACK, None, False),
        ((TREE, BUILT, replace(RUNS, stage="success")), Reason.PUSH, None, False),
        ((TREE, BUILT, RUNS), Reason.PUSH, Outcome.DEPLOYED, False),
    ],
)
def test_what_can_be_gone_on_with(
    steps: tuple[Step, ...], reason: Reason, outcome: Outcome | None, can: bool
) -> None:
    one = Deployment("d1", "shop", A, None, reason, "", 1, 1.0, outcome=outcome, steps=steps)
    assert plan.can_go_on(one) is can
