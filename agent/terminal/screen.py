"""A terminal, or what stands in for one: where colours and progress are, and where they are not."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

STYLES = {
    "deployed": "green",
    "up-to-date": "green",
    "ok": "green",
    "failed": "red",
    "error": "red",
    "broken": "bold red",
    "rolled-back": "yellow",
    "interrupted": "yellow",
    "canceled": "yellow",
    "held": "yellow",
    "paused": "yellow",
    "retrying": "yellow",
    "syncing": "cyan",
    "running": "cyan",
}
"""How a state or an outcome is coloured; the word itself says it too."""


def console() -> Console:
    """Standard output; 80 columns where it is no terminal, and then without colours.

    Without markup, so that nothing from a repository is taken for it. rich heeds NO_COLOR and
    TERM=dumb.
    """
    return Console(
        markup=False, highlight=False, emoji=False, soft_wrap=False, file=sys.stdout,
        width=None if sys.stdout.isatty() else 80,
    )  # fmt: skip


@contextmanager
def progress(text: str) -> Iterator[None]:
    """While the block runs, a spinner on a terminal; a plain line elsewhere."""
    out = Console(stderr=True, markup=False, highlight=False, emoji=False)
    if out.is_terminal:
        with out.status(text):
            yield
    else:
        out.print(text, soft_wrap=True)
        yield
