"""Single keys from a terminal, which is left as it was (termios(3))."""

import os
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

Read = Callable[[float], str | None]


@contextmanager
def keys() -> Iterator[Read]:
    """While the block runs, a way to wait so many seconds for a key, and to learn its name.

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


def _read(seconds: float) -> str | None:
    terminal = sys.stdin.fileno()
    ready, _, _ = select.select([terminal], [], [], seconds)
    if not ready:
        return None
    typed = os.read(terminal, 64)
    return "quit" if not typed else _NAMES.get(typed)


def _leave(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)
