"""Trees on disk, as tests compare them with git's own."""

import shutil
from pathlib import Path

from tests.house import House
from tests.remotes import Upstream, git


def exported(upstream: Upstream, revision: str, to: Path) -> dict[str, tuple[int, bytes]]:
    """What git's own checkout makes of `revision`."""
    git("clone", "--quiet", "--no-checkout", upstream.url, str(to), cwd=upstream.path)
    git("checkout", "--quiet", "--detach", revision, cwd=to)
    shutil.rmtree(to / ".git")
    return listing(to)


def listing(tree: Path) -> dict[str, tuple[int, bytes]]:
    """Every path with its mode and content; a link's content is where it leads."""
    found = {}
    for path in sorted(tree.rglob("*")):
        name = str(path.relative_to(tree))
        mode = path.lstat().st_mode
        if path.is_symlink():
            found[name] = (mode, bytes(path.readlink()))
        elif path.is_dir():
            found[name] = (mode, b"")
        else:
            found[name] = (mode, path.read_bytes())
    return found


def cycle(house: House, upstream: Upstream, keep: int) -> None:
    """Deploy until a tree has fallen out of what is kept, and is the spare."""
    for n in range(keep + 1):
        upstream.commit({"n": f"{n}"})
        assert house.sync().result == "deployed"
        house.settle()
    assert ".spare" in house.names()
