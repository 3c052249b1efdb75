"""The [notify.NAME] tables of agent.toml: a shape for each kind of sink, and how they become Sinks.

A fault says what to type instead, and never has a secret in it.
"""

import difflib
import re
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from string import Formatter
from typing import Any, NewType
from urllib.parse import urlsplit

from agent.kinds import is_loopback, reveal, string
from agent.model import Outcome, Secret, Target
from agent.notices import FAILURES, Manner, Setting, Sink
from agent.toml import Readers, shaped

Url = NewType("Url", str)
"""https, or http on this host."""
AnyUrl = NewType("AnyUrl", str)
"""http as well, for a service in the same house."""
Link = NewType("Link", str)
Template = NewType("Template", str)
SigningSecrets = NewType("SigningSecrets", tuple[Secret, ...])
Labels = NewType("Labels", Mapping[str, str])
Names = NewType("Names", tuple[str, ...])
Outcomes = NewType("Outcomes", tuple[Outcome, ...])

_GITHUB = Url("https://api.github.com")
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHORTEST_KEY, _LONGEST_KEY = 24, 64
"""Bytes, as the Standard Webhooks specification has it."""


# ---- the shapes ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What every sink can have."""

    targets: Names | None = None
    link: Link | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choosing(Table):
    """What a sink has that need not be told everything."""

    outcomes: Outcomes = Outcomes(tuple(FAILURES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Apprise(Choosing):
    url: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook(Choosing):
    url: Url
    secret: SigningSecrets
    outcomes: Outcomes = Outcomes(tuple(Outcome))


@dataclass(frozen=True, slots=True, kw_only=True)
class Alertmanager(Choosing):
    url: AnyUrl
    token: Secret | None = None
    username: str | None = None
    password: Secret | None = None
    labels: Labels = field(default_factory=lambda: Labels({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Github(Table):
    url: Url = _GITHUB
    token: Secret | None = None
    app: str | None = None
    private_key: Secret | None = None
    environment: Template = Template("{target}")


SHAPES: Mapping[str, type[Table]] = {
    "apprise": Apprise,
    "webhook": Webhook,
    "alertmanager": Alertmanager,
    "github": Github,
}
_MANNERS: Mapping[type[Table], Manner] = {
    Apprise: Manner.NEWS,
    Webhook: Manner.NEWS,
    Alertmanager: Manner.STANDING,
    Github: Manner.EVERYTHING,
}
_LIBRARIES = {"apprise": ("apprise", "notify"), "github": ("gidgethub", "github")}
"""What a kind needs installed, and the extra that brings it."""
_COMMON = frozenset(("targets", "outcomes", "link"))


# ---- tables to sinks ----------------------------------------------------------------------------


def sink(name: str, table: Table, known: Mapping[str, Target]) -> Sink:
    """The sink of [notify.`name`]; `known` has every target."""
    kind = next(kind for kind, shape in SHAPES.items() if isinstance(table, shape))
    targets: tuple[str, ...] = tuple(known) if table.targets is None else table.targets
    own = [one.name for one in fields(table) if one.name not in _COMMON]
    settings: dict[str, Setting] = {key: getattr(table, key) for key in own}
    if isinstance(table, Github):
        found = {target: full_name(known[target].repo, table.url) for target in targets}
        repositories = {target: full for target, full in found.items() if full}
        settings["repositories"], targets = repositories, tuple(repositories)
    return Sink(
        name=name,
        kind=kind,
        manner=_MANNERS[type(table)],
        targets=frozenset(targets),
        outcomes=frozenset(table.outcomes if isinstance(table, Choosing) else Outcome),
        link=table.link,
        settings=settings,
    )


def full_name(repo: str, api: str) -> str | None:
    """The `owner/name` of a repository on the GitHub whose API is at `api`; None for any other."""
    scp = re.fullmatch(r"(?:[^@/]+@)?([^:/]+):([^/].*)", repo)
    try:
        parts = urlsplit(f"ssh://{scp[1]}/{scp[2]}" if scp else repo)
        host = (urlsplit(api).hostname or "").removeprefix("api.")
    except ValueError:
        return None
    path = parts.path.strip("/").removesuffix(".git")
    return path if parts.hostname == host and path.count("/") == 1 else None


# ---- reading them -------------------------------------------------------------------------------


def read(document: Mapping[str, Any], known: Readers) -> tuple[dict[str, Table], list[str]]:
    """The [notify.NAME] tables of a document, and every fault of theirs; `known` reads values."""
    tables, targets = (_dict(document.get(key)) for key in ("notify", "targets"))
    known = {**known, **readers(known[Secret])}
    found: dict[str, Table] = {}
    faults: list[str] = []
    for name, table in tables.items():
        one, wrong = _read(name, table, targets, known)
        faults += [f"notify.{name}{fault}" for fault in wrong]
        if one is not None:
            found[name] = one
    return found, faults


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _read(
    name: str, table: object, targets: Mapping[str, Any], known: Readers
) -> tuple[Table | None, list[str]]:
    """One table, and what is wrong with it; each fault follows the table's name."""
    if not isinstance(table, dict):
        return None, [f": must be a table, not {table!r}"]
    kind = table.get("kind", name)
    if kind not in SHAPES:
        return None, [f".kind: must be one of {', '.join(SHAPES)}, not {kind!r}"]
    given = {key: value for key, value in table.items() if key != "kind"}
    one, wrong = shaped(given, SHAPES[kind], known)
    return one, [*(f".{fault}" for fault in wrong), *_faults(kind, table, targets)]


def _faults(kind: str, table: Mapping[str, Any], targets: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong between keys, though each of them may be right by itself."""
    wanted = table.get("targets", [])
    for one in wanted if isinstance(wanted, list) else ():
        if one not in targets:
            near = difflib.get_close_matches(str(one), targets, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(targets)}"
            yield f".targets: there is no target {one}; {hint}"
    if kind in _LIBRARIES:
        library, extra = _LIBRARIES[kind]
        if find_spec(library) is None:
            yield f": needs {library}; `pip install 'gitops-agent[{extra}]'`"
    if kind == "github":
        yield from _github_faults(table, targets)
    if kind == "alertmanager":
        yield from _alertmanager_faults(table)


def _github_faults(table: Mapping[str, Any], targets: Mapping[str, Any]) -> Iterator[str]:
    keys = {"token", "app", "private_key"} & table.keys()
    if keys not in ({"token"}, {"app", "private_key"}):
        yield ": needs token = { … }, or else app and private_key = { … } of a GitHub App"
    url = str(table.get("url", _GITHUB))
    wanted = table.get("targets", [])
    repos = {name: str(one.get("repo")) for name, one in targets.items() if isinstance(one, dict)}
    for one in wanted if isinstance(wanted, list) else ():
        if one in repos and full_name(repos[one], url) is None:
            yield f".targets: the repository of {one} is not on the GitHub at {url}"
    if "targets" not in table and not any(full_name(repo, url) for repo in repos.values()):
        yield f": no target's repository is on the GitHub at {url}"


def _alertmanager_faults(table: Mapping[str, Any]) -> Iterator[str]:
    if ("username" in table) != ("password" in table):
        yield ": username and password go together"
    elif "token" in table and "username" in table:
        yield ": token, or username and password, not both"
    if {"token", "password"} & table.keys() and not _is_private(str(table.get("url"))):
        yield ".url: http:// would show the password on its way; use https://"


# ---- readers ------------------------------------------------------------------------------------


def url(value: object, _: object = None) -> Url:
    text = any_url(value)
    if not _is_private(text):
        raise ValueError("http:// can be read and changed on its way; use https://")
    return Url(text)


def any_url(value: object, _: object = None) -> AnyUrl:
    text = string(value)
    try:
        parts = urlsplit(text)
        host, credentials = parts.hostname, parts.username or parts.password
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in ("http", "https") or not host or re.search(r"[\x00-\x20\x7f]", text):
        raise ValueError("must be a URL such as https://ops.example.org/hook")
    if credentials:
        raise ValueError("must not have credentials in it")
    return AnyUrl(text)


def _is_private(text: str) -> bool:
    """Whether nobody on the way can read what is sent there."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme == "https" or is_loopback(parts.hostname or "")


def link(value: object, _: object) -> Link:
    text = string(value)
    _check_names(text, ("deployment", "target"))
    any_url(text.replace("{deployment}", "x").replace("{target}", "x"))
    return Link(text)


def template(value: object, _: object) -> Template:
    text = string(value)
    _check_names(text, ("target", "host"))
    if not text.strip():
        raise ValueError("must not be empty")
    return Template(text)


def _check_names(text: str, names: tuple[str, ...]) -> None:
    """Whether `text` has no other names in braces than these."""
    known = " and ".join(f"{{{name}}}" for name in names)
    try:
        found = {name for _, name, _, _ in Formatter().parse(text) if name is not None}
    except ValueError:
        raise ValueError(f"has a brace too many or too few; {known} are filled in") from None
    if found - set(names):
        raise ValueError(f"can have {known} filled in, and nothing else in braces")


def names(value: object, _: object = None) -> Names:
    if not isinstance(value, list):
        raise ValueError(f'must be a list such as ["shop"], not {value!r}')
    return Names(tuple(string(one) for one in value))


def outcomes(value: object, _: object) -> Outcomes:
    try:
        return Outcomes(tuple(Outcome(one) for one in names(value)))
    except ValueError:
        known = ", ".join(Outcome)
        raise ValueError(f"must be a list of some of {known}, not {value!r}") from None


def labels(value: object, _: object) -> Labels:
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise ValueError('must be a table such as { team = "shop" }')
    for key in value:
        if not _LABEL.fullmatch(key):
            raise ValueError(f"{key!r} cannot be a label's name; letters, digits and _")
    return Labels(value)


def readers(secret: Callable[[object, object], Secret]) -> dict[Any, Callable[[Any, Any], Any]]:
    """A reader for each kind of value; `secret` reads where one is."""

    def signing_secrets(value: object, _: object) -> SigningSecrets:
        listed = value if isinstance(value, list) else [value]
        found = tuple(secret(one, Secret) for one in listed)
        if not found:
            raise ValueError("must name at least one secret")
        for one in found:
            _check_key(one)
        return SigningSecrets(found)

    return {
        Url: url,
        AnyUrl: any_url,
        Link: link,
        Template: template,
        Names: names,
        Outcomes: outcomes,
        Labels: labels,
        SigningSecrets: signing_secrets,
    }


def _check_key(secret: Secret) -> None:
    """A key of the Standard Webhooks: `whsec_` and 24 to 64 bytes in base64."""
    text = reveal(secret).decode(errors="replace")
    try:
        size = len(b64decode(text.removeprefix("whsec_"), validate=True))
    except (NotBase64, ValueError):
        size = 0
    if not text.startswith("whsec_") or not _SHORTEST_KEY <= size <= _LONGEST_KEY:
        raise ValueError(
            f"{secret.name} is no key of the Standard Webhooks; make one with"
            ' `echo "whsec_$(openssl rand -base64 32)"`'
        )
