"""git killed in the middle of a fetch or a checkout. `python -m tests.soak.git_kills 2000`

Prints one line: how many gits were killed, while doing what, and how many repositories stayed
stuck, in a clone or in a mirror.
"""

import asyncio
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from agent.cancel import Cancel
from agent.journal import Journal
from agent.model import Reason, SyncRequest, Target
from agent.reconciler import Reconciler
from tests.remotes import Upstream, git


@dataclass
class Figures:
    killed: Counter[str] = field(default_factory=Counter)
    stuck: int = 0

    def __str__(self) -> str:
        what = ", ".join(f"{count} × {verb}" for verb, count in self.killed.most_common())
        return f"{self.killed.total()} gits killed ({what}): {self.stuck} repositories stuck"


class Killer(threading.Thread):
    """SIGKILLs a git of this process soon after it has begun, until told to stop."""

    def __init__(self, chance: random.Random, killed: Counter[str]) -> None:
        super().__init__()
        self.done = threading.Event()
        self._chance = chance
        self._killed = killed

    def run(self) -> None:
        children = Path(f"/proc/self/task/{threading.main_thread().native_id}/children").parent
        while not self.done.is_set():
            for task in children.parent.iterdir():
                with suppress(OSError):
                    for pid in (task / "children").read_text().split():
                        self._kill(int(pid))
            time.sleep(0.0005)

    def _kill(self, pid: int) -> None:
        with suppress(OSError, StopIteration):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            names = (b"fetch", b"checkout", b"update-ref", b"init", b"for-each-ref", b"status")
            verb = next(word for word in words[1:] if word in names)
            time.sleep(self._chance.random() * 0.02)
            os.killpg(pid, signal.SIGKILL)
            self._killed[verb.decode()] += 1


def run(root: Path, kills: int, seed: int = 1) -> Figures:
    figures = Figures()
    upstream = Upstream(root / "upstream")
    target = Target("shop", upstream.url, "main", root / "srv", None, 60.0)
    journal, cancel = Journal(root / "state"), Cancel()
    runner = asyncio.Runner()
    reconciler = Reconciler(journal, root / "state", 1, cancel)
    reconciler.track({"shop": target})

    def sync() -> str:
        request = SyncRequest("shop", Reason.MANUAL, force=True)
        return runner.run(reconciler.sync(request, lambda: False)).result

    while figures.killed.total() < kills:
        killer = Killer(random.Random(seed + figures.killed.total()), figures.killed)
        tip = upstream.commit({f"{n}": os.urandom(200).hex() for n in range(30)})
        killer.start()
        for _ in range(5):
            sync()
        killer.done.set()
        killer.join()
        # What a restart of the agent does, as after a kill of it and its git together.
        reconciler.repair()
        if sync() != "deployed" or git("rev-parse", "HEAD", cwd=target.path) != tip:
            figures.stuck += 1
    reconciler.close()
    journal.close()
    cancel.close()
    runner.close()
    return figures


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    with tempfile.TemporaryDirectory(dir="/tmp") as root:
        figures = run(Path(root), kills)
    sys.stdout.write(f"{figures}\n")
    sys.exit(1 if figures.stuck else 0)


if __name__ == "__main__":
    main()
