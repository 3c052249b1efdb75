"""Mirrors and remotes: real git over real connections, and remotes that misbehave."""

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent import repository
from agent.cancel import Cancel
from agent.errors import GitFailed, RemoteFailed, Stopped
from agent.mirror import Mirror
from agent.model import GitAccess, Secret, Source
from agent.remedies import remedy
from agent.repository import clear_leftovers, list_branches, without_credentials
from agent.worktree import WorkTree
from tests.remotes import HttpRemote, SshRemote, Upstream, git, serve_http

MAIN = "refs/heads/main"
TOKEN = "ghp_recognisable_token"


def access(token: str = TOKEN) -> GitAccess:
    return GitAccess(Secret("a token", value=token.encode()))


def test_a_fetch_gives_the_tip_and_then_its_subject_and_author(
    tmp_path: Path, upstream: Upstream, http_remote: HttpRemote
) -> None:
    a = upstream.commit({"a": "1"}, "what I did\n\nand why")
    mirror = Mirror(Source(http_remote.url()), tmp_path)
    assert mirror.fetch([MAIN]) == {MAIN: a}
    assert mirror.describe(a) == ("what I did", "Ada")
    b = upstream.commit({"a": "2"})
    assert mirror.fetch([MAIN])[MAIN] == b
    assert mirror.history(b) == {a, b}


def test_nothing_new_costs_two_requests(
    tmp_path: Path, upstream: Upstream, http_remote: HttpRemote
) -> None:
    upstream.commit({"a": "1"})
    mirror = Mirror(Source(http_remote.url()), tmp_path)
    mirror.fetch([MAIN])
    http_remote.requests.clear()
    mirror.fetch([MAIN])
    assert len(http_remote.requests) == 2


def test_a_branch_gives_way_to_one_below_its_name(tmp_path: Path, upstream: Upstream) -> None:
    a = upstream.commit({"a": "1"})
    upstream.push("x")
    mirror = Mirror(Source(upstream.url), tmp_path)
    refs = ["refs/heads/x", "refs/heads/x/y"]
    assert [mirror.fetch(refs)[ref] for ref in refs] == [a, None]
    upstream.delete_branch("x")
    upstream.push("x/y")
    assert [mirror.fetch(refs)[ref] for ref in refs] == [None, a]


def test_many_fetches_are_packed(tmp_path: Path, upstream: Upstream) -> None:
    mirror, tree = Mirror(Source(upstream.url), tmp_path / "mirrors"), WorkTree(tmp_path / "tree")
    mirror.tidy()
    tree.tidy()
    for n in range(55):
        upstream.commit({f"{n}": "x" * n})
        mirror.fetch([MAIN])
    packs = mirror.path / "objects" / "pack"
    assert len(list(packs.glob("*.pack"))) == 55
    mirror.tidy()
    assert len(list(packs.glob("*.pack"))) == 1
    assert mirror.fetch([MAIN])[MAIN]


def test_one_of_two_branches_is_missing(tmp_path: Path, upstream: Upstream) -> None:
    a = upstream.commit({"a": "1"})
    mirror = Mirror(Source(upstream.url), tmp_path)
    tips = mirror.fetch([MAIN, "refs/heads/next"])
    assert tips[MAIN] == a
    assert tips["refs/heads/next"] is None


def test_a_tag_of_the_same_name_is_not_the_branch(tmp_path: Path, upstream: Upstream) -> None:
    upstream.commit({"a": "1"})
    subprocess.run(["git", "tag", "main", "main~0"], cwd=upstream.path, check=True)
    b = upstream.commit({"a": "2"})
    mirror = Mirror(Source(upstream.url), tmp_path)
    assert mirror.fetch([MAIN])[MAIN] == b
    assert list_branches(mirror.source) == {MAIN: b}


def test_a_sha256_repository(tmp_path: Path) -> None:
    path, work = tmp_path / "r.git", tmp_path / "w"
    for command in (
        ["git", "init", "-q", "--object-format=sha256", "--bare", "-b", "main", str(path)],
        ["git", "init", "-q", "--object-format=sha256", "-b", "main", str(work)],
        ["git", "-C", str(work), "-c", "user.name=x", "-c", "user.email=x@y.z",
         "commit", "-q", "--allow-empty", "-m", "x"],
        ["git", "-C", str(work), "push", "-q", str(path), "main"],
    ):  # fmt: skip
        subprocess.run(command, check=True)
    tip = Mirror(Source(str(path)), tmp_path / "mirrors").fetch([MAIN])[MAIN]
    assert tip
    assert len(tip) == 64


# ---- credentials ------------------------------------------------------------------------------


def test_a_token_is_sent_to_its_host_and_is_in_no_argument_and_no_environment(
    tmp_path: Path, upstream: Upstream, http_remote: HttpRemote
) -> None:
    upstream.commit({"a": "1"})
    http_remote.token = TOKEN
    http_remote.hang = True
    mirror = Mirror(Source(http_remote.url(), access()), tmp_path / "mirrors")
    failed: list[Exception] = []

    def fetch() -> None:
        try:
            mirror.fetch([MAIN])
        except RemoteFailed as error:
            failed.append(error)

    fetching = threading.Thread(target=fetch)
    fetching.start()
    assert http_remote.asked.wait(10)
    seen = b"".join(
        _read(entry / name)
        for entry in Path("/proc").iterdir()
        if _read(entry / "comm").startswith(b"git")
        for name in ("cmdline", "environ")
    )
    assert b"git-remote-http" in seen
    assert TOKEN.encode() not in seen
    http_remote.hang = False
    http_remote.released.set()
    fetching.join()
    assert failed
    assert mirror.fetch([MAIN])[MAIN]
    assert not any(
        TOKEN.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_token_is_read_anew_each_time(
    tmp_path: Path, upstream: Upstream, http_remote: HttpRemote
) -> None:
    upstream.commit({"a": "1"})
    file = tmp_path / "token"
    file.write_text("first\n")
    http_remote.token = "first"
    mirror = Mirror(Source(http_remote.url(), GitAccess(Secret("f", path=file))), tmp_path / "m")
    mirror.fetch([MAIN])
    http_remote.token = "second"
    with pytest.raises(RemoteFailed):
        mirror.fetch([MAIN])
    file.write_text("second\n")
    mirror.fetch([MAIN])


def test_a_redirect_gets_no_credential_and_no_repository(
    tmp_path: Path, upstream: Upstream, http_remote: HttpRemote
) -> None:
    upstream.commit({"a": "1"})
    with serve_http(upstream.path.parent) as other:
        other.token = TOKEN
        http_remote.redirect_to = f"http://127.0.0.1:{other.port}"
        with pytest.raises(RemoteFailed, match="redirect|302|unable to access"):
            Mirror(Source(http_remote.url(), access()), tmp_path).fetch([MAIN])
        assert other.requests == []


def test_a_password_that_nobody_has_is_not_asked_for(
    tmp_path: Path, upstream: Upstream, http_remote: HttpRemote
) -> None:
    upstream.commit({"a": "1"})
    http_remote.token = TOKEN
    with pytest.raises(RemoteFailed, match="demands a password, and no token"):
        Mirror(Source(http_remote.url()), tmp_path).fetch([MAIN])
    wrong = GitAccess(token=Secret("file /x", value=b"another one entirely"))
    with pytest.raises(RemoteFailed, match="refused the token of file /x: nothing new"):
        Mirror(Source(http_remote.url(), wrong), tmp_path).fetch([MAIN])


def test_an_ssh_key_and_a_known_host(
    tmp_path: Path, upstream: Upstream, ssh_remote: SshRemote
) -> None:
    a = upstream.commit({"a": "1"})
    spaced = tmp_path / "with space"
    spaced.mkdir()
    for name, path in (("key", ssh_remote.key), ("known", ssh_remote.known_hosts)):
        (spaced / name).write_bytes(path.read_bytes())
        (spaced / name).chmod(0o600)
    keys = GitAccess(ssh_key=spaced / "key", known_hosts=spaced / "known")
    source = Source(ssh_remote.url(upstream.path), keys)
    assert list_branches(source) == {MAIN: a}


# ---- remotes that misbehave -------------------------------------------------------------------


def test_a_remote_that_answers_rubbish_shows_no_branch(
    tmp_path: Path, http_remote: HttpRemote
) -> None:
    # git takes a page that is not its own for an empty repository of the old, dumb kind.
    http_remote.garbage = True
    assert Mirror(Source(http_remote.url()), tmp_path).fetch([MAIN])[MAIN] is None


def test_a_remote_that_is_down(tmp_path: Path) -> None:
    with pytest.raises(RemoteFailed, match="Failed to connect|Could not connect|refused"):
        Mirror(Source("http://127.0.0.1:9/shop.git"), tmp_path).fetch([MAIN])


def test_a_remote_that_hangs_is_given_up_at_the_deadline(
    tmp_path: Path, http_remote: HttpRemote
) -> None:
    http_remote.hang = True
    with pytest.raises(RemoteFailed, match="did not end within 0.5 s") as failed:
        Mirror(Source(http_remote.url()), tmp_path, 0.5).fetch([MAIN])
    assert "raise that" in remedy(str(failed.value), "shop")


def test_without_git_that_is_what_is_said_and_nothing_is_taken_for_damaged(
    tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = Mirror(Source(upstream.url), tmp_path / "mirrors")
    upstream.commit({"a": "1"})
    mirror.fetch([MAIN])
    (mirror.path / "mark").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GitFailed, match="no git in PATH"):
        mirror.fetch([MAIN])
    assert (mirror.path / "mark").exists()


def test_a_remote_that_is_made_anew_with_objects_of_other_names(tmp_path: Path) -> None:
    mirror = Mirror(Source(str(tmp_path / "shop.git")), tmp_path / "mirrors")
    for algorithm in ("sha1", "sha256", "sha1"):
        work = tmp_path / "work"
        for folder in (work, tmp_path / "shop.git"):
            shutil.rmtree(folder, ignore_errors=True)
        git("init", "-q", f"--object-format={algorithm}", "-b", "main", str(work), cwd=tmp_path)
        git("commit", "-q", "--allow-empty", "-m", algorithm, cwd=work)
        git("clone", "-q", "--bare", str(work), str(tmp_path / "shop.git"), cwd=tmp_path)
        revision = git("rev-parse", "HEAD", cwd=work)
        assert mirror.fetch([MAIN]) == {MAIN: revision}
        assert mirror.describe(revision) == (algorithm, "Ada")


def spoil(how: str, content: bytes, released: threading.Event) -> Iterator[bytes]:
    """The first half of a pack, and then something else."""
    half = len(content) // 2
    yield content[:half]
    if how == "drips":
        for n in range(half, len(content)):
            if released.wait(0.1):
                return
            yield content[n : n + 1]
    elif how == "hangs":
        released.wait()
    elif how == "garbage":
        yield os.urandom(len(content) - half)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("drips", "Operation too slow"),
        ("hangs", "Operation too slow"),
        ("garbage", "protocol error|bad line length|inflate|fatal:"),
        ("ends", "transfer closed|early EOF|unexpected disconnect"),
    ],
)
def test_a_remote_that_spoils_a_pack_midway(
    tmp_path: Path, upstream: Upstream, http_remote: HttpRemote, monkeypatch: pytest.MonkeyPatch,
    how: str, says: str,
) -> None:  # fmt: skip
    quick = (one.replace("lowSpeedTime=30", "lowSpeedTime=1") for one in repository._OPTIONS)
    monkeypatch.setattr(repository, "_OPTIONS", tuple(quick))
    a = upstream.commit({"a": os.urandom(30_000)})
    http_remote.spoilt = lambda content: spoil(how, content, http_remote.released)
    mirror = Mirror(Source(http_remote.url()), tmp_path / "mirrors")
    with pytest.raises(RemoteFailed, match=says):
        mirror.fetch([MAIN])
    http_remote.spoilt = None
    for left in mirror.path.rglob("tmp_*"):
        # Fresh ones may be those of a gc that runs.
        os.utime(left, (0, 0))
    assert mirror.fetch([MAIN]) == {MAIN: a}
    git("fsck", "--strict", cwd=mirror.path)
    assert list(mirror.path.rglob("tmp_*")) == []


def test_what_another_git_may_still_write_is_not_cleared_away(tmp_path: Path) -> None:
    packs = tmp_path / "objects" / "pack"
    packs.mkdir(parents=True)
    for name in ("tmp_pack_old", "tmp_pack_new", "pack-old.pack"):
        (packs / name).touch()
        if "old" in name:
            os.utime(packs / name, (0, 0))
    clear_leftovers(tmp_path, 3600)
    assert {path.name for path in packs.iterdir()} == {"tmp_pack_new", "pack-old.pack"}


def test_a_stop_ends_a_fetch_that_hangs(tmp_path: Path, http_remote: HttpRemote) -> None:
    http_remote.hang = True
    cancel = Cancel()

    def stop() -> None:
        http_remote.asked.wait(10)
        cancel.set()

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(Stopped):
        Mirror(Source(http_remote.url()), tmp_path).fetch([MAIN], cancel=cancel)
    stopper.join()
    cancel.close()


@pytest.mark.parametrize("url", ["ext::touch {}/ran", "git://127.0.0.1/x", "ftp://127.0.0.1/x"])
def test_other_protocols_are_refused_by_git_itself(tmp_path: Path, url: str) -> None:
    with pytest.raises(RemoteFailed, match="transport '(ext|git|ftp)' not allowed"):
        Mirror(Source(url.format(tmp_path)), tmp_path / "mirrors").fetch([MAIN])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "revision", ["HEAD", "--output=x", "a" * 39, "A" * 40, "a" * 40 + "\n", ""]
)
def test_only_full_commit_ids_reach_git(tmp_path: Path, revision: str) -> None:
    with pytest.raises(GitFailed, match="not a full commit id"):
        WorkTree(tmp_path).checkout(revision, Cancel())


def test_credentials_are_taken_out_of_messages() -> None:
    text = "fatal: unable to access 'https://ada:secret@host/x': and ssh://git@host/y"
    assert without_credentials(text) == "fatal: unable to access 'https://host/x': and ssh://host/y"


def test_a_mirror_half_made_by_a_crash_is_made_again(tmp_path: Path, upstream: Upstream) -> None:
    a = upstream.commit({"a": "1"})
    mirror = Mirror(Source(upstream.url), tmp_path / "mirrors")
    mirror.path.with_suffix(".new").mkdir(parents=True)
    mirror.path.mkdir()
    assert mirror.fetch([MAIN])[MAIN] == a


def _truncate(mirror: Path) -> None:
    for path in (mirror / "objects" / "pack").iterdir():
        path.chmod(0o600)
        os.truncate(path, 20)


def _empty(mirror: Path) -> None:
    for path in (mirror / "refs").rglob("*"):
        if path.is_file():
            path.write_text("")


def _lose(mirror: Path) -> None:
    shutil.rmtree(mirror / "objects")


def _garble(mirror: Path) -> None:
    (mirror / "config").write_text("[core\n")


def _garble_refs(mirror: Path) -> None:
    (mirror / "packed-refs").write_text("garbage\n")


def _behead(mirror: Path) -> None:
    (mirror / "HEAD").write_bytes(b"\xff")


def _mislead(mirror: Path) -> None:
    (mirror / "objects" / "pack" / "multi-pack-index").write_text("garbage" * 20)


def _shorten(mirror: Path) -> None:
    (mirror / "shallow").write_text("garbage\n")


@pytest.mark.parametrize(
    "damage", [_truncate, _empty, _lose, _garble, _garble_refs, _behead, _mislead, _shorten]
)
def test_a_damaged_mirror_is_made_anew(
    tmp_path: Path, upstream: Upstream, http_remote: HttpRemote, damage: Callable[[Path], None]
) -> None:
    a = upstream.commit({"a": "1"})
    mirror = Mirror(Source(http_remote.url()), tmp_path / "mirrors")
    mirror.fetch([MAIN])
    damage(mirror.path)
    assert mirror.fetch([MAIN])[MAIN] == a
    damage(mirror.path)
    b = upstream.commit({"a": "2"})
    assert mirror.fetch([MAIN])[MAIN] == b
    assert mirror.history(b) == {a, b}


def test_a_broken_mirror_is_not_mistaken_for_the_repository_that_it_lies_in(
    tmp_path: Path, upstream: Upstream, http_remote: HttpRemote
) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    a = upstream.commit({"a": "1"})
    mirror = Mirror(Source(http_remote.url()), tmp_path / "mirrors")
    mirror.fetch([MAIN])
    _lose(mirror.path)
    assert mirror.fetch([MAIN])[MAIN] == a
    assert not (tmp_path / ".git" / "refs" / "tracked").exists()


def test_equal_sources_share_a_mirror_and_others_do_not(tmp_path: Path) -> None:
    one = Mirror(Source("https://x.example/acme/shop.git"), tmp_path)
    assert one.path == Mirror(Source("https://x.example/acme/shop.git"), tmp_path).path
    assert one.path != Mirror(Source("https://x.example/acme/shop.git", access()), tmp_path).path
    assert one.path.name.startswith("https-x-example-acme-shop-")
