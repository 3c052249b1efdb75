"""The kinds of value in agent.toml. Each has a reader, which gives the value or says what to type.

A reader raises ValueError, whose text follows the value's key path; it never has a secret in it.
"""

import difflib
import ipaddress
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NewType
from urllib.parse import urlsplit

from agent.errors import AgentError
from agent.model import Secret, Stage

PROVIDERS = ("github",)
SYSTEM_CONFIG = Path("/etc/gitops-agent/agent.toml")
SYSTEM_STATE = Path("/var/lib/gitops-agent")
SYSTEM_CONTROL = Path("/run/gitops-agent/control.sock")
_SHORTEST_SECRET = 16
LONGEST_SOCKET = 107


# ---- the kinds ---------------------------------------------------------------------------------

Duration = NewType("Duration", float)
Name = NewType("Name", str)
Place = NewType("Place", Path)
ExistingFile = NewType("ExistingFile", Path)
TreePath = NewType("TreePath", Path)
Bind = NewType("Bind", str)
Repo = NewType("Repo", str)
Branch = NewType("Branch", str)
Argv = NewType("Argv", tuple[str, ...])
Environment = NewType("Environment", Mapping[str, str])
WebhookSecrets = NewType("WebhookSecrets", tuple[bytes, ...])
KeyFile = NewType("KeyFile", Path)


@dataclass(frozen=True, slots=True)
class Interval:
    """How often to poll, in seconds; None is off."""

    seconds: float | None


class InPlace(str):
    """The one strategy there is so far."""

    __slots__ = ()


IN_PLACE = InPlace("in-place")


class Provider(str):
    """A forge's name."""

    __slots__ = ()


# ---- places ------------------------------------------------------------------------------------


class Places:
    """The folders, which everything else in the file may lean on."""

    def __init__(self, path: Path, document: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        self.path = path.absolute()
        self._environ = environ
        self.state_dir = self.absolute(document.get("state_dir")) or self._default_state()
        self.hooks_dir = (
            self.absolute(document.get("hooks_dir")) or self.path.parent / "deploy_hooks"
        )
        own = self.state_dir / "control.sock"
        self.control_socket = SYSTEM_CONTROL if self.state_dir == SYSTEM_STATE else own

    def _default_state(self) -> Path:
        """A service's folder where systemd or the file's place says so, else the user's own.

        The same for `run` under systemd and for a person's `status` on the same file.
        """
        if self.path.parent == SYSTEM_CONFIG.parent:
            return SYSTEM_STATE
        given = self._environ.get("STATE_DIRECTORY")
        if given:
            return Path(given.split(":")[0])
        base = self._environ.get("XDG_STATE_HOME") or "~/.local/state"
        return Path(base).expanduser() / "gitops-agent"

    def absolute(self, text: object) -> Path | None:
        """`text` as a path, from the file's folder; None where it is no text."""
        if not isinstance(text, str) or not text or "\0" in text:
            return None
        return Path(os.path.normpath(self.path.parent / Path(text).expanduser()))


# ---- secrets -----------------------------------------------------------------------------------


def reveal(secret: Secret) -> bytes:
    """The secret itself, read anew from its file; without white space around it."""
    if secret.value is not None:
        return secret.value.strip()
    assert secret.path
    try:
        return secret.path.read_bytes().strip()
    except OSError as error:
        raise AgentError(f"{secret.name} cannot be read: {error.strerror}") from None


# ---- readers -----------------------------------------------------------------------------------

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BAD_IN_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)")
_SCP = re.compile(r"(?:[^@/:\s-][^@/:\s]*@)?[^@/:\s-][^@/:\s]*:[^:\s-][^\s]*")


def parse_duration(value: object) -> float:
    """Seconds in a text such as "90s", "3m" or "1h30m"."""
    text = value if isinstance(value, str) else ""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f'must be a duration such as "90s", "3m" or "1h30m", not {value!r}')
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _duration(value: object, _: object) -> Duration:
    return Duration(parse_duration(value))


def _interval(value: object, _: object) -> Interval:
    if value == "off":
        return Interval(None)
    try:
        seconds = parse_duration(value)
    except ValueError:
        raise ValueError(f'must be a duration such as "3m", or "off", not {value!r}') from None
    if seconds < 1:
        raise ValueError('must be "1s" or longer, or "off"')
    return Interval(seconds)


def _text(value: object, _: object = None) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a text in quotes, not {value!r}")
    if "\0" in value:
        raise ValueError("must not have a NUL character")
    return value


def _whole_number(value: object, _: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"must be a whole number of at least 1, not {value!r}")
    return value


def _name(value: object, _: object) -> Name:
    text = _text(value)
    if not NAME.fullmatch(text):
        raise ValueError(f"{text!r} cannot be a name; use letters, digits, - and _, a letter first")
    return Name(text)


def _stage(value: object, _: object) -> Stage:
    try:
        return Stage(_text(value))
    except ValueError:
        raise ValueError(f"must be one of {', '.join(Stage)}, not {value!r}") from None


def _in_place(value: object, _: object) -> InPlace:
    if value == "releases":
        raise ValueError('"releases" is not there yet in this version; use "in-place"')
    if value != "in-place":
        raise ValueError(f'must be "in-place", not {value!r}')
    return InPlace(value)


def provider(value: object, _: object = None) -> Provider:
    if value not in PROVIDERS:
        raise ValueError(f"must be one of {', '.join(PROVIDERS)}, not {value!r}")
    return Provider(value)


def _bind(value: object, _: object) -> Bind:
    text = _text(value)
    if text.startswith("unix:/") and len(os.fsencode(text)) - len("unix:") <= LONGEST_SOCKET:
        return Bind(text)
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    good = bool(colon) and port.isdecimal() and 0 < int(port) < 65536
    if bare == "localhost" and good:
        return Bind(f"127.0.0.1:{port}")
    address = ipaddress.IPv6Address if bare != host else ipaddress.IPv4Address
    try:
        address(bare)
    except ValueError:
        good = False
    if not good:
        raise ValueError(
            f'must be an address such as "127.0.0.1:9000", "[::1]:9000" or'
            f' "unix:/run/gitops-agent/http.sock", not {text!r}'
        )
    return Bind(text)


def _branch(value: object, _: object) -> Branch:
    """A short branch name (git-check-ref-format(1))."""
    text = _text(value)
    if text.startswith("refs/"):
        raise ValueError(f'must be the short name, such as "main", not {text!r}')
    bad = _BAD_IN_REF.search(text) or text.startswith((".", "/", "-")) or text.endswith((".", "/"))
    if not text or bad or text == "@":
        raise ValueError(f"{text!r} cannot be a branch's name")
    return Branch(text)


def _environment(value: object, _: object) -> Environment:
    if not isinstance(value, dict):
        raise ValueError('must be a table such as { PIP_NO_INPUT = "1" }')
    for key, text in value.items():
        if not _ENV_NAME.fullmatch(key) or key.startswith("DEPLOY_"):
            raise ValueError(f"{key!r} cannot be set; DEPLOY_* is the agent's, names are A-Z0-9_")
        if not isinstance(text, str) or "\0" in text:
            raise ValueError(f"{key} must be a text in quotes")
    return Environment(value)


class _Readers:
    """Readers that need to know where the file is and what the environment has."""

    def __init__(self, places: Places, environ: Mapping[str, str]) -> None:
        self._places = places
        self._environ = environ

    def place(self, value: object, _: object = None) -> Place:
        path = self._places.absolute(_text(value))
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
        for own in (self._places.state_dir, self._places.hooks_dir):
            if path.resolve().is_relative_to(own.resolve()) or own.is_relative_to(path):
                raise ValueError(f"{path} and the agent's own {own} must not be in each other")
        if path == Path("/"):
            raise ValueError("must be a folder of the target's own, not /")
        if path.exists() and not path.is_dir():
            raise ValueError(f"{path} is there and is not a folder")
        return TreePath(path)

    def repo(self, value: object, _: object) -> Repo:
        text = _text(value)
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
            _text(word)
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
        name = _text(name)
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
        folder = self._environ.get("CREDENTIALS_DIRECTORY")
        if "/" in name or name in ("", ".", ".."):
            raise ValueError(f"{name!r} cannot be a credential's name")
        if not folder:
            raise ValueError(
                f"credential {name}: systemd passed none; add LoadCredential={name}:PATH to the"
                " unit"
            )
        return Path(folder, name)

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
    if parts.scheme == "http" and not _is_loopback(host):
        raise ValueError("http:// can be read and changed on its way; use https://")
    return text


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


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
        near = difflib.get_close_matches(path.name, _names_in(path.parent), 1)
        hint = f"did you mean {near[0]}?" if near else "put it there, or mend the name"
        raise ValueError(f"there is no hook {path}; {hint}")
    if not os.access(path, os.X_OK):
        raise ValueError(f"hook {path} is not executable; `chmod 755 {path}`")
    if path.stat().st_mode & stat.S_IWOTH:
        raise ValueError(f"hook {path} can be changed by every user; `chmod o-w {path}`")
    folder = path.parent.stat().st_mode
    if folder & stat.S_IWOTH and not folder & stat.S_ISVTX:
        raise ValueError(f"{path.parent} can be changed by every user; `chmod o-w {path.parent}`")


def _names_in(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:
        return []


def readers(places: Places, environ: Mapping[str, str]) -> dict[Any, Callable[[Any, Any], Any]]:
    """A reader for each kind, which may lean on where the file is and on the environment."""
    here = _Readers(places, environ)
    return {
        str: _text,
        int: _whole_number,
        Duration: _duration,
        Interval: _interval,
        Name: _name,
        Stage: _stage,
        InPlace: _in_place,
        Provider: provider,
        Bind: _bind,
        Branch: _branch,
        Environment: _environment,
        Place: here.place,
        ExistingFile: here.existing_file,
        TreePath: here.tree_path,
        Repo: here.repo,
        Argv: here.argv,
        Secret: here.secret,
        WebhookSecrets: here.webhook_secrets,
        KeyFile: here.key_file,
    }
