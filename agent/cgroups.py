"""Control groups of our own: a hook in each, and all that it started ended by one write.

Sources: cgroups(7) and the kernel's cgroup-v2.rst. Only version 2 is known here. `cgroup.kill` is
of Linux 5.14; where it, the right to make a group, or version 2 is missing, there is no group.
"""

import os
import select
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


class Unlimited(Exception):
    """A limit that was asked for and that this host's kernel does not keep for us."""


def own() -> Path | None:
    """The folder of the group that this process is in."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return None
    path = next((line[3:] for line in lines if line.startswith("0::")), None)
    # "36 35 98:0 ROOT POINT OPTIONS [more …] - TYPE SOURCE OPTIONS"
    point = next((line.split()[4] for line in mounts if " - cgroup2 " in line), None)
    return Path(point + path) if path and point else None


def pass_on(folder: Path, controllers: tuple[str, ...]) -> None:
    """Have these controllers in the groups below `folder`, in which no process is."""
    try:
        (folder / "cgroup.subtree_control").write_text(" ".join(f"+{one}" for one in controllers))
    except OSError as error:
        raise Unlimited(f"{' and '.join(controllers)}: {error.strerror}") from None


class Cgroup:
    """One group, from `make` to `remove`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._limits: list[tuple[str, str, str]] = []
        """The key in agent.toml of each that is set; the file and the event that count it."""

    @classmethod
    def make(cls, parent: Path | None, name: str) -> "Cgroup | None":
        """A new group below the folder `parent`; None where that cannot be had."""
        if parent is None:
            return None
        one = cls(parent / name)
        try:
            one.folder.mkdir()
            # Its own group of processes must be ours to fill, and to end.
            for file in ("cgroup.procs", "cgroup.kill"):
                os.close(os.open(one.folder / file, os.O_WRONLY))
        except OSError:
            with suppress(OSError):
                one.folder.rmdir()
            return None
        return one

    def limit_memory(self, most: int) -> None:
        """At `most` bytes, swap included, the kernel ends the whole group, not one of it."""
        self._set("memory.max", str(most))
        with suppress(Unlimited):
            self._set("memory.swap.max", "0")
        self._set("memory.oom.group", "1")
        self._limits.append(("memory_max", "memory.events", "oom_kill"))

    def limit_tasks(self, most: int) -> None:
        """With `most` processes and threads, no fork succeeds."""
        self._set("pids.max", str(most))
        self._limits.append(("tasks_max", "pids.events", "max"))

    def _set(self, file: str, value: str) -> None:
        """Write into one of its files. Unlimited where the controller is not there."""
        try:
            (self.folder / file).write_text(value)
        except OSError as error:
            raise Unlimited(f"{file} cannot be set: {error.strerror}") from None

    def enter(self) -> None:
        """Move the calling process, and with it all that it will start, into this group."""
        (self.folder / "cgroup.procs").write_text("0")

    def pids(self) -> set[int]:
        """The processes in it, and in the groups that they made below it."""
        found: set[int] = set()
        for folder in self._folders():
            with suppress(OSError):
                found.update(map(int, (folder / "cgroup.procs").read_text().split()))
        return found

    def over(self) -> str | None:
        """Which limit was run into, by its key in agent.toml."""
        for key, file, event in self._limits:
            if self._events(file).get(event):
                return key
        return None

    def _events(self, file: str) -> dict[str, int]:
        """What that file counts; nothing where it is not there."""
        with suppress(OSError):
            words = (self.folder / file).read_text().split()
            return dict(zip(words[::2], map(int, words[1::2]), strict=True))
        return {}

    def kill(self, patience: float) -> bool:
        """SIGKILL everything in it, which no fork gets out of; False if some is left after that.

        Waits `patience` seconds at most, for a process in the middle of a disk's work dies late.
        """
        deadline = time.monotonic() + patience
        changes = select.poll()
        with (self.folder / "cgroup.events").open("rb", buffering=0) as events:
            changes.register(events, select.POLLPRI)
            (self.folder / "cgroup.kill").write_text("1")
            # A poll tells of what changed since this very file was read.
            while b"populated 1" in os.pread(events.fileno(), 4096, 0):
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                changes.poll(left * 1000)
        return True

    def remove(self) -> None:
        """Take the empty group away; one that is not empty stays."""
        with suppress(OSError):
            for folder in reversed(list(self._folders())):
                folder.rmdir()

    def _folders(self) -> Iterator[Path]:
        for folder, _, _ in os.walk(self.folder):
            yield Path(folder)


def leftovers(prefix: str) -> list[Cgroup]:
    """The groups below our own whose name begins so, which a killed supervisor left."""
    parent = own()
    return [Cgroup(folder) for folder in parent.glob(f"{prefix}*/")] if parent else []
