"""Power cuts in the middle of deployments. `python -m tests.soak.power_cut_deploy 100`, as root

State and tree of a whole agent are on a disk of their own, first in place and then with releases.
Every push is cut off at a step drawn from all, or a moment later; then the disk is mounted again
and the agent started, and nobody does anything else. Prints a line for each strategy: cuts, where
they were, and how many trees did not end whole at the branch's end.
"""

import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent.model import Strategy
from tests.agents import PATIENCE, Agent
from tests.remotes import Upstream
from tests.soak.power_cut import Disk

_POINTS = (
    ("deployment.started", {}),
    ("step.started", {"stage": "tree"}),
    ("step.started", {"stage": "build"}),
    ("step.started", {"stage": "activate"}),
    ("deployment.finished", {}),
)
_FILES = 40


@dataclass
class Figures:
    cuts: Counter[str] = field(default_factory=Counter)
    not_whole: int = 0

    def __str__(self) -> str:
        points = ", ".join(f"{count} × {point}" for point, count in self.cuts.most_common())
        return f"{self.cuts.total()} power cuts ({points}): {self.not_whole} trees not whole"


class Shop:
    """An agent on a disk, and what should be live there."""

    def __init__(self, root: Path, disk: Disk, strategy: Strategy) -> None:
        self._upstream = Upstream(root / "upstream")
        self.agent = one = Agent(root / "agent", self._upstream.url)
        one.state_dir, one.tree = disk.folder / "state", disk.folder / "shop"
        one.hook("use", "cat d*/* > /dev/null")
        stages = ("build", "activate")
        hooks = [f'[[targets.shop.hooks]]\nstage = "{one}"\nrun = ["use"]\n' for one in stages]
        one.configure("".join(hooks), target=f'strategy = "{strategy}"')
        self._live = one.tree / "current" if strategy is Strategy.RELEASES else one.tree
        self._files: dict[str, bytes] = {}
        self._tip = ""

    def push(self, chance: random.Random) -> str:
        """Change some files at the remote, and tell of it; gives the revision."""
        many = _FILES if not self._files else chance.randint(1, _FILES)
        names = chance.sample(range(_FILES), many)
        new = {f"d{n % 3}/{n}": os.urandom(chance.randint(0, 60_000)) for n in names}
        self._files |= new
        self._tip = self._upstream.commit(new)
        return self._tip

    @contextmanager
    def running(self) -> Iterator[None]:
        self.agent.start()
        try:
            yield
        finally:
            self.agent.kill()

    def settled(self) -> bool:
        """Wait until the agent leaves the target be; whether that is at the branch's end."""
        deadline = time.monotonic() + PATIENCE
        with self.agent.client() as client:
            while time.monotonic() < deadline:
                (one,) = client.status()["targets"]
                if one["live"] == self._tip and not one["syncing"]:
                    return True
                time.sleep(0.05)
        return False

    def whole(self) -> bool:
        """Whether what is live is what was pushed, byte for byte."""
        return all(_content(self._live / name) == text for name, text in self._files.items())


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def run(root: Path, cuts: int, strategy: Strategy, seed: int = 1) -> Figures:
    """Errors: NoMount where there is no right or no way to mount."""
    chance, figures = random.Random(seed), Figures()
    disk = Disk(root, 128)
    shop = Shop(root, disk, strategy)
    shop.push(chance)
    with disk.mounted(), shop.running():
        assert shop.settled()
    for _ in range(cuts):
        with disk.mounted(), shop.running():
            figures.cuts[_cut_while_deploying(shop, disk, chance)] += 1
        with disk.mounted(), shop.running():
            figures.not_whole += not (shop.settled() and shop.whole())
    return figures


def _cut_while_deploying(shop: Shop, disk: Disk, chance: random.Random) -> str:
    """Push, and cut the power at some point of what follows; gives that point's name."""
    event, fields = chance.choice(_POINTS)
    revision = shop.push(chance)
    shop.agent.push(revision)
    shop.agent.wait_for_log(event, **fields)
    time.sleep(chance.choice((0, chance.random() * 0.05)))
    disk.cut()
    return " ".join((event, *fields.values()))


def main() -> None:
    cuts = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    bad = 0
    for strategy in Strategy:
        with tempfile.TemporaryDirectory(dir="/tmp") as root:
            figures = run(Path(root), cuts // len(Strategy), strategy)
        sys.stdout.write(f"{strategy}: {figures}\n")
        bad += figures.not_whole
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
