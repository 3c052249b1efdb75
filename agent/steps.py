"""The steps of one deployment: each is in the journal before it is taken.

Where an agent has died in the middle, the next one takes the same way again and passes over the
steps that were taken already.
"""

from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from agent.journal import Journal
from agent.model import Deployment


class Diverged(Exception):
    """The way is another one than before: agent.toml has changed since."""


class Steps:
    """Counts them, from 1."""

    def __init__(
        self,
        journal: Journal,
        deployment: Deployment,
        clock: Callable[[], float],
        log: FilteringBoundLogger,
    ) -> None:
        self._journal = journal
        self._deployment = deployment.id
        self._clock = clock
        self._log = log
        self._before = {step.n: step for step in deployment.steps}
        self.taken = 0

    def begin(self, stage: str, name: str) -> int:
        """The number of the next step, which may have been taken before. Diverged where not so."""
        self.taken += 1
        before = self._before.get(self.taken)
        if before is None:
            self._journal.step_begins(self._deployment, self.taken, stage, name, self._clock())
            self._log.info("step.started", n=self.taken, stage=stage, name=name)
        elif (before.stage, before.name) != (stage, name):
            raise Diverged(
                f"step {before.n} was {before.stage} {before.name}, and would be {stage} {name} now"
            )
        return self.taken

    def end(self, n: int, result: str) -> None:
        self._journal.step_ends(self._deployment, n, result, self._clock())
        tell = self._log.info if result.startswith("ok") else self._log.warning
        tell("step.finished", n=n, result=result)

    def has_passed(self, n: int) -> bool:
        """Whether an agent before took step `n` to its end."""
        return n in self._before and self._before[n].ended_at is not None

    def has(self, name: str) -> bool:
        """Whether an agent before has begun a step of that name."""
        return any(step.name == name for step in self._before.values())
