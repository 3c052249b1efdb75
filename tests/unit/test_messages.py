"""What a sink is told, as a person reads it."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.messages import Facts, Tail, compose, failing_hooks, harmless, tail, trial
from agent.model import (
    Commit,
    Condition,
    Deployment,
    Hold,
    Outcome,
    Reason,
    Retry,
    Step,
    Target,
    TargetState,
)

A, B = "a" * 40, "b" * 40
TARGET = Target("shop", "https://github.com/acme/shop.git", "main", Path("/srv/shop"), None, 60.0)
FAILED = Step(3, "build", "test", 1.0, 2.0, "exit 3")
DEPLOYMENT = Deployment(
    "20260102-030405-abcdef", "shop", B, A, Reason.PUSH, "push, delivery d: the branch is at bbb",
    1, 1_767_322_985.0, subject="Add a basket", author="Ada", detail="build hook test: exit 3",
)  # fmt: skip
HELD = TargetState("shop", A, 1.0, Condition.SETTLED, (Hold(B, "exit 3", DEPLOYMENT.id),))
FACTS = Facts(
    DEPLOYMENT, TARGET, HELD, Outcome.ROLLED_BACK, live=A, recovered=False, at=1_767_323_000.0,
    host="web1", commits=(Commit(B, "Add a basket", "Ada", 1.0),) * 7, files=12,
    tails=(Tail("build hook test", "exit 3", ("one", "two")),),
)  # fmt: skip


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def title(
    outcome: Outcome | None, *, recovered: bool = False, live: str | None = A, **changes: Any
) -> str:
    one = replace(DEPLOYMENT, **changes)
    facts = replace(FACTS, outcome=outcome, live=live, recovered=recovered, deployment=one)
    return compose(facts, "1", None).title.removeprefix("shop on web1: ")


def text(**changes: Any) -> str:
    return compose(replace(FACTS, **changes), "1", None).text


def test_the_whole_of_it() -> None:
    message = compose(FACTS, "7", "https://agent.example/1")
    assert message.title == "shop on web1: bbbbbbbbbb FAILED, aaaaaaaaaa is live again"
    assert message.text == (
        "What: bbbbbbbbbb Add a basket, by Ada\n"
        "Where: /srv/shop on web1, from https://github.com/acme/shop.git (main)\n"
        "Why: push, delivery d: the branch is at bbb\n"
        "Took: 15 s, until 2026-01-02 03:03:20 UTC\n"
        "Failed: build hook test: exit 3\n"
        "Changed: 7 commits, 12 files since aaaaaaaaaa\n"
        + "    bbbbbbbbbb Add a basket (Ada)\n"
        * 5
        + "    and 2 more\n"
        "Last lines of build hook test (exit 3):\n"
        "    one\n"
        "    two\n"
        "Next: bbbbbbbbbb is held: push a newer revision, or `gitops-agent sync shop --force`"
        " to try it again\n"
        "Log: https://agent.example/1"
    )
    assert message.id == "20260102-030405-abcdef-7"
    assert (message.event, message.revision, message.previous) == ("rolled-back", B, A)


@pytest.mark.parametrize(
    ("said", "outcome", "changes"),
    [
        ("deploying bbbbbbbbbb", None, {}),
        ("bbbbbbbbbb is live", Outcome.DEPLOYED, {}),
        ("recovered, bbbbbbbbbb is live", Outcome.DEPLOYED, {"recovered": True}),
        ("bbbbbbbbbb FAILED, aaaaaaaaaa is live as before", Outcome.FAILED, {}),
        ("bbbbbbbbbb FAILED, and nothing is live yet", Outcome.FAILED, {"live": None}),
        ("BROKEN at bbbbbbbbbb, going back failed too: a person is needed", Outcome.BROKEN, {}),
        ("went back, bbbbbbbbbb is live", Outcome.DEPLOYED, {"reason": Reason.ROLLBACK}),
        ("what was interrupted is undone, bbbbbbbbbb is live again", Outcome.ROLLED_BACK, {"live": B}),
        ("bbbbbbbbbb was interrupted; the agent goes on from there when it starts", Outcome.INTERRUPTED, {}),
        ("bbbbbbbbbb was canceled", Outcome.CANCELED, {}),
    ],
)  # fmt: skip
def test_what_happened_is_in_the_title(
    said: str, outcome: Outcome | None, changes: dict[str, Any]
) -> None:
    assert title(outcome, **changes) == said


def test_what_comes_next() -> None:
    retrying = TargetState("shop", A, retry=Retry(B, 1_767_323_020.0))
    assert "Next: it is tried again by itself, the next time at 2026-01-02 03:03:40 UTC" in text(
        state=retrying
    )
    broken = text(outcome=Outcome.BROKEN)
    assert "Next: mend it on web1, then `gitops-agent sync shop --force`" in broken
    assert "Next:" not in text(outcome=Outcome.DEPLOYED)
    assert "Next:" not in text(state=TargetState("shop", A))


def test_what_is_not_known_is_left_out() -> None:
    bare = replace(DEPLOYMENT, subject="", detail="", previous=None)
    said = text(deployment=bare, commits=(), files=0, tails=(), outcome=None)
    assert said == (
        "What: bbbbbbbbbb\n"
        "Where: /srv/shop on web1, from https://github.com/acme/shop.git (main)\n"
        "Why: push, delivery d: the branch is at bbb\n"
        "Since: 2026-01-02 03:03:05 UTC\n"
        "Log: gitops-agent logs 20260102-030405-abcdef"
    )


def test_how_much_was_changed() -> None:
    def changed(commits: int, files: int) -> str:
        (line,) = (
            line
            for line in text(commits=FACTS.commits[:1] * commits, files=files).splitlines()
            if line.startswith("Changed")
        )
        return line

    assert changed(1, 1) == "Changed: 1 commit, 1 file since aaaaaaaaaa"
    assert changed(100, 2) == "Changed: at least 100 commits, 2 files since aaaaaaaaaa"
    assert changed(0, 3) == "Changed: 3 files since aaaaaaaaaa"


def test_an_attempt_after_others_is_said() -> None:
    assert "(attempt 4)\n" in text(deployment=replace(DEPLOYMENT, attempt=4))


def test_a_step_that_printed_nothing() -> None:
    tails = (Tail("verify hook x", "killed by SIGKILL", ()),)
    assert "x (killed by SIGKILL):\n    (it printed nothing)\n" in text(tails=tails)


@pytest.mark.parametrize(
    ("printed", "lines"),
    [
        (b"", ()),
        (b"one\ntwo\n\n", ("one", "two")),
        (b"\n".join(b"%d" % n for n in range(50)), tuple(str(n) for n in range(38, 50))),
        (b"\x1b[1;31mred\x1b[0m \x1b]0;title\x07end\n", ("red end",)),
        (b"10%\r50%\r100%\r\ndone\r\n", ("100%", "done")),
        (b"a\tb\x00c\n", ("a bc",)),
        (b"\xff\xfe\n", ("\ufffd\ufffd",)),
        (b"x" * 1000, ("x" * 160,)),
    ],
)
def test_the_last_lines(printed: bytes, lines: tuple[str, ...]) -> None:
    assert tail(FAILED, printed) == Tail("build hook test", "exit 3", lines)


@pytest.mark.parametrize(
    "text",
    ["@everyone", "@here: x", "a @Channel b", "@all", "<!channel>", "<!subteam^S1>", "<@U123>", "<#C1>"],
)  # fmt: skip
def test_nobody_is_called_by_name(text: str) -> None:
    said = harmless(text)
    assert said != text
    assert said.replace("\u200b", "") == text


@pytest.mark.parametrize("text", ["ada@example.org", "@allocated", "a < b", "<b>", "if x<y"])
def test_what_calls_nobody_is_left_as_it_is(text: str) -> None:
    assert harmless(text) == text


def test_the_hooks_that_failed_are_gates_only() -> None:
    steps = (
        Step(1, "tree", "check out", 1.0, 2.0, "ok"),
        FAILED,
        Step(4, "tree", "check out", 1.0, 2.0, "no room"),
        Step(5, "activate", "restart", 1.0, 2.0, "ok"),
        Step(6, "failure", "tell", 1.0, 2.0, "exit 1"),
        Step(7, "verify", "look", 1.0),
    )
    assert failing_hooks(steps) == [FAILED]


def test_a_trial_says_that_it_is_one() -> None:
    message = trial("ops", "web1", TARGET, B, 5.0)
    assert message.title == "shop on web1: a test of [notify.ops]"
    assert "Nothing was deployed" in message.text
    assert (message.event, message.revision) == ("test", B)
