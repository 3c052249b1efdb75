"""An agent with many targets, each on a remote of its own, all of them deployed already.

They are deployed by hand, so to speak: one of each thing is made by the agent's own rooms and then
copied, for a thousand first deployments take minutes.
"""

import shutil
import time
from pathlib import Path

from agent.cancel import Cancel
from agent.client import Client
from agent.journal import Journal
from agent.mirror import Mirror
from agent.model import Deployment, Reason, Source, SyncRequest
from agent.plan import Deploy, ending_well
from agent.worktree import WorkTree
from tests.agents import SECRET
from tests.bench.programs import free_port
from tests.remotes import Upstream

_HEAD = """\
state_dir = "{root}/state"
[server]
bind = "127.0.0.1:{port}"
[poll]
interval = "{poll}"
[webhooks.github]
secret = {{ file = "{root}/secret" }}
"""
_TARGET = """\
[targets.t{n}]
repo = "{url}"
path = "{root}/srv/t{n}"
"""


class Many:
    """`count` targets, polled at `poll`, on https remotes that are all the one repository."""

    def __init__(self, root: Path, count: int, *, poll: str = "3m") -> None:
        root.mkdir()
        self.root = root
        self.count = count
        self.poll = poll
        self.port = free_port()
        self.config = root / "agent.toml"
        self.state_dir = root / "state"
        self.remote = root / "git"
        self.upstream = Upstream(self.remote)
        self.revision = self.upstream.commit({f"f{n}": f"{n}\n" for n in range(20)})
        self._base = ""

    def url(self, n: int) -> str:
        return f"{self._base}/r{n}.git"

    def settle_all(self, base: str) -> None:
        """Write the configuration and the state in which every target is deployed."""
        self._base = base
        secret = self.root / "secret"
        secret.write_text(SECRET)
        secret.chmod(0o600)
        text = _HEAD.format(root=self.root, port=self.port, poll=self.poll)
        for n in range(self.count):
            text += _TARGET.format(n=n, url=self.url(n), root=self.root)
        self.config.write_text(text)
        self._copy_trees()
        journal = Journal(self.state_dir)
        for n in range(self.count):
            self._record(journal, f"t{n}")
        journal.close()

    def _copy_trees(self) -> None:
        cancel, branch = Cancel(), "refs/heads/main"
        first = Mirror(Source(self.upstream.url), self.root / "first")
        first.fetch([branch])
        tree = WorkTree(self.root / "tree")
        tree.create(self.upstream.url, self.revision)
        tree.receive(first.path, branch, self.revision, cancel)
        tree.checkout(self.revision, cancel)
        cancel.close()
        for n in range(self.count):
            mirror = Mirror(Source(self.url(n)), self.state_dir / "mirrors")
            shutil.copytree(first.path, mirror.path)
            shutil.copytree(tree.path, self.root / "srv" / f"t{n}")

    def _record(self, journal: Journal, name: str) -> None:
        now = time.time()
        one = Deployment(f"first-{name}", name, self.revision, None, Reason.START, "start", 1, now)
        journal.begin(one, SyncRequest(name, Reason.START), clears_holds=True)
        task = Deploy(self.revision, 1, "the branch is there")
        journal.conclude(one, ending_well(task, one), now)
        journal.end(one.id, now)

    def looked_at_all(self) -> None:
        """Wait until the look at each, after the start, has found that it is live."""
        with Client(self.state_dir / "control.sock") as client:
            while True:
                looks = [one["look"] for one in client.status()["targets"]]
                if all(looks):
                    assert {look["result"] for look in looks} == {"up-to-date"}, looks
                    return
                time.sleep(0.1)
