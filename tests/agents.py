"""Whole agent processes for tests, as a user runs them."""

import copy
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec

from agent.client import Client
from tests import canaries
from tests.canaries import Aviary
from tests.remotes import delivery, free_port, push_payload

SECRET = canaries.FILE
PATIENCE = 30.0

aviaries: list[Aviary] | None = None
"""Where the agents' canaries are kept; None where none are planted, as in the benchmarks."""


class Agent:
    """One agent, its configuration and its hooks, in a folder of its own."""

    def __init__(self, root: Path, repo: str) -> None:
        self.root = root
        self.repo = repo
        self.port = free_port()
        self.tree = root / "srv" / "shop"
        self.state_dir = root / "state"
        self.config = root / "agent.toml"
        self.hooks_dir = root / "deploy_hooks"
        self.hooks_dir.mkdir(parents=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._log: list[bytes] = []
        self._log_thread: threading.Thread | None = None
        self._only: str | None = None
        self.aviary: Aviary | None = None
        if aviaries is not None:
            self.aviary = Aviary(root)
            aviaries.append(self.aviary)
        secret = root / "secret"
        secret.write_text(SECRET)
        secret.chmod(0o600)

    def part(self, only: str) -> "Agent":
        """The same agent's receiver or core, as a process of its own."""
        one = copy.copy(self)
        one._only = only
        return one

    def hook(self, name: str, text: str) -> None:
        path = self.hooks_dir / name
        note = f"{self.aviary.note_hook()}\n" if self.aviary else ""
        path.write_text(text if text.startswith("#!") else f"#!/bin/sh\n{note}{text}\n")
        path.chmod(0o755)

    def configure(
        self, hooks: str = "", *, poll: str = "off", top: str = "", target: str = ""
    ) -> None:
        """Write agent.toml; `hooks` and `target` go on in [targets.shop]."""
        secret = f'{{ file = "{self.root}/secret" }}'
        if self.aviary:
            secret = f"[{self.aviary.sources()}]"
            if self.repo.startswith("http") and "git." not in target:
                target += f"\n{self.aviary.token()}"
        self.config.write_text(
            f'state_dir = "{self.state_dir}"\n{top}\n'
            f'[server]\nbind = "127.0.0.1:{self.port}"\n'
            f'[poll]\ninterval = "{poll}"\njitter = "0s"\n'
            f"[webhooks.github]\nsecret = {secret}\n"
            f'[targets.shop]\nrepo = "{self.repo}"\npath = "{self.tree}"\n{target}\n{hooks}\n'
        )

    # ---- the process --------------------------------------------------------------------------

    def start(self, **environ: str) -> None:
        """Start it and wait until it says that it is ready."""
        self.spawn(**environ)
        ready = "receiver.ready" if self._only == "receiver" else "agent.ready"
        line = self.wait_for_log(ready, "agent.stopped")
        assert line["event"] == ready, self.log()

    def spawn(self, **environ: str) -> "subprocess.Popen[bytes]":
        only = ["--only", self._only] if self._only else []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "agent", "run", "--config", str(self.config), *only],
            env=self.environ(environ),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self._log = []
        if self.aviary:
            self.aviary.logs.append(self._log)
            elsewhere = (self.state_dir, self.tree)
            outside = (one for one in elsewhere if not one.is_relative_to(self.root))
            self.aviary.folders = [self.root, *outside]
        self._grown = threading.Condition()
        self._log_thread = threading.Thread(target=self._read_log, args=(self._process.stderr,))
        self._log_thread.start()
        return self._process

    def environ(self, more: Mapping[str, str]) -> dict[str, str]:
        return {**os.environ, **(self.aviary.environ() if self.aviary else {}), **more}

    def _hear(self, *texts: str) -> None:
        if self.aviary:
            self.aviary.heard += [text.encode() for text in texts]

    def _read_log(self, stream: Any) -> None:
        for line in stream:
            with self._grown:
                self._log.append(line)
                self._grown.notify_all()
        stream.close()
        with self._grown:
            self._log.append(b'{"event": "the log ended"}\n')
            self._grown.notify_all()

    def log(self) -> str:
        return b"".join(self._log).decode()

    def wait_for_log(self, *events: str, **fields: Any) -> dict[str, Any]:
        """The first line with one of these events (or the log's end) and these fields."""
        ends = (*events, "the log ended")
        seen = 0

        def found() -> dict[str, Any] | None:
            nonlocal seen
            while seen < len(self._log):
                line, seen = self._log[seen], seen + 1
                if line.startswith(b"{"):
                    one = msgspec.json.decode(line)
                    if one["event"] in ends and all(one.get(k) == v for k, v in fields.items()):
                        return dict(one)
                    if one["event"] == "the log ended":
                        return {"event": "the log ended"}
            return None

        with self._grown:
            line = self._grown.wait_for(found, PATIENCE)
        assert line, f"no {events} in {self.log()}"
        return line

    def signal(self, number: int) -> None:
        assert self._process
        self._process.send_signal(number)

    def wait(self) -> int:
        """Its exit status, when it has ended."""
        assert self._process
        assert self._log_thread
        status = self._process.wait(PATIENCE)
        self._log_thread.join(PATIENCE)
        self._process = None
        return status

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait()

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None

    # ---- asking it ----------------------------------------------------------------------------

    @contextmanager
    def client(self) -> Iterator[Client]:
        with Client(self.state_dir / "control.sock") as one:
            yield one

    def command(self, *arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run `gitops-agent ARGUMENTS --config …`."""
        done = subprocess.run(
            [sys.executable, "-m", "agent", *arguments, "--config", str(self.config)],
            capture_output=True, text=True, timeout=PATIENCE, check=False,
            env=self.environ(options.pop("env", {})), **options,
        )  # fmt: skip
        self._hear(done.stdout, done.stderr)
        return done

    def post(self, headers: dict[str, str], body: bytes, name: str = "github") -> httpx.Response:
        url = f"{self.url}/webhook/{name}"
        answer = httpx.post(url, headers=headers, content=body, timeout=10)
        self._hear(answer.text)
        return answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def push(self, revision: str, *, url: str = "", number: str | None = None) -> httpx.Response:
        """Deliver a signed push of main, as GitHub would."""
        payload = push_payload(url or self.repo, revision)
        return self.post(*delivery("push", payload, SECRET, number=number))

    def finished(self, revision: str) -> dict[str, Any]:
        """Wait for the end of a deployment of `revision`; gives its last log line."""
        return self.wait_for_log("deployment.finished", revision=revision)

    def history(self) -> list[dict[str, Any]]:
        with self.client() as client:
            return client.history("shop", 1000)
