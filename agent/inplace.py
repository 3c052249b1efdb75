"""The in-place strategy: the target's path is one ordinary clone, moved by every deployment.

What somebody changed by hand is never lost and never blocks: before the tree moves it is saved
under the state folder, and named.
"""

import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import structlog

from agent import space
from agent.cancel import Cancel
from agent.disk import write_out
from agent.errors import GitFailed
from agent.model import Revision, Target
from agent.rebuild import Supplies
from agent.words import legible
from agent.worktree import WorkTree, quoted

_NAMED = 10
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Saved:
    """What was found changed by hand, and where it is kept."""

    paths: tuple[str, ...]
    folder: Path

    def __str__(self) -> str:
        named = ", ".join(map(legible, self.paths[:_NAMED]))
        more = len(self.paths) - _NAMED
        return f"{named}{f' and {more} more' if more > 0 else ''} (kept in {self.folder})"


class InPlace:
    """The tree of an in-place target. One deployment at a time uses it."""

    atomic = False
    """What is live changes with `prepare` already."""

    def __init__(self, target: Target, saved: Path, mirror: Path) -> None:
        self.tree = target.path
        self.moved = False
        """Whether what is live may be something else than before."""
        self._mirror = mirror
        self._target = target
        self._saved = saved
        self._work = WorkTree(target.path)
        self._known = False
        """Whether what was checked out came from origin."""
        self._changes: dict[tuple[Revision | None, Revision], dict[str, str]] = {}

    def head(self) -> Revision | None:
        """The revision found in the tree."""
        return self._work.head() if self._work.exists() else None

    def repair(self) -> None:
        """After a deployment that was killed: remove the locks its git left."""
        if self._work.exists():
            self._work.unlock()

    def tidy(self) -> None:
        """Have git pack what many deployments have left. Harmless while one runs."""
        self._work.tidy()

    def find_built(self, _revision: Revision) -> bool:
        """Never: the one tree has to be moved, and built again."""
        return False

    def prepare(self, revision: Revision, deployment: str, cancel: Cancel) -> str:
        """Make the tree `revision`; gives what was found changed by hand, and where it is kept."""
        was, before = self.moved, self.head()
        tracked = self.receive(revision, cancel)
        saved = self.save_changes(revision, deployment, tracked)
        if saved:
            log.warning("tree.changed_by_hand", target=self._target.name, saved=str(saved))
        if before:
            space.check(self.tree, before, revision)
        self.moved = True
        try:
            (self._work.checkout if saved else self._work.move)(revision, cancel)
        except (GitFailed, OSError):
            # The host's fault, such as a full disk or a lock: often nothing has moved yet.
            self.moved = was or not self.is_whole(before)
            raise
        found = [f"changed by hand and saved: {saved}"] if saved else []
        if self._work.rebuilt:
            found += [f"its .git was damaged and made anew, the old one is {self._work.rebuilt}"]
        return "; ".join(found)

    def take_up(self, _revision: Revision, _switched: bool, /) -> None:
        """As after `prepare`, which an agent that died has done."""
        self.moved = True

    def switch(self) -> None:
        """Nothing: it is live already."""

    def write_out(self) -> None:
        """Have the tree on its disk; git itself leaves its files to the system."""
        write_out(self.tree)

    def give_up(self) -> None:
        """Nothing is kept of a tree that did not do."""

    def take_down(self) -> None:
        """Nothing: the first tree stays as it is, to be looked at."""

    def prune(self, _cancel: Cancel) -> None:
        """Nothing: there is one tree."""

    def receive(self, revision: Revision, cancel: Cancel) -> dict[str, str]:
        """Have `revision` in the clone; what is live does not change yet.

        Gives what was changed by hand, which is looked for meanwhile.
        """
        self._work.mend_from(Supplies(self._target.repo, self._mirror, revision))
        if not self._work.exists():
            self._work.create(self._target.repo, revision)
        head, ref = self._work.head(), self._target.ref
        self._known = head is not None and self._work.is_published(ref, head)
        with ThreadPoolExecutor(1, "receive") as beside:
            following = beside.submit(self._work.follow, self._mirror, ref, revision, cancel)
            tracked = self._work.changed_by_hand() if head else {}
        if not following.result() and not self._work.has(revision):
            self._work.receive(self._mirror, ref, revision, cancel)
        if self._work.rebuilt:
            # Only now is there a git that can tell.
            self._known = False
            tracked = self._work.changed_by_hand() if self._work.head() else {}
        return tracked

    def save_changes(
        self, revision: Revision, name: str, tracked: Mapping[str, str]
    ) -> Saved | None:
        """Save what a move to `revision` would overwrite, as `name`; None if there is nothing."""
        folder, head = self._unused(name), self._work.head()
        changes = self._work.changes(head, revision)
        self._changes = {(head, revision): changes}
        changed = [*tracked]
        if head:
            self._save_tracked(folder, tracked)
            changed += self._save_commit(revision, name)
        # No patch has what lies where a file was taken away or forgotten.
        gone = [path for path, how in tracked.items() if "D" in how]
        added = [path for path, how in changes.items() if how == "A"]
        taken_away = {path for path, how in changes.items() if how == "D"} - tracked.keys()
        for path in self._in_the_way([*gone, *added]):
            if taken_away.issuperset(self._files_at(path)):
                continue
            _copy(self.tree / path, folder / "files" / path)
            changed.append(path)
        return Saved(tuple(dict.fromkeys(changed)), folder) if changed else None

    def _unused(self, name: str) -> Path:
        """Where nothing is saved yet: the way back of a deployment may find something, too."""
        folder = self._saved / self._target.name / name
        return folder.with_name(f"{name}-back") if folder.exists() else folder

    def _files_at(self, path: str) -> Iterator[str]:
        """What lies at `path`, and in it, where that is a folder: the paths in the tree."""
        left = [path]
        while left:
            one = left.pop()
            if stat.S_ISDIR(_mode(self.tree / one) or 0):
                left += (f"{one}/{inner.name}" for inner in (self.tree / one).iterdir())
            else:
                yield one

    def _save_tracked(self, folder: Path, tracked: Mapping[str, str]) -> None:
        if tracked:
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._work.save_patch(folder / "changes.patch")

    def _save_commit(self, revision: Revision, name: str) -> list[str]:
        """A commit made by hand in the tree gets a branch, if nothing else would remember it."""
        if self._known or self._work.head() == revision or not self._work.unpublished():
            return []
        return [f"a commit, now branch {self._work.keep_commit(name)}"]

    def _in_the_way(self, added: list[str]) -> Iterator[str]:
        """Untracked things where the new revision has a path that the old one has not."""
        seen: set[str] = set()
        for path in added:
            for blocking in self._blocking(path):
                if blocking not in seen:
                    seen.add(blocking)
                    yield blocking

    def _blocking(self, path: str) -> Iterator[str]:
        *folders, _ = (str(parent) for parent in reversed(PurePosixPath(path, "x").parents))
        for folder in folders[1:]:
            mode = _mode(self.tree / folder)
            if mode is None:
                return
            if not stat.S_ISDIR(mode):
                yield folder
                return
        if _mode(self.tree / path) is not None:
            yield path

    def is_whole(self, revision: Revision | None) -> bool:
        """Whether the tree is exactly `revision`, as after a move that failed before it began."""
        try:
            return self._work.head() == revision and not self._work.changed_by_hand()
        except GitFailed:
            return False

    def list_changed(self, old: Revision | None, new: Revision, to: Path) -> None:
        """Write the paths in which `old` and `new` differ to the file `to`, one a line."""
        changes = self._changes.get((old, new))
        if changes is None:
            known = old if old and self._work.has(old) else None
            changes = self._work.changes(known, new)
        to.write_bytes(os.fsencode("".join(f"{quoted(path)}\n" for path in changes)))


def _mode(path: Path) -> int | None:
    with suppress(FileNotFoundError, NotADirectoryError):
        return path.lstat().st_mode
    return None


def _copy(source: Path, to: Path) -> None:
    """Copy a file, a link as a link, or a whole folder; sockets and the like are passed over."""
    to.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    mode = source.lstat().st_mode
    if stat.S_ISDIR(mode):
        to.mkdir(mode=0o750, exist_ok=True)
        for inner in source.iterdir():
            _copy(inner, to / inner.name)
    elif stat.S_ISREG(mode) or stat.S_ISLNK(mode):
        shutil.copy2(source, to, follow_symlinks=False)
