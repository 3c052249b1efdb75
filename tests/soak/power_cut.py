"""Power cuts under an inbox that is being written. `python -m tests.soak.power_cut 200`, as root

An ext4 of its own is shut down by the ioctl that drops what is not on the disk yet, without
flushing its log, and mounted again. Prints one line: cuts, deliveries acknowledged, acknowledged
and lost, and inboxes found damaged.
"""

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
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2
_WRITER = """
import sys
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
    sys.stdout.write("".join(i + "\\n" for i in ids))
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


def run(root: Path, cuts: int, seed: int = 1) -> Figures:
    """Errors: NoMount where there is no right or no way to mount."""
    if os.getuid() != 0:
        raise NoMount("only root can mount")
    chance, figures = random.Random(seed), Figures()
    image, disk = root / "image", root / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    _call("mkfs.ext4", "-q", str(image))
    acknowledged: set[str] = set()
    for n in range(cuts):
        _call("mount", "-o", "loop", str(image), str(disk))
        try:
            acknowledged |= _write_until_cut(disk, n, chance.random() * 0.3)
        finally:
            _call("umount", str(disk))
        figures.cuts += 1
        _call("mount", "-o", "loop", str(image), str(disk))
        try:
            lost, sound = _look(disk / "state" / "inbox.db", acknowledged)
        finally:
            _call("umount", str(disk))
        figures.lost += len(lost)
        figures.damaged += not sound
        acknowledged -= lost
    figures.acknowledged = len(acknowledged) + figures.lost
    return figures


def _write_until_cut(disk: Path, n: int, seconds: float) -> set[str]:
    """Let an inbox be written for a while, cut the power; what was acknowledged by then."""
    command = [sys.executable, "-c", _WRITER, str(disk / "state"), str(n)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as writer:
        assert writer.stdout
        first = writer.stdout.readline()
        time.sleep(seconds)
        handle = os.open(disk, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(handle)
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read()
    lines = (first + rest).decode().split("\n")
    return set(lines[:-1])


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
