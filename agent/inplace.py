"""The in-place strategy: the target's path is one ordinary clone, moved by every deployment.

What somebody changed by hand is never lost and never blocks: before the tree moves it is saved
under the state folder, and named.
"""

import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import structlog

from agent.cancel import Cancel
from agent.errors import GitFailed
from agent.model import Revision, Target
from agent.rebuild import Supplies
from agent.worktree import WorkTree

_NAMED = 10
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Saved:
    """What was found changed by hand, and where it is kept."""

    paths: tuple[str, ...]
    folder: Path

    def __str__(self) -> str:
        named = ", ".join(self.paths[:_NAMED])
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
        self.receive(revision, cancel)
        saved = self.save_changes(revision, deployment)
        if saved:
            log.warning("tree.changed_by_hand", target=self._target.name, saved=str(saved))
        self.moved = True
        try:
            self.move(revision, cancel)
        except (GitFailed, OSError):
            # The host's fault, such as a full disk or a lock: often nothing has moved yet.
            self.moved = was or not self.is_whole(before)
            raise
        found = [f"changed by hand and saved: {saved}"] if saved else []
        if self._work.rebuilt:
            found += [f"its .git was damaged and made anew, the old one is {self._work.rebuilt}"]
        return "; ".join(found)

    def switch(self) -> None:
        """Nothing: it is live already."""

    def give_up(self) -> None:
        """Nothing is kept of a tree that did not do."""

    def take_down(self) -> None:
        """Nothing: the first tree stays as it is, to be looked at."""

    def prune(self, _cancel: Cancel) -> None:
        """Nothing: there is one tree."""

    def receive(self, revision: Revision, cancel: Cancel) -> None:
        """Have `revision` in the clone; what is live does not change yet."""
        self._work.mend_from(Supplies(self._target.repo, self._mirror, revision))
        if not self._work.exists():
            self._work.create(self._target.repo, revision)
        if not self._work.has(revision):
            self._work.receive(self._mirror, self._target.ref, revision, cancel)

    def save_changes(self, revision: Revision, name: str) -> Saved | None:
        """Save what a move to `revision` would overwrite, as `name`; None if there is nothing."""
        folder = self._saved / self._target.name / name
        head = self._work.head()
        changed: list[str] = []
        gone: list[str] = []
        if head:
            tracked = self._save_tracked(folder)
            # No patch has what lies where a file was taken away or forgotten.
            gone = [path for path, how in tracked.items() if "D" in how]
            changed = [*tracked, *self._save_commit(revision, name)]
        for path in self._in_the_way([*gone, *self._work.added(head, revision)]):
            _copy(self.tree / path, folder / "files" / path)
            changed.append(path)
        return Saved(tuple(dict.fromkeys(changed)), folder) if changed else None

    def _save_tracked(self, folder: Path) -> dict[str, str]:
        changed = self._work.changed_by_hand()
        if changed:
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._work.save_patch(folder / "changes.patch")
        return changed

    def _save_commit(self, revision: Revision, name: str) -> list[str]:
        """A commit made by hand in the tree gets a branch, if nothing else would remember it."""
        if self._work.head() == revision or not self._work.unpublished():
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

    def move(self, revision: Revision, cancel: Cancel) -> None:
        """Make the tree `revision`. What is not tracked, and not in the way, stays."""
        self._work.checkout(revision, cancel)

    def is_whole(self, revision: Revision | None) -> bool:
        """Whether the tree is exactly `revision`, as after a move that failed before it began."""
        try:
            return self._work.head() == revision and not self._work.changed_by_hand()
        except GitFailed:
            return False

    def list_changed(self, old: Revision | None, new: Revision, to: Path) -> None:
        """Write the paths in which `old` and `new` differ to the file `to`, one a line."""
        known = old if old and self._work.has(old) else None
        self._work.list_changed(known, new, to)


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
