"""The processes of this host, as /proc tells of them (proc(5)): whose child, with what mark.

Every answer is of a moment; who ends processes by it looks again until there is none.
"""

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_EXEC_READS = 4


_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Process(NamedTuple):
    pid: int
    parent: int
    group: int


def boot() -> str:
    """Which start of the host this is (random(4))."""
    return _BOOT.read_text().strip()


def below(root: int) -> set[Process]:
    """The processes that descend from `root`; zombies, which are none any more, left out."""
    children: dict[int, list[Process]] = defaultdict(list)
    for one in _living():
        children[one.parent].append(one)
    found: set[Process] = set()
    new = children[root]
    while new:
        found.update(new)
        new = [child for one in new for child in children[one.pid]]
    return found


def marked(mark: str) -> set[Process]:
    """The processes of this user with the line `mark` in the environment they were started with.

    That is still theirs after setsid() or a second fork, unless they have cleared it.
    """
    line = mark.encode()
    return {one for one in _living() if one.pid != os.getpid() and line in _environ(one.pid)}


def tell(those: Iterable[Process], number: int) -> None:
    """Send the signal to them by their groups: to all at once, and no fork gets out of it."""
    for group in {one.group for one in those} - {os.getpgrp()}:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)


def _living() -> Iterator[Process]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError, IndexError):
                state, parent, group, *_ = _stat(int(entry.name))
                if state != b"Z":
                    yield Process(int(entry.name), int(parent), int(group))


def _stat(pid: int) -> list[bytes]:
    """The fields of /proc/pid/stat after the name, the state first."""
    return Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()


def _environ(pid: int) -> list[bytes]:
    """A process's environment; empty where it is not ours to read.

    In the middle of an exec it reads as empty too, so that is asked again.
    """
    with suppress(OSError, IndexError):
        for _ in range(_EXEC_READS):
            environ = Path(f"/proc/{pid}/environ").read_bytes()
            if environ or _stat(pid)[0] == b"Z":
                return environ.split(b"\0")
            time.sleep(0.001)
    return []
