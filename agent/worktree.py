"""A checked-out tree, as git sees and moves it. Never looks at a remote; `releases` calls it."""

import re
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from agent import repository
from agent.acl import keep_to_owner
from agent.cancel import Cancel
from agent.errors import GitFailed
from agent.model import REVISION, Revision
from agent.rebuild import Supplies, finish_swap, is_ours, rebuild
from agent.repository import (
    TIDY,
    check_revision,
    clear_leftovers,
    clear_locks,
    discard_damaged,
    is_damaged,
)

log = structlog.get_logger()

_LOCK_IS_DEAD = 600.0
_DAY = 86400.0

# How git writes a path that has one of these in it, in a list of one path a line (git-config(1),
# core.quotePath).
_TO_QUOTE = re.compile(r'[\x00-\x1f\x7f"\\]')
_QUOTED = {"\a": r"\a", "\b": r"\b", "\t": r"\t", "\n": r"\n", "\v": r"\v", "\f": r"\f",
           "\r": r"\r", '"': r"\"", "\\": r"\\"}  # fmt: skip


def quoted(path: str) -> str:
    """`path` as git writes it in a list."""
    if not _TO_QUOTE.search(path):
        return path
    within = _TO_QUOTE.sub(lambda one: _QUOTED.get(one[0], f"\\{ord(one[0]):03o}"), path)
    return f'"{within}"'


def _tracking(ref: str) -> str:
    """Where a clone keeps what origin's branch is at."""
    return ref.replace("refs/heads/", "refs/remotes/origin/", 1)


class WorkTree:
    """An ordinary clone at a path. Says what is in it and moves it; never looks at a remote."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._dir = path / ".git"
        self._supplies: Supplies | None = None
        self.rebuilt: Path | None = None
        """Where the damaged .git is kept, if it had to be made anew."""

    def mend_from(self, supplies: Supplies) -> None:
        """From now on a .git that turns out to be damaged is made anew, once, from `supplies`."""
        finish_swap(self.path)
        self._supplies = supplies
        head = self._detached()
        if head and len(head) != len(supplies.revision):
            because = GitFailed("the remote was made anew, with objects of other names")
            self.rebuilt = rebuild(self.path, supplies, because)

    def _run(
        self, arguments: Sequence[str], *, options: Sequence[str] = (), cancel: Cancel | None = None
    ) -> str:
        """git's output; where its repository is damaged, from one that is made anew."""
        try:
            return self._ask(arguments, options=options, cancel=cancel)
        except GitFailed as error:
            supplies, self._supplies = self._supplies, None
            if supplies is None or not is_damaged(self._dir, error):
                raise
            self.rebuilt = rebuild(self.path, supplies, error)
        return self._ask(arguments, options=options, cancel=cancel)

    def _ask(
        self, arguments: Sequence[str], *, options: Sequence[str] = (), cancel: Cancel | None = None
    ) -> str:
        where = [f"--git-dir={self._dir}", f"--work-tree={self.path}"]
        try:
            return repository.git(
                [*where, *arguments], cwd=self.path, options=options, cancel=cancel
            )
        except GitFailed as error:
            if error.killed:
                # It was ours, so what it left locked is ours to unlock.
                clear_locks(self._dir)
            raise

    def exists(self) -> bool:
        return is_ours(self._dir)

    def create(self, url: str, revision: Revision) -> None:
        """An empty clone for `revision`, in which a person finds the remote by its usual name."""
        self.path.mkdir(parents=True, exist_ok=True)
        git_dir = self.path / ".git"
        git_dir.mkdir(exist_ok=True)
        keep_to_owner(git_dir)
        algorithm = "--object-format=" + ("sha1" if len(revision) == 40 else "sha256")
        repository.git(
            ["init", "--quiet", "--template=", algorithm, "--", str(self.path)], cwd=self.path
        )
        self._run(["remote", "add", "--", "origin", url])

    def head(self) -> Revision | None:
        """The revision that is checked out; None in a clone without one, or where there is none."""
        detached = self._detached()
        if detached:
            return detached
        with suppress(GitFailed):
            return self._ask(["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]).strip() or None
        return None

    def follow(self, mirror: Path, ref: str, new: Revision, cancel: Cancel) -> bool:
        """Have `new` as origin's branch by what it has and the checked-out revision has not.

        One git packs that straight into this clone, where a fetch is five. False where that
        cannot be, as when the mirror does not know what is checked out; then `receive` does it.
        """
        old = self._detached()
        if old is None:
            return False
        to = self._dir / "objects" / "pack" / "pack"
        form = ["-q", "--revs", "--non-empty", "--delta-base-offset", str(to)]
        wanted = f"{check_revision(new)}\n^{old}\n".encode()
        try:
            if repository.git(["pack-objects", *form], cwd=mirror, stdin=wanted, cancel=cancel):
                self._ask(["update-ref", "--", _tracking(ref), new])
        except GitFailed:
            return False
        return True

    def _detached(self) -> Revision | None:
        """The revision that is checked out, if no branch of this clone is."""
        with suppress(OSError):
            text = (self._dir / "HEAD").read_text(errors="replace").strip()
            return text if REVISION.fullmatch(text) else None
        return None

    def is_published(self, ref: str, revision: Revision) -> bool:
        """Whether origin's branch is known to be just there, without a git (else: maybe)."""
        with suppress(OSError):
            return (self._dir / _tracking(ref)).read_text(errors="replace").strip() == revision
        return False

    def receive(self, mirror: Path, ref: str, revision: Revision, cancel: Cancel) -> None:
        """Take `revision` and its history over from our mirror, as origin's branch."""
        arguments = ["fetch", "--quiet", "--no-tags", "--force", "--no-write-fetch-head"]
        try:
            self._run(
                [*arguments, "--", str(mirror), f"+{check_revision(revision)}:{_tracking(ref)}"],
                options=["protocol.file.allow=always"],
                cancel=cancel,
            )
        except GitFailed as error:
            discard_damaged(mirror, error)
            raise

    def has(self, revision: Revision) -> bool:
        with suppress(GitFailed):
            self._ask(["cat-file", "-e", f"{check_revision(revision)}^{{commit}}"])
            return True
        return False

    def changed_by_hand(self) -> dict[str, str]:
        """Tracked paths that are not what is checked out, with git's two letters for how.

        A path that is not there any more, or that git was told to forget, has a D in them.
        """
        if not (self._dir / "index").exists():
            # Else every file would pass for forgotten, and none for changed.
            self._run(["read-tree", "HEAD"])
        arguments = ["status", "--porcelain", "-z", "--no-renames", "--untracked-files=no"]
        listed = self._run([*arguments, "--ignore-submodules=all"])
        return {entry[3:]: entry[:2] for entry in listed.split("\0") if entry}

    def save_patch(self, to: Path) -> None:
        """What was changed by hand, staged or not, as a patch against the checked-out revision."""
        form = ["--binary", "--full-index", "--no-ext-diff", "--no-textconv", "--no-renames"]
        self._run(["diff", *form, "--ignore-submodules=all", f"--output={to}", "HEAD", "--"])

    def changes(self, old: Revision | None, new: Revision) -> dict[str, str]:
        """The paths in which `old` and `new` differ, each with git's letter for how.

        Without `old`, every path of `new`: it is added.
        """
        if old is None:
            listed = self._run(["ls-tree", "-r", "-z", "--name-only", "--full-tree", new])
            return dict.fromkeys(filter(None, listed.split("\0")), "A")
        form = ["-r", "-z", "--name-status", "--no-renames"]
        listed = self._run(["diff-tree", *form, check_revision(old), check_revision(new)])
        words = iter(listed.split("\0"))
        return {next(words): letter for letter in words if letter}

    def unpublished(self) -> bool:
        """Whether the checked-out commit is on no branch, tag or remote branch of this clone."""
        refs = self._run(["for-each-ref", "--count=1", "--contains=HEAD", "--format=%(refname)"])
        return not refs.strip()

    def keep_commit(self, name: str) -> str:
        """Give the checked-out commit a branch of its own, so that it is never lost."""
        branch = f"saved/{name}"
        self._run(["branch", "--force", "--", branch, "HEAD"])
        return branch

    def move(self, revision: Revision, cancel: Cancel) -> None:
        """The same as `checkout` for a tree that `changed_by_hand` has just found clean.

        git then goes only through what differs, and not through every file once more.
        """
        if self._detached():
            try:
                self._ask(["reset", "--quiet", "--keep", check_revision(revision)], cancel=cancel)
            except GitFailed as error:
                if error.killed:
                    raise
            else:
                return
        self.checkout(revision, cancel)

    def checkout(self, revision: Revision, cancel: Cancel) -> None:
        """Make the tree exactly `revision`, whatever tracked files were; others stay."""
        self._end_old_lock()
        arguments = ["checkout", "--quiet", "--force", "--detach", "--no-recurse-submodules"]
        try:
            self._run([*arguments, check_revision(revision), "--"], cancel=cancel)
        except GitFailed as error:
            if "not uptodate" in error.detail:
                self._stop_assuming()
            raise

    def _stop_assuming(self) -> None:
        """Have git see changes that somebody told it to overlook (--assume-unchanged).

        The next attempt then finds them, saves them and goes on.
        """
        with suppress(GitFailed):
            self._run(["update-index", "-q", "--really-refresh"])

    def tidy(self) -> None:
        """The same as a person's own git does now and then."""
        if self.exists():
            # Somebody's own git may take its time.
            clear_leftovers(self._dir, _DAY)
            self._run(["gc", "--auto", "--quiet"], options=TIDY)

    def _end_old_lock(self) -> None:
        """A person's git holds the index for moments; a lock of long ago is a dead git's."""
        lock = self._dir / "index.lock"
        with suppress(FileNotFoundError, NotADirectoryError):
            if time.time() - lock.stat().st_mtime > _LOCK_IS_DEAD:
                lock.unlink()
                log.warning("tree.unlocked", path=str(self.path), lock=str(lock))

    def unlock(self) -> list[Path]:
        """Remove the locks that a killed git left. Only for who knows that no other git runs."""
        return clear_locks(self._dir)
