"""Single keys from a terminal, which is left as it was (termios(3))."""

import os
import re
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_NAMES = {
    b"k": "up", b"\x1b[A": "up", b"\x1bOA": "up",
    b"j": "down", b"\x1b[B": "down", b"\x1bOB": "down",
    b"\x1b[5~": "page up",
    b" ": "page down", b"\x1b[6~": "page down",
    b"g": "home", b"\x1b[H": "home", b"\x1bOH": "home", b"\x1b[1~": "home",
    b"G": "end", b"\x1b[F": "end", b"\x1bOF": "end", b"\x1b[4~": "end",
    b"q": "quit", b"Q": "quit", b"\x04": "quit",
}  # fmt: skip
"""What terminals send (xterm, in both cursor modes; screen and tmux)."""

_KEY = re.compile(rb"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)

Read = Callable[[float], list[str]]


@contextmanager
def keys() -> Iterator[Read]:
    """While the block runs, a way to wait so many seconds for keys, and to learn their names.

    However the block is left, by a signal too, the terminal is what it was.
    """
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    handlers = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, _leave),
        signal.SIGHUP: signal.signal(signal.SIGHUP, _leave),
        # Stopped with the screen taken, the shell would write into it.
        signal.SIGTSTP: signal.signal(signal.SIGTSTP, signal.SIG_IGN),
    }
    try:
        tty.setcbreak(terminal)
        yield _read
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _read(seconds: float) -> list[str]:
    """The keys that were typed and mean something; `quit` where nobody can type any more."""
    terminal = sys.stdin.fileno()
    ready, _, _ = select.select([terminal], [], [], seconds)
    if not ready:
        return []
    typed = os.read(terminal, 64)
    return [_NAMES[key] for key in _KEY.findall(typed) if key in _NAMES] if typed else ["quit"]


def _leave(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)
