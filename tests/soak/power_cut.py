"""Power cuts under an inbox that is being written. `python -m tests.soak.power_cut 200`, as root

An ext4 of its own is shut down by the ioctl that drops what is not on the disk yet, without
flushing its log, and mounted again. Prints one line: cuts, deliveries acknowledged, acknowledged
and lost, and inboxes found damaged.
"""

import ctypes
import fcntl
import os
import random
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2
_BOOT = "/proc/sys/kernel/random/boot_id"
_NEW_MOUNTS = 0x20000
"""CLONE_NEWNS of unshare(2)."""
_WRITER = """
import sys
import time
from pathlib import Path
import structlog
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
from agent.inbox import Inbox
from agent.model import Delivery, Push
inbox = Inbox(Path(sys.argv[1]))
push = Push("refs/heads/main", "a" * 40, frozenset({"/x"}))
n = 0
while True:
    ids = [f"{sys.argv[2]}-{n + k}" for k in range(8)]
    n += 8
    pushes = [(Delivery("github", i, "push", 0), push, ("shop",)) for i in ids]
    for future in (inbox.receive(pushes[:3], 1.0), inbox.receive(pushes[3:], 1.0)):
        future.result()
    sys.stdout.write("".join(f"{i} {time.monotonic()}\\n" for i in ids))
    sys.stdout.flush()
"""


class NoMount(Exception):
    """This machine lets nobody mount an ext4 here; the reason is in the message."""


@dataclass
class Figures:
    cuts: int = 0
    acknowledged: int = 0
    lost: int = 0
    damaged: int = 0

    def __str__(self) -> str:
        return (
            f"{self.cuts} power cuts: {self.acknowledged} deliveries acknowledged, {self.lost}"
            f" lost, {self.damaged} inboxes damaged"
        )


def _call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoMount(f"{command[0]}: {done.stderr.strip()}")


def keep_mounts() -> None:
    """From here on nobody else comes to have this process's mounts, or those of its children.

    Whoever makes a mount namespace meanwhile would, and then nothing is gone when it is unmounted.
    """
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_MOUNTS):
        raise NoMount(f"no mounts of its own: {os.strerror(ctypes.get_errno())}")
    _call("mount", "--make-rprivate", "/")


class Disk:
    """An ext4 of its own at `folder`, whose power can be cut. NoMount where that cannot be had."""

    def __init__(self, root: Path, megabytes: int) -> None:
        keep_mounts()
        self._image, self.folder, self._boot = root / "image", root / "disk", root / "boot"
        self.folder.mkdir()
        with self._image.open("wb") as file:
            file.truncate(megabytes << 20)
        _call("mkfs.ext4", "-q", str(self._image))

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """For a while, in which the host has been started anew, by all that one can see."""
        self._boot.write_text(f"{uuid.uuid4()}\n")
        _call("mount", "--bind", str(self._boot), _BOOT)
        _call("mount", "-o", "loop", str(self._image), str(self.folder))
        try:
            yield
        finally:
            _call("umount", _BOOT)
            self._unmount()

    def cut(self) -> None:
        """What is not on the disk by now never will be."""
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(handle)

    def _unmount(self) -> None:
        """Again while somebody who has just been killed is not gone yet."""
        for _ in range(200):
            with suppress(NoMount):
                _call("umount", str(self.folder))
                return
            time.sleep(0.05)
        _call("umount", str(self.folder))


def run(root: Path, cuts: int, seed: int = 1) -> Figures:
    """Errors: NoMount where there is no right or no way to mount."""
    chance, figures = random.Random(seed), Figures()
    disk = Disk(root, 64)
    acknowledged: set[str] = set()
    for n in range(cuts):
        with disk.mounted():
            acknowledged |= _write_until_cut(disk, n, chance.random() * 0.3)
        figures.cuts += 1
        with disk.mounted():
            lost, sound = _look(disk.folder / "state" / "inbox.db", acknowledged)
        figures.lost += len(lost)
        figures.damaged += not sound
        acknowledged -= lost
    figures.acknowledged = len(acknowledged) + figures.lost
    return figures


def _write_until_cut(disk: Disk, n: int, seconds: float) -> set[str]:
    """Let an inbox be written for a while, cut the power; what was acknowledged by then.

    What is acknowledged while the ioctl runs does not count: the kernel lets an fsync that has
    begun end well then, but no answer leaves a host that has no power.
    """
    command = [sys.executable, "-c", _WRITER, str(disk.folder / "state"), str(n)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as writer:
        assert writer.stdout
        first = writer.stdout.readline()
        time.sleep(seconds)
        cut_at = time.monotonic()
        disk.cut()
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read()
    words = (line.split() for line in (first + rest).decode().split("\n")[:-1])
    return {one for one, at in words if float(at) < cut_at}


def _look(inbox: Path, acknowledged: set[str]) -> tuple[set[str], bool]:
    with closing(sqlite3.connect(inbox)) as db:
        sound = db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        kept = {row[0] for row in db.execute("SELECT id FROM letters")}
    return acknowledged - kept, sound


def main() -> None:
    cuts = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory(dir="/tmp") as root:
        figures = run(Path(root), cuts)
    sys.stdout.write(f"{figures}\n")
    sys.exit(1 if figures.lost or figures.damaged else 0)


if __name__ == "__main__":
    main()
