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
from agent.errors import GitFailed
from agent.model import Revision
from agent.repository import check_revision

_SPECIAL = str.maketrans({one: f"\\{one}" for one in "\\*?[]!# "})


class PlainTree:
    """The tree at `path`, checked out of `mirror`, with its index at `index`."""

    def __init__(self, mirror: Path, path: Path, index: Path) -> None:
        self.path = path
        self._mirror = mirror
        self._index = index

    def check_out(self, revision: Revision, reuse: Sequence[str], cancel: Cancel) -> None:
        """Make the tree exactly `revision`, whatever it was, and remove all else but `reuse`.

        The tree must have no link in place of a folder of `reuse`. GitFailed, Stopped.
        """
        with suppress(FileNotFoundError):
            self._index.with_name(f"{self._index.name}.lock").unlink()
        arguments = ["read-tree", "--reset", "-u", check_revision(revision)]
        try:
            self._git(arguments, cancel)
        except GitFailed as error:
            if error.killed or not self._index.exists():
                raise
            # It may be what a power cut left of it; without one git writes every file anew.
            self._index.unlink()
            self._git(arguments, cancel)
        keep = [f"--exclude=/{one.translate(_SPECIAL)}" for one in reuse]
        self._git(["clean", "-ffdxq", *keep], cancel)

    def bring_forward(self, old: Revision, new: Revision, cancel: Cancel) -> None:
        """From exactly `old` to exactly `new`, by the difference. NotWorthIt, before or midway."""
        try:
            changes = difference.between(self._mirror, old, new)
        except GitFailed as error:
            raise difference.NotWorthIt(str(error)) from error
        difference.apply(self._mirror, self.path, changes, cancel)

    def has_filters(self) -> bool:
        """Whether what was checked out last has attributes, under which content is filtered."""
        return bool(self._git(["ls-files", "--", ":(glob)**/.gitattributes"], None))

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
