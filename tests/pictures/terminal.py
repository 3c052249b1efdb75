"""Draws docs/images/terminal.svg: `python -m tests.pictures.terminal [FILE]`. Needs tmux.

A real run in a real terminal: what tmux shows of it, escape sequences and all, becomes an SVG.
"""

import io
import os
import re
import sys
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from tests.agents import Agent
from tests.pictures.scene import scene
from tests.screens import Screen, screen

COLUMNS, LINES = 80, 36
THEME = TerminalTheme(
    (24, 26, 31), (214, 218, 226),
    [(24, 26, 31), (240, 98, 98), (120, 200, 120), (228, 180, 90), (98, 160, 240), (200, 130, 220),
     (90, 200, 210), (214, 218, 226)],
)  # fmt: skip


def main(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="acme-", dir="/tmp") as root,
        scene(Path(root)) as agent,
        _shell(agent) as at,
    ):
        at.run("clear")
        at.wait_until(lambda seen: seen.strip() == "$", "empty screen")
        for line in ("gitops-agent status", "gitops-agent sync landing --wait --force"):
            at.run(line)
            at.wait_until(lambda seen: seen.rstrip().endswith("\n$"), "prompt")
        file.write_text(drawn(at.coloured()))


def _shell(agent: Agent) -> AbstractContextManager[Screen]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return screen(agent.root, COLUMNS, LINES, PATH=path, GITOPS_AGENT_CONFIG=str(agent.config))


def drawn(text: str) -> str:
    """What a terminal shows as an SVG that needs nothing from elsewhere."""
    out = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    out.print(Text.from_ansi(text.rstrip().removesuffix("$").rstrip()))
    svg = out.export_svg(title="ssh web1", theme=THEME, unique_id="terminal")
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/terminal.svg"))
