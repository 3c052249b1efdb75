"""Sockets, and uvicorn serving an application on them. With `connections`, all that knows uvicorn.

Leans on these insides of uvicorn 0.54, and on no others: `Server.startup`, `main_loop`, `on_tick`,
`capture_signals` and `should_exit`.
"""

import asyncio
import logging
import os
import socket
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import uvicorn

from agent.connections import Bounded, Crowd, Introduced, Limits, Taker
from agent.errors import AgentError

_BACKLOG = 2048
_GRACE = 5


# ---- sockets ----------------------------------------------------------------------------------


def bind(address: str, *, mode: int = 0o660) -> socket.socket:
    """A listening socket on `host:port`, `[v6]:port` or `unix:/path` (with `mode`).

    AgentError where that is not possible.
    """
    try:
        if address.startswith("unix:"):
            return _bind_unix(Path(address.removeprefix("unix:")), mode)
        host, _, port = address.rpartition(":")
        return _bind_tcp(host.strip("[]"), int(port))
    except OSError as error:
        raise AgentError(
            f"cannot listen on {address}: {error.strerror}; is another agent or server there?"
            " `bind` in [server] names another address"
        ) from error


def _bind_tcp(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((host, port))
        one.listen(_BACKLOG)
    except BaseException:
        one.close()
        raise
    one.setblocking(False)
    return one


def _bind_unix(path: Path, mode: int) -> socket.socket:
    _remove_stale(path)
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Nobody can connect before listen(), so there is no moment at which it is too open.
        one.bind(str(path))
        path.chmod(mode)
        one.listen(_BACKLOG)
    except BaseException:
        one.close()
        raise
    one.setblocking(False)
    return one


def _remove_stale(path: Path) -> None:
    """Remove a socket's file on which nobody listens any more."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise AgentError(f"{path} is there and is no socket; move it away")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise AgentError(f"somebody listens on {path} already; stop that agent first")


# ---- the server -------------------------------------------------------------------------------


class Server(uvicorn.Server):
    """Serves one application on listening sockets until `stop`. Several can share a loop.

    With `limits`, `taker` may take requests on the short path.
    """

    def __init__(
        self,
        app: Callable[..., Any],
        sockets: Sequence[socket.socket],
        limits: Limits | None,
        taker: Taker | None = None,
    ) -> None:
        # What is left of its log are our own bugs; refused requests would only fill it.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        http: Any = Introduced
        if limits:
            own = {"crowd": Crowd(limits), "taker": staticmethod(taker) if taker else None}
            http = type("Protocol", (Bounded,), own)
        super().__init__(
            uvicorn.Config(
                app,
                http=http,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_GRACE,
            )
        )
        self._sockets = list(sockets)
        self._accepting = asyncio.Event()
        self._stopping = asyncio.Event()
        self._names = [_name(one) for one in sockets]

    async def serve_all(self) -> None:
        """Serve until `stop`; then finish what is being answered."""
        await self.serve(self._sockets)

    async def ready(self) -> None:
        """Wait until connections are accepted."""
        await self._accepting.wait()

    def stop(self) -> None:
        self.should_exit = True
        self._stopping.set()

    def addresses(self) -> list[str]:
        """Where it listens, such as `127.0.0.1:9000`."""
        return self._names

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._accepting.set()

    async def main_loop(self) -> None:
        """Renew the Date header once a second until `stop`; uvicorn's own wakes more often."""
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._stopping.wait()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the service."""
        yield


def _name(one: socket.socket) -> str:
    address = one.getsockname()
    if one.family == socket.AF_UNIX:
        return f"unix:{os.fsdecode(address)}"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
