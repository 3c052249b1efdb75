"""A tree whose .git was damaged, for real, mends itself; nothing of a person's is lost."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from agent import rebuild
from agent.model import Reason
from tests.house import House
from tests.remotes import git

Damage = Callable[[Path], None]


def each(pattern: str, damage: Damage) -> Damage:
    """`damage`, for each file of a .git that `pattern` finds; there must be one."""

    def damaging(git_dir: Path) -> None:
        found = [path for path in sorted(git_dir.glob(pattern)) if path.is_file()]
        assert found, pattern
        for path in found:
            path.chmod(0o600)
            damage(path)

    return damaging


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, 20)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def garble(path: Path) -> None:
    path.write_bytes(b"\xff garbage [\n" * 20)


def replace(old: bytes, new: bytes) -> Damage:
    def damage(path: Path) -> None:
        before = path.read_bytes()
        assert old in before
        path.write_bytes(before.replace(old, new))

    return damage


def cut_off_config(git_dir: Path) -> None:
    """On a branch, so that git has to fetch, for which it reads what its remotes are."""
    (git_dir / "HEAD").write_text("ref: refs/heads/mine\n")
    replace(b"origin/*", b"or")(git_dir / "config")


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def point_nowhere(path: Path) -> None:
    path.write_text("1" * 40 + "\n")


def replace_by_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("garbage")


def replace_by_alternates(git_dir: Path) -> None:
    shutil.rmtree(git_dir / "objects")
    (git_dir / "objects" / "info").mkdir(parents=True)
    (git_dir / "objects" / "info" / "alternates").write_text("/nowhere/objects\n")


LOOSE = "objects/[0-9a-f][0-9a-f]/*"
DAMAGES = {
    "loose objects emptied": each(LOOSE, empty),
    "loose objects cut off": each(LOOSE, truncate),
    "loose objects flipped": each(LOOSE, flip),
    "loose objects gone": each(LOOSE, remove),
    "packs emptied": each("objects/pack/*.pack", empty),
    "packs flipped": each("objects/pack/*.pack", flip),
    "packs gone": each("objects/pack/*.pack", remove),
    "pack indexes cut off": each("objects/pack/*.idx", truncate),
    "a pack of packs that is none": lambda git: garble(git / "objects/pack/multi-pack-index"),
    "objects gone": lambda git: remove(git / "objects"),
    "objects a file": lambda git: replace_by_file(git / "objects"),
    "objects lent by nobody": replace_by_alternates,
    "index emptied": each("index", empty),
    "index cut off": each("index", truncate),
    "index flipped": each("index", flip),
    "index garbled": each("index", garble),
    "HEAD emptied": each("HEAD", empty),
    "HEAD garbled": each("HEAD", garble),
    "HEAD gone": each("HEAD", remove),
    "HEAD at nothing": each("HEAD", point_nowhere),
    "config garbled": each("config", garble),
    "a value in config that git cannot read": each("config", replace(b"= true", b"= true*")),
    "config cut off in what it fetches": cut_off_config,
    "config cut off, and HEAD gone": lambda git: (cut_off_config(git), remove(git / "HEAD"))[0],
    "config gone": each("config", remove),
    "refs emptied": each("refs/**/*", empty),
    "refs at nothing": each("refs/**/*", point_nowhere),
    "refs gone": lambda git: remove(git / "refs"),
    "packed refs garbled": lambda git: garble(git / "packed-refs"),
    "shallow garbled": lambda git: garble(git / "shallow"),
    "everything gone but the folder": lambda git: (remove(git), git.mkdir())[0],
    "a file": replace_by_file,
}


@pytest.fixture
def lived_in(house: House) -> House:
    """A deployed tree with loose and packed objects, in which somebody has worked."""
    house.upstream.commit({"a": "1\n", "b": "1\n", "d/e": "1\n"})
    house.track()
    assert house.sync().result == "deployed"
    (house.tree / "a").write_text("by hand\n")
    (house.tree / "notes").write_text("not tracked\n")
    house.git("config", "user.name", "Grace")
    house.git("branch", "mine")
    return house


def check_whole(house: House) -> None:
    """Every object of the checked-out commit and of its history can be read."""
    house.git("log", "--patch", "--root", "--format=%H")
    house.git("archive", "--format=tar", "--output=/dev/null", "HEAD")


def as_loose_objects(house: House) -> None:
    packs = house.tree / ".git" / "objects" / "pack"
    for pack in packs.glob("*.pack"):
        content = pack.read_bytes()
        remove(pack)
        remove(pack.with_suffix(".idx"))
        subprocess.run(["git", "unpack-objects", "-q"], input=content, cwd=house.tree, check=True)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_tree_mends_itself(lived_in: House, damage: Damage) -> None:
    house = lived_in
    b = house.upstream.commit({"a": "2\n", "new": "2\n"})
    if "loose" in next(name for name, one in DAMAGES.items() if one is damage):
        as_loose_objects(house)
    damage(house.tree / ".git")
    synced = house.sync()
    assert synced.result == "deployed", synced.why
    assert house.git("rev-parse", "HEAD") == b
    assert (house.tree / "a").read_text() == "2\n"
    assert (house.tree / "notes").read_text() == "not tracked\n"
    assert house.git("status", "--porcelain") == "?? notes"
    assert "by hand" in kept_by_hand(house)
    check_whole(house)
    assert house.sync(Reason.POLL).result == "up-to-date"


def kept_by_hand(house: House) -> str:
    """Everything that was saved of the tree, as one text."""
    kept = (path for path in (house.state_dir / "saved").rglob("*") if path.is_file())
    return "\n".join(path.read_text() for path in kept)


def test_what_only_the_old_one_had_is_taken_over(lived_in: House) -> None:
    house = lived_in
    (house.tree / ".git" / "hooks").mkdir()
    (house.tree / ".git" / "hooks" / "pre-push").write_text("#!/bin/sh\n")
    (house.tree / ".git" / "info").mkdir(exist_ok=True)
    (house.tree / ".git" / "info" / "exclude").write_text("notes\n")
    house.git("stash")
    house.git("switch", "-q", "mine")
    (house.tree / "mine").write_text("mine")
    house.git("add", "mine")
    house.git("commit", "-q", "-m", "mine")
    mine, stash = house.git("rev-parse", "mine"), house.git("rev-parse", "stash")
    house.git("tag", "v1")
    garble(house.tree / ".git" / "index")
    b = house.upstream.commit({"a": "2\n"})
    assert house.sync().result == "deployed"
    assert house.git("rev-parse", "HEAD") == b
    assert house.git("rev-parse", "mine", "v1", "stash").split() == [mine, mine, stash]
    assert house.git("config", "user.name") == "Grace"
    assert house.git("status", "--porcelain") == ""
    assert (house.tree / ".git" / "hooks" / "pre-push").exists()
    check_whole(house)


def test_a_branch_that_cannot_be_read_is_kept_in_the_old_one(lived_in: House) -> None:
    house = lived_in
    house.git("commit", "-q", "-a", "-m", "mine")
    mine = house.git("rev-parse", "HEAD")
    house.git("branch", "-f", "mine")
    house.git("checkout", "-q", "--detach", "HEAD^")
    (house.tree / ".git" / "objects" / mine[:2] / mine[2:]).unlink()
    empty(house.tree / ".git" / "index")
    b = house.upstream.commit({"a": "2\n"})
    assert house.sync().result == "deployed"
    assert house.git("rev-parse", "HEAD") == b
    (kept,) = (house.tree / ".git").glob("damaged-*")
    assert (kept / "refs" / "heads" / "mine").read_text().strip() == mine
    assert str(kept) in str(house.newest().steps[0].result)
    check_whole(house)


def test_objects_of_a_new_commit_that_are_gone_are_taken_from_the_mirror(lived_in: House) -> None:
    house = lived_in
    house.upstream.commit({"a": "2\n"})
    house.sync()
    house.upstream.commit({"a": "3\n"})
    house.track(house.hook("grep -vq 3 a"))
    assert house.sync().result == "rolled-back"
    each("objects/pack/*.pack", remove)(house.tree / ".git")
    house.track()
    assert house.sync(Reason.MANUAL, force=True).result == "deployed"
    assert house.clean() or house.git("status", "--porcelain") == "?? notes"
    check_whole(house)


@pytest.mark.parametrize("at", ["rename", "finish_swap"])
def test_a_death_in_the_swap_is_got_over(
    lived_in: House, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    house = lived_in

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    empty(house.tree / ".git" / "index")
    b = house.upstream.commit({"a": "2\n"})
    with monkeypatch.context() as patch:
        patch.setattr(*((Path, "rename") if at == "rename" else (rebuild, "finish_swap")), die)
        with pytest.raises(KeyboardInterrupt):
            house.sync()
    house.restart()
    assert house.sync(Reason.START).result == "deployed"
    assert house.git("rev-parse", "HEAD") == b
    assert not list(house.tree.glob(".git.*"))
    assert "by hand" in kept_by_hand(house)
    check_whole(house)


def test_a_tree_is_not_made_anew_for_a_full_disk_or_a_lock(lived_in: House) -> None:
    house = lived_in
    (house.tree / ".git" / "index.lock").touch()
    house.upstream.commit({"a": "2\n"})
    assert house.sync().retry_at
    assert not list((house.tree / ".git").glob("damaged-*"))


def test_a_mirror_that_is_damaged_behind_what_was_fetched_is_made_anew(lived_in: House) -> None:
    house = lived_in
    b = house.upstream.commit({"a": "2\n", "big": os.urandom(5000).hex()})
    (house.tree / ".git" / "index.lock").touch()
    house.sync()
    (mirror,) = (house.state_dir / "mirrors").iterdir()
    each("objects/pack/*.pack", flip)(mirror)
    each(".git/index.lock", remove)(house.tree)
    remove(house.tree / ".git" / "objects")
    results = [house.sync(Reason.MANUAL).result for _ in range(3)]
    assert "deployed" in results
    assert house.git("rev-parse", "HEAD") == b
    check_whole(house)


def test_a_remote_that_is_made_anew_with_objects_of_other_names(house: House) -> None:
    house.track()
    house.upstream.commit({"a": "1"})
    assert house.sync().result == "deployed"
    for algorithm in ("sha256", "sha1"):
        work = house.root / algorithm
        git("init", "-q", f"--object-format={algorithm}", "-b", "main", str(work), cwd=house.root)
        (work / "a").write_text(algorithm)
        git("add", "a", cwd=work)
        git("commit", "-q", "-m", "anew", cwd=work)
        shutil.rmtree(house.upstream.path)
        git("clone", "-q", "--bare", str(work), str(house.upstream.path), cwd=house.root)
        assert house.sync().result == "deployed"
        assert (house.tree / "a").read_text() == algorithm
        assert house.clean()
