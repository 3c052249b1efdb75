"""The kinds of value in agent.toml. Each has a reader, which gives the value or says what to type.

A reader raises ValueError, whose text follows the value's key path; it never has a secret in it.
"""

import ipaddress
import os
import pwd
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NewType
from urllib.parse import urlsplit

from agent import tokens
from agent.errors import AgentError
from agent.model import Secret, Stage, Strategy
from agent.places import LONGEST_SOCKET

PROVIDERS = ("github",)


# ---- the kinds ---------------------------------------------------------------------------------

Duration = NewType("Duration", float)
Timeout = NewType("Timeout", float)
Name = NewType("Name", str)
Place = NewType("Place", Path)
ExistingFile = NewType("ExistingFile", Path)
TreePath = NewType("TreePath", Path)
Bind = NewType("Bind", str)
TrustedProxies = NewType("TrustedProxies", tuple[str, ...])
WebUrl = NewType("WebUrl", str)
Repo = NewType("Repo", str)
Branch = NewType("Branch", str)
Argv = NewType("Argv", tuple[str, ...])
Environment = NewType("Environment", Mapping[str, str])
WebhookSecrets = NewType("WebhookSecrets", tuple[bytes, ...])
KeyFile = NewType("KeyFile", Path)
InnerPaths = NewType("InnerPaths", tuple[str, ...])
HealthUrl = NewType("HealthUrl", str)
HttpStatus = NewType("HttpStatus", int)
TokenHash = NewType("TokenHash", str)
Size = NewType("Size", int)
UserName = NewType("UserName", str)


@dataclass(frozen=True, slots=True)
class Interval:
    """How often to poll, in seconds; None is off."""

    seconds: float | None


MAIN = Branch("main")
HOOK_TIMEOUT = Timeout(300.0)


class Provider(str):
    """A forge's name."""

    __slots__ = ()


# ---- secrets -----------------------------------------------------------------------------------


def reveal(secret: Secret) -> bytes:
    """The secret itself, read anew from its file; without white space around it."""
    if secret.value is not None:
        return secret.value.strip()
    assert secret.path
    try:
        content = _read(secret.path)
    except OSError as error:
        raise AgentError(f"{secret.name} cannot be read: {error.strerror}") from None
    if content is None:
        raise AgentError(f"{secret.name} is no plain file of {_LONGEST_SECRET} bytes at most")
    return content.strip()


def _read(path: Path) -> bytes | None:
    """A plain file; None for what could keep us waiting, or has no end."""
    opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        about = os.fstat(opened)
        plain = stat.S_ISREG(about.st_mode) and about.st_size <= _LONGEST_SECRET
        return os.read(opened, _LONGEST_SECRET) if plain else None
    finally:
        os.close(opened)


# ---- readers -----------------------------------------------------------------------------------

_LONGEST_SECRET = 64 * 1024
_LONGEST_DURATION = 100 * 365 * 86400.0
# What waits for a process cannot wait longer (poll(2) counts milliseconds, in 31 bits).
_LONGEST_TIMEOUT = 20 * 86400.0
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
_SIZE = re.compile(r"(\d+)(B|[kKMGT]i?B)")
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BAD_IN_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)")


def parse_duration(value: object) -> float:
    """Seconds in a text such as "90s", "3m" or "1h30m"."""
    text = value if isinstance(value, str) else ""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f'must be a duration such as "90s", "3m" or "1h30m", not {value!r}')
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if seconds > _LONGEST_DURATION:
        raise ValueError("must be a hundred years or less")
    return seconds


def duration(value: object, _: object) -> Duration:
    return Duration(parse_duration(value))


def timeout(value: object, _: object) -> Timeout:
    """A duration after which something is ended."""
    seconds = parse_duration(value)
    if not seconds:
        raise ValueError('must be longer than "0s", which would end everything at once')
    if seconds > _LONGEST_TIMEOUT:
        raise ValueError("must be 20 days or less")
    return Timeout(seconds)


def size(value: object, _: object = None) -> Size:
    """Bytes in a text such as "64KiB" or "512MB"."""
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if not found or int(found[1]) < 1:
        raise ValueError(f'must be a size such as "64KiB" or "512MB", not {value!r}')
    unit = found[2].removesuffix("B")
    return Size(int(found[1]) * (1024 if "i" in unit else 1000) ** _POWERS[unit[:1].upper()])


def user_name(value: object, _: object = None) -> UserName:
    text = string(value)
    try:
        pwd.getpwnam(text)
    except KeyError:
        raise ValueError(
            f"there is no user {text!r} on this host; `useradd --system {text}` makes one"
        ) from None
    return UserName(text)


def interval(value: object, _: object) -> Interval:
    if value == "off":
        return Interval(None)
    try:
        seconds = parse_duration(value)
    except ValueError:
        raise ValueError(f'must be a duration such as "3m", or "off", not {value!r}') from None
    if seconds < 1:
        raise ValueError('must be "1s" or longer, or "off"')
    return Interval(seconds)


def string(value: object, _: object = None) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a text in quotes, not {value!r}")
    if "\0" in value:
        raise ValueError("must not have a NUL character")
    return value


def whole_number(value: object, _: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"must be a whole number of at least 1, not {value!r}")
    return value


def name(value: object, _: object) -> Name:
    text = string(value)
    if not NAME.fullmatch(text):
        raise ValueError(f"{text!r} cannot be a name; use letters, digits, - and _, a letter first")
    return Name(text)


def called(run: Sequence[str]) -> Name:
    """What a hook without a name is called: as its program, so far as its log's file can be."""
    return Name(PurePosixPath(run[0]).name[:50])


def stage(value: object, _: object) -> Stage:
    try:
        return Stage(string(value))
    except ValueError:
        raise ValueError(f"must be one of {', '.join(Stage)}, not {value!r}") from None


def strategy(value: object, _: object) -> Strategy:
    try:
        return Strategy(string(value))
    except ValueError:
        raise ValueError(f"must be one of {', '.join(Strategy)}, not {value!r}") from None


def inner_paths(value: object, _: object) -> InnerPaths:
    """Paths inside a deployed tree, none of them inside another."""
    if not isinstance(value, list):
        raise ValueError('must be a list such as [".env", "uploads"]')
    found = tuple(_inner_path(string(one)) for one in value)
    for n, one in enumerate(found):
        for other in found[:n]:
            if PurePosixPath(one) == PurePosixPath(other):
                raise ValueError(f"{one!r} is named twice")
            if PurePosixPath(one).is_relative_to(other) or PurePosixPath(other).is_relative_to(one):
                raise ValueError(f"{other!r} and {one!r} must not be in each other")
    return InnerPaths(found)


def _inner_path(text: str) -> str:
    path = PurePosixPath(text)
    if not path.parts or path.is_absolute() or ".." in path.parts or ".git" in path.parts:
        raise ValueError(f"{text!r} must be a path inside the deployed tree, without ..")
    return f"{path}/" if text.endswith("/") else str(path)


def health_url(value: object, _: object) -> HealthUrl:
    text = string(value)
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        # As connecting does it: no part of a name is empty, or longer than 63 bytes.
        (parts.hostname or "").encode("idna")
    except ValueError:
        good = False
    if not good or "@" in parts.netloc or not re.fullmatch(r"[\x21-\x7e]+", text):
        raise ValueError(f'must be a URL such as "http://127.0.0.1:8000/health"{_not(text)}')
    return HealthUrl(text)


def _not(text: str) -> str:
    """What was found in a URL's place, for a fault's end; nothing where a secret may be in it."""
    return "" if "@" in text else f", not {text!r}"


def http_status(value: object, _: object) -> HttpStatus:
    if not isinstance(value, int) or isinstance(value, bool) or not 200 <= value <= 599:
        raise ValueError(f"must be an HTTP status such as 200, not {value!r}")
    return HttpStatus(value)


def provider(value: object, _: object = None) -> Provider:
    if value not in PROVIDERS:
        raise ValueError(f"must be one of {', '.join(PROVIDERS)}, not {value!r}")
    return Provider(value)


def bind(value: object, _: object) -> Bind:
    text = string(value)
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


def trusted_proxies(value: object, _: object) -> TrustedProxies:
    """Addresses, networks, or "unix" for whoever comes over a Unix socket."""
    if not isinstance(value, list):
        raise ValueError('must be a list such as ["127.0.0.1", "10.0.0.0/8", "unix"]')
    for one in map(string, value):
        try:
            if one != "unix":
                ipaddress.ip_network(one)
        except ValueError:
            raise ValueError(
                f'must have addresses, networks or "unix" in it, not {one!r}'
            ) from None
    return TrustedProxies(tuple(value))


def web_url(value: object, _: object) -> WebUrl:
    text = string(value)
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or "@" in text:
        raise ValueError(f'must be an address such as "https://deploy.example.org"{_not(text)}')
    return WebUrl(text.rstrip("/"))


def branch(value: object, _: object) -> Branch:
    """A short branch name (git-check-ref-format(1))."""
    text = string(value)
    if text.startswith("refs/"):
        raise ValueError(f'must be the short name, such as "main", not {text!r}')
    bad = _BAD_IN_REF.search(text) or text.startswith((".", "/", "-")) or text.endswith((".", "/"))
    if not text or bad or text == "@":
        raise ValueError(f"{text!r} cannot be a branch's name")
    return Branch(text)


def environment(value: object, _: object) -> Environment:
    if not isinstance(value, dict):
        raise ValueError('must be a table such as { PIP_NO_INPUT = "1" }')
    for key, text in value.items():
        if not _ENV_NAME.fullmatch(key) or key.startswith("DEPLOY_"):
            raise ValueError(f"{key!r} cannot be set; DEPLOY_* is the agent's, names are A-Z0-9_")
        if not isinstance(text, str) or "\0" in text:
            raise ValueError(f"{key} must be a text in quotes")
    return Environment(value)


def token_hash(value: object, _: object) -> TokenHash:
    text = string(value)
    if not tokens.is_hash(text):
        # The value is not told: it could be a token that somebody took for its hash.
        raise ValueError("must be a hash that `gitops-agent token` has made")
    return TokenHash(text)


def is_loopback(host: str) -> bool:
    """Whether what is sent to `host` stays on this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


READERS: Mapping[Any, Callable[[object, object], Any]] = {
    str: string,
    int: whole_number,
    Duration: duration,
    Timeout: timeout,
    Interval: interval,
    Name: name,
    Stage: stage,
    Strategy: strategy,
    InnerPaths: inner_paths,
    HealthUrl: health_url,
    HttpStatus: http_status,
    Provider: provider,
    Bind: bind,
    WebUrl: web_url,
    TrustedProxies: trusted_proxies,
    Branch: branch,
    Environment: environment,
    TokenHash: token_hash,
    Size: size,
    UserName: user_name,
}
"""The readers that need nothing but the value."""
