"""Who is told what: a table of what happened, and what it means to a sink."""

from typing import Any

import pytest

from agent.model import Deployment, Outcome, Reason
from agent.notices import FAILURES, Happening, Manner, Sink, Verdict, verdict

B, C = "b" * 40, "c" * 40
TOLD = f"rolled-back {B} build hook x"


def sink(manner: Manner = Manner.NEWS, outcomes: frozenset[Outcome] = FAILURES) -> Sink:
    return Sink("ops", "webhook", manner, frozenset(("shop",)), outcomes, None, {})


def happening(
    outcome: Outcome | None, revision: str = B, step: str = "build hook x", **changes: Any
) -> Happening:
    reason = changes.pop("reason", Reason.PUSH)
    attempt = changes.pop("attempt", 1)
    one = Deployment("d", "shop", revision, "a" * 40, reason, "why", attempt, 1.0)
    return Happening(one, outcome, step=step, **changes)


@pytest.mark.parametrize(
    ("what", "before", "expected"),
    [
        # A failure is told, and once.
        (happening(Outcome.ROLLED_BACK), None, Verdict(True, TOLD)),
        (happening(Outcome.ROLLED_BACK), TOLD, Verdict(False, TOLD)),
        # Another revision, another step, and worse: each is another failure.
        (happening(Outcome.ROLLED_BACK, C), TOLD, Verdict(True, f"rolled-back {C} build hook x")),
        (happening(Outcome.ROLLED_BACK, step="y"), TOLD, Verdict(True, f"rolled-back {B} y")),
        (happening(Outcome.BROKEN), TOLD, Verdict(True, f"broken {B} build hook x")),
        (happening(Outcome.FAILED), None, Verdict(True, f"failed {B} build hook x")),
        # What went well is told to who heard of a failure, and is the end of it.
        (happening(Outcome.DEPLOYED), TOLD, Verdict(True, None, recovered=True)),
        (happening(Outcome.DEPLOYED), None, Verdict(False, None)),
        # These change nothing about what is failing.
        (happening(None), TOLD, Verdict(False, TOLD)),
        (happening(Outcome.INTERRUPTED), TOLD, Verdict(False, TOLD)),
        (happening(Outcome.CANCELED), None, Verdict(False, None)),
        # A person who went back, and for whom that went well, has mended it.
        (happening(Outcome.DEPLOYED, reason=Reason.ROLLBACK), TOLD, Verdict(True, None, recovered=True)),
        # What is tried again by itself is told when it goes on failing; broken at once.
        (happening(Outcome.ROLLED_BACK, retrying=True), None, Verdict(False, None)),
        (happening(Outcome.ROLLED_BACK, retrying=True, attempt=2), None, Verdict(False, None)),
        (happening(Outcome.ROLLED_BACK, retrying=True, attempt=3), None, Verdict(True, TOLD)),
        (happening(Outcome.ROLLED_BACK, retrying=True, attempt=4), TOLD, Verdict(False, TOLD)),
        (happening(Outcome.BROKEN, retrying=True), None, Verdict(True, f"broken {B} build hook x")),
    ],
)  # fmt: skip
def test_what_is_news(what: Happening, before: str | None, expected: Verdict) -> None:
    assert verdict(sink(), what, before) == expected


@pytest.mark.parametrize("outcome", [None, *Outcome])
def test_one_that_wants_everything_is_told_everything(outcome: Outcome | None) -> None:
    told = verdict(sink(Manner.EVERYTHING), happening(outcome, retrying=True), None)
    assert told == Verdict(True, None)


@pytest.mark.parametrize("outcome", Outcome)
def test_what_stands_is_kept_and_never_news(outcome: Outcome) -> None:
    told = verdict(sink(Manner.STANDING), happening(outcome), None)
    assert not told.tell
    assert (told.failure is not None) == (outcome in FAILURES)


def test_an_outcome_that_was_not_asked_for_is_neither_told_nor_recovered_from() -> None:
    only_broken = sink(outcomes=frozenset((Outcome.BROKEN,)))
    assert verdict(only_broken, happening(Outcome.ROLLED_BACK), None) == Verdict(False, None)
    assert verdict(only_broken, happening(Outcome.DEPLOYED), None) == Verdict(False, None)


def test_every_outcome_can_be_asked_for() -> None:
    every = sink(outcomes=frozenset(Outcome))
    for outcome in Outcome:
        assert verdict(every, happening(outcome), None).tell
    assert not verdict(every, happening(None), None).tell
