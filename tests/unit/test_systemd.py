"""What systemd passes and wants to be told, by the protocols' own means: descriptors, a socket."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from agent import systemd

PASSED = """
import os
from agent import systemd
environ = {**os.environ, "LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2"}
for name, one in systemd.passed_sockets(environ):
    print(name, one.getsockname()[1], os.get_inheritable(one.fileno()))
print(systemd.passed_sockets({**environ, "LISTEN_PID": "1"}))
"""


@pytest.mark.parametrize(("names", "told"), [("feed:web", ["feed", "web"]), ("", ["", ""])])
def test_passed_sockets_have_their_names(names: str, told: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("", 0)) as second:
        ports = [str(one.getsockname()[1]) for one in (first, second)]

        def place() -> None:
            os.dup2(first.fileno(), 50)
            os.dup2(second.fileno(), 51)
            os.dup2(50, 3)
            os.dup2(51, 4)

        done = subprocess.run(
            [sys.executable, "-c", PASSED], capture_output=True, text=True, check=True,
            env={**os.environ, "LISTEN_FDNAMES": names}, preexec_fn=place, close_fds=False,
        )  # fmt: skip
    lines = [line.split(" ") for line in done.stdout.splitlines()]
    assert lines == [[told[0], ports[0], "False"], [told[1], ports[1], "False"], ["[]"]]


@pytest.fixture
def listening() -> Iterator[tuple[dict[str, str], socket.socket]]:
    with (
        TemporaryDirectory(dir="/tmp") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one,
    ):
        path = Path(folder) / "notify"
        one.bind(str(path))
        one.settimeout(10)
        yield {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "60000"}, one


def test_the_watchdog_is_fed_only_while_it_moves(
    listening: tuple[dict[str, str], socket.socket],
) -> None:
    environ, manager = listening
    moving = iter([True, False, True])

    async def words() -> str:
        return "3 targets"

    async def test() -> list[bytes]:
        watching = asyncio.create_task(systemd.watch(environ, lambda: next(moving), words))
        told = [await asyncio.to_thread(manager.recv, 4096) for _ in range(3)]
        watching.cancel()
        return told

    fed, unfed = b"WATCHDOG=1\nSTATUS=3 targets", b"STATUS=3 targets"
    assert asyncio.run(test()) == [fed, unfed, fed]


def test_without_systemd_nobody_is_told() -> None:
    async def words() -> str:
        raise AssertionError

    asyncio.run(systemd.watch({}, lambda: True, words))
    systemd.notify({}, "READY=1")
    systemd.notify({"NOTIFY_SOCKET": "/nowhere"}, "READY=1")
