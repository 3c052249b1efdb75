"""Telling sinks: one file a kind, each run in a process of its own that lives for one order.

So the libraries that speak to the services cost the agent no memory, a service that hangs is ended
at a deadline, and nothing of it can stop or slow a deployment. This file is the agent's side: the
order goes to that process by its standard input, secrets and all, and never by an argument.

A new kind of sink is a file here with `Settings` and `send`, and a table in `agent.sinks`.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from agent.cancel import Cancel
from agent.descriptors import give_back
from agent.errors import AgentError
from agent.messages import Message

DEADLINE = 30.0
EX_UNAVAILABLE, EX_TEMPFAIL = 69, 75
"""The process's exit status (sysexits.h): not this message, ever; or not now."""

# Proxies and certificates are the operator's; nothing else of the agent's surroundings is needed.
_PASSED_ON = (
    *("PATH", "HOME", "LANG"),
    *("http_proxy", "https_proxy", "no_proxy", "all_proxy"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR"),
)


class Undelivered(AgentError):
    """The sink did not take it. With `again`, it may later; without, it never will."""

    def __init__(self, why: str, *, again: bool = True) -> None:
        self.again = again
        super().__init__(why)


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be told to a sink, with all that it needs."""

    kind: str
    settings: Mapping[str, Any]
    """The kind's own `Settings`, secrets revealed."""
    messages: tuple[Message, ...]


def send(order: Order, cancel: Cancel, deadline: float = DEADLINE) -> None:
    """Have `order` carried out; blocks this thread. Undelivered where that did not go well."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "agent.notifiers"],
        env=_environment(os.environ),
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    give_back(process.pid)
    with process, cancel.calling(process.kill):
        try:
            _, said = process.communicate(msgspec.json.encode(order), timeout=deadline)
        except subprocess.TimeoutExpired:
            process.kill()
            raise Undelivered(f"it did not answer within {deadline:g} s") from None
    if process.returncode:
        raise Undelivered(_last_line(said), again=process.returncode != EX_UNAVAILABLE)


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    env = {name: environ[name] for name in _PASSED_ON if name in environ}
    if "SSL_CERT_FILE" in env:
        env["REQUESTS_CA_BUNDLE"] = env["SSL_CERT_FILE"]
    return env


def _last_line(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1][:500] if lines else "it was ended"
