"""agent.toml becomes frozen Settings, or every fault in it at once, each with its key path.

The shape stands in the `_File` classes below. cattrs walks it and calls a reader for each kind of
value; a reader gives the value or raises ValueError with what to type instead.
"""

import difflib
import ipaddress
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NewType
from urllib.parse import urlsplit

import cattrs
from cattrs.errors import (
    AttributeValidationNote,
    BaseValidationError,
    ClassValidationError,
    ForbiddenExtraKeysError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn

from agent.errors import AgentError, ConfigError
from agent.model import GitAccess, Hook, Secret, Stage, Target, Webhook

PROVIDERS = ("github",)
SYSTEM_CONFIG = Path("/etc/gitops-agent/agent.toml")
SYSTEM_STATE = Path("/var/lib/gitops-agent")
SYSTEM_CONTROL = Path("/run/gitops-agent/control.sock")
_SHORTEST_SECRET = 16
_LONGEST_SOCKET = 107


@dataclass(frozen=True, slots=True)
class Settings:
    """A configuration without faults. Times are in seconds, paths absolute."""

    path: Path
    state_dir: Path
    hooks_dir: Path
    control_socket: Path
    parallel: int
    history: float
    drain: float
    bind: str
    poll_jitter: float
    webhooks: Mapping[str, Webhook]
    targets: Mapping[str, Target]


# ---- the shape of the file --------------------------------------------------------------------

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


_IN_PLACE = InPlace("in-place")


class Provider(str):
    """A forge's name."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class _Server:
    bind: Bind = Bind("127.0.0.1:9000")


@dataclass(frozen=True, slots=True)
class _Poll:
    interval: Interval = Interval(180.0)
    jitter: Duration = Duration(10.0)


@dataclass(frozen=True, slots=True)
class _TargetPoll:
    interval: Interval


@dataclass(frozen=True, slots=True)
class _Webhook:
    secret: WebhookSecrets
    provider: Provider | None = None


@dataclass(frozen=True, slots=True)
class _Git:
    token: Secret | None = None
    username: str = "x-access-token"
    ssh_key: KeyFile | None = None
    known_hosts: ExistingFile | None = None


@dataclass(frozen=True, slots=True)
class _Hook:
    run: Argv
    name: Name | None = None
    stage: Stage = Stage.ACTIVATE
    timeout: Duration = Duration(300.0)
    env: Environment = field(default_factory=lambda: Environment({}))


@dataclass(frozen=True, slots=True)
class _Target:
    repo: Repo
    path: TreePath
    branch: Branch = Branch("main")
    strategy: InPlace = _IN_PLACE
    timeout: Duration = Duration(1800.0)
    poll: _TargetPoll | None = None
    git: _Git = _Git()
    hooks: tuple[_Hook, ...] = ()


@dataclass(frozen=True, slots=True)
class _File:
    targets: dict[str, _Target] = field(default_factory=dict)
    state_dir: Place | None = None
    hooks_dir: Place | None = None
    parallel: int = 4
    history: Duration = Duration(90 * 86400.0)
    drain: Duration = Duration(80.0)
    server: _Server = _Server()
    poll: _Poll = _Poll()
    webhooks: dict[str, _Webhook] = field(default_factory=dict)


# ---- finding and loading ----------------------------------------------------------------------


def find(explicit: str | None, environ: Mapping[str, str]) -> Path:
    """The configuration file: --config, $GITOPS_AGENT_CONFIG, ./agent.toml, the system's."""
    chosen = explicit or environ.get("GITOPS_AGENT_CONFIG")
    if chosen:
        return Path(chosen).expanduser().absolute()
    for path in (Path("agent.toml").absolute(), SYSTEM_CONFIG):
        if path.exists():
            return path
    fault = (
        f"there is no ./agent.toml and no {SYSTEM_CONFIG}; name one with --config FILE, or make"
        " one with `gitops-agent init`"
    )
    raise ConfigError([fault])


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """The settings in the file at `path`; ConfigError with every fault of it."""
    document = _parse(path)
    places = _Places(path, document, environ)
    faults: list[str] = []
    file = None
    try:
        file = _converter(places, environ).structure(document, _File)
    except BaseValidationError as error:
        faults += _faults(error, "")
    faults += _shared_paths(document, places)
    faults += _names(document)
    if isinstance(document.get("targets", {}), dict) and not document.get("targets"):
        faults.append("targets: there is none; add a [targets.NAME] table with repo and path")
    control = places.control_socket
    if len(os.fsencode(control)) > _LONGEST_SOCKET:
        faults.append(
            f"state_dir: {control} is too long for a socket's name"
            f" ({_LONGEST_SOCKET} bytes); use a shorter folder"
        )
    if faults or file is None:
        raise ConfigError(list(dict.fromkeys(faults)), str(path))
    return _settings(file, places)


def control_socket(path: Path, environ: Mapping[str, str]) -> Path:
    """Where the agent of this file listens; known even where the file has faults elsewhere."""
    return _Places(path, _parse(path), environ).control_socket


def reveal(secret: Secret) -> bytes:
    """The secret itself, read anew from its file; without white space around it."""
    if secret.value is not None:
        return secret.value.strip()
    assert secret.path
    try:
        return secret.path.read_bytes().strip()
    except OSError as error:
        raise AgentError(f"{secret.name} cannot be read: {error.strerror}") from None


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise ConfigError([f"cannot be read: {error.strerror}"], str(path)) from None
    except UnicodeDecodeError:
        raise ConfigError(["is not UTF-8 text"], str(path)) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"is not TOML: {error}"], str(path)) from None


class _Places:
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


def _settings(file: _File, places: _Places) -> Settings:
    webhooks: dict[str, Webhook] = {
        name: Webhook(name, one.provider or name, one.secret) for name, one in file.webhooks.items()
    }
    targets: dict[str, Target] = {
        name: _target(name, one, file.poll) for name, one in file.targets.items()
    }
    return Settings(
        path=places.path,
        state_dir=places.state_dir,
        hooks_dir=places.hooks_dir,
        control_socket=places.control_socket,
        parallel=file.parallel,
        history=file.history,
        drain=file.drain,
        bind=file.server.bind,
        poll_jitter=file.poll.jitter,
        webhooks=webhooks,
        targets=targets,
    )


def _target(name: str, one: _Target, poll: _Poll) -> Target:
    git = one.git
    return Target(
        name=name,
        repo=one.repo,
        branch=one.branch,
        path=one.path,
        poll=(one.poll or poll).interval.seconds,
        timeout=one.timeout,
        access=GitAccess(git.token, git.username, git.ssh_key, git.known_hosts),
        hooks=tuple(
            Hook(hook.name or Path(hook.run[0]).name, hook.stage, hook.run, hook.timeout, hook.env)
            for hook in one.hooks
        ),
    )


# ---- faults -----------------------------------------------------------------------------------


def _faults(error: BaseException, path: str) -> Iterator[str]:
    """Each fault in what cattrs raised, with its key path."""
    if isinstance(error, BaseValidationError):
        if isinstance(error, ClassValidationError):
            noted, others = error.group_exceptions()
            for inner in others:
                yield from _faults(inner, path)
        else:
            noted = error.group_exceptions()[0]  # type: ignore[attr-defined]
        for inner, note in noted:
            yield from _faults(inner, _join(path, note))
    elif isinstance(error, ForbiddenExtraKeysError):
        known = [one.name for one in fields(error.cl)] if error.cl else []
        for key in sorted(error.extra_fields):
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
            yield f"{_dotted(path, key)}: unknown key; {hint}"
    elif isinstance(error, KeyError):
        yield f"{path}: is missing"
    elif isinstance(error, TypeError | AttributeError):
        yield f"{path}: must be a table or a list of tables; agent.toml.example shows it"
    else:
        yield f"{path}: {error}"


def _join(path: str, note: AttributeValidationNote | IterableValidationNote) -> str:
    if isinstance(note, AttributeValidationNote):
        return _dotted(path, note.name)
    return f"{path}[{note.index}]" if isinstance(note.index, int) else _dotted(path, note.index)


def _dotted(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _names(document: Mapping[str, Any]) -> Iterator[str]:
    """Targets and webhooks with names that cannot be typed or put into a URL."""
    for kind in ("targets", "webhooks"):
        tables = document.get(kind)
        for name, table in tables.items() if isinstance(tables, dict) else ():
            if not _NAME.fullmatch(name):
                yield (
                    f"{kind}.{name}: cannot be a name; use letters, digits, - and _, a letter first"
                )
            if kind == "webhooks" and isinstance(table, dict) and "provider" not in table:
                try:
                    _provider(name)
                except ValueError as error:
                    yield f"{kind}.{name}.provider: {error}"


def _shared_paths(document: Mapping[str, Any], places: _Places) -> Iterator[str]:
    """Targets whose trees are one, or one inside another."""
    targets = document.get("targets")
    if not isinstance(targets, dict):
        return
    seen: dict[str, Path] = {}
    for name, target in targets.items():
        path = places.absolute(target.get("path")) if isinstance(target, dict) else None
        if path is None:
            continue
        path = path.resolve()
        for other, its in seen.items():
            if path.is_relative_to(its) or its.is_relative_to(path):
                yield (
                    f"targets.{name}.path: {path} is the path of target {other} too, or one is"
                    " inside the other; give each a folder of its own"
                )
        seen[name] = path


# ---- readers ----------------------------------------------------------------------------------

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
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
    if not _NAME.fullmatch(text):
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


def _provider(value: object, _: object = None) -> Provider:
    if value not in PROVIDERS:
        raise ValueError(f"must be one of {', '.join(PROVIDERS)}, not {value!r}")
    return Provider(value)


def _bind(value: object, _: object) -> Bind:
    text = _text(value)
    if text.startswith("unix:/") and len(os.fsencode(text)) - len("unix:") <= _LONGEST_SOCKET:
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

    def __init__(self, places: _Places, environ: Mapping[str, str]) -> None:
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


# ---- cattrs -----------------------------------------------------------------------------------


def _converter(places: _Places, environ: Mapping[str, str]) -> cattrs.Converter:
    readers = _Readers(places, environ)
    by_kind: dict[Any, Callable[[Any, Any], Any]] = {
        str: _text,
        int: _whole_number,
        Duration: _duration,
        Interval: _interval,
        Name: _name,
        Stage: _stage,
        InPlace: _in_place,
        Provider: _provider,
        Bind: _bind,
        Branch: _branch,
        Environment: _environment,
        Place: readers.place,
        ExistingFile: readers.existing_file,
        TreePath: readers.tree_path,
        Repo: readers.repo,
        Argv: readers.argv,
        Secret: readers.secret,
        WebhookSecrets: readers.webhook_secrets,
        KeyFile: readers.key_file,
    }
    converter = cattrs.Converter(detailed_validation=True)
    for kind, reader in by_kind.items():
        converter.register_structure_hook(kind, reader)
    for table in (_Server, _Poll, _Git, _Hook, _Target, _File):
        converter.register_structure_hook(table, _table(converter, table))
    converter.register_structure_hook(_TargetPoll, _short_form(_table(converter, _TargetPoll)))
    converter.register_structure_hook(_Webhook, _table(converter, _Webhook))
    return converter


def _table(converter: cattrs.Converter, kind: Any) -> Callable[[Any, Any], Any]:
    """A reader for a table of this shape and no other key."""
    structure = make_dict_structure_fn(
        kind, converter, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True
    )

    def read(value: object, _: object) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"must be a table, not {value!r}")
        return structure(value, kind)

    return read


def _short_form(table: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """`poll = "1m"` is short for `poll = { interval = "1m" }`."""

    def read(value: object, kind: object) -> Any:
        return table({"interval": value} if isinstance(value, str) else value, kind)

    return read
