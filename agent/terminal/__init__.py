"""How answers look to a person: tables that fit 80 columns, times as one says them, plain words.

Colours and progress only on a terminal, never under NO_COLOR; elsewhere the same lines, plain.
What a command does not show is not imported for it: completion has to be quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.terminal.asked import show_asked, show_goal, show_left, show_pause
    from agent.terminal.follow import show_pieces
    from agent.terminal.overview import show_status
    from agent.terminal.screen import complain, progress, tell
    from agent.terminal.story import (
        show_checked,
        show_difference,
        show_findings,
        show_history,
        show_looks,
    )
    from agent.terminal.watch import watch

__all__ = [
    "complain",
    "progress",
    "show_asked",
    "show_checked",
    "show_difference",
    "show_findings",
    "show_goal",
    "show_history",
    "show_left",
    "show_looks",
    "show_pause",
    "show_pieces",
    "show_status",
    "tell",
    "watch",
]
_ROOMS = {
    "asked": ("show_asked", "show_goal", "show_left", "show_pause"),
    "follow": ("show_pieces",),
    "overview": ("show_status",),
    "screen": ("complain", "progress", "tell"),
    "story": ("show_checked", "show_difference", "show_findings", "show_history", "show_looks"),
    "watch": ("watch",),
}


def __getattr__(name: str) -> Any:
    for room, names in _ROOMS.items():
        if name in names:
            return getattr(import_module(f"agent.terminal.{room}"), name)
    raise AttributeError(name)
