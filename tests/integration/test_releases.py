"""The releases strategy on real trees: whole syncs, real git, real hooks."""

import os
import subprocess
import threading
from pathlib import Path

import pytest

from agent.errors import AgentError
from agent.model import Condition, Outcome, Reason, Retry, Stage
from agent.plaintree import PlainTree
from tests.house import Died, House
from tests.remotes import Upstream
from tests.trees import exported, listing

# ---- layout -----------------------------------------------------------------------------------


def test_the_layout(house: House, upstream: Upstream) -> None:
    house.releases(shared=(".env", "uploads"))
    a = upstream.commit({"index.html": "A", "bin/run": "x"}, executable=["bin/run"])
    assert house.sync().result == "deployed"
    assert house.live() == a
    tree = house.tree / "releases" / a
    assert (tree / "index.html").read_text() == "A"
    assert not (tree / ".git").exists()
    assert {one.name for one in house.tree.iterdir()} == {"current", "releases", "shared"}
    assert (house.tree / "shared" / ".env").is_file()
    assert (house.tree / "shared" / "uploads").is_dir()
    (house.tree / "current" / "uploads" / "one").write_text("kept")
    b = upstream.commit({"index.html": "B"})
    assert house.sync().result == "deployed"
    assert house.live() == b
    assert (house.tree / "current" / "uploads" / "one").read_text() == "kept"
    assert house.state().live == b


def test_hooks_are_told_where_things_are(house: House, upstream: Upstream) -> None:
    house.releases(*(house.recorder(stage) for stage in (Stage.BUILD, Stage.ACTIVATE)))
    a = upstream.commit({"f": "A"})
    house.sync()
    b = upstream.commit({"f": "B", "g": "B"})
    house.sync()
    _, _, build, activate = house.recorded()
    for one in (build, activate):
        assert one["DEPLOY_PATH"] == str(house.tree / "current")
        assert one["DEPLOY_TREE"] == str(house.tree / "releases" / b)
        assert one["DEPLOY_PREVIOUS_REVISION"] == a
        assert one["changed"] == ["f", "g"]
    steps = [(step.stage, step.name) for step in house.newest().steps]
    assert steps == [
        ("tree", f"stage {b[:12]}"), ("build", "record"),
        ("tree", f"switch to {b[:12]}"), ("activate", "record"),
    ]  # fmt: skip


def test_what_the_repository_has_begins_what_is_shared(house: House, upstream: Upstream) -> None:
    house.releases(shared=("uploads", "conf/app.ini", "empty.d/", "log"))
    upstream.commit({"uploads/.keep": "", "conf/app.ini": "first", "conf/other": "x"})
    house.sync()
    shared = house.tree / "shared"
    assert (shared / "uploads" / ".keep").exists()
    assert (shared / "conf" / "app.ini").read_text() == "first"
    assert (shared / "empty.d").is_dir()
    assert (shared / "log").is_dir()
    upstream.commit({"conf/app.ini": "second"})
    house.sync()
    current = house.tree / "current"
    assert (current / "conf" / "app.ini").read_text() == "first"
    assert (current / "conf" / "other").read_text() == "x"
    assert (current / "conf").is_symlink() is False


def test_a_link_on_the_way_to_what_is_shared_is_a_fault_of_the_revision(
    house: House, upstream: Upstream, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    house.releases(shared=("conf/app.ini",))
    b = upstream.commit({"f": "x"}, symlinks={"conf": str(outside)})
    synced = house.sync()
    assert synced.result == "failed"
    assert "shared conf/app.ini: the repository has a link" in synced.why
    assert list(outside.iterdir()) == []
    hold = house.state().hold
    assert hold
    assert hold.revision == b


def test_a_link_in_the_place_of_what_is_shared_is_replaced_and_not_followed(
    house: House, upstream: Upstream, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    house.releases(shared=("uploads", ".env"))
    upstream.commit({}, symlinks={"uploads": str(outside), ".env": "/etc/passwd"})
    assert house.sync().result == "deployed"
    current, shared = house.tree / "current", house.tree / "shared"
    assert [one.name for one in outside.iterdir()] == ["precious"]
    assert (list((shared / "uploads").iterdir()), (shared / ".env").read_text()) == ([], "")
    for name in ("uploads", ".env"):
        assert (current / name).resolve() == shared / name


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_what_is_shared_may_be_on_another_disk(house: House, upstream: Upstream) -> None:
    shared = house.tree / "shared"
    shared.mkdir(parents=True)
    house.releases(shared=("uploads", "log/", ".env"))
    upstream.commit({"uploads/first": "1"})
    mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", shared], capture_output=True)
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        synced = house.sync()
        assert synced.result == "failed"
        assert f"{shared}/uploads would begin with what the repository has there" in synced.why
        (shared / "uploads").mkdir()
        assert house.sync(Reason.MANUAL, force=True).result == "deployed"
        assert {one.name for one in shared.iterdir()} == {"uploads", "log", ".env"}
    finally:
        subprocess.run(["umount", "--lazy", shared], check=True)


@pytest.mark.parametrize("how", ["a file", "a folder"])
def test_something_else_in_the_place_of_the_link_is_left_alone(
    house: House, upstream: Upstream, how: str
) -> None:
    house.tree.mkdir(parents=True)
    current = house.tree / "current"
    current.write_text("mine") if how == "a file" else (current / "x").mkdir(parents=True)
    house.releases()
    upstream.commit({"f": "A"})
    synced = house.sync()
    assert synced.result == "failed"
    assert "is there and is no link; move it away" in synced.why
    assert isinstance(house.state().retry, Retry)
    assert current.exists()


@pytest.mark.parametrize("name", ["releases", "shared"])
def test_a_link_in_the_place_of_our_folders_is_never_followed(
    house: House, upstream: Upstream, tmp_path: Path, name: str
) -> None:
    """As the repository may have it, of a target that was deployed in place before."""
    outside = tmp_path / "outside"
    (outside / ("a" * 40)).mkdir(parents=True)
    upstream.commit({"f": "A"}, symlinks={name: str(outside)})
    house.track()
    assert house.sync().result == "deployed"
    house.releases(house.hook("true", Stage.BUILD), shared=("log",), keep=1)
    for _ in range(2):
        synced = house.sync(Reason.MANUAL, force=True)
        assert synced.result == "failed"
        assert f"{house.tree / name} is there and is no folder; move it away" in synced.why
        house.settle()
    assert [one.name for one in outside.rglob("*")] == ["a" * 40]
    (house.tree / name).unlink()
    assert house.sync(Reason.MANUAL, force=True).result == "deployed"


def test_a_link_on_the_way_in_shared_is_never_followed(
    house: House, upstream: Upstream, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (house.tree / "shared").mkdir(parents=True)
    (house.tree / "shared" / "conf").symlink_to(outside)
    house.releases(shared=("conf/app.ini",))
    upstream.commit({"conf/app.ini": "1"})
    synced = house.sync()
    assert synced.result == "failed"
    assert f"on the way to it, or {house.tree / 'shared'} has" in synced.why
    assert list(outside.iterdir()) == []


# ---- gates ------------------------------------------------------------------------------------


def test_a_failing_build_leaves_what_is_live_untouched(house: House, upstream: Upstream) -> None:
    house.releases(house.hook("test ! -e bad", Stage.BUILD), house.recorder(Stage.ACTIVATE))
    a = upstream.commit({"f": "A"})
    house.sync()
    before = listing(house.tree / "current")
    b = upstream.commit({"bad": "B"})
    synced = house.sync()
    assert (synced.result, house.live()) == ("failed", a)
    assert listing(house.tree / "current") == before
    assert [one["DEPLOY_REVISION"] for one in house.recorded()] == [a]
    state = house.state()
    assert (state.live, state.condition) == (a, Condition.SETTLED)
    assert state.hold
    assert state.hold.revision == b


@pytest.mark.parametrize("stage", [Stage.ACTIVATE, Stage.VERIFY])
def test_a_failure_after_the_switch_switches_back(
    house: House, upstream: Upstream, stage: Stage
) -> None:
    house.releases(
        house.recorder(Stage.BUILD), house.recorder(Stage.ACTIVATE),
        house.hook("test ! -e bad", stage),
    )  # fmt: skip
    a = upstream.commit({"f": "A"})
    house.sync()
    b = upstream.commit({"bad": "B"})
    synced = house.sync()
    assert (synced.result, house.live()) == ("rolled-back", a)
    ran = [(one["DEPLOY_STAGE"], one["DEPLOY_REVISION"]) for one in house.recorded()]
    # What was built before is still there: the way back needs no build.
    assert ran[2:] == [("build", b), ("activate", b), ("activate", a)]
    assert house.sync(Reason.POLL).result == "held"


def test_the_first_release_that_does_not_do_is_taken_down(house: House, upstream: Upstream) -> None:
    house.releases(house.hook("exit 1", Stage.ACTIVATE))
    upstream.commit({"f": "A"})
    assert house.sync().result == "failed"
    assert not (house.tree / "current").is_symlink()
    assert house.state().live is None


def test_a_way_back_that_fails_too_is_broken(house: House, upstream: Upstream) -> None:
    flag = house.root / "broken"
    house.releases(house.hook(f"test ! -e {flag}", Stage.ACTIVATE))
    upstream.commit({"f": "A"})
    house.sync()
    flag.touch()
    upstream.commit({"f": "B"})
    assert house.sync().result == "broken"
    assert house.state().condition is Condition.BROKEN
    assert house.sync(Reason.POLL).result == "held"
    flag.unlink()
    assert house.sync(Reason.MANUAL, force=True).result == "deployed"


def test_a_tree_that_a_hook_removed_is_never_live(house: House, upstream: Upstream) -> None:
    house.releases(house.hook('test ! -e bad || rm -r "$DEPLOY_TREE"', Stage.BUILD))
    a = upstream.commit({"f": "A"})
    house.sync()
    upstream.commit({"bad": "B"})
    assert house.sync().result == "failed"
    assert house.live() == a


def test_forcing_what_is_live_does_not_touch_it_before_the_switch(
    house: House, upstream: Upstream
) -> None:
    house.releases(house.hook('readlink "$DEPLOY_PATH" > seen 2>&1 || true', Stage.BUILD))
    a = upstream.commit({"f": "A"})
    house.sync()
    assert house.sync(Reason.MANUAL, force=True).result == "deployed"
    assert house.live() == f"{a}-2"
    assert (house.tree / "current" / "seen").read_text().strip() == f"releases/{a}"
    for _ in range(7):
        house.settle()
        assert house.sync(Reason.MANUAL, force=True).result == "deployed"
        assert house.state().live == a
    house.settle()
    assert len(house.names()) <= 6
    assert house.sync(Reason.POLL).result == "up-to-date"


def test_someone_who_moves_the_link_is_set_right(house: House, upstream: Upstream) -> None:
    house.releases()
    a = upstream.commit({"f": "A"})
    house.sync()
    b = upstream.commit({"f": "B"})
    house.sync()
    link = house.tree / "current"
    link.unlink()
    link.symlink_to(f"releases/{a}")
    assert house.sync(Reason.POLL).result == "deployed"
    assert house.state().live == b
    assert (link / "f").read_text() == "B"


# ---- keep, prune, reuse -----------------------------------------------------------------------


def test_a_release_that_is_made_anew_is_no_goal_until_it_is_built(
    house: House, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The branch goes back to what is on the disk still, and the agent dies over it."""
    house.releases()
    a = upstream.commit({"f": "A", "g": "A"})
    for files in ({"f": "B"}, {"f": "C"}):
        house.sync()
        c = upstream.commit(files)
    house.sync()
    upstream.reset(a)

    def die(tree: PlainTree, *_: object, **__: object) -> None:
        (tree.path / "g").write_text("half")
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(PlainTree, "check_out", die)
        with pytest.raises(Died):
            house.sync()
    house.restart()
    upstream.reset(c)
    assert house.sync().result in ("deployed", "up-to-date")
    assert house.roll_back(a).result == "deployed"
    assert listing(house.tree / "current") == exported(upstream, a, tmp_path / "git")


def test_only_so_many_are_kept(house: House, upstream: Upstream) -> None:
    house.releases(keep=3)
    revisions = []
    for n in range(6):
        revisions.append(upstream.commit({"n": str(n)}))
        house.sync()
        house.settle()
    assert house.names() == {*revisions[-3:], ".spare"}
    known = {one.name for one in (house.state_dir / "trees" / "shop").iterdir()}
    assert known == house.names()


def test_with_one_kept_the_last_good_one_stays_too(house: House, upstream: Upstream) -> None:
    house.releases(keep=1)
    revisions = []
    for n in range(4):
        revisions.append(upstream.commit({"n": str(n)}))
        house.sync()
        house.settle()
    assert house.names() == {*revisions[-2:], ".spare"}


@pytest.mark.timeout(600)
def test_a_hundred_failures_leave_the_last_good_one(house: House, upstream: Upstream) -> None:
    gate = house.hook("test ! -e bad", Stage.VERIFY)
    house.releases(gate, keep=2)
    a = upstream.commit({"n": "A"})
    house.sync()
    b = upstream.commit({"n": "B"})
    house.sync()
    good = listing(house.tree / "releases" / a), listing(house.tree / "releases" / b)
    for n in range(100):
        upstream.commit({"bad": str(n)})
        assert house.sync().result == "rolled-back"
        house.settle()
        assert house.live() == b
    assert {a, b} <= house.names()
    assert (listing(house.tree / "releases" / a), listing(house.tree / "releases" / b)) == good
    assert house.roll_back().result == "deployed"
    assert house.live() == a


# ---- by hand ----------------------------------------------------------------------------------


def test_a_rollback_switches_and_holds_what_it_leaves(house: House, upstream: Upstream) -> None:
    house.releases(house.recorder(Stage.BUILD), house.recorder(Stage.ACTIVATE))
    a = upstream.commit({"f": "A"}, "first")
    house.sync()
    b = upstream.commit({"f": "B"})
    house.sync()
    synced = house.roll_back()
    assert (synced.result, house.live(), house.state().live) == ("deployed", a, a)
    one = house.newest()
    assert (one.reason, one.outcome, one.previous) == (Reason.ROLLBACK, Outcome.DEPLOYED, b)
    assert (one.subject, one.why) == ("first", f"asked for by ada: back to {a[:12]}")
    ran = [(one["DEPLOY_STAGE"], one["DEPLOY_REASON"]) for one in house.recorded()[4:]]
    assert ran == [("activate", "rollback")]
    held = house.sync(Reason.POLL)
    assert held.result == "held"
    assert "rolled back, asked for by ada" in held.why
    c = upstream.commit({"f": "C"})
    assert house.sync(Reason.POLL).result == "deployed"
    assert house.live() == c
    assert house.state().holds == ()


def test_rollbacks_go_further_back_each_time_and_hold_all_they_leave(
    house: House, upstream: Upstream
) -> None:
    house.releases()
    revisions = []
    for n in range(4):
        revisions.append(upstream.commit({"f": str(n)}))
        house.sync()
    for goal in reversed(revisions[:3]):
        assert house.roll_back().result == "deployed"
        assert house.live() == goal
        assert house.sync(Reason.POLL).result == "held"
    with pytest.raises(AgentError, match="no earlier good revision"):
        house.roll_back()
    assert house.roll_back(revisions[2][:10]).result == "deployed"
    assert house.live() == revisions[2]


def test_a_rollback_whose_release_is_gone_builds_it_again(house: House, upstream: Upstream) -> None:
    house.releases(house.recorder(Stage.BUILD), keep=1)
    revisions = []
    for n in range(4):
        revisions.append(upstream.commit({"f": str(n)}))
        house.sync()
        house.settle()
    assert revisions[0] not in house.names()
    assert house.roll_back(revisions[0]).result == "deployed"
    assert (house.tree / "current" / "f").read_text() == "0"
    assert house.recorded()[-1]["DEPLOY_REVISION"] == revisions[0]


def test_a_rollback_that_fails_comes_back_and_holds_nothing(
    house: House, upstream: Upstream
) -> None:
    house.releases(house.hook("test ! -e a", Stage.VERIFY))
    a = upstream.commit({"f": "A"})
    house.sync()
    b = upstream.commit({"f": "B"})
    house.sync()
    (house.tree / "releases" / a / "a").touch()
    assert house.roll_back().result == "rolled-back"
    assert (house.live(), house.state().live, house.state().holds) == (b, b, ())
    assert house.sync(Reason.POLL).result == "up-to-date"


def test_going_back_to_what_a_rollback_left_ends_its_hold(house: House, upstream: Upstream) -> None:
    house.releases()
    a = upstream.commit({"f": "A"})
    house.sync()
    b = upstream.commit({"f": "B"})
    house.sync()
    house.roll_back()
    assert house.roll_back(b).result == "deployed"
    assert [one.revision for one in house.state().holds] == [a]
    assert house.sync(Reason.POLL).result == "up-to-date"
    upstream.commit({"f": "C"})
    house.sync()
    assert house.roll_back().result == "deployed"
    assert house.live() == b


def test_after_a_rollback_that_broke_the_target_no_look_does_anything(
    house: House, upstream: Upstream
) -> None:
    flag = house.root / "broken"
    house.releases(house.hook(f"test ! -e {flag}", Stage.ACTIVATE))
    upstream.commit({"f": "A"})
    house.sync()
    b = upstream.commit({"f": "B"})
    house.sync()
    flag.touch()
    assert house.roll_back().result == "broken"
    house.restart()
    assert house.sync(Reason.START).result == "held"
    assert house.state().condition is Condition.BROKEN
    flag.unlink()
    assert house.sync(Reason.POLL).result == "held"
    assert house.sync(Reason.MANUAL, force=True).result == "deployed"
    assert (house.state().live, house.state().condition) == (b, Condition.SETTLED)


@pytest.mark.parametrize("to", ["f" * 40, "nonsense", "HEAD", ""])
def test_what_was_never_deployed_is_no_goal(house: House, upstream: Upstream, to: str) -> None:
    house.releases()
    upstream.commit({"f": "A"})
    house.sync()
    upstream.commit({"f": "B"})
    house.sync()
    with pytest.raises(AgentError, match="never deployed|too short to tell"):
        house.roll_back(to)


# ---- readers ----------------------------------------------------------------------------------


@pytest.mark.timeout(600)
def test_a_reader_never_sees_a_missing_or_mixed_tree(house: House, upstream: Upstream) -> None:
    """Over two hundred deployments and rollbacks: one release, opened once, is whole."""
    house.releases(house.hook("test ! -e bad", Stage.VERIFY), keep=2)
    upstream.commit({f"part-{n}": "0" for n in range(5)})
    house.sync()
    wrong: list[str] = []
    done = threading.Event()
    reads = 0

    def read() -> None:
        nonlocal reads
        while not done.is_set():
            try:
                # As a program does that starts in its release: one resolve, then many files.
                release = (house.tree / "current").resolve(strict=True)
                parts = {(release / f"part-{n}").read_text() for n in range(5)}
            except OSError as error:
                wrong.append(f"missing: {error}")
                continue
            reads += 1
            if len(parts) != 1:
                wrong.append(f"mixed: {parts}")

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for n in range(1, 101):
            bad = {"bad": str(n)} if n % 5 == 0 else {}
            if n % 5 == 1 and n > 1:
                bad = {"bad": None}
            upstream.commit({**{f"part-{k}": str(n) for k in range(5)}, **bad})
            assert house.sync().result == ("rolled-back" if n % 5 == 0 else "deployed")
            house.settle()
            if n % 5 != 0:
                assert house.roll_back().result == "deployed"
    finally:
        done.set()
        reader.join()
    assert wrong == []
    assert reads > 100


def test_an_index_that_a_power_cut_has_spoilt_is_made_anew(
    house: House, upstream: Upstream
) -> None:
    upstream.commit({"a": "1"})
    house.releases()
    house.sync()
    b = upstream.commit({"a": "2", "b": "1"})
    begun, folder = house.tree / "releases" / b, house.state_dir / "trees" / "shop" / b
    for one in (begun, folder):
        one.mkdir()
    (begun / "a").write_text("")
    (folder / "index").write_bytes(b"DIRC" + bytes(60))
    assert house.sync().result == "deployed"
    assert house.whole() == b
