"""Releases made of the trees of others: whole syncs compared with git's own checkout."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.model import Reason, Stage
from tests.house import House
from tests.remotes import Upstream
from tests.trees import cycle, exported, listing

# ---- every kind of change -------------------------------------------------------------------------

BEFORE = {
    "keep": "k", "edit": "1", "gone": "x", "deep/er/file": "1", "deep/er/gone": "x",
    "was-file": "f", "was-dir/inner": "i", "was-dir/more/inner": "i", "runs": "#!/bin/sh\n",
    "binary": bytes(range(256)), "old-name": "moved", "empty": "", "Case": "c", "text.txt": "1\n2\n",
    "id": "$Id$\n",
}  # fmt: skip
LINKS = {"was-link": "keep", "was-link-to-folder": "was-dir", "was-link-out": "/etc"}

Step = Callable[[Upstream], object]


KINDS: dict[str, Step] = {
    "edited": lambda one: one.commit({"edit": "2", "deep/er/file": "2", "new": "n"}),
    "deleted": lambda one: one.commit({"gone": None, "deep/er/gone": None, "deep/er/file": None}),
    "renamed": lambda one: one.commit({"old-name": None, "deep/new-name": "moved"}),
    "mode": lambda one: one.commit({"edit": "1"}, executable=["edit"]),
    "symlinks": lambda one: one.commit({}, symlinks={"link": "keep", "edit": "nowhere", "out": "/etc"}),
    "file to folder": lambda one: one.commit({"was-file/now/inner": "x"}),
    "folder to file": lambda one: one.commit(
        {"was-dir/inner": None, "was-dir/more/inner": None, "was-dir": "now a file"}),
    "odd names": lambda one: one.commit(
        {"with space": "1", "quo\"te": "2", "new\nline": "3", "uml\udcfcaut": "4", "-dash": "5",
         "-d\udcff/\n/-x": "6", "*": "7", ".gitignore": "*", "a\\b": "8", ".env": "9", ":(glob)**": "10"}),
    "long names": lambda one: one.commit({"n" * 255: "1", "/".join(["d" * 200] * 12): "2"}),
    "letters' case": lambda one: one.commit({"Case": None, "case": "c", "CASE": "C", "Deep/er/file": "1"}),
    "link to folder": lambda one: one.commit({"was-link-to-folder/a/b": "x", "was-link-out/passwd": "x", "was-link/x": "x"}),
    "link elsewhere": lambda one: one.commit({}, symlinks=dict.fromkeys(LINKS, "../..")),
    "folder to link": lambda one: one.commit({}, symlinks={"was-dir": "/etc", "deep/er": "/tmp"}),
    "file to link and back": lambda one: one.commit({"was-link": None, "gone": None}, symlinks={"edit": "/etc/passwd"}),
    "content": lambda one: one.commit({"binary": bytes(reversed(range(256))), "empty": "no more"}),
    "attributes": lambda one: one.commit({".gitattributes": "*.txt text eol=crlf\n", "a.txt": "1\n2\n"}),
    "attributes for what is there": lambda one: one.commit(
        {".gitattributes": "*.txt eol=crlf\nid ident\n", "text.txt": "1\n3\n", "id": "$Id$\n\n"}),
    "attributes below": lambda one: one.commit(
        {"was-dir/.gitattributes": "*.txt working-tree-encoding=UTF-16LE-BOM eol=lf\n", "was-dir/x.txt": "\ufeffü\n".encode("utf-16-le")}),
    "attributes of archives": lambda one: one.commit(
        {".gitattributes": "keep export-ignore\nedit export-subst\n", "edit": "$Format:%H$\n"}),
    "a filter that nobody has": lambda one: one.commit(
        {".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n", "x.bin": "version https://git-lfs\n"}),
    "a link named as attributes": lambda one: one.commit({}, symlinks={".gitattributes": "text.txt"}),
    "modules": lambda one: one.commit(
        {".gitmodules": '[submodule "m"]\n\tpath = m\n\turl = https://example.org/m.git\n'}),
    "many": lambda one: one.commit({f"many/{n}": str(n) for n in range(1100)}),
}  # fmt: skip


@pytest.mark.parametrize("part", range(4))
def test_each_kind_of_change_is_what_git_would_check_out(
    house: House, upstream: Upstream, tmp_path: Path, part: int
) -> None:
    """There and back again. A tree is another's of two deployments before, so each goes twice."""
    house.releases(keep=1)
    before = upstream.commit(BEFORE, symlinks=LINKS)
    cycle(house, upstream, 2)
    for kind in list(KINDS)[part::4]:
        for step in (KINDS[kind], lambda one: one.reset(before)):
            step(upstream)
            for n in range(2):
                last = upstream.commit({"n": f"{kind} {n}"})
                assert house.sync().result == "deployed", kind
                house.settle()
            to = tmp_path / last
            assert listing(house.tree / "current") == exported(upstream, last, to), kind


def test_a_submodule_s_pointer_moves_without_anything_being_fetched(
    house: House, upstream: Upstream, tmp_path: Path
) -> None:
    """And takes the place of a file and of a folder, and gives it back."""
    house.releases(keep=1)
    upstream.commit(BEFORE)
    cycle(house, upstream, 2)
    steps: list[Step] = [
        *(lambda one, n=n: one.point_submodule("module", n * 40) for n in "12"),
        lambda one: one.point_submodule("deep/er/module", "1" * 40),
        lambda one: one.point_submodule("was-file", "1" * 40),
        lambda one: one.point_submodule("was-dir", "1" * 40),
        lambda one: one.take_away("module"),
        lambda one: one.take_away("deep/er/module"),
        lambda one: one.commit({"was-file": "again", "was-dir/inner": "again"}),
    ]
    for n, step in enumerate(steps):
        step(upstream)
        assert house.sync().result == "deployed"
        house.settle()
        found = listing(house.tree / "current")
        assert found == exported(upstream, upstream.tip(), tmp_path / f"git-{n}")


def test_a_folder_that_became_a_link_is_never_written_through(
    house: House, upstream: Upstream, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_text("safe")
    house.releases(keep=1)
    upstream.commit({"in/dir/victim": "1"})
    cycle(house, upstream, 2)
    # Whoever can write to the spare puts a link in the way; git's word wins, nothing is followed.
    spare = house.tree / "releases" / ".spare"
    subprocess.run(["rm", "-r", spare / "in" / "dir"], check=True)
    (spare / "in" / "dir").symlink_to(outside)
    upstream.commit({"in/dir/victim": "2", "in/dir/new": "3"})
    assert house.sync().result == "deployed"
    assert (house.tree / "current" / "in" / "dir" / "victim").read_text() == "2"
    assert (outside / "victim").read_text() == "safe"
    assert sorted(one.name for one in outside.iterdir()) == ["victim"]


def test_a_spare_that_is_not_the_one_that_was_cleaned_is_not_believed(
    house: House, upstream: Upstream, tmp_path: Path
) -> None:
    """As after /srv was put back from a backup, and the state folder was not."""
    house.releases(keep=1)
    upstream.commit({"f": "of the backup"})
    cycle(house, upstream, 2)
    backup = shutil.copytree(house.path_of(".spare"), tmp_path / "backup")
    upstream.commit({"f": "newer"})
    cycle(house, upstream, 2)
    shutil.rmtree(house.path_of(".spare"))
    backup.rename(house.path_of(".spare"))
    upstream.commit({"n": "last"})
    assert house.sync().result == "deployed"
    found = listing(house.tree / "current")
    assert found == exported(upstream, upstream.tip(), tmp_path / "git")


# ---- what hooks leave in a tree -------------------------------------------------------------------


def recycled(house: House, upstream: Upstream, to: Path) -> None:
    """After a few releases without the hooks, each is what git's own checkout is."""
    house.releases(keep=1)
    for n in range(3):
        upstream.commit({"n": f"without hooks {n}"})
        assert house.sync().result == "deployed"
        house.settle()
        assert "brought forward" in (house.newest().steps[0].result or "")
        found = listing(house.tree / "current")
        assert found == exported(upstream, upstream.tip(), to / f"git-{n}")


@pytest.mark.parametrize(
    "leave",
    [
        "git init -q . && git init -q sub && git init -q new",
        "echo 'gitdir: /root' > sub/.git",
        "mkdir -p module/deep && touch module/file module/deep/file && git init -q module/repo",
        "printf '* text eol=crlf\\n' | tee .gitattributes > sub/.gitattributes; rm text.txt sub/text.txt",
        "rm -r sub && ln -s /etc sub && rm -r module && ln -s /etc module",
        "chmod -R a+x . && touch text.txt && echo more >> n && rm sub/text.txt",
        "mkfifo pipe && ln -s /nowhere link && mkdir -p -m 500 a/b && touch ./-x \"$(printf 'new\\nline')\"",
    ],
)
def test_nothing_that_a_hook_left_is_in_a_later_release(
    house: House, upstream: Upstream, tmp_path: Path, leave: str
) -> None:
    house.releases(house.hook(leave, Stage.BUILD), keep=1)
    upstream.commit({"text.txt": "1\n2\n", "sub/text.txt": "1\n2\n"})
    upstream.point_submodule("module", "1" * 40)
    cycle(house, upstream, 2)
    recycled(house, upstream, tmp_path)


def test_a_submodule_that_a_hook_filled_and_that_is_gone_is_gone(
    house: House, upstream: Upstream, tmp_path: Path
) -> None:
    fill = "test ! -d module || touch module/left"
    house.releases(house.hook(fill, Stage.BUILD), keep=1)
    upstream.commit({"f": "1"})
    upstream.point_submodule("module", "1" * 40)
    cycle(house, upstream, 2)
    upstream.take_away("module")
    recycled(house, upstream, tmp_path)


def test_what_cannot_be_removed_keeps_no_release_from_going_out(
    house: House, upstream: Upstream, tmp_path: Path
) -> None:
    """As a folder of mode 0700 that a hook has made as another user than the agent's."""
    house.releases(house.hook("mkdir kept && touch kept/x && chattr +i kept", Stage.BUILD), keep=1)
    upstream.commit({"f": "1"})
    try:
        if house.sync().result != "deployed":
            pytest.skip("files cannot be made immutable here")
        for n in range(4):
            upstream.commit({"f": f"{n}"})
            assert house.sync().result == "deployed"
            house.settle()
        house.releases(keep=1)
        upstream.commit({"f": "last"})
        assert house.sync().result == "deployed"
        found = listing(house.tree / "current")
        assert found == exported(upstream, upstream.tip(), tmp_path / "git")
    finally:
        subprocess.run(["chattr", "-R", "-i", house.tree], capture_output=True, check=False)


def test_attributes_of_the_host_have_no_say(
    house: House, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "git").mkdir()
    (tmp_path / "git" / "attributes").write_text("* text eol=crlf\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    house.releases()
    upstream.commit({"text.txt": "1\n2\n"})
    assert house.sync().result == "deployed"
    assert (house.tree / "current" / "text.txt").read_bytes() == b"1\n2\n"


# ---- what may stay of it --------------------------------------------------------------------------


def test_the_tree_that_fell_out_is_brought_forward(house: House, upstream: Upstream) -> None:
    house.releases(house.hook("mkdir -p .venv; echo junk > .venv/junk; echo > dist", Stage.BUILD),
                   keep=2)  # fmt: skip
    cycle(house, upstream, 2)
    spare = (house.tree / "releases" / ".spare").stat().st_ino
    b = upstream.commit({"n": "new"})
    house.sync()
    assert house.newest().steps[0].result
    assert "brought forward" in house.newest().steps[0].result
    assert (house.tree / "releases" / b).stat().st_ino == spare


def test_what_hooks_left_is_cleaned_unless_it_is_named(house: House, upstream: Upstream) -> None:
    seen = house.root / "seen"
    house.releases(
        house.hook(f"ls -A > {seen}; mkdir -p deps; touch deps/x junk tracked; echo x > n", Stage.BUILD),
        keep=1, reuse=("deps",),
    )  # fmt: skip
    upstream.commit({"tracked": "t"})
    cycle(house, upstream, 2)
    house.sync(Reason.MANUAL, force=True)
    assert seen.read_text().split() == ["deps", "n", "tracked"]


def test_a_link_is_not_kept_for_reuse(house: House, upstream: Upstream, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("p")
    house.releases(house.hook(f"ln -sfn {outside} deps", Stage.BUILD), keep=1, reuse=("deps",))
    cycle(house, upstream, 2)
    upstream.commit({"deps/mine": "new"})
    house.releases(keep=1, reuse=("deps",))
    assert house.sync().result == "deployed"
    assert (house.tree / "current" / "deps" / "mine").read_text() == "new"
    assert [one.name for one in outside.iterdir()] == ["precious"]


@pytest.mark.parametrize("reuse", ["web", "web/deps", "web/deps/"])
@pytest.mark.parametrize("link", [False, True])
def test_what_is_reused_gives_way_to_what_the_revision_has_there(
    house: House, upstream: Upstream, tmp_path: Path, reuse: str, link: bool
) -> None:
    outside = tmp_path / "outside"
    (outside / "deps").mkdir(parents=True)
    (outside / "deps" / "precious").touch()
    build = house.hook("test ! -d web || mkdir -p web/deps && touch web/deps/x", Stage.BUILD)
    house.releases(build, keep=1, reuse=(reuse,))
    upstream.commit({"web/a": "1"})
    cycle(house, upstream, 2)
    if link:
        upstream.commit({"web/a": None}, symlinks={"web": str(outside)})
    else:
        upstream.commit({"web/a": None, "web": "now a file"})
    house.releases(keep=1, reuse=(reuse,))
    for n in range(3):
        assert house.sync().result == "deployed"
        house.settle()
        found = listing(house.tree / "current")
        assert found == exported(upstream, upstream.tip(), tmp_path / f"git-{n}")
        upstream.commit({"n": f"{n}"})
    upstream.commit({"web/deps/a": "a folder again"})
    assert house.sync().result == "deployed"
    assert sorted(one.name for one in outside.rglob("*")) == ["deps", "precious"]


def test_links_to_what_is_shared_are_not_followed_where_a_tree_is_made_anew(
    house: House, upstream: Upstream
) -> None:
    """As after a death over a tree that had them already."""
    house.releases(shared=("uploads",))
    upstream.commit({"uploads/.keep": "", "uploads/b": "b"})
    house.sync()
    (house.tree / "shared" / "uploads" / "precious").write_text("p")
    b = upstream.commit({"uploads/b": None, "uploads/c": "c"})
    house.sync()
    c = upstream.commit({"uploads/c": None, "uploads/.keep": None})
    shutil.copytree(house.path_of(b), house.path_of(c), symlinks=True)
    known = house.state_dir / "trees" / "shop"
    (known / c).mkdir()
    shutil.copy(known / b / "index", known / c / "index")
    assert house.sync().result == "deployed"
    shared = house.tree / "shared" / "uploads"
    assert {one.name for one in shared.iterdir()} == {".keep", "b", "precious"}
    assert (house.tree / "current" / "uploads").resolve() == shared.resolve()
