"""A real terminal for tests: tmux, with a server of its own."""

import os
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.agents import PATIENCE


class Screen:
    """One window of a tmux, and what is to be seen in it."""

    def __init__(self, server: str) -> None:
        self._server = server

    def _tmux(self, *words: str) -> str:
        done = subprocess.run(
            ["tmux", "-L", self._server, *words], capture_output=True, text=True, check=True
        )
        return done.stdout

    def type(self, *keys: str) -> None:
        """Keys by tmux's names, such as `Enter` and `C-c`; anything else is typed as it is."""
        self._tmux("send-keys", *keys)

    def run(self, line: str) -> None:
        self.type(line, "Enter")

    def text(self) -> str:
        return self._tmux("capture-pane", "-p")

    def coloured(self) -> str:
        """With the escape sequences that make it look so again."""
        return self._tmux("capture-pane", "-p", "-e")

    def ask(self, what: str) -> str:
        """Such as `#{pane_title}` (tmux(1), FORMATS)."""
        return self._tmux("display-message", "-p", what).strip()

    def resize(self, columns: int, lines: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(lines))

    def wait_for(self, *texts: str) -> str:
        """Until all of these are to be seen; gives all that is."""
        return self.wait_until(
            lambda seen: all(text in seen for text in texts), " and ".join(texts)
        )

    def wait_until(self, true: Callable[[str], bool], what: str) -> str:
        # tmux has no way of telling that something has appeared.
        for _ in range(int(PATIENCE / 0.1)):
            seen = self.text()
            if true(seen):
                return seen
            threading.Event().wait(0.1)
        raise AssertionError(f"no {what} in\n{seen}")


@contextmanager
def screen(folder: Path, columns: int = 80, lines: int = 24, **environ: str) -> Iterator[Screen]:
    """A shell in a terminal of this size."""
    server = f"test-{uuid.uuid4().hex[:12]}"
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TMUX")}
    subprocess.run(
        ["tmux", "-L", server, "-f", "/dev/null", "new-session", "-d", "-x", str(columns),
         "-y", str(lines), "bash", "--norc", "--noprofile"],
        check=True, cwd=folder, env={**kept, "PS1": "$ ", "HISTFILE": "", "LC_ALL": "C.UTF-8", **environ},
    )  # fmt: skip
    try:
        yield Screen(server)
    finally:
        subprocess.run(["tmux", "-L", server, "kill-server"], check=True)
