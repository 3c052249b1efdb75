"""What a repository may hold, and what lies in a tree that should not; nothing of it runs or blocks."""

import os
import subprocess

import pytest

from agent.model import (
    Hook,
    Reason,
    Stage,
)
from agent.remedies import remedy
from tests.house import House
from tests.remotes import git


def test_odd_file_names_arrive_as_they_are(house: House) -> None:
    house.track(house.recorder(Stage.BUILD))
    names = ["-rf", "a b", "new\nline", 'quo"te', "ünïcode", "*", "$(id)", "back\\slash"]
    house.upstream.commit(dict.fromkeys(names, "x"))
    assert house.sync().result == "deployed"
    assert sorted(one.name for one in house.tree.iterdir()) == sorted([*names, ".git"])
    changed = house.recorded()[0]["changed"]
    assert len(changed) == len(names)
    assert '"new\\nline"' in changed
    assert "ünïcode" in changed


def test_a_link_out_of_the_tree_is_never_written_through(house: House) -> None:
    outside = house.root / "outside"
    outside.mkdir()
    (outside / "x").write_text("safe")
    house.track()
    house.upstream.commit({"keep": "1"}, symlinks={"out": str(outside)})
    assert house.sync().result == "deployed"
    assert (house.tree / "out").is_symlink()
    house.upstream.commit({"out": None})
    house.upstream.commit({"out/x": "overwritten?"})
    assert house.sync().result == "deployed"
    assert (outside / "x").read_text() == "safe"
    assert (house.tree / "out" / "x").read_text() == "overwritten?"


def test_a_program_of_the_tree_that_links_out_of_it_is_not_run(house: House) -> None:
    house.track(Hook("x", Stage.BUILD, ("./x",), 5.0))
    house.upstream.commit({"a": "1"}, symlinks={"x": "/bin/true"})
    synced = house.sync()
    assert synced.result == "failed"
    assert "outside" in synced.why


def test_a_program_of_the_tree_that_is_a_ring_of_links_is_the_revision_s_fault(
    house: House,
) -> None:
    house.upstream.commit({"x": "#!/bin/sh\n"}, executable=("x",))
    house.track(Hook("x", Stage.ACTIVATE, ("./x",), 5.0))
    assert house.sync().result == "deployed"
    house.upstream.commit({}, symlinks={"x": "x"})
    assert house.sync().result == "rolled-back"
    assert house.state().hold


def test_nothing_in_a_repository_runs_by_itself(house: House) -> None:
    house.track()
    evil = f"touch {house.root}/ran"
    house.upstream.commit(
        {
            ".gitattributes": "* filter=evil diff=evil merge=evil\n*.bin filter=lfs\n",
            ".gitconfig": f'[filter "evil"]\n\tsmudge = {evil}\n',
            ".gitmodules": f'[submodule "x"]\n\tpath = x\n\turl = ext::sh -c "{evil}"\n\tupdate = !{evil}\n',
            "model.bin": "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
            "hooks/post-checkout": f"#!/bin/sh\n{evil}\n",
        },
        executable=("hooks/post-checkout",),
    )
    synced = house.sync()
    assert not (house.root / "ran").exists()
    assert synced.result in ("deployed", "error")


def test_the_git_hooks_of_a_clone_are_not_run(house: House) -> None:
    house.upstream.commit({"a": "1"})
    house.tree.parent.mkdir(parents=True)
    subprocess.run(["git", "clone", "-q", house.upstream.url, str(house.tree)], check=True)
    for name in ("post-checkout", "reference-transaction", "post-index-change"):
        hook = house.tree / ".git" / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch {house.root}/ran\n")
        hook.chmod(0o755)
    house.upstream.commit({"a": "2"})
    house.track()
    assert house.sync().result == "deployed"
    assert not (house.root / "ran").exists()


def test_a_locked_tree_of_a_killed_deployment_is_repaired(house: House) -> None:
    house.track()
    house.upstream.commit({"a": "1"})
    house.sync()
    house.upstream.commit({"a": "2"})

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    house.journal.conclude = die  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        house.sync()
    (house.tree / ".git" / "index.lock").touch()
    house.restart()
    assert house.sync(Reason.START).result == "deployed"


def test_a_person_s_lock_is_waited_for_and_a_dead_one_removed(house: House) -> None:
    house.track()
    house.upstream.commit({"a": "1"})
    house.sync()
    lock = house.tree / ".git" / "index.lock"
    lock.touch()
    house.upstream.commit({"a": "2"})
    synced = house.sync()
    assert synced.retry_at is not None
    assert "index.lock" in synced.why
    assert house.state().hold is None
    os.utime(lock, (1, 1))
    assert house.sync(Reason.MANUAL).result == "deployed"
    assert house.clean()


AUTHOR = b"author Ada <ada@example.org> 1700000000 +0000\n"


@pytest.mark.parametrize(
    ("head", "message", "subject", "author"),
    [
        (AUTHOR, b"f\xfcr alle\n", "f�r alle", "Ada"),
        (b"author J\xfcrgen <j@example.org> 1700000000 +0000\n", b"x\n", "x", "J�rgen"),
        (AUTHOR, b"S" * 1_000_000, "S" * 499 + "…", "Ada"),
        (AUTHOR, b"", "", "Ada"),
    ],
    ids=["message in Latin-1", "author in Latin-1", "a megabyte", "nothing"],
)
def test_what_a_commit_says_of_itself_keeps_no_revision_back(
    house: House, head: bytes, message: bytes, subject: str, author: str
) -> None:
    house.track()
    house.upstream.commit({"a": "1"})
    assert house.sync().result == "deployed"
    house.upstream.commit({"a": "2"})
    tree = git("rev-parse", "main^{tree}", cwd=house.upstream.path)
    rest = head.replace(b"author", b"committer", 1) + b"\n" + message
    odd = subprocess.run(
        ["git", "hash-object", "-t", "commit", "-w", "--stdin"],
        cwd=house.upstream.path, check=True, capture_output=True,
        input=f"tree {tree}\nparent {house.upstream.tip()}\n".encode() + head + rest,
    ).stdout.decode().strip()  # fmt: skip
    house.upstream.move_main(odd)
    told = house.compare().commits[0]
    assert (told.subject, told.author) == (subject, author)
    assert house.sync().result == "deployed"
    newest = house.newest()
    assert (newest.revision, newest.subject, newest.author) == (odd, subject, author)


@pytest.mark.parametrize("name", [".git", ".GIT", "git~1", "..", "a/b"])
def test_a_tree_that_git_s_own_check_refuses_is_not_taken(house: House, name: str) -> None:
    house.track()
    good = house.upstream.commit({"x": "1"})
    assert house.sync().result == "deployed"
    blob = git("rev-parse", "main:x", cwd=house.upstream.path)
    row = f"100644 {name}\0".encode() + bytes.fromhex(blob)
    tree = subprocess.run(
        ["git", "hash-object", "-t", "tree", "-w", "--stdin", "--literally"],
        cwd=house.upstream.path, check=True, capture_output=True, input=row,
    ).stdout.decode().strip()  # fmt: skip
    house.upstream.move_main(
        git("commit-tree", tree, "-p", good, "-m", "odd", cwd=house.upstream.path)
    )
    synced = house.sync()
    assert synced.result == "error"
    assert "push a history without it" in remedy(synced.why, "shop")
    assert house.whole() == good
