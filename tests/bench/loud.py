"""A hook that prints a great deal: what the agent's memory grows by, beside adnanh/webhook's."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.bench.programs import free_port, need, started
from tests.bench.settings import Effort
from tests.bench.table import Row, under
from tests.soak import loud_hook

_OURS, _THEIRS = 1000, 300


def rows(root: Path, effort: Effort) -> Iterator[Row]:
    program = need("webhook", "webhook")
    ours, theirs = max(10, int(_OURS * effort.scale)), max(10, int(_THEIRS * effort.scale))
    figures = loud_hook.run(root, ours)
    yield Row.of(
        f"a hook that prints {ours:,} MB: memory over idle", "MB", [figures.grown_mb],
        f"webhook, {theirs} MB that it answers with", [_webhook(program, root, theirs)],
        under(10, "MB"),
    )  # fmt: skip


def _webhook(program: str, root: Path, megabytes: int) -> float:
    """How much more memory adnanh/webhook takes for a command's output."""
    loud = root / "loud"
    loud.write_text(f"#!/bin/sh\nyes 'a line of output' | head -c {megabytes}M\n")
    loud.chmod(0o755)
    hooks, port = root / "hooks.json", free_port()
    hooks.write_text(
        json.dumps(
            [{"id": "loud", "execute-command": str(loud),
              "include-command-output-in-response": True}]
        )
    )  # fmt: skip
    command = [program, "-hooks", str(hooks), "-ip", "127.0.0.1", "-port", str(port)]
    with started(command, root / "webhook.log", port, core=None) as running:
        idle = running.memory()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/hooks/loud") as answer:
            while answer.read(1 << 20):
                pass
        return running.memory("VmHWM") - idle
