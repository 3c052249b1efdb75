"""A hook's output as HTML: its colours kept as classes, everything else escaped. Pure.

`escapes` has dropped all that steers; what is left of it are the sequences that set colours (SGR,
ECMA-48). The text comes from whatever a repository's build prints, so none of it becomes markup.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from html import escape

from agent.escapes import Harmless

_COLOURS = re.compile(r"\x1b\[([0-9;:]*)m")
_CUBE = (0, 95, 135, 175, 215, 255)


@dataclass(frozen=True, slots=True)
class Style:
    """How text looks from here on; colours are numbers of the 256-colour table."""

    fg: int | None = None
    bg: int | None = None
    bold: bool = False
    dim: bool = False
    italic: bool = False
    underline: bool = False
    inverse: bool = False
    strike: bool = False

    def classes(self) -> str:
        colours = [f"{name}{n}" for name, n in (("fg", self.fg), ("bg", self.bg)) if n is not None]
        flags = [one.name for one in fields(self)[2:] if getattr(self, one.name)]
        return " ".join(colours + flags)


PLAIN = Style()
_SWITCHES: dict[int, dict[str, bool]] = {
    1: {"bold": True},
    2: {"dim": True},
    3: {"italic": True},
    4: {"underline": True},
    7: {"inverse": True},
    9: {"strike": True},
    22: {"bold": False, "dim": False},
    23: {"italic": False},
    24: {"underline": False},
    27: {"inverse": False},
    29: {"strike": False},
}


class Painter:
    """Paints one output, piece by piece; a style or a sequence may go on in the next piece."""

    def __init__(self) -> None:
        self._style = PLAIN
        self._harmless = Harmless()

    def paint(self, text: str) -> str:
        """`text` as HTML."""
        return "".join(
            f'<span class="{style.classes()}">{escape(run)}</span>'
            if style != PLAIN
            else escape(run)
            for style, run in self._runs(self._harmless.feed(text))
        )

    def skip(self, text: str) -> None:
        """Go over `text` for the style that it leaves behind."""
        for found in _COLOURS.finditer(self._harmless.feed(text)):
            self._style = _after(self._style, found[1])

    def _runs(self, text: str) -> Iterator[tuple[Style, str]]:
        """Stretches of one style each."""
        start = 0
        for found in _COLOURS.finditer(text):
            if found.start() > start:
                yield self._style, text[start : found.start()]
            self._style = _after(self._style, found[1])
            start = found.end()
        if start < len(text):
            yield self._style, text[start:]


def _after(style: Style, codes: str) -> Style:
    """`style` after an SGR sequence with these codes, such as `1;31` or `38:5:208`."""
    left = iter(codes.split(";"))
    for code in left:
        number, *details = code.split(":")
        n = _number(number) or 0
        if n == 0:
            style = PLAIN
        elif n in (38, 48):
            colour = _colour(details) if details else _colour_after(left)
            style = replace(style, fg=colour) if n == 38 else replace(style, bg=colour)
        elif n == 4 and details:
            style = replace(style, underline=details[0] != "0")
        elif n in _SWITCHES:
            style = replace(style, **_SWITCHES[n])
        else:
            style = _basic_colour(style, n)
    return style


def _basic_colour(style: Style, n: int) -> Style:
    """The eight colours, their bright ones, and the default colours; any other code is nothing."""
    tens, units = divmod(n, 10)
    if units == 9 and tens in (3, 4):
        return replace(style, fg=None) if tens == 3 else replace(style, bg=None)
    if units > 7 or tens not in (3, 4, 9, 10):
        return style
    colour = units if tens in (3, 4) else units + 8
    return replace(style, fg=colour) if tens in (3, 9) else replace(style, bg=colour)


def _colour(details: list[str]) -> int | None:
    """`5:208`, `2:255:128:0` or, with a colour space, `2::255:128:0`."""
    kind, *values = details
    return _table_colour(kind, [_number(one) for one in values][-3:])


def _colour_after(left: Iterator[str]) -> int | None:
    """The older form, where the codes that follow name the colour: `5;208`, `2;255;128;0`."""
    kind = next(left, "")
    many = {"5": 1, "2": 3}.get(kind, 0)
    return _table_colour(kind, [_number(next(left, "")) for _ in range(many)])


def _table_colour(kind: str, values: list[int | None]) -> int | None:
    known = [one for one in values if one is not None and one < 256]
    if kind == "5" and len(known) == 1:
        return known[0]
    if kind == "2" and len(known) == 3:
        red, green, blue = (_nearest(one) for one in known)
        return 16 + 36 * red + 6 * green + blue
    return None


def _nearest(level: int) -> int:
    return min(range(6), key=lambda n: abs(_CUBE[n] - level))


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 5 else None


def stylesheet() -> str:
    """The 240 colours after the first 16, which page.css chooses itself."""
    colours = [(_CUBE[n // 36], _CUBE[n // 6 % 6], _CUBE[n % 6]) for n in range(216)]
    colours += [(level, level, level) for level in range(8, 248, 10)]
    return "".join(
        f".fg{n}{{color:#{r:02x}{g:02x}{b:02x}}}.bg{n}{{background:#{r:02x}{g:02x}{b:02x}}}\n"
        for n, (r, g, b) in enumerate(colours, 16)
    )
