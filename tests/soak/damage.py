"""Files of a tree's .git and of its mirror damaged at random. `python -m tests.soak.damage 500`

Prints one line: how many repositories were damaged, how many of those had to be made anew, and how
many stayed stuck or lost what somebody had changed by hand.
"""

import asyncio
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.cancel import Cancel
from agent.journal import Journal
from agent.model import Reason, SyncRequest, Target
from agent.reconciler import Reconciler
from tests.remotes import Upstream, git

_ATTEMPTS = 4


@dataclass
class Figures:
    damaged: int = 0
    rebuilt: int = 0
    stuck: int = 0
    lost: int = 0

    def __str__(self) -> str:
        return (
            f"{self.damaged} repositories damaged, {self.rebuilt} trees made anew:"
            f" {self.stuck} stuck, {self.lost} changes by hand lost"
        )


class Vandal:
    """Damages files as broken disks and careless people do."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._ways: tuple[Callable[[Path], None], ...] = (
            lambda path: os.truncate(path, 0),
            lambda path: os.truncate(path, chance.randrange(path.stat().st_size + 1)),
            lambda path: path.write_bytes(b"\0" * path.stat().st_size),
            lambda path: path.write_bytes(chance.randbytes(40)),
            self._flip,
            Path.unlink,
        )

    def damage(self, git_dir: Path) -> None:
        files = [path for path in sorted(git_dir.rglob("*")) if path.is_file()]
        for path in self._chance.sample(files, self._chance.randint(1, 4)):
            path.chmod(0o600)
            self._chance.choice(self._ways)(path)

    def _flip(self, path: Path) -> None:
        content = bytearray(path.read_bytes())
        if content:
            content[self._chance.randrange(len(content))] ^= 1 << self._chance.randrange(8)
        path.write_bytes(content)


def run(root: Path, times: int, seed: int = 1) -> Figures:
    """Damage a tree or its mirror so often, each time before a push; gives what came of it."""
    figures, chance = Figures(), random.Random(seed)
    vandal = Vandal(chance)
    upstream = Upstream(root / "upstream")
    target = Target("shop", upstream.url, "main", root / "srv", None, 60.0)
    journal, cancel, runner = Journal(root / "state"), Cancel(), asyncio.Runner()
    reconciler = Reconciler(journal, root / "state", 1, cancel)
    reconciler.track({"shop": target})

    def sync() -> str:
        request = SyncRequest("shop", Reason.MANUAL, force=True)
        return runner.run(reconciler.sync(request, lambda: False)).result

    upstream.commit({f"{n}": os.urandom(300).hex() for n in range(20)})
    sync()
    for n in range(times):
        by_hand = f"by hand {n}"
        (target.path / "0").write_text(by_hand)
        (mirror,) = (root / "state" / "mirrors").iterdir()
        vandal.damage(chance.choice((target.path / ".git", target.path / ".git", mirror)))
        tip = upstream.commit({f"{chance.randrange(20)}": os.urandom(300).hex() for _ in range(5)})
        figures.damaged += 1
        live = _comes_live(target, tip, sync)
        figures.lost += not _was_saved(root / "state" / "saved", by_hand)
        figures.rebuilt += len(list((target.path / ".git").glob("damaged-*")))
        shutil.rmtree(target.path)
        # Whatever is still broken in the mirror is met now.
        live_again = _comes_live(target, tip, sync)
        figures.stuck += not (live and live_again)
        if not live_again:
            break
        _live_in(target.path)
        shutil.rmtree(root / "state" / "saved", ignore_errors=True)
    runner.run(reconciler.close())
    journal.close()
    cancel.close()
    runner.close()
    return figures


def _comes_live(target: Target, tip: str, sync: Callable[[], str]) -> bool:
    for _ in range(_ATTEMPTS):
        if sync() == "deployed" and git("rev-parse", "HEAD", cwd=target.path) == tip:
            return True
    return False


def _was_saved(folder: Path, text: str) -> bool:
    return any(text.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def _live_in(tree: Path) -> None:
    """A few loose objects and refs of somebody's own, to be damaged too."""
    git("branch", "--force", "mine", cwd=tree)
    (tree / "1").write_text(os.urandom(20).hex())
    git("commit", "--all", "--quiet", "--message", "mine", cwd=tree)
    git("branch", "--force", "mine-too", cwd=tree)
    git("checkout", "--quiet", "--detach", "mine", cwd=tree)
    git("pack-refs", "--all", cwd=tree)


def main() -> None:
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    with tempfile.TemporaryDirectory(dir="/tmp") as root:
        figures = run(Path(root), times)
    sys.stdout.write(f"{figures}\n")
    sys.exit(1 if figures.stuck or figures.lost else 0)


if __name__ == "__main__":
    main()
