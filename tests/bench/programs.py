"""Programs that are measured, each a process of its own: started, looked at, ended."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.remotes import free_port

CORES = sorted(os.sched_getaffinity(0))
SERVED, LOADED = str(CORES[0]), str(CORES[-1])
"""The core of whatever is measured, and that of whoever loads it."""
_PATIENCE = 60.0
_TICKS = os.sysconf("SC_CLK_TCK")


class Missing(Exception):
    """A program that the figures of a family need is not on this machine."""


def need(program: str, package: str) -> str:
    from shutil import which

    found = which(program)
    if found is None:
        raise Missing(f"no {program} here; Debian's package is {package}")
    return found


class Program:
    """A running process, and what it has used up."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int) -> None:
        self.process = process
        self.pid = process.pid
        self.port = port

    def seconds(self) -> float:
        """Processor time so far, of all its threads and of the children it has reaped."""
        own = time.clock_gettime((~self.pid << 3) | 2)  # clock_getcpuclockid(3)
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return own + (int(fields[13]) + int(fields[14])) / _TICKS

    def memory(self, field: str = "VmRSS") -> float:
        """In MB; the field is one of /proc/pid/status, such as VmHWM for the most so far."""
        found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found
        return int(found[1]) * 1024 / 1e6

    def forget_peak(self) -> None:
        """Have VmHWM start again from what is in use now (proc(5), clear_refs)."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")


@contextmanager
def started(
    command: Sequence[str], log: Path, port: int, *,
    core: str | None = SERVED, environ: Mapping[str, str] = {},
) -> Iterator[Program]:  # fmt: skip
    """`command`, on one core, from when `port` answers until the block ends."""
    pinned = ["taskset", "-c", core] if core else []
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*pinned, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            env={**os.environ, **environ},
        )  # fmt: skip
    program = Program(process, port)
    try:
        if not _listens(port, process):
            raise RuntimeError(f"{command} does not listen on {port}: {log.read_text()[-2000:]}")
        yield program
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(port: int, process: "subprocess.Popen[bytes]") -> bool:
    """Wait until it does; False where it ended before."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.001)
    return False


def python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


__all__ = ["LOADED", "SERVED", "Missing", "Program", "free_port", "need", "python", "started"]
