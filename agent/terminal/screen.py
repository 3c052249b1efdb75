"""A terminal, or what stands in for one: colours, progress and lines' ends are for the first."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

_ENDLESS = 1_000_000
_HANG = 4

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
    """Standard output. Where it is no terminal, without colours, and no line is ever too long.

    Without markup, so that nothing from a repository is taken for it. rich heeds NO_COLOR and
    TERM=dumb.
    """
    return Console(
        markup=False, highlight=False, emoji=False, soft_wrap=False, file=sys.stdout,
        width=None if sys.stdout.isatty() else _ENDLESS,
    )  # fmt: skip


def say(out: Console, text: Text | str, style: str = "", hang: int | None = None) -> None:
    """Print a line. On a terminal it is folded; a program that reads it gets it as one."""
    for line in folded(Text(text, style) if isinstance(text, str) else text, out.width, hang):
        out.print(line, soft_wrap=True)


def folded(text: Text, width: int, hang: int | None = None) -> list[Text]:
    """A line in lines of at most `width` columns, of which all but the first begin at `hang`."""
    first, *others = text.wrap(console(), width)
    first.rstrip()
    if not others:
        return [first]
    rest = text.plain[len(first) :].lstrip()
    indent = len(text.plain) - len(text.plain.lstrip())
    hang = min(indent + _HANG if hang is None else hang, width // 2)
    lines = text[len(text.plain) - len(rest) :].wrap(console(), width - hang)
    return [first, *(Text(" " * hang).append_text(line) for line in lines)]


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
