"""git killed in the middle of whatever it does. `python -m tests.soak.git_kills 2000`

Each verb of git in turn has its gits killed, at a moment drawn over the time that it takes, in an
in-place tree, in releases and in their mirror. Prints one line: how many gits were killed, of which
verb, and how many repositories stayed stuck: in which two more syncs did not bring the branch's
end, byte for byte.
"""

import asyncio
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from agent import repository, worktree
from agent.cancel import Cancel
from agent.journal import Journal
from agent.model import Reason, Strategy, SyncRequest, Target
from agent.reconciler import Reconciler
from tests.remotes import Upstream

VERBS = (
    *("fetch", "checkout", "status", "diff", "diff-tree", "ls-tree", "for-each-ref", "cat-file"),
    *("gc", "init", "remote", "read-tree", "rev-parse", "clean", "fsck", "update-ref"),
)
# Stands before git on PATH. Whose verb is wanted is killed with all its children, unless it has
# ended by then; only one git can take the wish.
_GIT = """#!/bin/bash
for word in "$@"; do
    case $word in -c|-*|*=*) ;; *) verb=$word; break ;; esac
done
if [ -e {wish}/"$verb" ] && mv {wish}/"$verb" {wish}/taken.$$ 2>/dev/null; then
    read -r seconds < {wish}/taken.$$
    {git} "$@" &
    read -t "$seconds" -u 9 9<> {wish}/never
    if kill -0 $! 2>/dev/null; then
        echo "$verb" >> {wish}/killed
        kill -9 -$$
    fi
    rm {wish}/taken.$$
    wait $!
else
    exec {git} "$@"
fi
"""
_LONGEST = {"fetch": 0.04, "gc": 0.06, "checkout": 0.02}
_SYNCS = 3


@dataclass
class Figures:
    killed: Counter[str] = field(default_factory=Counter)
    stuck: int = 0

    def __str__(self) -> str:
        what = ", ".join(f"{count} × {verb}" for verb, count in self.killed.most_common())
        return f"{self.killed.total()} gits killed ({what}): {self.stuck} repositories stuck"


class Killer:
    """Has one git of a verb killed, as soon as one begins."""

    def __init__(self, root: Path, chance: random.Random) -> None:
        self._wish = root / "wish"
        self._wish.mkdir()
        os.mkfifo(self._wish / "never")
        self._chance = chance
        path = root / "bin" / "git"
        path.parent.mkdir()
        path.write_text(_GIT.format(wish=self._wish, git=shutil.which("git")))
        path.chmod(0o755)
        self.path = path.parent

    def want(self, verb: str) -> None:
        seconds = self._chance.random() * _LONGEST.get(verb, 0.006)
        beside = self._wish / "beside"
        beside.write_text(f"{seconds:.4f}\n")
        beside.rename(self._wish / verb)

    def killed(self, verb: str) -> bool:
        """Whether it was, since this was last asked; the wish is withdrawn."""
        with suppress(FileNotFoundError):
            (self._wish / verb).unlink()
        with suppress(FileNotFoundError):
            (self._wish / "killed").unlink()
            return True
        return False


class Site:
    """An upstream, and two targets that follow it: a tree in place, and releases."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._upstream = Upstream(root / "upstream")
        self._content: dict[str, str] = {}
        self._n = 0
        targets = [
            Target(
                one.value, self._upstream.url, "main", root / one.value, None, 60.0, strategy=one
            )
            for one in Strategy
        ]
        self.targets = {one.name: one for one in targets}
        self._journal, self._cancel = Journal(root / "state"), Cancel()
        self._runner = asyncio.Runner()
        self._reconciler = Reconciler(self._journal, root / "state", 1, self._cancel)
        self._reconciler.track(self.targets)

    def commit(self, chance: random.Random) -> None:
        """Change, add and remove some files."""
        self._n += 1
        names = [f"d{chance.randrange(5)}/{chance.randrange(8)}" for _ in range(12)]
        changes: dict[str, str | None] = {name: chance.randbytes(400).hex() for name in names}
        changes |= {name: None for name in names[:2] if name in self._content}
        self._upstream.commit({"n": str(self._n), **changes})
        for name, content in changes.items():
            if content is None:
                del self._content[name]
            else:
                self._content[name] = content

    def sync(self, name: str) -> str:
        request = SyncRequest(name, Reason.MANUAL, force=True)
        return self._runner.run(self._reconciler.sync(request, lambda: False)).result

    def meet(self, verb: str) -> None:
        """Whatever has the agent run a git of this verb, once more than a sync of a commit does."""
        if verb in ("init", "remote", "read-tree", "ls-tree"):
            shutil.rmtree(self.targets["in-place"].path, ignore_errors=True)
            for mirror in (self._root / "state" / "mirrors").iterdir():
                shutil.rmtree(mirror)
        if verb == "diff":
            (self.targets["in-place"].path / "n").write_text("by hand")
        if verb == "fsck":
            (self.targets["in-place"].path / ".git" / "index").write_bytes(b"")
        if verb == "rev-parse":
            (self.targets["in-place"].path / ".git" / "HEAD").write_text("ref: refs/heads/x\n")
        if verb == "gc":
            self._reconciler.tidy()
        if verb == "update-ref":
            self._upstream.delete_branch("main")
            self.sync("in-place")
            self._upstream.push()

    def recover(self) -> bool:
        """What a new start does; whether the branch's end is then live, in two syncs at most."""
        self._reconciler.repair()
        return all(any(self._comes_live(one) for _ in range(2)) for one in self.targets.values())

    def _comes_live(self, target: Target) -> bool:
        self.sync(target.name)
        live = target.path if target.strategy is Strategy.IN_PLACE else target.path / "current"
        files = [path for path in live.rglob("*") if path.is_file() and ".git" not in path.parts]
        found = {str(path.relative_to(live)): path.read_text() for path in files}
        return found == {"n": str(self._n), **self._content}

    def close(self) -> None:
        self._runner.run(self._reconciler.close())
        self._journal.close()
        self._cancel.close()
        self._runner.close()


def run(root: Path, kills: int, seed: int = 1) -> Figures:
    """So many kills, of each verb in turn; a verb of which none can be caught is passed over."""
    figures, chance = Figures(), random.Random(seed)
    killer = Killer(root, chance)
    before = os.environ["PATH"], repository.TIDY
    os.environ["PATH"] = f"{killer.path}:{before[0]}"
    # So that gc has something to do each time.
    repository.TIDY = worktree.TIDY = ("gc.auto=1", "gc.autoPackLimit=2", "gc.autoDetach=false")
    site = Site(root)
    try:
        while figures.killed.total() < kills:
            for verb in VERBS:
                if _kill_one(site, killer, verb, chance):
                    figures.killed[verb] += 1
                figures.stuck += not site.recover()
    finally:
        site.close()
        os.environ["PATH"], repository.TIDY = before
        worktree.TIDY = before[1]
    return figures


def _kill_one(site: Site, killer: Killer, verb: str, chance: random.Random) -> bool:
    """Sync until a git of this verb was killed, a few times at most; whether one was."""
    steps: list[Callable[[], object]] = [lambda: site.meet(verb)]
    steps += [lambda name=name: site.sync(name) for name in site.targets]  # type: ignore[misc]
    for _ in range(_SYNCS):
        site.commit(chance)
        killer.want(verb)
        for step in steps:
            step()
        if killer.killed(verb):
            return True
    return False


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    with tempfile.TemporaryDirectory(dir="/tmp") as root:
        figures = run(Path(root), kills)
    sys.stdout.write(f"{figures}\n")
    sys.exit(1 if figures.stuck else 0)


if __name__ == "__main__":
    main()
