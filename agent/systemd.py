"""What systemd passes a service, and what it wants to be told. Without systemd, all of it is no.

Sources: sd_listen_fds(3), sd_notify(3).
"""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

_FIRST_FD = 3


def passed_sockets(environ: Mapping[str, str], pid: int | None = None) -> list[socket.socket]:
    """The listening sockets that systemd opened for this process, in their order."""
    if environ.get("LISTEN_PID") != str(pid or os.getpid()):
        return []
    count = int(environ.get("LISTEN_FDS", "0"))
    found = []
    for number in range(_FIRST_FD, _FIRST_FD + count):
        os.set_inheritable(number, False)
        one = socket.socket(fileno=number)
        one.setblocking(False)
        found.append(one)
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
