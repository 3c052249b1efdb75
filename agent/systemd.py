"""What systemd passes a service, and what it wants to be told. Without systemd, all of it is no.

Sources: sd_listen_fds(3), sd_notify(3).
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

FEED = "feed"
"""The name (FileDescriptorName=) of the socket on which the receiver answers the core."""
_FIRST_FD = 3
_WORDS_EVERY = 10.0


def passed_sockets(
    environ: Mapping[str, str], pid: int | None = None
) -> list[tuple[str, socket.socket]]:
    """The listening sockets that systemd opened for this process, in their order, each named."""
    if environ.get("LISTEN_PID") != str(pid or os.getpid()):
        return []
    count = int(environ.get("LISTEN_FDS", "0"))
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    names += [""] * (count - len(names))
    found = []
    for number, name in zip(range(_FIRST_FD, _FIRST_FD + count), names, strict=False):
        os.set_inheritable(number, False)
        one = socket.socket(fileno=number)
        one.setblocking(False)
        found.append((name, one))
    return found


def notify(environ: Mapping[str, str], state: str) -> None:
    """Tell systemd, such as `READY=1` or `STATUS=3 targets`; nothing where it does not listen."""
    address = environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to, suppress(OSError):
        to.sendto(state.encode(), address)


async def watch(
    environ: Mapping[str, str], moves: Callable[[], bool], words: Callable[[], Awaitable[str]]
) -> None:
    """For ever: say `words` to `systemctl status`, and feed the watchdog, but only while it moves.

    An agent that hangs is so started again by systemd (WatchdogSec=). One whose disk is full does
    not hang: it answers 503, and a new start would only lose those answers.
    """
    if not environ.get("NOTIFY_SOCKET"):
        return
    patience = int(environ.get("WATCHDOG_USEC", "0")) / 1e6
    while True:
        fed = "WATCHDOG=1\n" if moves() else ""
        notify(environ, f"{fed}STATUS={await words()}")
        await asyncio.sleep(min(_WORDS_EVERY, patience / 3 or _WORDS_EVERY))
