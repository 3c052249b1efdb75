"""How many files this process and its children may have open, and whether any are left.

The usual soft limit of 1,024 is there for select(2), which knows no more (LimitNOFILE= in
systemd.exec(5)). The agent does not use it, so it takes what the hard limit allows, and gives
whatever it starts the limit that it was itself started with.
"""

import os
import resource
from contextlib import ExitStack, suppress
from pathlib import Path

_FILES = resource.RLIMIT_NOFILE
_STARTED_WITH = resource.getrlimit(_FILES)
_MOST_CONNECTIONS = 1024
_NEEDED = 16
"""A git takes about so many for a moment."""


def take_all() -> None:
    """Raise the soft limit to the hard one."""
    _, hard = resource.getrlimit(_FILES)
    # Some kernels let nobody have as many as the hard limit says.
    with suppress(ValueError, OSError):
        resource.setrlimit(_FILES, (hard, hard))


def give_back(child: int) -> None:
    """Have the process `child`, which was just started, under the limit of old."""
    with suppress(OSError):
        resource.prlimit(child, _FILES, _STARTED_WITH)


def connections(share: int) -> int:
    """How many connections a listener may have: one in `share` of all files, 1,024 at most."""
    soft, _ = resource.getrlimit(_FILES)
    return min(_MOST_CONNECTIONS, soft // share)


def trouble() -> str | None:
    """That there are too few left to start anything, in words; None where there are enough."""
    try:
        with ExitStack() as opened:
            for _ in range(_NEEDED):
                opened.enter_context(Path(os.devnull).open("rb", buffering=0))
    except OSError as error:
        soft, _ = resource.getrlimit(_FILES)
        return (
            f"it can open no more files ({error.strerror}; its limit is {soft}): raise LimitNOFILE="
            f" of its unit; `ls -l /proc/{os.getpid()}/fd` shows what it has"
        )
    return None
