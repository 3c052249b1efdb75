"""What a running agent can take of a configuration that was read again. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from agent.config import Settings
from agent.model import Entrance

# What the agent opens or makes once, at its start; and what to call it.
_FIXED = {
    "bind": "[server] bind",
    "metrics_bind": "[metrics] bind",
    "state_dir": "state_dir",
    "control_socket": "the control socket",
    "feed_socket": "the socket between receiver and core",
    "hooks_socket": "the hook runner",
    "parallel": "parallel",
}
_FOLLOWS_STATE_DIR = ("control_socket", "feed_socket")


@dataclass(frozen=True, slots=True)
class Reload:
    """What came of the newest reload."""

    at: float
    """Unix time, UTC."""
    refused: tuple[str, ...] = ()
    """Why nothing was taken of it; the configuration before goes on."""
    needs_restart: tuple[str, ...] = ()
    """What of it is in force after a restart only."""


def needs_restart(started: Settings, new: Settings) -> Iterator[str]:
    """What in `new` an agent that began with `started` takes at its next start only."""
    moved = started.state_dir != new.state_dir
    for name, called in _FIXED.items():
        told_already = moved and name in _FOLLOWS_STATE_DIR
        if getattr(started, name) != getattr(new, name) and not told_already:
            yield called
    if _address(started.entrance) != _address(new.entrance):
        yield "[control] bind"


def in_force(started: Settings, new: Settings) -> Settings:
    """`new`, but for what an agent that began with `started` cannot change any more.

    A [control] that is gone lets nobody in from now on, though its address is left at a restart.
    """
    fixed = {name: getattr(started, name) for name in _FIXED}
    entrance = None
    if started.entrance and new.entrance:
        entrance = replace(new.entrance, bind=started.entrance.bind)
    return replace(new, **fixed, entrance=entrance)


def _address(entrance: Entrance | None) -> str | None:
    return entrance.bind if entrance else None
