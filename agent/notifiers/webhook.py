"""A webhook of the operator's own, signed by the Standard Webhooks scheme.

https://github.com/standard-webhooks/standard-webhooks, version 1.0.0: the id, the time of this
attempt and the body, joined by dots, as HMAC-SHA256.
"""

import hashlib
import hmac
import time
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from agent.messages import Message
from agent.notifiers.http import post

PREFIX = "whsec_"


@dataclass(frozen=True, slots=True)
class Settings:
    url: str
    secret: tuple[str, ...]
    """Each `whsec_` and base64; the message is signed with every one, for rotation."""


def send(settings: Settings, messages: Sequence[Message]) -> None:
    for message in messages:
        body = payload(message)
        post(settings.url, body, headers(settings.secret, f"msg_{message.id}", time.time(), body))


def payload(message: Message) -> bytes:
    """The message as an event: its type, when it happened, and the facts."""
    at = datetime.fromtimestamp(message.at, UTC).isoformat().replace("+00:00", "Z")
    kind = f"deployment.{message.event.replace('-', '_')}"
    return msgspec.json.encode({"type": kind, "timestamp": at, "data": message})


def headers(secrets: Sequence[str], key: str, now: float, body: bytes) -> dict[str, str]:
    stamp = str(int(now))
    signed = b".".join((key.encode(), stamp.encode(), body))
    signatures = (
        hmac.digest(b64decode(secret.removeprefix(PREFIX)), signed, hashlib.sha256)
        for secret in secrets
    )
    return {
        "webhook-id": key,
        "webhook-timestamp": stamp,
        "webhook-signature": " ".join(f"v1,{b64encode(one).decode()}" for one in signatures),
    }
