"""Whom a target's folder lets in, as the kernel sees it: with real users, as root."""

import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import acl
from agent.acl import ALL, READ
from agent.errors import AgentError
from agent.model import Strategy
from agent.worktree import WorkTree

AGENT, USER, OTHER = "mail", "news", "games"

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can be several users")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A target's folder, as `gitops-agent install` makes it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as root:
        Path(root).chmod(0o755)
        one = Path(root, "shop")
        one.mkdir(0o755)
        os.chown(one, uid(AGENT), pwd.getpwnam(AGENT).pw_gid)
        yield one


def uid(user: str) -> int:
    return pwd.getpwnam(user).pw_uid


def install(folder: Path, strategy: Strategy, *, dry: bool = False) -> bool:
    releases = strategy is Strategy.RELEASES
    return acl.let_in(
        folder, {uid(USER): READ if releases else ALL}, {uid(USER): ALL, uid(AGENT): ALL},
        sticky=not releases, dry=dry,
    )  # fmt: skip


def can(user: str, script: str, folder: Path) -> bool:
    """Whether a shell script works there for a user, under the core's umask."""
    done = subprocess.run(
        ["sh", "-euc", f"umask 027; {script}"], cwd=folder, user=user, group=user, extra_groups=[],
        capture_output=True,
    )  # fmt: skip
    return done.returncode == 0


def test_hooks_write_in_the_tree_and_the_core_in_what_they_made(folder: Path) -> None:
    install(folder, Strategy.IN_PLACE)
    assert can(AGENT, "mkdir src; echo 1 > src/a; echo 1 > top", folder)
    assert can(USER, "echo 2 >> src/a; mkdir -p src/out; echo 1 > src/out/b; rm src/a", folder)
    assert can(AGENT, "echo 2 >> src/out/b; rm -r src/out", folder)
    assert can(USER, "echo 1 > mine", folder)
    assert can(AGENT, "rm mine", folder)


def test_nobody_else_gets_anything_more(folder: Path) -> None:
    install(folder, Strategy.IN_PLACE)
    assert can(AGENT, "mkdir src; echo 1 > src/a; echo 1 > top", folder)
    for script in ("cat top", "ls src", "echo 1 > other"):
        assert not can(OTHER, script, folder)


def test_a_hook_puts_no_git_in_the_place_of_the_core_s(folder: Path) -> None:
    install(folder, Strategy.IN_PLACE)
    assert can(AGENT, "mkdir .git; echo 1 > top", folder)
    os.chown(folder / ".git", uid(AGENT), -1)
    acl.keep_to_owner(folder / ".git")
    assert can(AGENT, "echo 1 > .git/config; mkdir .git/info", folder)
    for script in ("mv .git other", "mv top .git", "echo 1 >> .git/config", "echo 1 > .git/x",
                   "echo 1 > .git/info/attributes"):  # fmt: skip
        assert not can(USER, script, folder)


def test_a_git_that_was_there_first_is_not_believed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(folder, Strategy.IN_PLACE)
    assert can(USER, "mkdir .git", folder)
    with pytest.raises(AgentError, match="belongs to somebody else than the agent"):
        WorkTree(folder).exists()
    monkeypatch.setattr(os, "geteuid", lambda: uid(USER))
    assert WorkTree(folder).exists()


def test_a_hook_writes_in_a_release_and_switches_nothing(folder: Path) -> None:
    install(folder, Strategy.RELEASES)
    acl.make_folder(folder / "releases")
    os.chown(folder / "releases", uid(AGENT), -1)
    assert can(AGENT, "mkdir releases/a; ln -s a current", folder)
    assert can(USER, "echo 1 > releases/a/out; ls -l current", folder)
    for script in (
        "rm current",
        "ln -sfn b current",
        "mkdir releases/b",
        "mv releases/a releases/b",
    ):
        assert not can(USER, script, folder)


@pytest.mark.parametrize("strategy", list(Strategy))
def test_again_it_changes_nothing_and_what_others_set_stays(
    folder: Path, strategy: Strategy
) -> None:
    acl.let_in(folder, {uid(OTHER): READ}, {}, sticky=False)
    folder.chmod(0o750)
    before = folder.stat().st_mode
    assert install(folder, strategy, dry=True)
    assert folder.stat().st_mode == before
    assert install(folder, strategy)
    assert not install(folder, strategy)
    assert folder.stat().st_mode & 0o7 == 0
    assert can(OTHER, "ls", folder)
    assert can(USER, "ls", folder)
