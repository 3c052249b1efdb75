"""Readers that need to know where the file is and what the environment has: paths, hooks, secrets.

Like those in `kinds`, each gives the value or raises ValueError, which never has a secret in it.
"""

import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent import kinds, programs
from agent.errors import AgentError
from agent.kinds import (
    Argv,
    ExistingFile,
    KeyFile,
    Place,
    Repo,
    TreePath,
    WebhookSecrets,
    reveal,
    string,
)
from agent.model import Secret
from agent.places import Places, real

_SHORTEST_SECRET = 16
_SCP = re.compile(r"(?:[^@/:\s-][^@/:\s]*@)?[^@/:\s-][^@/:\s]*:[^:\s-][^\s]*")


class _Readers:
    """Readers that need to know where the file is and what the environment has."""

    def __init__(self, places: Places, environ: Mapping[str, str]) -> None:
        self._places = places
        self._environ = environ

    def place(self, value: object, _: object = None) -> Place:
        path = self._places.absolute(string(value))
        if path is None:
            raise ValueError("must be a path")
        return Place(path)

    def existing_file(self, value: object, _: object) -> ExistingFile:
        path = self.place(value)
        if not path.is_file():
            raise ValueError(f"there is no file {path}")
        return ExistingFile(path)

    def tree_path(self, value: object, _: object) -> TreePath:
        path = self.place(value)
        found = real(path)
        for own in (self._places.state_dir, self._places.hooks_dir):
            if found.is_relative_to(real(own)) or real(own).is_relative_to(found):
                raise ValueError(f"{path} and the agent's own {own} must not be in each other")
        if found == Path("/"):
            raise ValueError("must be a folder of the target's own, not /")
        # A link that leads nowhere is there, too, and no folder can be made in its place.
        there = next(one for one in (path, *path.parents) if os.path.lexists(one))
        if not there.is_dir():
            raise ValueError(f"{there} is there and is not a folder")
        return TreePath(path)

    def repo(self, value: object, _: object) -> Repo:
        text = string(value)
        if not text or text.startswith("-") or re.search(r"[\x00-\x20\x7f]", text):
            raise ValueError("must be a repository's URL or path, without blanks")
        if "::" in text.split("/")[0]:
            raise ValueError("remote helpers are not allowed; use https:// or ssh")
        if "://" in text:
            return Repo(_url(text))
        if text.startswith(("/", "./", "../", "~")):
            return Repo(str(self.place(text)))
        if not _SCP.fullmatch(text):
            raise ValueError(
                "must be such as https://github.com/acme/shop.git, git@github.com:acme/shop.git"
                " or /srv/git/shop.git"
            )
        return Repo(text)

    def argv(self, value: object, _: object) -> Argv:
        if not isinstance(value, list) or not value:
            raise ValueError('must be a list such as ["install-venv", "--extra", "prod"]')
        for word in value:
            string(word)
        program, *arguments = value
        return Argv((self._program(program), *arguments))

    def _program(self, program: str) -> str:
        """A bare name is in hooks_dir, `./x` in the deployed tree, an absolute path itself."""
        if program.startswith("./"):
            if ".." in Path(program).parts:
                raise ValueError(f"{program} leads out of the deployed tree")
            return program
        if "/" not in program and program not in ("", ".", ".."):
            path = self._places.hooks_dir / program
        elif program.startswith("/"):
            path = Path(program)
        else:
            raise ValueError(
                f'{program!r} is neither a name in {self._places.hooks_dir}, nor "./x" in the'
                " deployed tree, nor an absolute path"
            )
        _check_program(path)
        return str(path)

    def secret(self, value: object, _: object = None) -> Secret:
        if not isinstance(value, dict) or len(value) != 1:
            raise ValueError(
                'must name where the secret is: { env = "NAME" }, { file = "PATH" } or'
                ' { credential = "NAME" }'
            )
        ((kind, name),) = value.items()
        name = string(name)
        if kind == "env":
            secret = Secret(f"environment variable {name}", value=self._environ_value(name))
        elif kind == "file":
            secret = Secret(f"file {self.place(name)}", path=_private(self.place(name)))
        elif kind == "credential":
            secret = Secret(f"credential {name}", path=self._credential(name))
        else:
            raise ValueError(f"{kind!r} is no source of a secret; there are: env, file, credential")
        self._check_secret(secret)
        return secret

    def _check_secret(self, secret: Secret) -> None:
        try:
            content = reveal(secret)
        except AgentError as error:
            raise ValueError(str(error)) from None
        if not content:
            raise ValueError(f"{secret.name} is empty")

    def _environ_value(self, name: str) -> bytes:
        if name not in self._environ:
            raise ValueError(f"environment variable {name} is not set")
        return os.fsencode(self._environ[name])

    def _credential(self, name: str) -> Path:
        if "/" in name or name in ("", ".", ".."):
            raise ValueError(f"{name!r} cannot be a credential's name")
        try:
            found = [path for path in self._places.credential(name) if path.is_file()]
        except PermissionError:
            raise ValueError(f"credential {name} is for root and its service; use sudo") from None
        if not found:
            raise ValueError(
                f"credential {name} was not passed by systemd; put it into a file {name} of the"
                " unit's folder in /etc/gitops-agent/credentials, or add"
                f" LoadCredential={name}:PATH to the unit, and start the unit again"
            )
        return found[0]

    def webhook_secrets(self, value: object, _: object) -> WebhookSecrets:
        found = []
        for one in value if isinstance(value, list) and value else [value]:
            secret = self.secret(one)
            content = reveal(secret)
            if len(content) < _SHORTEST_SECRET:
                raise ValueError(
                    f"{secret.name} is shorter than {_SHORTEST_SECRET} bytes; make one with"
                    " `openssl rand -hex 32`"
                )
            found.append(content)
        return WebhookSecrets(tuple(found))

    def key_file(self, value: object, _: object) -> KeyFile:
        if isinstance(value, dict) and "env" in value:
            raise ValueError("ssh reads a file; use { file = ... } or { credential = ... }")
        secret = self.secret(value)
        assert secret.path
        return KeyFile(secret.path)


def _unread(_value: object, _: object) -> WebhookSecrets:
    return WebhookSecrets(())


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        host, password = parts.hostname or "", parts.password
    except ValueError:
        raise ValueError("is not a URL") from None
    if password is not None or (parts.username and parts.scheme in ("http", "https")):
        raise ValueError(
            "must not have credentials in it; put them into [targets.NAME.git] token = { file = … }"
        )
    if parts.scheme not in ("https", "http", "ssh", "file"):
        raise ValueError(f"{parts.scheme}:// is not allowed; use https:// or ssh://")
    if parts.scheme != "file" and (not host or host.startswith("-")):
        raise ValueError("has no host")
    if parts.scheme == "http" and not kinds.is_loopback(host):
        raise ValueError("http:// can be read and changed on its way; use https://")
    return text


def _private(path: Path) -> Path:
    """A secret's file, which other users must not be able to read."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ValueError(f"file {path} cannot be read: {error.strerror}") from None
    if mode & stat.S_IROTH:
        raise ValueError(f"file {path} can be read by every user; `chmod 600 {path}`")
    return path


def _check_program(path: Path) -> None:
    """A configured hook is there, is executable, and nobody else can change it."""
    if not path.is_file():
        raise ValueError(f"there is no hook {path}; {programs.whence(path)}")
    if not os.access(path, os.X_OK):
        raise ValueError(f"hook {path} is not executable; `chmod 755 {path}`")
    if path.stat().st_mode & stat.S_IWOTH:
        raise ValueError(f"hook {path} can be changed by every user; `chmod o-w {path}`")
    folder = path.parent.stat().st_mode
    if folder & stat.S_IWOTH and not folder & stat.S_ISVTX:
        raise ValueError(f"{path.parent} can be changed by every user; `chmod o-w {path.parent}`")


def readers(
    places: Places, environ: Mapping[str, str], *, webhook_secrets: bool = True
) -> dict[Any, Callable[[Any, Any], Any]]:
    """A reader for each kind, which may lean on where the file is and on the environment.

    `webhook_secrets` says whether those are read at all.
    """
    here = _Readers(places, environ)
    return {
        **kinds.READERS,
        Place: here.place,
        ExistingFile: here.existing_file,
        TreePath: here.tree_path,
        Repo: here.repo,
        Argv: here.argv,
        Secret: here.secret,
        WebhookSecrets: here.webhook_secrets if webhook_secrets else _unread,
        KeyFile: here.key_file,
    }
