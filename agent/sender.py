"""Signed deliveries to a listener of one's own, as GitHub would send them.

For `send-push` and `doctor`; nothing here is on a real delivery's way.
"""

import hashlib
import hmac
import uuid
from collections.abc import Mapping
from typing import Any

import httpx

from agent.model import Webhook


def way_to(bind: str) -> tuple[httpx.HTTPTransport, str]:
    """How to reach a listener at `bind` from this host."""
    if bind.startswith("unix:"):
        return httpx.HTTPTransport(uds=bind.removeprefix("unix:")), "http://agent"
    host, _, port = bind.rpartition(":")
    here = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104 - read, not bound
    return httpx.HTTPTransport(), f"http://{here}:{port}"


def told(status: int, body: Mapping[str, Any], target: str) -> str:
    """What a listener's answer to a push of `target` means, and what to type."""
    if status == 202:
        names = ", ".join(body["targets"])
        return f"202 {body['status']} for {names}; `gitops-agent logs -f {target}` follows it"
    said = body.get("reason") or body.get("error") or body.get("status")
    return f"{status} {said}{_MEANING.get(status, '')}"


_RELOAD = "`systemctl reload gitops-agent` (SIGHUP); `gitops-agent doctor` looks at all of it"
_MEANING = {
    200: f": the agent has other targets in mind than its file has: {_RELOAD}",
    401: f": the agent has another secret in mind than its file names: {_RELOAD}",
    404: f": the agent has no such webhook in mind, but its file has: {_RELOAD}",
    503: ": it could not be written down; `gitops-agent status` says why, and the poll deploys it",
}


def signed(webhook: Webhook, event: str, body: bytes, sender: str) -> dict[str, str]:
    """The headers of a delivery of `body`, under the first of the webhook's secrets."""
    digest = hmac.new(webhook.secrets[0], body, hashlib.sha256).hexdigest()
    return {
        "Content-Type": "application/json",
        "User-Agent": sender,
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": str(uuid.uuid4()),
        "X-Hub-Signature-256": f"sha256={digest}",
    }
