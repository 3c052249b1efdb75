"""A tree's submodules, of which the agent fetches none: those whose folders have stayed empty."""

import re
from contextlib import suppress
from pathlib import Path, PurePosixPath

NOT_FETCHED = (
    "submodules are not fetched, and stay empty; a build hook can (deploy_hooks/README.md)"
)

_MOST = 1 << 20
_PATH = re.compile(r"^\s*path\s*=\s*(.+?)\s*$", re.MULTILINE)


def empty(tree: Path) -> tuple[str, ...]:
    """Their paths, by the `.gitmodules` in `tree` (gitmodules(5))."""
    listed, text = tree / ".gitmodules", ""
    # A link could lead anywhere; git does not follow it either.
    with suppress(OSError):
        if listed.is_file() and not listed.is_symlink():
            with listed.open(errors="replace") as file:
                text = file.read(_MOST)
    return tuple(path for path in _PATH.findall(text) if _is_empty(tree, path))


def _is_empty(tree: Path, path: str) -> bool:
    if ".." in PurePosixPath(path).parts:
        return False
    with suppress(OSError):
        return not any((tree / path.lstrip("/")).iterdir())
    return False
