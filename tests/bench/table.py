"""A row of the table: a figure of ours, the same of a peer or a floor, and the aim."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Aim:
    """What the two figures of a row should come to."""

    text: str
    comes_to: Callable[[float, float], float]
    unit: str
    reached: Callable[[float], bool]


def at_least(times: float) -> Aim:
    text = f"{times:g} times or more"
    return Aim(text, lambda ours, theirs: ours / theirs, "times", lambda ratio: ratio >= times)


def at_most(times: float) -> Aim:
    text = f"{times:g} times at most"
    return Aim(text, lambda ours, theirs: ours / theirs, "times", lambda ratio: ratio <= times)


def within(more: float, unit: str) -> Aim:
    """Ours may be so much over theirs."""
    text = f"{more:g} {unit} more at most"
    return Aim(text, lambda ours, theirs: ours - theirs, f"{unit} more", lambda over: over <= more)


def under(limit: float, unit: str) -> Aim:
    return Aim(f"under {limit:g} {unit}", lambda ours, _: ours, unit, lambda ours: ours < limit)


TOLD = Aim("none: told only", lambda ours, theirs: ours / theirs, "times", lambda _: True)


@dataclass(frozen=True, slots=True)
class Row:
    """Medians of several rounds, in which both were measured in turn."""

    what: str
    unit: str
    ours: float
    beside: str
    """Whose the other figure is."""
    theirs: float
    aim: Aim

    @classmethod
    def of(
        cls, what: str, unit: str, ours: Sequence[float], beside: str, theirs: Sequence[float],
        aim: Aim,
    ) -> "Row":  # fmt: skip
        return cls(what, unit, median(ours), beside, median(theirs), aim)

    def cells(self) -> tuple[str, ...]:
        came_to = self.aim.comes_to(self.ours, self.theirs)
        verdict = "" if self.aim.reached(came_to) else " **(not reached)**"
        return (
            self.what,
            f"{number(self.ours)} {self.unit}",
            f"{self.beside}: {number(self.theirs)} {self.unit}",
            f"{number(came_to)} {self.aim.unit}{verdict}",
            self.aim.text,
        )


def number(value: float) -> str:
    """Three digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


HEAD = ("what", "this agent", "beside it", "comes to", "aim")


def render(rows: Iterable[Row]) -> str:
    """Markdown, in columns that line up for the eye as well."""
    table = [HEAD, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in table
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)
