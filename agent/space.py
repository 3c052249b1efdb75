"""Whether there is room for a tree to move, asked before anything of it has moved.

git replaces one file after another; where the room ends midway it leaves neither revision. Only
`inplace` has to ask, for a release is not live while it is written.
"""

import os
from pathlib import Path

from agent import difference, repository
from agent.difference import Change
from agent.errors import AgentError
from agent.model import Revision

_PLENTY = 1 << 30
"""Bytes free with which nobody counts what a move needs."""
_NO_FILE = (b"000000", b"160000")


def check(tree: Path, old: Revision, new: Revision) -> None:
    """AgentError where a move of the clone at `tree` from `old` to `new` would fill its disk."""
    free = _free(tree)
    if free >= _PLENTY:
        return
    git_dir = tree / ".git"
    written = [one for one in difference.between(git_dir, old, new) if one.after not in _NO_FILE]
    needed = _grown(tree, written, _sizes(git_dir, written)) + (git_dir / "index").stat().st_size
    if needed > free:
        raise AgentError(
            f"no room: {new[:12]} takes {needed / 1e6:.2f} MB more in {tree}, and"
            f" {free / 1e6:.2f} MB are free; make room, and it is tried again by itself"
        )


def _free(tree: Path) -> int:
    found = os.statvfs(tree)
    # The last blocks are kept for root.
    return found.f_frsize * (found.f_bavail if os.geteuid() else found.f_bfree)


def _sizes(git_dir: Path, written: list[Change]) -> list[int]:
    """The size of the new content of each, in bytes."""
    ids = b"".join(one.blob + b"\n" for one in written)
    told = repository.git(["cat-file", "--batch-check=%(objectsize)"], cwd=git_dir, stdin=ids)
    return [int(line) if line.isdigit() else 0 for line in told.splitlines()]


def _grown(tree: Path, written: list[Change], sizes: list[int]) -> int:
    """How many bytes more those take than what is in their places now, in whole blocks."""
    block = os.statvfs(tree).f_bsize
    return sum(
        max(0, -(-content // block) * block - _taken(tree / os.fsdecode(one.path)))
        for one, content in zip(written, sizes, strict=True)
    )


def _taken(path: Path) -> int:
    try:
        return path.lstat().st_blocks * 512
    except OSError:
        return 0
