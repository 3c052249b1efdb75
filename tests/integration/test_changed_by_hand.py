"""What somebody changed in a tree in place is saved before it moves, and named."""

import subprocess
from pathlib import Path

import pytest

from agent.model import (
    Reason,
    Stage,
)
from tests.house import House


def test_tracked_changes_are_saved_and_named(house: House) -> None:
    house.track()
    house.upstream.commit({"a": "1\n", "b": "1\n", "c": "1\n"})
    house.sync()
    (house.tree / "a").write_text("by hand\n")
    (house.tree / "b").unlink()
    (house.tree / "c").write_text("staged\n")
    house.git("add", "c")
    house.upstream.commit({"a": "2\n"})
    assert house.sync().result == "deployed"
    assert house.clean()
    assert (house.tree / "a").read_text() == "2\n"
    patch = (house.saved() / "changes.patch").read_text()
    assert "+by hand" in patch
    assert "+staged" in patch
    assert "deleted file mode" in patch
    result = house.newest().steps[0].result
    assert result
    assert result.startswith("ok; changed by hand and saved: a, b, c (kept in ")
    house.git("checkout", "-q", "HEAD~1")
    house.git("apply", str(house.saved() / "changes.patch"))
    assert (house.tree / "a").read_text() == "by hand\n"


def test_a_submodule_filled_by_a_hook_with_a_git_of_its_own_is_not_looked_into(
    house: House,
) -> None:
    house.track()
    house.upstream.commit({"a": "1"})
    house.upstream.point_submodule("m", "1" * 40)
    house.sync()
    (house.tree / "m" / ".git").write_text("gitdir: ../.git/modules/gone\n")
    (house.tree / "a").write_text("by hand")
    house.upstream.commit({"a": "2"})
    assert house.sync().result == "deployed"
    assert "+by hand" in (house.saved() / "changes.patch").read_text()


def test_untracked_things_in_the_way_are_copied_and_others_left(house: House) -> None:
    house.track()
    house.upstream.commit({"a": "1", ".gitignore": "*.log\n"})
    house.sync()
    (house.tree / "uploads").mkdir()
    (house.tree / "uploads" / "photo").write_bytes(b"\0photo")
    (house.tree / ".env").write_text("KEY=1")
    (house.tree / "new").write_text("mine")
    (house.tree / "ignored.log").write_text("mine too")
    (house.tree / "folder").mkdir()
    (house.tree / "folder" / "inside").write_text("deep")
    (house.tree / "lib").write_text("a file")
    (house.tree / "link").symlink_to("/etc")
    house.upstream.commit(
        {
            "new": "theirs",
            "ignored.log": "theirs",
            "folder": "a file now",
            "lib/x": "1",
            "link/y": "1",
        }
    )
    assert house.sync().result == "deployed"
    assert house.git("status", "--porcelain", "--untracked-files=all").splitlines() == [
        "?? .env",
        "?? uploads/photo",
    ]
    assert (house.tree / "uploads" / "photo").read_bytes() == b"\0photo"
    files = house.saved() / "files"
    assert (files / "new").read_text() == "mine"
    assert (files / "ignored.log").read_text() == "mine too"
    assert (files / "folder" / "inside").read_text() == "deep"
    assert (files / "lib").read_text() == "a file"
    assert (files / "link").readlink() == Path("/etc")
    assert not Path("/etc/y").exists()


def test_what_lies_where_a_file_was_taken_away_or_forgotten_is_copied(house: House) -> None:
    house.track()
    house.upstream.commit({"a": "1", "d/e": "1", "f": "1", "g": "1"})
    house.sync()
    (house.tree / "a").unlink()
    (house.tree / "a").mkdir()
    (house.tree / "a" / "x").write_text("in a folder")
    (house.tree / "d" / "e").unlink()
    (house.tree / "d").rmdir()
    (house.tree / "d").write_text("a file")
    house.git("rm", "-q", "--cached", "f")
    (house.tree / "f").write_text("forgotten")
    (house.tree / "g").unlink()
    house.upstream.commit({"a": "2", "d/e": "2", "f": "2", "g": "2"})
    assert house.sync().result == "deployed"
    assert house.clean()
    files = house.saved() / "files"
    assert [(files / name).read_text() for name in ("a/x", "d", "f")] == [
        "in a folder", "a file", "forgotten",
    ]  # fmt: skip
    assert not (files / "g").exists()


def test_an_index_that_is_gone_hides_no_change(house: House) -> None:
    house.track()
    house.upstream.commit({"a": "1", "b": "1"})
    house.sync()
    (house.tree / "a").write_text("by hand")
    (house.tree / ".git" / "index").unlink()
    house.upstream.commit({"a": "2"})
    assert house.sync().result == "deployed"
    assert "+by hand" in (house.saved() / "changes.patch").read_text()
    assert not (house.saved() / "files").exists()


def test_an_existing_clone_is_taken_over_as_it_stands(house: House) -> None:
    a = house.upstream.commit({"a": "1"})
    house.tree.parent.mkdir(parents=True)
    subprocess.run(["git", "clone", "-q", house.upstream.url, str(house.tree)], check=True)
    (house.tree / "note").write_text("untracked")
    (house.tree / "a").write_text("unpublished")
    house.git("commit", "-qam", "by hand")
    mine = house.git("rev-parse", "HEAD")
    house.git("checkout", "-q", "--detach")
    house.git("branch", "-qf", "main", a)
    house.track(house.recorder(Stage.BUILD))
    b = house.upstream.commit({"b": "1"})
    assert house.sync(Reason.START).result == "deployed"
    assert house.git("rev-parse", "HEAD") == b
    assert house.recorded()[0]["DEPLOY_PREVIOUS_REVISION"] == mine
    branches = house.git("branch", "--contains", mine, "--format=%(refname:short)").splitlines()
    assert [one for one in branches if one.startswith("saved/")]
    assert (house.tree / "note").read_text() == "untracked"


def test_a_folder_that_is_no_clone_becomes_one(house: House) -> None:
    house.tree.mkdir(parents=True)
    (house.tree / "a").write_text("was here")
    (house.tree / "other").write_text("stays")
    house.upstream.commit({"a": "1"})
    house.track()
    assert house.sync().result == "deployed"
    assert (house.tree / "a").read_text() == "1"
    assert (house.tree / "other").read_text() == "stays"
    assert (house.saved() / "files" / "a").read_text() == "was here"


def test_a_tree_moved_by_hand_is_brought_back(house: House) -> None:
    house.track()
    a = house.upstream.commit({"a": "1"})
    b = house.upstream.commit({"a": "2"})
    house.sync()
    house.git("checkout", "-q", a)
    assert house.sync(Reason.POLL).result == "deployed"
    assert house.git("rev-parse", "HEAD") == b


def test_a_change_that_git_was_told_to_overlook_is_saved_at_the_second_attempt(
    house: House,
) -> None:
    house.track()
    house.upstream.commit({"a": "1\n"})
    house.sync()
    house.git("update-index", "--assume-unchanged", "a")
    (house.tree / "a").write_text("by hand\n")
    house.upstream.commit({"a": "2\n"})
    assert house.sync().retry_at is not None
    assert house.sync(Reason.PUSH).result == "deployed"
    assert (house.tree / "a").read_text() == "2\n"
    assert "+by hand" in (house.saved() / "changes.patch").read_text()


def test_a_merge_left_in_the_middle_does_not_block(house: House) -> None:
    house.track()
    a = house.upstream.commit({"a": "1\n"})
    house.upstream.commit({"a": "2\n"})
    house.sync()
    house.git("checkout", "-qb", "mine", a)
    (house.tree / "a").write_text("mine\n")
    house.git("commit", "-qam", "mine")
    with pytest.raises(subprocess.CalledProcessError):
        house.git("merge", "-q", "origin/main")
    house.upstream.commit({"a": "3\n"})
    assert house.sync().result == "deployed"
    assert house.clean()
    assert house.git("log", "-1", "--format=%s", "mine") == "mine"


@pytest.mark.parametrize("there", ["x", "x/y"])
def test_what_git_itself_has_put_in_the_way_is_nobody_s_change(house: House, there: str) -> None:
    """A file that becomes a folder, or a folder a file; the hook fails, so there and back."""
    inner = "x/y" if there == "x" else "x"
    house.track(house.hook("test ! -e fail", Stage.VERIFY))
    house.upstream.commit({there: "1"})
    assert house.sync().result == "deployed"
    house.upstream.commit({there: None, inner: "2", "fail": ""})
    assert house.sync().result == "rolled-back"
    assert (house.tree / there).read_text() == "1"
    assert house.clean()
    assert not (house.state_dir / "saved").exists()


def test_what_is_in_the_way_there_and_back_is_saved_twice(house: House) -> None:
    house.track(house.hook("test ! -e fail || { mkdir x; echo mine > x/y; false; }", Stage.VERIFY))
    house.upstream.commit({"x": "1"})
    assert house.sync().result == "deployed"
    house.upstream.commit({"x": None, "z/a": "2", "fail": ""})
    (house.tree / "z").write_text("a person's")
    assert house.sync().result == "rolled-back"
    kept = {one.name for one in (house.state_dir / "saved" / "shop").iterdir()}
    assert kept == {house.newest().id, f"{house.newest().id}-back"}
    (there,) = (house.state_dir / "saved" / "shop").glob("*/files/z")
    (back,) = (house.state_dir / "saved" / "shop").glob("*-back/files/x/y")
    assert there.read_text() == "a person's"
    assert back.read_text() == "mine\n"
