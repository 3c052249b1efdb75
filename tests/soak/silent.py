"""Connections that say nothing or a byte a second. `python -m tests.soak.silent 500 30`

Prints one line: how many there were, for how long, and how soon real deliveries were answered.
"""

import selectors
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tests.agents import Agent
from tests.remotes import Upstream


@dataclass
class Figures:
    connections: int
    seconds: float
    answered: int = 0
    slowest: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.connections} silent or dribbling connections for {self.seconds:g} s:"
            f" {self.answered} deliveries answered, the slowest in {self.slowest * 1000:.0f} ms"
        )


class Crowd(threading.Thread):
    """Keeps so many connections open, half of them silent, half sending a byte each second."""

    def __init__(self, port: int, count: int) -> None:
        super().__init__()
        self.done = threading.Event()
        self._port = port
        self._count = count

    def run(self) -> None:
        open_now: list[socket.socket] = []
        while not self.done.wait(0.2):
            open_now = [one for one in open_now if self._alive(one)]
            while len(open_now) < self._count:
                open_now.append(socket.create_connection(("127.0.0.1", self._port)))
        for one in open_now:
            one.close()

    def _alive(self, one: socket.socket) -> bool:
        with selectors.DefaultSelector() as selector:
            selector.register(one, selectors.EVENT_READ)
            if selector.select(0):
                one.close()
                return False
        if one.fileno() % 2:
            try:
                one.send(b"P")
            except OSError:
                return False
        return True


def run(root: Path, count: int, seconds: float) -> Figures:
    figures = Figures(count, seconds)
    upstream = Upstream(root / "upstream")
    agent = Agent(root / "agent", upstream.url)
    agent.configure()
    a = upstream.commit({"a": "1"})
    agent.start()
    agent.finished(a)
    crowd = Crowd(agent.port, count)
    crowd.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        if agent.push(a).status_code == 202:
            figures.answered += 1
        figures.slowest = max(figures.slowest, time.monotonic() - began)
        time.sleep(0.1)
    crowd.done.set()
    crowd.join()
    agent.stop()
    return figures


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 30.0
    with tempfile.TemporaryDirectory(dir="/tmp") as root:
        figures = run(Path(root), count, seconds)
    sys.stdout.write(f"{figures}\n")
    sys.exit(0 if figures.answered and figures.slowest < 1 else 1)


if __name__ == "__main__":
    main()
