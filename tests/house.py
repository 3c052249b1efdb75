"""A reconciler with a folder, an upstream and hooks of its own, for tests of whole syncs."""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.attempt import Synced
from agent.cancel import Cancel
from agent.journal import Journal
from agent.model import (
    Deployment,
    Difference,
    Hook,
    Reason,
    Stage,
    Strategy,
    SyncRequest,
    Target,
    TargetState,
)
from agent.reconciler import Reconciler
from tests.remotes import Upstream, git

# Isolated and without site, for it starts thousands of times.
RECORD = f"""#!{sys.executable} -IS
import json, os, sys
facts = {{key: value for key, value in os.environ.items() if key.startswith("DEPLOY_")}}
facts["files"] = sorted(name for name in os.listdir() if name != ".git")
facts["changed"] = open(os.environ["DEPLOY_CHANGED_FILES"]).read().splitlines()
with open(sys.argv[1], "a") as file:
    file.write(json.dumps(facts) + "\\n")
"""

FAIL_IF_BAD = 'test ! -e bad || { echo "this revision is bad"; exit 3; }'
"""A gate for revisions with a file of that name."""


class Died(BaseException):
    """The process is gone, as by kill -9."""


class House:
    """A reconciler in a folder of its own, with one upstream."""

    def __init__(self, root: Path, upstream: Upstream) -> None:
        self.root = root
        self.upstream = upstream
        self.tree = root / "srv" / "shop"
        self.hooks_dir = root / "deploy_hooks"
        self.hooks_dir.mkdir()
        self.state_dir = root / "state"
        self.cancel = Cancel()
        self.runner = asyncio.Runner()
        self.time = 1_000_000.0
        self.targets: dict[str, Target] = {}
        self.start()

    def start(self) -> None:
        self.journal = Journal(self.state_dir)
        self.reconciler = Reconciler(
            self.journal, self.state_dir, 2, self.cancel, lambda: self.time
        )
        self.reconciler.track(self.targets)

    def stop(self) -> None:
        self.runner.run(self.reconciler.close())
        self.journal.close()

    def restart(self) -> None:
        """Another agent on the same state, as after a crash."""
        self.stop()
        self.cancel.close()
        self.cancel = Cancel()
        self.start()
        self.reconciler.repair()

    def close(self) -> None:
        self.stop()
        self.cancel.close()
        self.runner.close()

    def hook(
        self, text: str, stage: Stage = Stage.ACTIVATE, name: str = "", timeout: float = 30.0
    ) -> Hook:
        path = self.hooks_dir / (name or f"hook-{len(list(self.hooks_dir.iterdir()))}")
        path.write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return Hook(path.name, stage, (str(path),), timeout)

    def recorder(self, stage: Stage) -> Hook:
        path = self.hooks_dir / "record"
        path.write_text(RECORD)
        path.chmod(0o755)
        return Hook("record", stage, (str(path), str(self.root / "record.jsonl")), 30.0)

    def recorded(self) -> list[dict[str, Any]]:
        path = self.root / "record.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def track(self, *hooks: Hook, **changes: Any) -> Target:
        target = Target(
            "shop", self.upstream.url, "main", self.tree, None, 60.0, hooks=tuple(hooks)
        )
        target = replace(target, **changes)
        self.targets[target.name] = target
        self.reconciler.track(self.targets)
        return target

    def sync(self, reason: Reason = Reason.PUSH, name: str = "shop", **changes: Any) -> Synced:
        request = SyncRequest(name, reason, **changes)
        self.time += 1

        async def work() -> Synced:
            await self.reconciler.take_up(name)
            return await self.reconciler.sync(request, lambda: False)

        return self.runner.run(work())

    def settle(self) -> None:
        """What follows a deployment when nobody waits: trees are pruned, one is made the spare."""
        self.runner.run(self.reconciler.prune("shop"))

    def releases(self, *hooks: Hook, **changes: Any) -> Target:
        """Track a target whose revisions are trees of their own."""
        return self.track(*hooks, strategy=Strategy.RELEASES, **changes)

    def live(self) -> str:
        """The release that the link names."""
        return str((self.tree / "current").readlink()).removeprefix("releases/")

    def path_of(self, name: str) -> Path:
        return self.tree / "releases" / name

    def names(self) -> set[str]:
        """The releases on disk, the spare among them."""
        return {one.name for one in (self.tree / "releases").iterdir()}

    def roll_back(self, to: str | None = None) -> Synced:
        """A person's rollback, as `steering` asks for it."""
        goal = self.journal.goal_of_rollback("shop", to).result().revision
        return self.sync(Reason.ROLLBACK, actor="ada", goal=goal)

    def compare(self) -> Difference:
        return self.runner.run(self.reconciler.compare("shop"))

    def state(self, name: str = "shop") -> TargetState:
        return self.journal.state(name)

    def newest(self) -> Deployment:
        found = self.journal.history("shop", 1).result()[0]
        whole = self.journal.deployment(found.id).result()
        assert whole
        return whole

    def git(self, *arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=self.tree, check=True, capture_output=True, text=True,
            env={**os.environ, "GIT_AUTHOR_NAME": "x", "GIT_AUTHOR_EMAIL": "x@example.org",
                 "GIT_COMMITTER_NAME": "x", "GIT_COMMITTER_EMAIL": "x@example.org"},
        ).stdout.strip()  # fmt: skip

    def whole(self) -> str | None:
        """The revision of which what is live is an exact copy, if it is one."""
        live = self.targets["shop"].live
        if live == self.tree:
            return self.git("rev-parse", "HEAD") if self.clean() else None
        revision = self.live().partition("-")[0]
        listed = git("ls-tree", "-r", revision, cwd=self.upstream.path).splitlines()
        blobs = {path: facts.split()[2] for facts, path in (line.split("\t") for line in listed)}
        found = {
            str(path.relative_to(live)): _blob_id(path)
            for path in (live / ".").rglob("*")
            if path.is_file()
        }
        return revision if found == blobs else None

    def clean(self) -> bool:
        return self.git("status", "--porcelain") == ""

    def saved(self) -> Path:
        (folder,) = (self.state_dir / "saved" / "shop").iterdir()
        return folder


def _blob_id(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0%s" % (len(content), content)).hexdigest()
