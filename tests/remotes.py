"""Stub until the real one is there."""

import os, subprocess
from pathlib import Path

ENV = {
    **os.environ,
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}


class Upstream:
    def __init__(self, root):
        self.path = Path(root) / "upstream.git"
        self.work = Path(root) / "work"
        self.work.mkdir(parents=True)
        self.git("init", "-q", "--bare", "-b", "main", str(self.path))
        self.git("init", "-q", "-b", "main")
        self.git("remote", "add", "origin", str(self.path))

    @property
    def url(self):
        return str(self.path)

    def git(self, *a):
        return subprocess.run(
            ["git", *a], cwd=self.work, env=ENV, check=True, capture_output=True, text=True
        ).stdout.strip()

    def _write(self, files, executable, symlinks):
        import shutil

        for n, c in files.items():
            p = self.work / n
            if c is None:
                p.unlink()
                continue
            for q in p.parents:
                if q.is_symlink() or q.is_file():
                    q.unlink()
            if p.is_dir() and not p.is_symlink():
                shutil.rmtree(p)
            p.parent.mkdir(parents=True, exist_ok=True)
            p.write_bytes(c if isinstance(c, bytes) else c.encode())
            if n in executable:
                p.chmod(0o755)
        for n, t in symlinks.items():
            (self.work / n).symlink_to(t)

    def commit(self, files, message="change", executable=(), symlinks={}):
        self._write(files, executable, symlinks)
        self.git("add", "-A", "-f")
        self.git("commit", "-qm", message, "--allow-empty")
        self.push()
        return self.git("rev-parse", "HEAD")

    def push(self, branch="main", force=False):
        self.git("push", "-q", *(["-f"] if force else []), "origin", f"HEAD:refs/heads/{branch}")

    def force_push(self, files, message="rewritten"):
        self.git("checkout", "-q", "--orphan", "tmp" + os.urandom(3).hex())
        self._write(files, (), {})
        self.git("add", "-A")
        self.git("commit", "-qm", message)
        self.git("branch", "-M", "main")
        self.push(force=True)
        return self.git("rev-parse", "HEAD")

    def delete_branch(self, name):
        subprocess.run(
            ["git", "config", "receive.denyDeleteCurrent", "ignore"], cwd=self.path, check=True
        )
        self.git("push", "-q", "origin", f":refs/heads/{name}")
