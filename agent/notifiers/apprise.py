"""Apprise: Slack, Teams, Discord, Telegram, mail and a hundred more, each by a URL of its own."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import apprise
from apprise import NotifyFormat, NotifyType, OverflowMode

from agent.messages import Message
from agent.notifiers import Undelivered

_LOOKS = {
    "deployed": NotifyType.SUCCESS,
    "failed": NotifyType.FAILURE,
    "rolled-back": NotifyType.FAILURE,
    "broken": NotifyType.FAILURE,
    "interrupted": NotifyType.WARNING,
    "canceled": NotifyType.WARNING,
}
# Its pictures would be fetched from a host that is none of the operator's.
_ASSET = apprise.AppriseAsset(
    app_id="gitops-agent", app_desc="gitops-agent", app_url="", image_url_mask="", image_url_logo=""
)

_capture: Any = apprise.LogCapture


@dataclass(frozen=True, slots=True)
class Settings:
    url: str


def send(settings: Settings, messages: Sequence[Message]) -> None:
    service = apprise.Apprise.instantiate(settings.url, asset=_ASSET)
    if service is None:
        raise Undelivered("Apprise does not understand the URL; see its list of services")
    if service.overflow_mode is OverflowMode.UPSTREAM:
        service.overflow_mode = OverflowMode.SPLIT
    for message in messages:
        with _capture(level=logging.WARNING, fmt="%(message)s") as said:
            taken = service.notify(
                title=message.title,
                body=message.text,
                notify_type=_LOOKS.get(message.event, NotifyType.INFO),
                body_format=NotifyFormat.TEXT,
            )
            why = said.getvalue()
        if not taken:
            raise Undelivered(f"{service.service_name} did not take it: {why}")
