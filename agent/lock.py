"""Ownership of a file or folder by one process, known to the kernel and gone with the process."""

import fcntl
import os
from pathlib import Path

from agent.errors import StateLocked


def own(path: Path, flags: int, what: str) -> int:
    """A descriptor that holds the lock on `path` (opened with `flags`) until it is closed.

    StateLocked, naming the owner, where another process has it.
    """
    lock = os.open(path, flags | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = _owner(lock)
        os.close(lock)
        raise StateLocked(
            f"another agent ({owner}) is using {what} {path}; stop that one first, or configure"
            " this one to use another"
        ) from None
    return lock


def _owner(lock: int) -> str:
    """Who has the lock, as /proc/locks tells it (proc(5))."""
    info = os.fstat(lock)
    device = f"{os.major(info.st_dev):02x}:{os.minor(info.st_dev):02x}:{info.st_ino}"
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if fields[1] == "FLOCK" and device in fields:
            return f"pid {fields[4]}"
    return "of another user"
