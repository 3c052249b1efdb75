"""kill -9 again and again, under a stream of pushes. `python -m tests.soak.kill_loop 500 [apart]`

With `apart`, receiver and core are two processes, and the one, the other or both are killed.

Prints one line: kills, deliveries acknowledged, acknowledged and lost, hooks started twice in one
attempt, and whether the branch's end was live after the last start.
"""

import random
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.agents import SECRET, Agent
from tests.remotes import Upstream, delivery, git, push_payload

_SENDERS = 4
HOOK = """
echo "$DEPLOY_ID $DEPLOY_STAGE $DEPLOY_REASON $DEPLOY_ATTEMPT" >> {root}/started
read -t 0.0{pause} nothing < {root}/never || true
"""
HOOKS = "".join(
    f'[[targets.shop.hooks]]\nstage = "{stage}"\nrun = ["hook"]\n'
    for stage in ("build", "activate", "verify", "success")
)


@dataclass
class Figures:
    kills: int = 0
    acknowledged: int = 0
    lost: int = 0
    started_twice: int = 0
    tip_live: bool = False

    def __str__(self) -> str:
        live = "live" if self.tip_live else "NOT LIVE"
        return (
            f"{self.kills} kills: {self.acknowledged} deliveries acknowledged, {self.lost} lost,"
            f" {self.started_twice} hooks started twice, the branch's end {live}"
        )


class Sender:
    """Delivers signed pushes as fast as they are answered, and remembers what was acknowledged."""

    def __init__(self, agent: Agent, revision: str) -> None:
        self.acknowledged: list[str] = []
        self.revision = revision
        self._agent = agent
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(_SENDERS)]

    def __enter__(self) -> "Sender":
        for one in self._threads:
            one.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for one in self._threads:
            one.join()

    def _send(self) -> None:
        with httpx.Client(timeout=5) as http:
            while not self._done.is_set():
                payload = push_payload(self._agent.repo, self.revision)
                headers, body = delivery("push", payload, SECRET)
                url = f"{self._agent.url}/webhook/github"
                try:
                    answer = http.post(url, headers=headers, content=body)
                except httpx.TransportError:
                    self._done.wait(0.01)
                    continue
                if answer.status_code == 202:
                    self.acknowledged.append(headers["X-GitHub-Delivery"])


def run(root: Path, kills: int, seed: int = 1, *, apart: bool = False) -> Figures:
    """Kill an agent so often, at random moments; gives what came of it."""
    chance = random.Random(seed)
    figures = Figures()
    upstream = Upstream(root / "upstream")
    agent = Agent(root / "agent", upstream.url)
    agent.hook("hook", "#!/bin/bash" + HOOK.format(root=agent.root, pause=2))
    (agent.root / "never").touch()
    agent.configure(HOOKS, poll="1s")
    parts = [agent.part("receiver"), agent.part("core")] if apart else [agent]
    tip = upstream.commit({"n": "0"})
    with Sender(agent, tip) as sender:
        for n in range(kills):
            _start(parts)
            if n % 3 == 0:
                tip = sender.revision = upstream.commit({"n": str(n + 1)})
            time.sleep(chance.random())
            for one in chance.choice([parts, *([one] for one in parts)]):
                one.kill()
            figures.kills += 1
    _start(parts)
    figures.tip_live = _becomes_live(agent, tip)
    for one in reversed(parts):
        one.stop()
    figures.acknowledged = len(sender.acknowledged)
    figures.lost = len(set(sender.acknowledged) - _known(agent))
    started = Counter((agent.root / "started").read_text().splitlines())
    figures.started_twice = sum(1 for count in started.values() if count > 1)
    return figures


def _start(parts: list[Agent]) -> None:
    for one in parts:
        if not one.running:
            one.start()


def _becomes_live(agent: Agent, tip: str) -> bool:
    deadline = time.monotonic() + 30
    with agent.client() as client:
        while time.monotonic() < deadline:
            target = client.status()["targets"][0]
            settled = target["condition"] == "settled" and not target["syncing"]
            if target["live"] == tip and settled:
                return git("rev-parse", "HEAD", cwd=agent.tree) == tip
            time.sleep(0.05)
    return False


def _known(agent: Agent) -> set[str]:
    """The deliveries that became a sync request, or that the next start will read.

    One request stands for all letters that were read with it, as its delivery is the newest.
    """
    with closing(sqlite3.connect(agent.state_dir / "journal.db")) as journal:
        requested = {row[0] for row in journal.execute("SELECT delivery FROM requests")}
        ((read,),) = journal.execute("SELECT n FROM cursors")
    with closing(sqlite3.connect(agent.state_dir / "inbox.db")) as inbox:
        letters = list(inbox.execute("SELECT n, id FROM letters"))
    asked_up_to = max((n for n, delivery in letters if delivery in requested), default=0)
    return {delivery for n, delivery in letters if n <= asked_up_to or n > read}


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    with tempfile.TemporaryDirectory(dir="/tmp") as root:
        figures = run(Path(root), kills, apart="apart" in sys.argv)
    sys.stdout.write(f"{figures}\n")
    sys.exit(1 if figures.lost or figures.started_twice or not figures.tip_live else 0)


if __name__ == "__main__":
    main()
