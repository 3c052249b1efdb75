"""How much is measured: enough for a figure, or just enough to keep the benchmark alive."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Effort:
    rounds: int
    """How often each thing is measured, in turn with what it is compared to."""
    seconds: float
    """How long one load lasts."""
    pushes: int
    """How many pushes are timed to their hook."""
    scale: float
    """What the large numbers of rows, targets and files are multiplied with."""


FULL = Effort(rounds=5, seconds=2, pushes=40, scale=1)
SHORT = Effort(rounds=1, seconds=1, pushes=3, scale=0.01)
