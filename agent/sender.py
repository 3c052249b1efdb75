"""Signed deliveries to a listener of one's own, as GitHub would send them.

For `send-push` and `doctor`; nothing here is on a real delivery's way.
"""

import hashlib
import hmac
import uuid

import httpx

from agent.model import Webhook


def way_to(bind: str) -> tuple[httpx.HTTPTransport, str]:
    """How to reach a listener at `bind` from this host."""
    if bind.startswith("unix:"):
        return httpx.HTTPTransport(uds=bind.removeprefix("unix:")), "http://agent"
    host, _, port = bind.rpartition(":")
    here = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104 - read, not bound
    return httpx.HTTPTransport(), f"http://{here}:{port}"


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
