"""A terminal, or what stands in for one: colours, progress and lines' ends are for the first."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.text import Text

_ENDLESS = 1_000_000
_HANG = 4
_TYPED, _KEPT = re.compile(r"`[^`]*`"), "\ue000"
"""A command in a text, and what stands for its blanks while the text is folded."""

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


def console(stream: TextIO | None = None) -> Console:
    """Standard output, or another. Where it is no terminal, without colours, and with lines as
    long as they are.

    Without markup, so that nothing from a repository is taken for it. rich heeds NO_COLOR and
    TERM=dumb.
    """
    stream = stream or sys.stdout
    return Console(
        markup=False, highlight=False, emoji=False, soft_wrap=False, file=stream,
        width=None if stream.isatty() else _ENDLESS,
    )  # fmt: skip


def tell(text: str) -> None:
    """Print a line of standard output."""
    say(console(), text)


def complain(text: str) -> None:
    """Print a line of standard error."""
    say(console(sys.stderr), text)


def say(out: Console, text: Text | str, style: str = "", hang: int | None = None) -> None:
    """Print a line. On a terminal it is folded; a program that reads it gets it as one."""
    for line in folded(Text(text, style) if isinstance(text, str) else text, out.width, hang):
        out.print(line, soft_wrap=True)


def folded(text: Text, width: int, hang: int | None = None) -> list[Text]:
    """A line in lines of at most `width` columns, of which all but the first begin at `hang`.

    What is to be typed stays in one, where there is room.
    """
    text = _with(text, _TYPED.sub(lambda found: found[0].replace(" ", _KEPT), text.plain))
    first, *others = text.wrap(console(), width)
    lines = [first]
    if others:
        rest = text.plain[len(first) :].lstrip()
        indent = len(text.plain) - len(text.plain.lstrip())
        hang = min(indent + _HANG if hang is None else hang, width // 2)
        more = text[len(text.plain) - len(rest) :].wrap(console(), width - hang)
        lines += [Text(" " * hang).append_text(line) for line in more]
    return [_with(line, line.plain.rstrip().replace(_KEPT, " ")) for line in lines]


def _with(text: Text, plain: str) -> Text:
    """The same in other letters, one for one."""
    made = text.copy()
    made.plain = plain
    return made


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
