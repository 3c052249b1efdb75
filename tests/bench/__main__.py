"""Every figure of docs/performance.md, beside a peer or a floor measured in the same run.

    python -m tests.bench                    all of it, in under ten minutes
    python -m tests.bench receiver polls     these families only
    python -m tests.bench --short            once each and small: does it still work?

Prints a table and times nothing that could fail: a slow machine is not an error.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench import (
    bodies,
    history,
    idle,
    loud,
    page,
    polls,
    push,
    receiver,
    releases,
    scale,
)
from tests.bench.programs import Missing
from tests.bench.settings import FULL, SHORT, Effort
from tests.bench.table import Row, render

FAMILIES: dict[str, Callable[[Path, Effort], Iterator[Row]]] = {
    "receiver": receiver.rows,
    "bodies": bodies.rows,
    "push": push.rows,
    "releases": releases.rows,
    "polls": polls.rows,
    "scale": scale.rows,
    "idle": idle.rows,
    "loud": loud.rows,
    "history": history.rows,
    "page": page.rows,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument(
        "families", nargs="*", choices=[*FAMILIES, []], help="all, if none is named"
    )
    parser.add_argument("--short", action="store_true", help="once each, and small")
    asked = parser.parse_args()
    effort = SHORT if asked.short else FULL
    began = time.monotonic()
    rows = [row for name in asked.families or FAMILIES for row in _measure(name, effort)]
    sys.stdout.write(f"{render(rows)}\n")
    _say(f"all of it in {time.monotonic() - began:.0f} s")


def _measure(name: str, effort: Effort) -> list[Row]:
    """The rows of one family; none, with a word about it, where something is missing here."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"bench-{name}-", dir="/tmp") as root:
        try:
            rows = list(FAMILIES[name](Path(root), effort))
        except Missing as error:
            _say(f"{name}: skipped: {error}")
            return []
    _say(f"{name}: {time.monotonic() - began:.0f} s")
    return rows


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main()
