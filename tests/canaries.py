"""Canaries: a secret that cannot be mistaken in every place where one can be configured.

The end-to-end suite plants them in every agent it starts. After each test they are searched for in
everything that the agent said, wrote, or gave to a process: logs, answers, command output, journal,
inbox, hook logs, trees, and the arguments and environment of every git and hook.
"""

import base64
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

FILE = "canary in a file: Qx7vTzLm2Wd"
ENVIRONMENT = "canary in the environment: Kp4sRnYb8Hc"
CREDENTIAL = "canary in a credential: Zf9jGwUe3Na"
TOKEN = "canary_token_Vt6mXqCo5Ls"
SECRETS = (FILE, ENVIRONMENT, CREDENTIAL, TOKEN)

# Before git on PATH: notes its arguments and environment, and is git from then on.
_GIT = """#!/bin/sh
{{ printf '%s\\n' "$@"; export -p; }} > {seen}/git.$$
exec {git} "$@"
"""


class Aviary:
    """One agent's canaries, and all that was seen of it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.folders = [root]
        """Where its files are."""
        self._own = root / "canaries"
        self.seen = self._own / "seen"
        self.heard: list[bytes] = []
        """Answers and command output."""
        self.logs: list[list[bytes]] = []
        """The log of each start, line by line."""
        self.secrets = list(SECRETS)
        self._credentials = self._own / "credentials"
        for folder in (self.seen, self._credentials, self._own / "bin"):
            folder.mkdir(parents=True)
        (self._credentials / "webhook").write_text(CREDENTIAL)
        git = self._own / "bin" / "git"
        git.write_text(_GIT.format(seen=self.seen, git=shutil.which("git")))
        git.chmod(0o755)

    def sources(self) -> str:
        """A webhook's secret, from everywhere that one can come from."""
        places = ('{ env = "CANARY_WEBHOOK" }', '{ credential = "webhook" }')
        return ", ".join((f'{{ file = "{self._root}/secret" }}', *places))

    def token(self) -> str:
        return 'git.token = { env = "CANARY_TOKEN" }'

    def environ(self) -> dict[str, str]:
        return {
            "CANARY_WEBHOOK": ENVIRONMENT,
            "CANARY_TOKEN": TOKEN,
            "CREDENTIALS_DIRECTORY": str(self._credentials),
            "PATH": f"{self._own / 'bin'}:{os.environ['PATH']}",
        }

    def note_hook(self) -> str:
        """Shell that notes a hook's arguments and environment."""
        return f"{{ printf '%s\\n' \"$@\"; export -p; }} > {self.seen}/hook.$$"

    def escaped(self) -> list[str]:
        """Each secret that was found, and where; nothing, one hopes."""
        heard = [*self.heard, *(b"".join(lines) for lines in self.logs)]
        places = [(f"what was heard: {text[:200]!r}", text) for text in heard]
        places += [(str(path), path.read_bytes()) for path in self._files()]
        return [
            f"{secret!r} in {place}"
            for place, content in places
            for secret in self.secrets
            if any(form in content for form in _forms(secret))
        ]

    def _files(self) -> Iterator[Path]:
        for path in (path for folder in self.folders for path in folder.rglob("*")):
            hidden = path.name.startswith("secret") or path.is_relative_to(self._credentials)
            if path.is_file() and not path.is_symlink() and not hidden:
                yield path


def check(aviaries: list[Aviary]) -> None:
    """Nothing has escaped from any; they are let go of."""
    escaped = [one for aviary in aviaries for one in aviary.escaped()]
    for aviary in aviaries:
        assert aviary.seen.is_dir(), "its folder was removed before it was looked at"
        shutil.rmtree(aviary.seen)
    aviaries.clear()
    assert not escaped


def _forms(secret: str) -> set[bytes]:
    """The secret as it is, and as base64, at each of the three places in a word, and in a URL."""
    content = secret.encode()
    inner = {
        base64.b64encode(b"x" * n + content)[(n * 8 + 5) // 6 :].rstrip(b"=")[:-1] for n in range(3)
    }
    return {content, quote(secret, safe="").encode(), content.hex().encode(), *inner}
