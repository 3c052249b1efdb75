"""What finished deployments add up to since the start: plain sums in memory."""

from bisect import bisect_left
from collections import Counter
from itertools import accumulate

from agent.figures import Finished
from agent.model import Outcome, Stage

BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
"""The histograms' upper bounds, in seconds."""
_HOOKS = frozenset(Stage)


class Histogram:
    """How many observations fell into each bucket, and their sum."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Each upper bound with the number of observations up to it, as Prometheus counts."""
        bounds = (*map(str, BOUNDS), "+Inf")
        return [
            (bound, float(n)) for bound, n in zip(bounds, accumulate(self._counts), strict=True)
        ]


class Histograms(dict[tuple[str, ...], Histogram]):
    """One histogram for each set of label values that was ever observed."""

    def __missing__(self, labels: tuple[str, ...]) -> Histogram:
        return self.setdefault(labels, Histogram())


class Totals:
    """Sums over deployments; each is added once."""

    def __init__(self) -> None:
        self.deployments = Histograms()
        """By target and outcome."""
        self.hooks = Histograms()
        """By target and stage."""
        self.push_to_live = Histograms()
        """By target; from a push's receipt until its revision is live and verified."""
        self.timeouts: Counter[str] = Counter()
        """Hooks that were ended at their timeout, by target."""
        self.missed: Counter[str] = Counter()
        """Revisions that a poll found although a webhook should have told, by target."""

    def add(self, one: Finished) -> None:
        done = one.deployment
        if done.ended_at is None or done.outcome is None:
            return
        self.deployments[done.target, done.outcome.value].observe(done.ended_at - done.started_at)
        for step in done.steps:
            if step.stage in _HOOKS and step.ended_at:
                self.hooks[done.target, step.stage].observe(step.ended_at - step.started_at)
                self.timeouts[done.target] += (step.result or "").startswith("timed out")
        if done.outcome is Outcome.DEPLOYED and one.live_at:
            for pushed in one.pushes:
                self.push_to_live[(done.target,)].observe(one.live_at - pushed)
