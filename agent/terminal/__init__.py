"""How answers look to a person: tables that fit 80 columns, times as one says them, plain words.

Colours and progress only on a terminal, never under NO_COLOR; elsewhere the same lines, plain.
"""

from agent.terminal.follow import show_end, show_pieces
from agent.terminal.overview import show_status
from agent.terminal.screen import progress
from agent.terminal.story import show_difference, show_findings, show_history, show_looks

__all__ = [
    "progress",
    "show_difference",
    "show_end",
    "show_findings",
    "show_history",
    "show_looks",
    "show_pieces",
    "show_status",
]
