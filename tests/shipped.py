"""A host for the shipped hooks, on which each is run as the agent would run it."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

HOOKS = Path(__file__).parents[1] / "deploy_hooks"
NAMES = sorted(path.name for path in HOOKS.iterdir() if path.name != "README.md")


class Host:
    """A deployed tree, the programs on the hook's PATH, and what they were asked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home, self.tree, self.bin = root / "home", root / "srv/shop", root / "bin"
        for folder in (self.home, self.tree, self.bin):
            folder.mkdir(parents=True)
        self.asked = root / "asked"

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        path = self.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def program(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(f"#!{sys.executable}\n{text}")
        path.chmod(0o755)

    def commands(self) -> list[str]:
        return self.asked.read_text().splitlines() if self.asked.exists() else []

    def env(self, **more: str) -> dict[str, str]:
        return {
            "PATH": f"{self.bin}:{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "TMPDIR": str(self.root),
            "DEPLOY_TARGET": "shop",
            "DEPLOY_REASON": "push",
            "DEPLOY_TREE": str(self.tree),
            "DEPLOY_PATH": str(self.tree),
            **more,
        }

    def start(self, name: str, *arguments: object, **env: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [HOOKS / name, *map(str, arguments)],
            cwd=self.tree,
            env=self.env(**env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )

    def run(self, name: str, *arguments: object, **env: str) -> tuple[int, str]:
        with self.start(name, *arguments, **env) as process:
            output, _ = process.communicate(timeout=60)
        return process.returncode, output


def explains(output: str) -> bool:
    """Whether a failure says what happened, what it means, and what to type."""
    lines = [line.strip() for line in output.splitlines()]
    return any(
        one.startswith("meaning:") and following.startswith("to do:")
        for one, following in pairwise(lines)
    )
