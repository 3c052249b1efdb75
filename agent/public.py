"""What of agent.toml the receiver may know: enough to tell a push's target, and no way into any.

No hook, no path, no token and no ssh key; it reads none of them, so it need not be able to.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent import toml
from agent.config import HISTORY, ServerTable, WebhookTable, bad_names, webhooks
from agent.errors import ConfigError
from agent.kinds import MAIN, Branch, Duration, Place, Repo
from agent.model import Tracked, Webhook
from agent.places import Places
from agent.readers import readers

_KEYS = ("state_dir", "history", "server", "webhooks")
_TARGET_KEYS = ("repo", "branch")


@dataclass(frozen=True, slots=True)
class Public:
    """The receiver's part of a configuration without faults. Times are in seconds."""

    path: Path
    inbox_dir: Path
    feed_socket: Path
    history: float
    bind: str
    trusted_proxies: tuple[str, ...]
    url: str | None
    webhooks: Mapping[str, Webhook]
    targets: Mapping[str, Tracked]


@dataclass(frozen=True, slots=True)
class _Target:
    repo: Repo
    branch: Branch = MAIN


@dataclass(frozen=True, slots=True)
class _File:
    state_dir: Place | None = None
    history: Duration = HISTORY
    server: ServerTable = field(default_factory=ServerTable)
    webhooks: dict[str, WebhookTable] = field(default_factory=dict)
    targets: dict[str, _Target] = field(default_factory=dict)


def load(path: Path, environ: Mapping[str, str]) -> Public:
    """The receiver's part of the file at `path`; ConfigError with every fault of that part."""
    document = _part(toml.parse(path))
    places = Places(path, document, environ)
    file, faults = toml.shaped(document, _File, readers(places, environ))
    faults += bad_names(document)
    if faults or file is None:
        raise ConfigError(list(dict.fromkeys(faults)), str(path))
    return Public(
        path=places.path,
        inbox_dir=places.inbox_dir,
        feed_socket=places.feed_socket,
        history=file.history,
        bind=file.server.bind,
        trusted_proxies=file.server.trusted_proxies,
        url=file.server.url,
        webhooks=webhooks(file.webhooks),
        targets={name: Tracked(name, one.repo, one.branch) for name, one in file.targets.items()},
    )


def _part(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document without what is the core's alone; that tells of its faults itself."""
    part = {key: value for key, value in document.items() if key in _KEYS}
    targets = document.get("targets", {})
    if isinstance(targets, dict):
        part["targets"] = {
            name: {key: one[key] for key in _TARGET_KEYS if key in one}
            for name, one in targets.items()
            if isinstance(one, dict)
        }
    return part
