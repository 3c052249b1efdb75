"""The difference between two revisions, and the work of applying just that to a tree.

git goes through its whole index for each checkout; ten changed files of fifty thousand need ten
writes. What is not worth doing here, or is git's own business (filters, a great many changes,
something unexpected in the way), is `NotWorthIt`, and git does it.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from agent import repository
from agent.cancel import Cancel
from agent.inside import Inside
from agent.model import Revision

MOST = 1000
_FILE, _PROGRAM, _LINK, SUBMODULE, _NOTHING = b"100644", b"100755", b"120000", b"160000", b"000000"
_MODES = {_FILE: 0o666, _PROGRAM: 0o777}


class NotWorthIt(Exception):
    """Have git check the whole tree out instead."""


class Spoilt(NotWorthIt):
    """Something odd was in the way, and the tree is neither revision now."""


@dataclass(frozen=True, slots=True)
class Change:
    """One path that differs, as `git diff-tree --raw` tells it (git-diff-tree(1))."""

    path: bytes
    before: bytes
    after: bytes
    blob: bytes


def parse(raw: bytes) -> list[Change]:
    """The changes in the output of `diff-tree -r -z --raw --no-abbrev --no-renames`, by path."""
    words = iter(raw.split(b"\0"))
    found = []
    for facts in words:
        if facts:
            before, after, _, blob, _ = facts.removeprefix(b":").split(b" ")
            found.append(Change(next(words), before, after, blob))
    return sorted(found, key=lambda one: one.path.split(b"/"))


def check(changes: Sequence[Change]) -> None:
    """NotWorthIt where git had better do it."""
    if len(changes) > MOST:
        raise NotWorthIt(f"{len(changes)} changes")
    for one in changes:
        if one.path.rpartition(b"/")[2] == b".gitattributes":
            raise NotWorthIt("filters change")


def apply(mirror: Path, tree: Path, changes: Sequence[Change], cancel: Cancel) -> None:
    """Bring `tree` over `changes`, their content from `mirror`. NotWorthIt, or Spoilt midway."""
    check(changes)
    wanted = [one for one in changes if one.after in (*_MODES, _LINK)]
    try:
        with Inside(tree) as inside, repository.blobs(mirror, _ids(wanted), cancel) as contents:
            for one in changes:
                if one.after == _NOTHING or _kind(one.before) != _kind(one.after):
                    _take_away(inside, one)
            for one, (size, content) in zip(wanted, contents, strict=True):
                _put(inside, one, size, content)
            for one in changes:
                if one.after == SUBMODULE:
                    inside.folder(one.path)
    except OSError as error:
        raise Spoilt(f"{error.strerror or error}") from error


def _ids(changes: Iterable[Change]) -> list[bytes]:
    return [one.blob for one in changes]


def _kind(mode: bytes) -> bytes:
    return _FILE if mode == _PROGRAM else mode


def _take_away(inside: Inside, one: Change) -> None:
    if one.before == SUBMODULE:
        # git leaves what is in a submodule's folder alone; here nobody ever filled it.
        mode = inside.mode(one.path)
        if mode is not None:
            inside.remove(one.path)
    elif one.before != _NOTHING:
        inside.remove(one.path)


def _put(inside: Inside, one: Change, size: int, content: IO[bytes]) -> None:
    if one.after == _LINK:
        inside.link(one.path, content.read(size))
    else:
        inside.write(one.path, _MODES[one.after], size, content)


def between(mirror: Path, old: Revision, new: Revision) -> list[Change]:
    """What differs between two revisions in `mirror`. GitFailed where one is not there."""
    form = ["-r", "-z", "--raw", "--no-abbrev", "--no-renames"]
    revisions = [repository.check_revision(old), repository.check_revision(new)]
    return parse(os.fsencode(repository.git(["diff-tree", *form, *revisions], cwd=mirror)))
