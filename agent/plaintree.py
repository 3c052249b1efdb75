"""A revision as a tree of plain files, without a .git in it; git's index for it lies elsewhere.

The objects are the mirror's. What is in the tree is git's word, but for what the operator has
named to be kept.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from agent import difference, repository
from agent.cancel import Cancel
from agent.difference import SUBMODULE
from agent.errors import GitFailed
from agent.inside import Inside
from agent.model import Revision
from agent.repository import check_revision

_ATTRIBUTES = ":(glob)**/.gitattributes"


class PlainTree:
    """The tree at `path`, checked out of `mirror`, with its index at `index`."""

    def __init__(self, mirror: Path, path: Path, index: Path) -> None:
        self.path = path
        self._mirror = mirror
        self._index = index

    def check_out(
        self, revision: Revision, reuse: Sequence[str], cancel: Cancel, *, cleared: bool = False
    ) -> None:
        """Make the tree exactly `revision`, whatever it was, and remove all else but `reuse`.

        The tree must have no link in place of a folder of `reuse`. One that is known to be
        `cleared` has nothing in it but what git did. GitFailed, Stopped, OSError.
        """
        check_revision(revision)
        with suppress(FileNotFoundError):
            self._index.with_name(f"{self._index.name}.lock").unlink()
        if not self._is_of_use_for(revision):
            self._index.unlink(missing_ok=True)
            cleared = False
        # First: an untracked .gitattributes would have its say in what git writes.
        if not cleared:
            with Inside(self.path) as inside:
                inside.clear(self._tracked(), {os.fsencode(one) for one in reuse})
        self._git(["read-tree", "--reset", "-u", revision], cancel)

    def _is_of_use_for(self, revision: Revision) -> bool:
        """Whether git can go by the index; without one it writes every file anew.

        It may be what a power cut has left of it. And where attributes differ, a file that is the
        same may have to be written in another way, which git does not see.
        """
        form = ["--cached", "--name-only"]
        try:
            return not self._git(["diff-index", *form, revision, "--", _ATTRIBUTES], None)
        except GitFailed as error:
            if error.killed:
                raise
            return False

    def _tracked(self) -> dict[bytes, set[bytes]]:
        """The names in each folder of what was checked out; a submodule's folder has none."""
        names: dict[bytes, set[bytes]] = {b"": set()}
        for line in filter(None, self._listed("--stage").split(b"\0")):
            facts, _, path = line.partition(b"\t")
            if facts.startswith(SUBMODULE):
                names[path] = set()
            folder, _, name = path.rpartition(b"/")
            while folder not in names:
                names[folder] = {name}
                folder, _, name = folder.rpartition(b"/")
            names[folder].add(name)
        return names

    def _listed(self, *arguments: str) -> bytes:
        return os.fsencode(self._git(["ls-files", "-z", *arguments], None))

    def bring_forward(self, old: Revision, new: Revision, cancel: Cancel) -> None:
        """From exactly `old` to exactly `new`, by the difference. NotWorthIt, before or midway."""
        try:
            changes = difference.between(self._mirror, old, new)
        except GitFailed as error:
            raise difference.NotWorthIt(str(error)) from error
        difference.apply(self._mirror, self.path, changes, cancel)

    def has_filters(self) -> bool:
        """Whether what was checked out last has attributes, under which content is filtered."""
        return bool(self._listed("--", _ATTRIBUTES))

    def _git(self, arguments: Sequence[str], cancel: Cancel | None) -> str:
        where = [f"--git-dir={self._mirror}", f"--work-tree={self.path}"]
        return repository.git(
            [*where, *arguments],
            cwd=self.path,
            environment={"GIT_INDEX_FILE": os.fspath(self._index)},
            cancel=cancel,
        )


def list_changed(mirror: Path, old: Revision | None, new: Revision, to: Path) -> None:
    """Write the paths in which `old` and `new` differ to the file `to`, one a line.

    Every path of `new` where the mirror has no `old` any more.
    """
    form = ["-r", "--name-only", "--full-tree"]
    listed = None
    if old:
        with suppress(GitFailed):
            listed = repository.git(
                ["diff-tree", "-r", "--name-only", "--no-renames", old, check_revision(new)],
                cwd=mirror,
            )
    if listed is None:
        listed = repository.git(["ls-tree", *form, check_revision(new)], cwd=mirror)
    to.write_bytes(os.fsencode(listed))
