"""Whole syncs: real git, real hooks, a real journal; only the clock of a retry is ours."""

import asyncio
import os
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent import hooks
from agent.attempt import Synced
from agent.model import (
    Condition,
    Outcome,
    Pause,
    Reason,
    Stage,
    Strategy,
    SyncRequest,
    TargetState,
)
from agent.runs import Runs
from tests.house import FAIL_IF_BAD, House
from tests.remotes import Upstream

# ---- going well -------------------------------------------------------------------------------


def test_the_first_deployment(house: House) -> None:
    house.track(*(house.recorder(stage) for stage in Stage))
    a = house.upstream.commit({"a": "1", "dir/b": "2"}, "hello")
    synced = house.sync(Reason.START)
    assert synced.result == "deployed"
    assert house.git("log", "-1", "--format=%H %s") == f"{a} hello"
    assert house.clean()
    assert house.state() == TargetState("shop", a, house.time)
    facts = house.recorded()
    assert [one["DEPLOY_STAGE"] for one in facts] == ["build", "activate", "verify", "success"]
    assert facts[0] == {
        "DEPLOY_ID": synced.deployment,
        "DEPLOY_TARGET": "shop",
        "DEPLOY_STAGE": "build",
        "DEPLOY_REASON": "start",
        "DEPLOY_ATTEMPT": "1",
        "DEPLOY_REPO": house.upstream.url,
        "DEPLOY_REF": "refs/heads/main",
        "DEPLOY_REVISION": a,
        "DEPLOY_PREVIOUS_REVISION": "",
        "DEPLOY_PATH": str(house.tree),
        "DEPLOY_TREE": str(house.tree),
        "DEPLOY_CHANGED_FILES": facts[0]["DEPLOY_CHANGED_FILES"],
        "files": ["a", "dir"],
        "changed": ["a", "dir/b"],
    }
    assert facts[3]["DEPLOY_OUTCOME"] == "deployed"
    assert not Path(facts[0]["DEPLOY_CHANGED_FILES"]).exists()


def test_the_next_one_knows_the_one_before(house: House) -> None:
    house.track(house.recorder(Stage.BUILD))
    a = house.upstream.commit({"a": "1", "gone": "x", "same": "y"})
    house.sync()
    b = house.upstream.commit({"a": "2", "gone": None, "new": "n"})
    assert house.sync().result == "deployed"
    facts = house.recorded()[1]
    assert (facts["DEPLOY_PREVIOUS_REVISION"], facts["DEPLOY_REVISION"]) == (a, b)
    assert facts["changed"] == ["a", "gone", "new"]
    assert facts["files"] == ["a", "new", "same"]
    assert house.git("rev-parse", "origin/main") == b


def test_what_is_live_is_left_alone(house: House) -> None:
    house.track(house.recorder(Stage.BUILD))
    house.upstream.commit({"a": "1"})
    house.sync()
    assert house.sync(Reason.POLL).result == "up-to-date"
    assert len(house.recorded()) == 1
    assert house.sync(Reason.MANUAL, force=True).result == "deployed"
    assert len(house.recorded()) == 2


def test_steps_and_reasons_are_in_the_journal(house: House) -> None:
    house.track(house.hook("true", Stage.BUILD, "one"), house.hook("true", Stage.VERIFY, "two"))
    a = house.upstream.commit({"a": "1"}, "the subject")
    house.sync(Reason.PUSH, delivery="72d3")
    one = house.newest()
    assert one.why == f"push, delivery 72d3: the branch is at {a[:12]}"
    assert (one.subject, one.delivery, one.outcome) == ("the subject", "72d3", Outcome.DEPLOYED)
    assert [(step.stage, step.name, step.result) for step in one.steps] == [
        ("tree", f"check out {a[:12]}", "ok"),
        ("build", "one", "ok"),
        ("verify", "two", "ok"),
    ]


def test_rewritten_history_is_deployed(house: House) -> None:
    house.track()
    house.upstream.commit({"a": "1"})
    house.sync()
    house.upstream.commit({"a": "2"})
    house.sync()
    b = house.upstream.force_push({"a": "other"})
    assert house.sync().result == "deployed"
    assert house.git("rev-parse", "HEAD") == b
    assert house.clean()


def test_a_branch_that_vanishes_and_comes_back(house: House) -> None:
    house.track()
    a = house.upstream.commit({"a": "1"})
    house.sync()
    house.upstream.push("other")
    house.upstream.delete_branch("main")
    synced = house.sync(Reason.POLL)
    assert (synced.result, synced.why) == (
        "no-branch",
        f"{house.upstream.url} has no branch main",
    )
    assert house.git("rev-parse", "HEAD") == a
    house.upstream.push("main")
    b = house.upstream.commit({"a": "2"})
    assert house.sync(Reason.POLL).result == "deployed"
    assert house.git("rev-parse", "HEAD") == b


def test_an_empty_repository_is_waited_for(house: House) -> None:
    house.track()
    assert house.sync(Reason.START).result == "no-branch"
    house.upstream.commit({"a": "1"})
    assert house.sync(Reason.POLL).result == "deployed"


def test_a_remote_that_is_not_there_is_an_error_and_comes_back(house: House) -> None:
    house.track()
    house.upstream.commit({"a": "1"})
    away = house.upstream.path.with_name("away")
    house.upstream.path.rename(away)
    synced = house.sync()
    assert synced.result == "error"
    assert "the remote could not be fetched" in synced.why
    away.rename(house.upstream.path)
    assert house.sync().result == "deployed"


# ---- going badly ------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [Stage.BUILD, Stage.ACTIVATE, Stage.VERIFY])
def test_a_gate_that_fails_brings_the_revision_before_back(house: House, stage: Stage) -> None:
    house.track(
        house.recorder(Stage.BUILD),
        house.recorder(Stage.ACTIVATE),
        house.hook(FAIL_IF_BAD, stage, "gate"),
        house.recorder(Stage.VERIFY),
        house.recorder(Stage.FAILURE),
    )
    a = house.upstream.commit({"a": "1"})
    house.sync()
    b = house.upstream.commit({"a": "2", "bad": "x"})
    before = len(house.recorded())
    synced = house.sync()
    assert (synced.result, synced.why) == ("rolled-back", f"{stage.value} hook gate: exit 3")
    assert house.git("rev-parse", "HEAD") == a
    assert house.clean()
    state = house.state()
    assert (state.live, state.condition) == (a, Condition.SETTLED)
    assert state.hold
    assert state.hold.revision == b
    back = [one for one in house.recorded()[before:] if one["DEPLOY_REASON"] == "rollback"]
    assert [one["DEPLOY_STAGE"] for one in back] == ["build", "activate", "verify"]
    assert {one["DEPLOY_REVISION"] for one in back} == {a}
    assert {one["DEPLOY_PREVIOUS_REVISION"] for one in back} == {b}
    last = house.recorded()[-1]
    assert (last["DEPLOY_STAGE"], last["DEPLOY_OUTCOME"]) == ("failure", "rolled-back")
    assert (last["DEPLOY_REVISION"], last["DEPLOY_REASON"]) == (b, "push")


def test_a_held_revision_is_left_alone_until_a_newer_one(house: House) -> None:
    house.track(house.hook(FAIL_IF_BAD), house.recorder(Stage.BUILD))
    house.upstream.commit({"a": "1"})
    house.sync()
    house.upstream.commit({"bad": "x"})
    house.sync()
    ran = len(house.recorded())
    for reason in (Reason.POLL, Reason.PUSH, Reason.START, Reason.MANUAL):
        synced = house.sync(reason)
        assert synced.result == "held"
        assert "exit 3" in synced.why
    assert len(house.recorded()) == ran
    house.upstream.commit({"bad": None})
    assert house.sync(Reason.POLL).result == "deployed"
    assert house.state().hold is None


def test_force_ends_a_hold_and_counts_the_attempt(house: House) -> None:
    flag = house.root / "flag"
    house.track(house.hook(f"test -e {flag}", Stage.BUILD), house.recorder(Stage.ACTIVATE))
    house.upstream.commit({"a": "1"})
    assert house.sync().result == "failed"
    flag.touch()
    assert house.sync().result == "held"
    assert house.sync(Reason.MANUAL, force=True, actor="alice").result == "deployed"
    assert house.recorded()[-1]["DEPLOY_ATTEMPT"] == "2"
    assert house.newest().why == "asked for by alice: forced"


def test_a_first_deployment_that_fails_has_no_way_back(house: House) -> None:
    house.track(house.hook("exit 1"), house.recorder(Stage.FAILURE))
    a = house.upstream.commit({"a": "1"})
    assert house.sync().result == "failed"
    assert house.recorded()[0]["DEPLOY_OUTCOME"] == "failed"
    state = house.state()
    assert state.live is None
    assert state.hold
    assert state.hold.revision == a


def test_when_the_way_back_fails_too_a_person_is_needed(house: House) -> None:
    flag = house.root / "flag"
    house.track(house.hook(f"test ! -e {flag}", Stage.VERIFY), house.recorder(Stage.FAILURE))
    house.upstream.commit({"a": "1"})
    house.sync()
    flag.touch()
    house.upstream.commit({"a": "2"})
    assert house.sync().result == "broken"
    assert house.state().condition is Condition.BROKEN
    assert house.recorded()[-1]["DEPLOY_OUTCOME"] == "broken"
    assert house.sync(Reason.POLL).result == "held"
    flag.unlink()
    house.upstream.commit({"a": "3"})
    assert house.sync(Reason.POLL).result == "deployed"
    assert house.state().condition is Condition.SETTLED


def test_exit_75_goes_back_and_tries_again(house: House) -> None:
    counter = house.root / "counter"
    could_not = f'test "$DEPLOY_REASON" = rollback || [ -e {house.root}/can ] || exit 75'
    house.track(house.hook(could_not, Stage.BUILD), house.recorder(Stage.ACTIVATE))
    (house.root / "can").touch()
    a = house.upstream.commit({"a": "1"})
    house.sync()
    (house.root / "can").unlink()
    b = house.upstream.commit({"a": "2"})
    synced = house.sync()
    assert synced.result == "rolled-back"
    assert synced.retry_at is not None
    assert 5 <= synced.retry_at - house.time <= 5.5
    assert house.git("rev-parse", "HEAD") == a
    assert house.state().hold is None
    assert house.sync(Reason.POLL).result == "waiting"
    house.time = synced.retry_at
    (house.root / "can").touch()
    assert house.sync(Reason.PUSH).result == "deployed"
    last = house.recorded()[-1]
    assert (last["DEPLOY_REVISION"], last["DEPLOY_ATTEMPT"]) == (b, "2")
    assert house.state().retry is None
    assert not counter.exists()


def test_a_rollback_ends_the_tries_of_what_could_not_be_deployed(house: House) -> None:
    could_not = house.root / "could-not"
    house.track(house.hook(f'[ -e {could_not} ] && [ "$DEPLOY_REASON" != rollback ] && exit 75; :'))
    a = house.upstream.commit({"a": "1"})
    house.sync()
    house.upstream.commit({"a": "2"})
    house.sync()
    could_not.touch()
    c = house.upstream.commit({"a": "3"})
    synced = house.sync()
    assert synced.retry_at
    waiting = house.sync(Reason.POLL)
    assert (waiting.result, waiting.retry_at) == ("waiting", synced.retry_at)
    assert house.roll_back().result == "deployed"
    could_not.unlink()
    house.time = synced.retry_at
    assert (house.state().retry, house.state().live) == (None, a)
    assert house.sync(Reason.POLL).result == "held"
    assert house.state().hold_on(c)
    d = house.upstream.commit({"a": "4"})
    assert house.sync(Reason.POLL).result == "deployed"
    assert house.state().live == d


def test_a_way_back_that_cannot_be_is_tried_again_ever_more_rarely(house: House) -> None:
    cannot = house.root / "cannot"
    could_not = f'[ -e {cannot} ] || exit 0; test "$DEPLOY_REASON" = rollback && exit 75; exit 1'
    house.track(house.recorder(Stage.BUILD), house.hook(could_not))
    a = house.upstream.commit({"a": "1"})
    house.sync()
    cannot.touch()
    house.upstream.commit({"a": "2"})
    assert house.sync().result == "broken"
    waits = []
    for _ in range(3):
        synced = house.sync(Reason.POLL)
        assert (synced.result, house.state().condition) == ("failed", Condition.MOVING)
        assert synced.retry_at is not None
        waits.append(synced.retry_at - house.time)
    assert waits[0] * 1.8 < waits[1] < waits[2] / 1.8
    cannot.unlink()
    assert house.sync(Reason.POLL).result == "rolled-back"
    assert house.git("rev-parse", "HEAD") == a
    told = [(one["DEPLOY_REVISION"], one["DEPLOY_ATTEMPT"]) for one in house.recorded()]
    back = [attempt for revision, attempt in told[1:] if revision == a]
    assert back == ["1", "2", "3", "4", "5"], "each is an attempt of its own"


@pytest.mark.parametrize(
    "deed",
    [
        "git -c user.name=x -c user.email=x@y.z commit -q --allow-empty -m mine",
        'cd /; rm -rf "$DEPLOY_TREE"',
    ],
)
def test_a_hook_that_moves_the_tree_away_fails_and_is_not_run_for_ever(
    house: House, deed: str
) -> None:
    house.track(house.hook(f"test ! -e bad || {{ {deed}; }}"), house.recorder(Stage.FAILURE))
    a = house.upstream.commit({"a": "1"})
    house.sync()
    house.upstream.commit({"bad": "x"})
    synced = house.sync()
    assert synced.result == "rolled-back"
    assert "a hook left it at" in synced.why
    assert house.git("rev-parse", "HEAD") == a
    assert house.clean()
    assert house.sync(Reason.POLL).result == "held"


def test_a_hook_that_removes_its_folders_harms_nobody(house: House) -> None:
    away = house.hook('rm -rf "$(dirname "$DEPLOY_CHANGED_FILES")"', Stage.VERIFY)
    house.track(away, house.recorder(Stage.SUCCESS))
    house.upstream.commit({"a": "1"})
    assert house.sync().result == "deployed"
    assert house.recorded()[0]["changed"] == ["a"]


def test_a_deployment_has_a_time_of_its_own(house: House) -> None:
    house.track(
        house.hook("sleep 60", Stage.BUILD, "slow"),
        timeout=3,
    )
    house.upstream.commit({"a": "1"})
    synced = house.sync()
    assert synced.result == "failed"
    # What the check-out took is not the hook's any more.
    assert re.search(r"build hook slow: timed out after [0-2]\.\d+ s", synced.why)


def test_hooks_after_the_time_is_up_are_not_started(house: House) -> None:
    house.track(
        house.hook("exec sleep 60", Stage.BUILD, "slow"),
        house.recorder(Stage.FAILURE),
        timeout=0.3,
    )
    house.upstream.commit({"a": "1"})
    house.sync()
    assert [one["DEPLOY_STAGE"] for one in house.recorded()] == ["failure"]


def test_a_stop_in_the_middle_is_gone_on_with_at_the_next_start(house: House) -> None:
    fifo = house.root / "started"
    os.mkfifo(fifo)
    wait = f"[ -e {house.root}/go ] || {{ echo > {fifo}; sleep 60; }}"
    house.track(house.hook(wait, Stage.BUILD), house.recorder(Stage.ACTIVATE))
    a = house.upstream.commit({"a": "1"})

    async def stop_when_started() -> Synced:
        sync = asyncio.create_task(
            house.reconciler.sync(SyncRequest("shop", Reason.PUSH), lambda: False)
        )
        await asyncio.to_thread(fifo.read_text)
        house.cancel.set()
        return await sync

    assert house.runner.run(stop_when_started()).result == "interrupted"
    assert house.newest().outcome is Outcome.INTERRUPTED
    assert house.state().hold is None
    (house.root / "go").touch()
    house.restart()
    assert house.sync(Reason.START).result == "deployed"
    last = house.recorded()[-1]
    assert (last["DEPLOY_REVISION"], last["DEPLOY_ATTEMPT"]) == (a, "2")


def test_a_crash_on_the_way_back_is_finished_at_the_next_start(house: House) -> None:
    house.track(house.hook(FAIL_IF_BAD), house.recorder(Stage.VERIFY))
    a = house.upstream.commit({"a": "1"})
    house.sync()
    house.upstream.commit({"a": "2", "bad": "x"})

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    house.journal.conclude = die  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        house.sync()
    house.restart()
    assert house.newest().outcome is Outcome.INTERRUPTED
    synced = house.sync(Reason.START)
    assert synced.result == "rolled-back"
    assert house.git("rev-parse", "HEAD") == a
    assert house.recorded()[-1]["DEPLOY_REASON"] == "rollback"
    assert house.state().condition is Condition.SETTLED
    assert house.sync(Reason.START).result == "held"


# ---- what a person says -----------------------------------------------------------------------


def test_a_rollback_in_place_checks_the_earlier_revision_out(
    house: House, upstream: Upstream
) -> None:
    house.track(house.recorder(Stage.BUILD), house.recorder(Stage.ACTIVATE))
    a = upstream.commit({"f": "A"})
    house.sync()
    b = upstream.commit({"f": "B"})
    house.sync()
    assert house.roll_back().result == "deployed"
    assert (house.whole(), house.state().live) == (a, a)
    ran = [(one["DEPLOY_STAGE"], one["DEPLOY_REASON"]) for one in house.recorded()[4:]]
    assert ran == [("build", "rollback"), ("activate", "rollback")]
    assert house.sync(Reason.POLL).result == "held"
    hold = house.state().hold
    assert hold
    assert hold.revision == b


def test_paused_nothing_goes_out_but_what_a_person_forces(house: House, upstream: Upstream) -> None:
    house.track()
    a = upstream.commit({"f": "A"})
    house.sync()
    until = house.time + 60
    house.journal.set_pause("shop", Pause(house.time, "ada", until, "audit")).result()
    upstream.commit({"f": "B"})
    for reason in (Reason.PUSH, Reason.POLL, Reason.MANUAL, Reason.START):
        synced = house.sync(reason)
        assert (synced.result, synced.why) == ("paused", "shop was paused by ada: audit")
        assert synced.retry_at == until
    assert house.whole() == a
    assert house.sync(Reason.MANUAL, force=True).result == "deployed"
    house.time += 60
    c = upstream.commit({"f": "C"})
    assert house.sync(Reason.POLL).result == "deployed"
    assert house.whole() == c


def test_looks_that_left_something_alone_are_in_the_history_once(
    house: House, upstream: Upstream
) -> None:
    house.track(house.hook("exit 1", Stage.BUILD))
    b = upstream.commit({"f": "B"})
    house.sync()
    for _ in range(3):
        house.sync(Reason.POLL)
    house.sync(Reason.PUSH, delivery="72d3")
    looks = house.journal.looks("shop", 9).result()
    held = f"{b[:12]} is held: build hook hook-0: exit 1"
    assert [(one.reason, one.result, one.why) for one in looks] == [
        (Reason.PUSH, "held", f"push, delivery 72d3: {held}"),
        (Reason.POLL, "held", f"poll: {held}"),
    ]
    assert house.journal.looks("other", 9).result() == []


@pytest.mark.parametrize("strategy", list(Strategy))
@pytest.mark.parametrize("stage", [Stage.BUILD, Stage.ACTIVATE])
def test_a_canceled_deployment_ends_as_a_failure_would(
    house: House, upstream: Upstream, strategy: Strategy, stage: Stage
) -> None:
    started = house.root / "started"
    os.mkfifo(started)
    hang = house.hook(f"test ! -e bad || {{ echo > {started}; exec sleep 60; }}", stage)
    house.track(hang, strategy=strategy)
    a = upstream.commit({"f": "A"})
    house.sync()
    b = upstream.commit({"bad": "B"})
    assert not house.reconciler.cancel("shop", "ada"), "nothing was running"

    def cancel() -> None:
        started.read_text()
        assert house.reconciler.cancel("shop", "ada")

    canceling = threading.Thread(target=cancel)
    canceling.start()
    synced = house.sync()
    canceling.join()
    assert synced.result == "canceled"
    assert synced.why == f"{stage} hook hook-0: canceled by ada"
    assert (house.whole(), house.state().live) == (a, a)
    hold = house.state().hold
    assert hold
    assert (hold.revision, hold.because) == (b, f"{stage} hook hook-0: canceled by ada")
    assert "canceled by ada" in [step.result for step in house.newest().steps]


def test_what_a_sync_would_bring(house: House, upstream: Upstream) -> None:
    house.track()
    upstream.commit({"f": "A", "gone": "x"}, "first")
    empty = house.compare()
    assert (empty.live, len(empty.commits), empty.files) == (None, 1, ("A f", "A gone"))
    house.sync()
    b = upstream.commit({"f": "B"}, "second")
    c = upstream.commit({"new": "N", "gone": None}, "third")
    found = house.compare()
    assert [(one.revision, one.subject) for one in found.commits] == [(c, "third"), (b, "second")]
    assert found.files == ("M f", "D gone", "A new")
    assert found.would == f"deploy: the branch is at {c[:12]}"
    assert found.taken_away == ()
    d = upstream.force_push({"other": "x"}, "rewritten")
    again = house.compare()
    assert [one.revision for one in again.commits] == [d]
    assert [one.subject for one in again.taken_away] == ["first"]
    shutil.rmtree(house.state_dir / "mirrors")
    unknown = house.compare()
    assert (unknown.taken_away, unknown.files) == ((), ("A f", "A new", "A other"))
    upstream.delete_branch("main")
    gone = house.compare()
    assert gone.would == f"nothing: {house.upstream.url} has no branch main"
    assert (gone.commits, gone.files) == ((), ())
    assert house.newest().revision not in (b, c, d), "a comparison deploys nothing"


# ---- sharing and waiting ----------------------------------------------------------------------


def test_targets_on_one_repository_share_a_mirror_and_a_look(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent.mirror import Mirror

    fetches: list[list[str]] = []
    real: Callable[..., Any] = Mirror.fetch
    monkeypatch.setattr(
        Mirror,
        "fetch",
        lambda self, refs, *rest: fetches.append(sorted(refs)) or real(self, refs, *rest),
    )
    house.upstream.commit({"a": "1"})
    house.upstream.push("next")
    house.track()
    house.track(name="copy", path=house.root / "srv" / "copy")
    house.track(name="next", path=house.root / "srv" / "next", branch="next")

    async def all_at_once() -> list[Synced]:
        wishes = [SyncRequest(name, Reason.POLL) for name in ("shop", "copy", "next")]
        return await asyncio.gather(*(house.reconciler.sync(one, lambda: False) for one in wishes))

    assert [one.result for one in house.runner.run(all_at_once())] == ["deployed"] * 3
    assert fetches == [["refs/heads/main", "refs/heads/next"]]
    assert len(list((house.state_dir / "mirrors").iterdir())) == 1


def test_what_a_push_announced_is_waited_for(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.track()
    house.upstream.commit({"a": "1"})
    house.sync()
    waited: list[float] = []
    announced = "f" * 40

    async def no_sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            nonlocal announced
            house.upstream.commit({"a": "2"})

    monkeypatch.setattr("agent.reconciler.asyncio.sleep", no_sleep)
    assert house.sync(Reason.PUSH, expected=announced).result == "deployed"
    assert waited == [1.0, 2.0, 4.0]


def test_an_older_push_is_not_waited_for(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_sleep(seconds: float) -> None:
        pytest.fail("waited for a revision that was there")

    monkeypatch.setattr("agent.reconciler.asyncio.sleep", no_sleep)
    house.track()
    a = house.upstream.commit({"a": "1"})
    house.upstream.commit({"a": "2"})
    assert house.sync(Reason.PUSH, expected=a).result == "deployed"


def test_a_target_that_is_gone_is_said_so(house: House) -> None:
    assert house.sync(name="gone").result == "canceled"


def test_home_is_the_user_s_own() -> None:
    assert hooks.home() == os.path.expanduser("~") or os.getuid() == 0


def test_the_list_of_changed_files_is_as_git_writes_it(house: House) -> None:
    house.track(house.recorder(Stage.BUILD))
    a = house.upstream.commit({"plain": "1"})
    house.sync()
    odd = [f"x{chr(code)}y" for code in (1, 7, 9, 10, 13, 31, 34, 92, 127)]
    b = house.upstream.commit(dict.fromkeys([*odd, "ü"], "1"))
    assert house.sync().result == "deployed"
    form = ["-c", "core.quotePath=false", "diff-tree", "-r", "--name-only"]
    assert house.recorded()[-1]["changed"] == house.git(*form, a, b).splitlines()


def test_names_that_are_no_utf8_are_shown_as_what_they_are(
    house: House, upstream: Upstream
) -> None:
    odd = os.fsdecode(b"bad\xff")

    def differs() -> object:
        return msgspec.json.decode(msgspec.json.encode(house.compare().files))

    upstream.commit({odd: "1"})
    house.track()
    assert differs() == ["A bad\\xff"]
    house.sync()
    upstream.commit({odd: "2"})
    assert differs() == ["M bad\\xff"]
    assert house.sync().result == "deployed"
    (house.tree / odd).write_text("by hand")
    upstream.commit({"a": "2"})
    assert house.sync().result == "deployed"
    assert "saved: bad\\xff (kept in" in (house.newest().steps[0].result or "")


@pytest.mark.parametrize("strategy", Strategy)
def test_from_a_fault_of_ours_there_is_a_way_back(
    house: House, monkeypatch: pytest.MonkeyPatch, strategy: Strategy
) -> None:
    house.track(house.hook("true"), strategy=strategy)
    a = house.upstream.commit({"a": "1"})
    assert house.sync().result == "deployed"
    run, calls = Runs.run, []

    def at_fault_once(*given: Any, **named: Any) -> hooks.Result:
        calls.append(given)
        if len(calls) == 1:
            raise RecursionError
        return run(*given, **named)

    monkeypatch.setattr(Runs, "run", at_fault_once)
    house.upstream.commit({"a": "2"})
    synced = house.sync()
    assert synced.result == "rolled-back"
    assert synced.retry_at is not None
    assert "its log says how" in synced.why
    assert house.whole() == a
    assert house.sync(Reason.MANUAL).result == "deployed"
