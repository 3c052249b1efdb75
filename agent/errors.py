"""What can go wrong with the machinery, sorted by what to do next.

An outcome of a deployment is never here: that is a value (`model.Outcome`).
"""

from collections.abc import Sequence
from enum import IntEnum


class Exit(IntEnum):
    """The exit statuses of the commands (sysexits.h where it has a name for one)."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 75
    CONFIG = 78


class AgentError(Exception):
    """Something an operator can act on; the message says what to do."""

    exit = Exit.FAILED


class ConfigError(AgentError):
    """The configuration has faults: every one of them, each starting with its key path."""

    exit = Exit.CONFIG

    def __init__(self, faults: Sequence[str], source: str = "") -> None:
        self.faults = tuple(faults)
        self.source = source
        super().__init__("\n".join(self.faults))


class Malformed(AgentError):
    """A verified delivery whose body is not what its event says it is."""


class NotRunning(AgentError):
    """No agent answers on the control socket."""

    exit = Exit.NOT_RUNNING


class NotLetIn(AgentError):
    """An agent may run, but not everybody may ask it."""


class UnknownTarget(AgentError):
    """The configuration has no such target; the message names those that it has."""


class StateLocked(AgentError):
    """Another agent owns this state folder or this path; the message names it."""


class JournalUnavailable(AgentError):
    """The journal could not be read or written just now (disk full, read-only, closed)."""


class GitFailed(AgentError):
    """git ended badly. `detail` is git's own last words, without credentials.

    `killed` says that it died by a signal, and may have left its locks.
    """

    def __init__(self, message: str, detail: str = "", *, killed: bool = False) -> None:
        self.detail = detail
        self.killed = killed
        super().__init__(f"{message}: {detail}" if detail else message)


class RemoteFailed(GitFailed):
    """The remote could not be read; looking again later may help."""


class RevisionFault(AgentError):
    """A revision that cannot be deployed as it is configured, however often it is tried."""


class Stopped(AgentError):
    """The work was ended because the agent is stopping."""


class LeftRunning(Stopped):
    """The agent is stopping, and a hook goes on without it, for the next start to find."""
