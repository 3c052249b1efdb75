"""A git remote in a process of its own, over http or https, as far away as is wanted.

`python -m tests.bench.remote ROOT PORT [CERTIFICATE]`; every path /NAME.git/… that is not in ROOT
is taken for shop.git, so that one repository is as many as are wanted.

`python -m tests.bench.remote --delay PORT TO` passes connections on to a port; SIGUSR1 moves it 30
milliseconds of round trip away, SIGUSR2 back again.
"""

import asyncio
import re
import signal
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.programs import Program, free_port, python, started
from tests.remotes import serve_http

ROUND_TRIP = 0.030


# ---- for the benchmarks -----------------------------------------------------------------------


@contextmanager
def remote(root: Path, log: Path, certificate: Path | None = None) -> Iterator[Program]:
    port = free_port()
    more = [str(certificate)] if certificate else []
    command = python("tests.bench.remote", str(root), str(port), *more)
    with started(command, log, port, core=None) as program:
        yield program


@contextmanager
def delay(to: int, log: Path) -> Iterator[Program]:
    port = free_port()
    command = python("tests.bench.remote", "--delay", str(port), str(to))
    with started(command, log, port, core=None) as program:
        yield program


# ---- the programs -----------------------------------------------------------------------------


def _serve(root: Path, port: int, certificate: str | None) -> None:
    tls = None
    if certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
    with serve_http(root, port, tls) as served:
        served.alias = lambda path: re.sub(r"^/r\d+\.git/", "/shop.git/", path)
        signal.sigwait({signal.SIGTERM})


class Delay(asyncio.Protocol):
    """One side of a connection that is passed on, each piece half a round trip later."""

    half = 0.0

    def __init__(self, other: "Delay | None" = None) -> None:
        self.other = other
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._loop = asyncio.get_running_loop()
        # A handshake is a round trip of its own before anything can be sent.
        self._due = self._loop.time() + 2 * Delay.half

    def data_received(self, data: bytes) -> None:
        self._later(lambda: self.other and self.other.transport.write(data))

    def connection_lost(self, exc: Exception | None) -> None:
        self._later(lambda: self.other and self.other.transport.close())

    def _later(self, what: object) -> None:
        assert callable(what)
        self._due = max(self._due, self._loop.time()) if self._due else self._loop.time()
        self._loop.call_at(self._due + Delay.half, what)


class Front(Delay):
    """The side that connects; what it sends waits until the other side is there."""

    def __init__(self, to: int) -> None:
        super().__init__()
        self._to = to
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connecting = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        _, self.other = await self._loop.create_connection(
            lambda: Delay(self), "127.0.0.1", self._to
        )
        self.other._due = 0.0
        for data in self._early:
            super().data_received(data)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._early.append(data)
        else:
            super().data_received(data)


async def _pass_on(port: int, to: int) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, lambda: setattr(Delay, "half", ROUND_TRIP / 2))
    loop.add_signal_handler(signal.SIGUSR2, lambda: setattr(Delay, "half", 0.0))
    await loop.create_server(lambda: Front(to), "127.0.0.1", port)
    await stop.wait()


def main() -> None:
    if sys.argv[1] == "--delay":
        asyncio.run(_pass_on(int(sys.argv[2]), int(sys.argv[3])))
    else:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        _serve(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if sys.argv[3:] else None)


if __name__ == "__main__":
    main()
