"""A hook's output on disk: head and tail, in bounded memory."""

from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

_HEAD = _TAIL = 512 * 1024


class Output:
    """What goes into `file`, unbuffered: the head as it comes, the tail once it is known."""

    def __init__(self, file: BinaryIO, head: int = _HEAD, tail: int = _TAIL) -> None:
        self._file = file
        self._head_left = head
        self._tail_most = tail
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._left_out = 0

    @classmethod
    def at(cls, path: Path) -> "Output":
        """Into the file at `path`, after what is in it already."""
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        return cls(path.open("ab", buffering=0))

    def __enter__(self) -> "Output":
        return self

    def __exit__(self, *_: object) -> None:
        self._write_tail()
        self._file.close()

    def write(self, chunk: bytes) -> None:
        head, rest = chunk[: self._head_left], chunk[self._head_left :]
        if head:
            self._head_left -= len(head)
            self._put(head)
        if rest:
            self._keep(rest)

    def line(self, text: str) -> None:
        """A line of text, as a hook would have printed it."""
        self.write(f"{text}\n".encode(errors="replace"))

    def note(self, text: str) -> None:
        """A line of the agent's own, told apart by its brackets."""
        self._write_tail()
        self._put(f"[gitops-agent: {text}]\n".encode(errors="replace"))

    def _keep(self, chunk: bytes) -> None:
        self._tail.append(chunk)
        self._tail_size += len(chunk)
        while self._tail_size - len(self._tail[0]) >= self._tail_most:
            gone = self._tail.popleft()
            self._tail_size -= len(gone)
            self._left_out += len(gone)

    def _write_tail(self) -> None:
        tail = b"".join(self._tail)
        self._tail.clear()
        self._tail_size = 0
        if self._left_out:
            cut = tail.find(b"\n") + 1
            self._left_out += cut
            self._put(f"\n[gitops-agent: {self._left_out} bytes left out]\n".encode())
            tail = tail[cut:]
            self._left_out = 0
        if tail:
            self._put(tail)

    def _put(self, chunk: bytes) -> None:
        # A full disk must not fail a deployment that goes well otherwise: the log is cut short.
        with suppress(OSError):
            self._file.write(chunk)
