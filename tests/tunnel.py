"""What `ssh -L PORT:SOCKET host` does, for tests: a port on loopback that leads to a Unix socket."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def tunnel(path: Path) -> Iterator[str]:
    """Gives the address of the port, such as `http://localhost:40123`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_accept, args=(listener, path))
        thread.start()
        yield f"http://localhost:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _accept(listener: socket.socket, path: Path) -> None:
    with suppress(OSError):
        while True:
            near, _ = listener.accept()
            threading.Thread(target=_carry, args=(near, path), daemon=True).start()


def _carry(near: socket.socket, path: Path) -> None:
    with near, socket.socket(socket.AF_UNIX) as far, suppress(OSError):
        far.connect(str(path))
        back = threading.Thread(target=_copy, args=(far, near), daemon=True)
        back.start()
        _copy(near, far)
        back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(65536):
            sink.sendall(chunk)
    for one in (source, sink):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
