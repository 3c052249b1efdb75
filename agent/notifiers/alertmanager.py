"""Prometheus's Alertmanager: an alert that stands while a target is failing (its API, version 2).

The agent says again and again what is failing; an alert that it says no more resolves itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from agent.messages import Message
from agent.notifiers.http import post

_SEVERITY = {"broken": "critical", "test": "info"}


@dataclass(frozen=True, slots=True)
class Settings:
    url: str
    labels: Mapping[str, str] = field(default_factory=dict)
    token: str | None = None
    username: str | None = None
    password: str | None = None


def send(settings: Settings, messages: Sequence[Message]) -> None:
    body = msgspec.json.encode([alert(one, settings.labels) for one in messages])
    bearer = {"Authorization": f"Bearer {settings.token}"} if settings.token else {}
    basic = (settings.username, settings.password or "") if settings.username else None
    post(f"{settings.url.rstrip('/')}/api/v2/alerts", body, bearer, basic)


def alert(message: Message, labels: Mapping[str, str]) -> dict[str, Any]:
    """Its labels say which alert it is: they stay the same while the target fails."""
    return {
        "labels": {
            "alertname": f"GitopsAgent{'Test' if message.event == 'test' else 'DeploymentFailed'}",
            "target": message.target,
            "host": message.host,
            "severity": _SEVERITY.get(message.event, "warning"),
            **labels,
        },
        "annotations": {"summary": message.title, "description": message.text},
        "startsAt": _time(message.since or message.at),
        "endsAt": _time(message.until or message.at),
        "generatorURL": message.link or "",
    }


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()
