"""Looks at a real remote over smart HTTP: when it is asked in this process, and when git looks."""

import asyncio
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from agent import mirror, uploadpack
from agent.cancel import Cancel
from agent.errors import RemoteFailed, Stopped
from agent.looks import Looks
from agent.mirror import Mirror, Tips
from agent.model import Target
from tests.remotes import HttpRemote, Upstream, git, serve_http

MAIN = "refs/heads/main"
ASKED = ["POST /shop.git/git-upload-pack"]
TAKEN = ASKED + ASKED
FETCHED = ["GET /shop.git/info/refs?service=git-upload-pack", "POST /shop.git/git-upload-pack"]


class House:
    """Looks at one remote for one target, in a folder of its own."""

    def __init__(self, root: Path, remote: HttpRemote) -> None:
        self.root = root
        self.remote = remote
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.target = Target("shop", remote.url(), "main", root / "srv", None, 60.0)
        self.start()

    def start(self) -> None:
        self.cancel = Cancel()
        self.looks = Looks(self.root / "mirrors", self.cancel)
        self.looks.track([self.target])

    def stop(self) -> None:
        self.runner.run(self.looks.close())
        self.cancel.close()

    def look(self) -> tuple[str | None, list[str]]:
        """What a look sees, and which requests it took."""
        self.remote.requests.clear()
        tips = self.runner.run(self.looks.look(self.target.source))
        return tips[MAIN], list(self.remote.requests)

    @property
    def mirror(self) -> Mirror:
        return self.looks.mirror(self.target.source)


@pytest.fixture
def house(tmp_path: Path, http_remote: HttpRemote) -> Iterator[House]:
    one = House(tmp_path, http_remote)
    yield one
    one.stop()
    one.runner.close()


def test_a_remote_without_news_is_asked_once_and_git_stays_out(
    house: House, upstream: Upstream
) -> None:
    a = upstream.commit({"a": "1"})
    assert house.look() == (a, ASKED + FETCHED)
    assert house.look() == (a, ASKED)
    b = upstream.commit({"a": "2"})
    assert house.look() == (b, TAKEN)
    assert house.mirror.history(b) == {a, b}
    assert house.look() == (b, ASKED)


def test_after_a_restart_it_is_known_what_was_fetched(house: House, upstream: Upstream) -> None:
    a = upstream.commit({"a": "1"})
    house.look()
    for pack in (lambda: None, house.mirror.tidy, lambda: pack_refs(house.mirror)):
        pack()
        house.stop()
        house.start()
        assert house.look() == (a, ASKED)


def pack_refs(mirror: Mirror) -> None:

    git("pack-refs", "--all", cwd=mirror.path)


def test_a_rewritten_and_a_deleted_branch(house: House, upstream: Upstream) -> None:
    upstream.commit({"a": "1"})
    house.look()
    b = upstream.force_push({"b": "1"})
    seen, requests = house.look()
    assert (seen, requests) == (b, TAKEN)
    upstream.delete_branch("main")
    assert house.look() == (None, ASKED)
    assert house.mirror.kept([MAIN]) == {MAIN: None}
    assert house.look() == (None, ASKED)


def test_back_to_where_the_branch_was(house: House, upstream: Upstream) -> None:
    a = upstream.commit({"a": "1"})
    house.look()
    upstream.commit({"a": "2"})
    house.look()
    upstream.reset(a)
    assert house.look() == (a, TAKEN)
    assert house.mirror.kept([MAIN]) == {MAIN: a}


@pytest.mark.parametrize(("files", "more"), [(1, 0), (120, 1)])
def test_many_objects_become_a_pack(
    house: House, upstream: Upstream, files: int, more: int
) -> None:
    upstream.commit({"a": "1"})
    house.look()
    packs = set(house.mirror.path.rglob("*.pack"))
    b = upstream.commit({f"{n}": f"{n}" for n in range(files)})
    assert house.look() == (b, TAKEN)
    assert len(set(house.mirror.path.rglob("*.pack")) - packs) == more


def test_much_is_git_s_to_fetch(
    house: House, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.commit({"a": "1"})
    house.look()
    # No piece of it is as large: they are counted together.
    monkeypatch.setattr(uploadpack, "_MOST_OF_A_PACK", 300_000)
    b = upstream.commit({"a": random.Random(1).randbytes(700_000)})
    seen, requests = house.look()
    assert (seen, requests[:3]) == (b, TAKEN + FETCHED[:1])


@pytest.mark.parametrize("unpacked", [100, 1])
def test_a_pack_that_git_refuses_changes_nothing(
    house: House, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, unpacked: int
) -> None:
    monkeypatch.setattr(mirror, "_UNPACKED", unpacked)
    a = upstream.commit({"a": "1"})
    house.look()
    b = upstream.commit({"a": "2"})
    whole = pack(upstream, f"{b}\n^{a}\n", "--revs", "--thin")
    tree = git("rev-parse", f"{b}^{{tree}}", cwd=upstream.path)
    hollow = pack(upstream, f"{b}\n")
    # A .git in a tree, as no git would make it.
    evil = odd_commit(upstream, b"100644 .git", git("rev-parse", f"{b}:a", cwd=upstream.path))
    evil_pack = pack(upstream, f"{evil}\n^{a}\n", "--revs", "--thin")
    garbled = whole[:-25] + b"x" + whole[-24:]
    only_tree = pack(upstream, f"{tree}\n")
    for refused in (b"", b"<html>", hollow, evil_pack, only_tree, whole[:-1], garbled):
        assert not house.mirror.take(refused, {MAIN: b})
        assert house.mirror.kept([MAIN]) == {MAIN: a}
    assert house.mirror.take(whole, {MAIN: b})
    assert house.mirror.history(b) == {a, b}
    git("update-ref", MAIN, evil, cwd=upstream.path)
    with pytest.raises(RemoteFailed, match="hasDotgit"):
        house.look()
    assert house.mirror.kept([MAIN]) == {MAIN: b}


@pytest.mark.parametrize("unpacked", [100, 1])
def test_what_old_histories_have_is_taken_in_a_pack_and_fetched(
    house: House, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, unpacked: int
) -> None:
    monkeypatch.setattr(mirror, "_UNPACKED", unpacked)
    upstream.commit({"a": "1"})
    house.look()
    old = odd_commit(upstream, b"040000 folder", git("rev-parse", "main^{tree}", cwd=upstream.path))
    git("update-ref", MAIN, old, cwd=upstream.path)
    assert house.look() == (old, TAKEN)
    shutil.rmtree(house.mirror.path)
    assert house.look() == (old, ASKED + FETCHED)


def pack(upstream: Upstream, wanted: str, *options: str) -> bytes:
    command = ["git", "pack-objects", "--stdout", "-q", *options]
    done = subprocess.run(
        command, cwd=upstream.path, input=wanted.encode(), check=True, capture_output=True
    )
    return done.stdout


def odd_commit(upstream: Upstream, entry: bytes, of: str) -> str:
    """A commit whose tree has one entry, a mode and a name for the object `of`; nobody checks it."""
    tree = entry + b"\0" + bytes.fromhex(of)
    made = ["git", "hash-object", "-w", "-t", "tree", "--literally", "--stdin"]
    done = subprocess.run(made, cwd=upstream.path, input=tree, check=True, capture_output=True)
    return git("commit-tree", done.stdout.decode().strip(), "-m", "odd", cwd=upstream.path)


@pytest.mark.parametrize(
    "spoil",
    [lambda answer: answer[:100], lambda answer: answer.replace(b"PACK", b"PARK"), lambda _: b""],
)
def test_a_spoilt_pack_is_git_s_to_fetch(
    house: House, upstream: Upstream, spoil: Callable[[bytes], bytes]
) -> None:
    upstream.commit({"a": "1"})
    house.look()
    b = upstream.commit({"a": "2"})
    house.remote.spoil = lambda n, answer: spoil(answer) if n == 2 else answer
    seen, requests = house.look()
    assert (seen, requests[:3]) == (b, TAKEN + FETCHED[:1])
    assert house.mirror.kept([MAIN]) == {MAIN: b}


def test_a_lock_that_a_killed_git_has_left_is_in_nobody_s_way(
    house: House, upstream: Upstream
) -> None:
    a = upstream.commit({"a": "1"})
    house.look()
    (kept,) = (house.mirror.path / "refs" / "tracked").iterdir()
    lock = kept.with_name(f"{kept.name}.lock")
    lock.touch()
    b = upstream.commit({"a": "2"})
    assert house.mirror.take(pack(upstream, f"{b}\n^{a}\n", "--revs", "--thin"), {MAIN: b})
    lock.touch()
    c = upstream.commit({"a": "3"})
    assert house.mirror.fetch([MAIN]) == {MAIN: c}


def test_what_is_doubted_is_fetched_by_git(house: House, upstream: Upstream) -> None:
    a = upstream.commit({"a": "1"})
    house.look()
    house.looks.doubt(house.target.source)
    seen, requests = house.look()
    assert seen == a
    assert FETCHED[0] in requests
    assert house.look() == (a, ASKED)


def test_a_mirror_that_is_gone_is_made_again(house: House, upstream: Upstream) -> None:
    a = upstream.commit({"a": "1"})
    house.look()
    shutil.rmtree(house.mirror.path)
    assert house.look() == (a, ASKED + FETCHED)
    assert house.mirror.history(a) == {a}


@pytest.mark.parametrize("odd", ["redirect_to", "token"])
def test_where_the_answer_is_odd_git_has_the_word(
    house: House, upstream: Upstream, odd: str
) -> None:
    upstream.commit({"a": "1"})
    house.look()
    setattr(house.remote, odd, "https://127.0.0.1:9")
    with pytest.raises(RemoteFailed):
        house.look()
    assert FETCHED[0] in house.remote.requests


def test_a_branch_that_has_just_moved_on_is_fetched_by_name(
    house: House, upstream: Upstream
) -> None:
    a = upstream.commit({"a": "1"})
    assert house.mirror.fetch([MAIN], {MAIN: "c" * 40}) == {MAIN: a}


def test_two_branches_are_asked_for_together(house: House, upstream: Upstream) -> None:
    a = upstream.commit({"a": "1"})
    upstream.push("next")
    other = Target("next", house.remote.url(), "next", house.root / "n", None, 60.0)
    missing = Target("gone", house.remote.url(), "gone", house.root / "g", None, 60.0)
    house.looks.track([house.target, other, missing])
    assert house.look() == (a, ASKED + FETCHED)
    assert house.look() == (a, ASKED)
    seen = [house.looks.seen(one) for one in (house.target, other, missing)]
    assert seen == [a, a, None]


def test_a_host_that_hangs_takes_its_share_of_gits_and_no_more(
    tmp_path: Path, house: House, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that it is git that is left hanging, each in a thread of its own.
    monkeypatch.setattr(uploadpack, "_DEADLINE", 0.0)
    a = upstream.commit({"a": "1"})
    with serve_http(tmp_path) as hanging:
        hanging.hang = True
        there = f"http://localhost:{hanging.port}"
        others = [
            Target(f"{n}", f"{there}/{n}.git", "main", house.root / f"{n}", None, 60.0)
            for n in range(20)
        ]
        house.looks.track([house.target, *others])

        async def look() -> tuple[Tips, int]:
            hung = [asyncio.create_task(house.looks.look(one.source)) for one in others]
            try:
                async with asyncio.timeout(60):
                    while len(hanging.requests) < 8:
                        await asyncio.sleep(0.01)
                    return await house.looks.look(house.target.source), len(hanging.requests)
            finally:
                house.cancel.set()
                await asyncio.gather(*hung, return_exceptions=True)

        tips, asked = house.runner.run(look())
    assert (tips[MAIN], asked) == (a, 8)


def test_a_stop_ends_a_look_that_hangs(house: House, upstream: Upstream) -> None:
    house.remote.hang = True

    async def look() -> None:
        looking = asyncio.create_task(house.looks.look(house.target.source))
        await asyncio.to_thread(house.remote.asked.wait, 10)
        house.cancel.set()
        await looking

    with pytest.raises(Stopped):
        house.runner.run(look())
