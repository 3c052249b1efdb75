"""Log lines to systemd's journal, each with its fields: `journalctl DEPLOY_TARGET=shop`.

Source: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/
"""

import fcntl
import logging
import os
import re
import socket
import sys
from array import array
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

SOCKET = Path("/run/systemd/journal/socket")
_PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}
_NAMES = {"deployment": "DEPLOY_ID", "level": "PRIORITY", "exception": "DEPLOY_TRACEBACK"}
_TOLD = ("event", "level", "exception")
_ODD = re.compile(r"[^A-Z0-9_]")
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def is_behind(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether `stream` goes to the journal anyway (JOURNAL_STREAM, systemd.exec(5))."""
    told = environ.get("JOURNAL_STREAM")
    if not told:
        return False
    info = os.fstat(stream.fileno())
    return told == f"{info.st_dev}:{info.st_ino}"


def fields(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> dict[str, str]:
    """A log event as the journal's fields: each value under its name, and all of it in a line."""
    found = {_field(name): _text(value) for name, value in event.items() if value is not None}
    found["DEPLOY_EVENT"] = str(event.get("event"))
    found["PRIORITY"] = str(_PRIORITIES.get(str(event.get("level")), 6))
    values = " ".join(
        f"{name}={_text(value)}"
        for name, value in event.items()
        if name not in _TOLD and value is not None
    )
    lines = f"{event.get('event')} {values}".rstrip()
    found["MESSAGE"] = f"{lines}\n{event['exception']}" if event.get("exception") else lines
    return found


def _field(name: str) -> str:
    """The journal's name for a field: `target` is DEPLOY_TARGET."""
    return _NAMES.get(name) or f"DEPLOY_{_ODD.sub('_', name.upper())}"[:64]


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


class Sender:
    """Sends fields to the journal; structlog's last link, and logging's.

    Where the journal does not take them, the line goes to standard error.
    """

    def __init__(self, path: Path = SOCKET, identifier: str = "gitops-agent") -> None:
        self._path = str(path)
        self._identifier = identifier
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def send(self, **told: str) -> None:
        message = b"".join(map(_encoded, (*told.items(), ("SYSLOG_IDENTIFIER", self._identifier))))
        try:
            self._send(message)
        except OSError:
            with suppress(OSError):
                sys.stderr.write(f"{told.get('MESSAGE')}\n")

    def close(self) -> None:
        self._socket.close()

    debug = info = warning = error = critical = msg = send

    def _send(self, message: bytes) -> None:
        try:
            self._socket.sendto(message, self._path)
        except OSError:
            # Too large for a datagram: in a sealed memory file, as the protocol wants it.
            with os.fdopen(os.memfd_create("log", os.MFD_ALLOW_SEALING), "wb") as file:
                file.write(message)
                file.flush()
                fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
                passed = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [file.fileno()]))
                self._socket.sendmsg([], [passed], 0, self._path)


def _encoded(field: tuple[str, str]) -> bytes:
    name, value = field[0].encode(), field[1].encode(errors="backslashreplace")
    if b"\n" not in value:
        return name + b"=" + value + b"\n"
    return name + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"


class Handler(logging.Handler):
    """What libraries say through `logging`."""

    def __init__(self, sender: Sender) -> None:
        super().__init__()
        self._sender = sender

    def emit(self, record: logging.LogRecord) -> None:
        priority = str(_PRIORITIES.get(record.levelname.lower(), 6))
        self._sender.send(MESSAGE=self.format(record), PRIORITY=priority, DEPLOY_LOGGER=record.name)

    def close(self) -> None:
        self._sender.close()
        super().close()
