"""A repository of many files, in which a few change with each commit."""

import random
import subprocess
from pathlib import Path

from tests.remotes import GIT_ENV, git

_CHANGED = 10


class Large:
    """A bare repository with `files` files on main, made by git fast-import."""

    def __init__(self, path: Path, files: int) -> None:
        self.path = path
        self.url = str(path)
        """Where it is fetched from; another where it is served."""
        self.files = files
        self._random = random.Random(files)
        git("init", "--quiet", "--bare", "--initial-branch=main", str(path), cwd=path.parent)
        self._import({n: f"{n}\n" * 20 for n in range(files)})

    def commit(self) -> str:
        """Change ten files; gives the revision."""
        changed = self._random.sample(range(self.files), min(_CHANGED, self.files))
        self._import({n: f"{self._random.random()}\n" for n in changed})
        return git("rev-parse", "main", cwd=self.path)

    def _import(self, contents: dict[int, str]) -> None:
        """One commit (git-fast-import(1), Input Format)."""
        parent = "from refs/heads/main^0\n" if self._exists() else ""
        lines = [
            f"commit refs/heads/main\ncommitter Ada <ada@example.org> now\ndata 6\nchange\n{parent}"
        ]
        for n, text in contents.items():
            path = f"d{n % 100:02d}/e{n // 100 % 50:02d}/f{n}.txt"
            lines.append(f"M 100644 inline {path}\ndata {len(text)}\n{text}\n")
        subprocess.run(
            ["git", "fast-import", "--quiet", "--date-format=now"],
            cwd=self.path, input="".join(lines).encode(), env=dict(GIT_ENV), check=True,
        )  # fmt: skip

    def _exists(self) -> bool:
        return bool(git("for-each-ref", "refs/heads/main", cwd=self.path))
