"""`gitops-agent demo`: everything real on loopback, in a temporary folder, ended by itself.

A git repository, an agent in a process of its own, a hook, a signed push over HTTP; then a push
whose webhook never comes, which the poll finds.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import click

from agent import config, setup, terminal
from agent.client import Client
from agent.errors import AgentError, NotRunning
from agent.surroundings import PASSED_ON

_PATIENCE = 60.0
_POLL = 3
_CONFIG = """\
state_dir = "{root}/state"
[server]
bind = "127.0.0.1:{port}"
[poll]
interval = "{poll}"
jitter = "0s"
[webhooks.github]
secret = {{ file = "{root}/secret" }}
[targets.shop]
repo = "{root}/shop.git"
path = "{root}/srv/shop"
[[targets.shop.hooks]]
run = ["announce"]
"""
_HOOK = """\
#!/bin/sh
date +%s.%N > "{root}/ran-$DEPLOY_REVISION"
echo "hook: $DEPLOY_TARGET is live at $DEPLOY_REVISION, because of: $DEPLOY_REASON"
echo "hook: it says: $(cat index.html)"
"""


def run_demo(*, keep: bool) -> None:
    """Run it, and say what happened. AgentError if the main job was not done."""
    root = Path(tempfile.mkdtemp(prefix="gitops-agent-demo-"))
    try:
        Demo(root).show()
    finally:
        if keep:
            click.echo(f"Kept in {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Demo:
    """The demo in one temporary folder."""

    root: Path

    def show(self) -> None:
        started = time.monotonic()
        click.echo(f"A repository, an agent and a hook, for real, in {self.root}\n")
        first = self._make_repository()
        port = self._write_configuration()
        with (self.root / "agent.log").open("wb") as log:
            agent = subprocess.Popen(
                [sys.executable, "-m", "agent", "run", "--config", str(self._config)],
                stdout=log, stderr=log, env=self._environment(),
            )  # fmt: skip
        try:
            self._tell(agent, first, port)
        finally:
            agent.send_signal(signal.SIGTERM)
            agent.wait(_PATIENCE)
        click.secho(f"\nAll of it in {time.monotonic() - started:.1f} s.", bold=True)

    def _tell(self, agent: "subprocess.Popen[bytes]", first: str, port: int) -> None:
        settings = config.load(self._config, os.environ)
        with Client(settings.control_socket) as client:
            self._wait_ready(agent, client)
            click.echo(f"1. The agent runs (pid {agent.pid}, http://127.0.0.1:{port}) and deploys"
                       " what it finds.")  # fmt: skip
            self._deployed(client, agent, first)

            pushed = self._commit("second: pushed, with its webhook")
            click.echo("2. A push to main, and GitHub's signed delivery of it.")
            sent = time.time()
            answer = setup.send_push(settings, settings.targets["shop"], pushed, sent)
            click.echo(f"   answered {answer['status']} {answer['body']['status']}")
            ran = self._deployed(client, agent, pushed)
            click.secho(f"   from push to hook: {(ran - sent) * 1000:.0f} ms", fg="green")

            self._poll_from_now_on(agent, client, port)
            lost = self._commit("third: pushed, but its webhook is lost")
            click.echo(f"3. Another push; its webhook never comes. The poll (here every {_POLL} s,"
                       " else every 3 min) finds it.")  # fmt: skip
            sent = time.time()
            ran = self._deployed(client, agent, lost)
            click.secho(f"   from push to hook: {ran - sent:.1f} s", fg="green")

            click.echo("\nWhat the agent remembers (gitops-agent history):\n")
            terminal.show_history(client.history("shop", 3))

    def _deployed(self, client: Client, agent: "subprocess.Popen[bytes]", revision: str) -> float:
        """Wait for the hook's run at `revision`, show its output; when it ran, in Unix time."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            if agent.poll() is not None or time.monotonic() > deadline:
                raise AgentError(f"the agent did not deploy {revision}; its log:\n{self._log()}")
            newest = client.history("shop", 1)
            if newest and newest[0]["revision"] == revision and newest[0]["ended_at"]:
                break
            time.sleep(0.02)
        for piece in client.log(newest[0]["id"], follow=True):
            if piece["text"]:
                click.echo("".join(f"   {line}\n" for line in piece["text"].splitlines()), nl=False)
        if newest[0]["outcome"] != "deployed":
            raise AgentError(f"the deployment {newest[0]['outcome']}: {newest[0]['detail']}")
        return float((self.root / f"ran-{revision}").read_text())

    def _wait_ready(self, agent: "subprocess.Popen[bytes]", client: Client) -> None:
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline and agent.poll() is None:
            with suppress(NotRunning):
                client.status()
                return
            time.sleep(0.02)
        raise AgentError(f"the agent did not start; its log:\n{self._log()}")

    def _poll_from_now_on(
        self, agent: "subprocess.Popen[bytes]", client: Client, port: int
    ) -> None:
        """Until here there was no poll, which might have found a push before its webhook came."""
        self._config.write_text(self._configuration(port, f"{_POLL}s"))
        agent.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            target = client.target("shop")
            if target["next_poll"] is not None and not target["syncing"]:
                return
            time.sleep(0.02)
        raise AgentError(f"the agent did not read its configuration again; its log:\n{self._log()}")

    # ---- what it stands on --------------------------------------------------------------------

    @property
    def _config(self) -> Path:
        return self.root / "agent.toml"

    def _log(self) -> str:
        return (self.root / "agent.log").read_text(errors="replace")[-2000:]

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name in PASSED_ON}
        return {**kept, "PYTHONPATH": str(Path(__file__).parent.parent)}

    def _git(self, *arguments: str) -> str:
        environment = {
            **self._environment(),
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "Demo",
            "GIT_AUTHOR_EMAIL": "demo@example.org",
            "GIT_COMMITTER_NAME": "Demo",
            "GIT_COMMITTER_EMAIL": "demo@example.org",
        }
        return subprocess.run(
            ["git", *arguments], cwd=self.root / "work", env=environment, check=True,
            capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip

    def _make_repository(self) -> str:
        (self.root / "work").mkdir()
        self._git("init", "--quiet", "--bare", "--initial-branch=main", str(self.root / "shop.git"))
        self._git("init", "--quiet", "--initial-branch=main")
        self._git("remote", "add", "origin", str(self.root / "shop.git"))
        return self._commit("first: what was there before the agent")

    def _commit(self, text: str) -> str:
        """A commit, pushed to main; gives its revision."""
        (self.root / "work" / "index.html").write_text(f"{text}\n")
        self._git("add", "--all")
        self._git("commit", "--quiet", "--message", text)
        self._git("push", "--quiet", "origin", "main")
        return self._git("rev-parse", "HEAD")

    def _write_configuration(self) -> int:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        hook = _HOOK.format(root=self.root)
        setup.create(self.root / "secret", os.urandom(16).hex(), 0o600)
        (self.root / "deploy_hooks").mkdir()
        setup.create(self.root / "deploy_hooks" / "announce", hook, 0o755)
        setup.create(self._config, self._configuration(port, "off"), 0o644)
        return port

    def _configuration(self, port: int, poll: str) -> str:
        return _CONFIG.format(root=self.root, port=port, poll=poll)
