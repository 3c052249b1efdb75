"""Where things are on a host: agent.toml, and the folders that all else in it may lean on."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.errors import ConfigError

SYSTEM_CONFIG = Path("/etc/gitops-agent/agent.toml")
SYSTEM_STATE = Path("/var/lib/gitops-agent")
SYSTEM_CONTROL = Path("/run/gitops-agent/control.sock")
SYSTEM_USER = "gitops-agent"
"""Whom the agent itself runs as."""
SYSTEM_HOOKS = Path("/run/gitops-agent-hooks.sock")
"""Where the hook runner is asked (`runner`)."""
SYSTEM_HOOK_USER = "gitops-agent-hooks"
"""Whom it runs a hook as that names no user."""
SYSTEM_FEED = Path("/run/gitops-agent-feed.sock")
SYSTEM_CREDENTIALS = Path("/etc/gitops-agent/credentials")
_CREDENTIALS = "gitops"
LONGEST_SOCKET = 107
"""Bytes in a socket's path (unix(7))."""


def find(explicit: str | None, environ: Mapping[str, str]) -> Path:
    """The configuration file: --config, $GITOPS_AGENT_CONFIG, ./agent.toml, the system's."""
    chosen = explicit or environ.get("GITOPS_AGENT_CONFIG")
    if chosen:
        return Path(chosen).expanduser().absolute()
    for path in (Path("agent.toml").absolute(), SYSTEM_CONFIG):
        if path.exists():
            return path
    fault = (
        f"there is no ./agent.toml and no {SYSTEM_CONFIG}; name one with --config FILE, or"
        " make one with `gitops-agent init`"
    )
    raise ConfigError([fault])


def real(path: Path) -> Path:
    """Where `path` leads, through every link that there is. Links in a ring stay as they are."""
    return Path(os.path.realpath(path))


def packaged(name: str) -> Path:
    """What the wheel has inside the package, and a checkout beside it."""
    inside = Path(__file__).parent / name
    return inside if inside.exists() else Path(__file__).parents[1] / name


class Places:
    """The folders, which everything else in the file may lean on."""

    def __init__(self, path: Path, document: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        self.path = path.absolute()
        self._environ = environ
        self.state_dir = self.absolute(document.get("state_dir")) or self._default_state()
        self.hooks_dir = (
            self.absolute(document.get("hooks_dir")) or self.path.parent / "deploy_hooks"
        )
        system = self.state_dir == SYSTEM_STATE
        self.control_socket = SYSTEM_CONTROL if system else self.state_dir / "control.sock"
        self.feed_socket = SYSTEM_FEED if system else self.state_dir / "feed.sock"
        runner = self.path == SYSTEM_CONFIG and SYSTEM_HOOKS.exists()
        self.hooks_socket = SYSTEM_HOOKS if runner else None

    def _default_state(self) -> Path:
        """A service's folder where systemd or the file's place says so, else the user's own.

        The same for `run` under systemd and for a person's `status` on the same file.
        """
        if self.path.parent == SYSTEM_CONFIG.parent:
            return SYSTEM_STATE
        given = self._environ.get("STATE_DIRECTORY")
        if given:
            return Path(given.split(":")[0])
        base = self._environ.get("XDG_STATE_HOME") or "~/.local/state"
        return Path(base).expanduser() / "gitops-agent"

    @property
    def inbox_dir(self) -> Path:
        """The folder of a receiver that is a process of its own; as a service, its own too."""
        given = self._environ.get("STATE_DIRECTORY")
        return Path(given) if given else self.state_dir

    def credential(self, name: str) -> tuple[Path, ...]:
        """Where the credential may be: as systemd passes it to a unit of ours (systemd.exec(5)).

        A whole folder's comes with the folder's name before its own. Root's commands on the
        system's configuration find it in the folders that systemd takes it from.
        """
        folder = self._environ.get("CREDENTIALS_DIRECTORY")
        if folder:
            return Path(folder, name), Path(folder, f"{_CREDENTIALS}_{name}")
        if self.path.parent == SYSTEM_CONFIG.parent:
            return tuple(SYSTEM_CREDENTIALS / unit / name for unit in ("receiver", "core"))
        return ()

    def absolute(self, text: object) -> Path | None:
        """`text` as a path, from the file's folder; None where it is no text. ConfigError."""
        if not isinstance(text, str) or not text or "\0" in text:
            return None
        try:
            path = Path(text).expanduser()
        except RuntimeError:
            raise ConfigError([f"{text}: there is no such user on this host"]) from None
        return Path(os.path.normpath(self.path.parent / path))
