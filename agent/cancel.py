"""One flag that ends work in progress, whatever that work is waiting for.

A thread that waits in `selectors` watches `fileno()`; one that waits elsewhere is woken by a
callback.
"""

import os
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Cancel:
    """Set once, never cleared. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._set = False
        self._callbacks: set[Callable[[], None]] = set()
        self._eventfd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    @property
    def is_set(self) -> bool:
        return self._set

    def fileno(self) -> int:
        """A descriptor that becomes readable when this is set, and stays so."""
        return self._eventfd

    def set(self) -> None:
        with self._lock:
            if self._set:
                return
            self._set = True
            callbacks = tuple(self._callbacks)
        os.eventfd_write(self._eventfd, 1)
        for callback in callbacks:
            callback()

    @contextmanager
    def calling(self, callback: Callable[[], None]) -> Iterator[None]:
        """While the block runs, `callback` is called when this is set; at once if it is already."""
        with self._lock:
            self._callbacks.add(callback)
            already = self._set
        try:
            if already:
                callback()
            yield
        finally:
            with self._lock:
                self._callbacks.discard(callback)

    @contextmanager
    def child(self) -> Iterator["Cancel"]:
        """A flag for one piece of the work: set when this one is, and by itself."""
        one = Cancel()
        try:
            with self.calling(one.set):
                yield one
        finally:
            one.close()

    def wait(self, seconds: float) -> bool:
        """Until this is set, or `seconds` have passed; whether it is set."""
        ready = select.poll()
        ready.register(self, select.POLLIN)
        ready.poll(seconds * 1000)
        return self._set

    def close(self) -> None:
        os.close(self._eventfd)
