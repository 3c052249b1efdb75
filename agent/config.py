"""agent.toml becomes frozen Settings, or every fault in it at once, each with its key path.

The shape stands in the `_File` classes below; each kind of value in it has a reader, which gives
the value or raises ValueError with what to type instead.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from agent import kinds, rights, sinks
from agent.errors import ConfigError
from agent.kinds import (
    HOOK_TIMEOUT,
    MAIN,
    NAME,
    Argv,
    Bind,
    Branch,
    Duration,
    Environment,
    ExistingFile,
    HealthUrl,
    HttpStatus,
    InnerPaths,
    Interval,
    KeyFile,
    Name,
    Place,
    Provider,
    Repo,
    Size,
    Timeout,
    TokenHash,
    TreePath,
    TrustedProxies,
    UserName,
    WebhookSecrets,
    WebUrl,
)
from agent.model import (
    Entrance,
    GitAccess,
    Hook,
    Rights,
    Secret,
    Stage,
    Strategy,
    Target,
    Verify,
    Webhook,
)
from agent.notices import Sink
from agent.places import LONGEST_SOCKET, Places, real
from agent.readers import readers
from agent.toml import parse, shaped


@dataclass(frozen=True, slots=True)
class Settings:
    """A configuration without faults. Times are in seconds, paths absolute."""

    path: Path
    state_dir: Path
    hooks_dir: Path
    control_socket: Path
    feed_socket: Path
    hooks_socket: Path | None
    """Where the hook runner is asked, where there is one."""
    parallel: int
    history: float
    drain: float
    bind: str
    url: str | None
    trusted_proxies: tuple[str, ...]
    """Where the forge reaches the listener, as far as it is known."""
    entrance: Entrance | None
    """The control application on TCP; its socket is always there."""
    metrics_bind: str | None
    poll_jitter: float
    webhooks: Mapping[str, Webhook]
    targets: Mapping[str, Target]
    sinks: Mapping[str, Sink]

    def secrets(self) -> Iterator[Secret]:
        """Every secret by its place, but for those of the webhooks, which are values already."""
        for target in self.targets.values():
            if target.access.token:
                yield target.access.token
        for sink in self.sinks.values():
            for setting in sink.settings.values():
                found = setting if isinstance(setting, tuple) else (setting,)
                yield from (one for one in found if isinstance(one, Secret))


HISTORY = Duration(90 * 86400.0)


# ---- the shape of the file --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ServerTable:
    bind: Bind = Bind("127.0.0.1:9000")
    url: WebUrl | None = None
    trusted_proxies: TrustedProxies = TrustedProxies(())


@dataclass(frozen=True, slots=True)
class _Control:
    bind: Bind
    token_hash: TokenHash


@dataclass(frozen=True, slots=True)
class _Metrics:
    bind: Bind | None = None


@dataclass(frozen=True, slots=True)
class _Poll:
    interval: Interval = Interval(180.0)
    jitter: Duration = Duration(10.0)


@dataclass(frozen=True, slots=True)
class _TargetPoll:
    SHORT: ClassVar[str] = "interval"
    interval: Interval


@dataclass(frozen=True, slots=True)
class WebhookTable:
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
    timeout: Timeout = HOOK_TIMEOUT
    env: Environment = field(default_factory=lambda: Environment({}))
    user: UserName | None = None
    memory_max: Size | None = None
    tasks_max: int | None = None


@dataclass(frozen=True, slots=True)
class _Verify:
    url: HealthUrl
    expect: HttpStatus = HttpStatus(200)
    within: Duration = Duration(30.0)
    stable_for: Duration = Duration(10.0)


@dataclass(frozen=True, slots=True)
class _Target:
    repo: Repo
    path: TreePath
    branch: Branch = MAIN
    strategy: Strategy = Strategy.IN_PLACE
    shared: InnerPaths = InnerPaths(())
    keep: int = 5
    reuse: InnerPaths = InnerPaths(())
    timeout: Timeout = Timeout(1800.0)
    poll: _TargetPoll | None = None
    git: _Git = _Git()
    user: UserName | None = None
    memory_max: Size | None = None
    tasks_max: int | None = None
    verify: _Verify | None = None
    hooks: tuple[_Hook, ...] = ()


@dataclass(frozen=True, slots=True)
class _File:
    targets: dict[str, _Target] = field(default_factory=dict)
    state_dir: Place | None = None
    hooks_dir: Place | None = None
    parallel: int = 4
    history: Duration = HISTORY
    drain: Duration = Duration(80.0)
    server: ServerTable = ServerTable()
    control: _Control | None = None
    metrics: _Metrics = _Metrics()
    poll: _Poll = _Poll()
    webhooks: dict[str, WebhookTable] = field(default_factory=dict)
    notify: dict[str, Any] = field(default_factory=dict)
    """Their shapes stand in `sinks`."""


# ---- finding and loading ----------------------------------------------------------------------


def load(path: Path, environ: Mapping[str, str], *, apart: bool = False) -> Settings:
    """The settings in the file at `path`; ConfigError with every fault of it.

    Without the webhooks' secrets where the receiver is `apart`, a process of its own: they are
    for nobody else to read.
    """
    document = parse(path)
    places = Places(path, document, environ)
    known = readers(places, environ, webhook_secrets=not apart)
    file, faults = shaped(document, _File, known)
    tables, of_sinks = sinks.read(document, known)
    faults += _shared_paths(document, places)
    faults += bad_names(document)
    faults += _only_for_releases(document)
    faults += rights.faults(document, places)
    faults += of_sinks
    if isinstance(document.get("targets", {}), dict) and not document.get("targets"):
        faults.append("targets: there is none; add a [targets.NAME] table with repo and path")
    control = places.control_socket
    if len(os.fsencode(control)) > LONGEST_SOCKET:
        faults.append(
            f"state_dir: {control} is too long for a socket's name"
            f" ({LONGEST_SOCKET} bytes); use a shorter folder"
        )
    if faults or file is None:
        raise ConfigError(list(dict.fromkeys(faults)), str(path))
    return _settings(file, places, tables)


def control_socket(path: Path, environ: Mapping[str, str]) -> Path:
    """Where the agent of this file listens; known even where the file has faults elsewhere."""
    return Places(path, parse(path), environ).control_socket


def _settings(file: _File, places: Places, tables: Mapping[str, sinks.Table]) -> Settings:
    targets: dict[str, Target] = {
        name: _target(name, one, file.poll) for name, one in file.targets.items()
    }
    return Settings(
        path=places.path,
        state_dir=places.state_dir,
        hooks_dir=places.hooks_dir,
        control_socket=places.control_socket,
        feed_socket=places.feed_socket,
        hooks_socket=places.hooks_socket,
        parallel=file.parallel,
        history=file.history,
        drain=file.drain,
        bind=file.server.bind,
        url=file.server.url,
        trusted_proxies=file.server.trusted_proxies,
        entrance=_entrance(file.control),
        metrics_bind=file.metrics.bind,
        poll_jitter=file.poll.jitter,
        webhooks=webhooks(file.webhooks),
        targets=targets,
        sinks={name: sinks.sink(name, one, targets) for name, one in tables.items()},
    )


def webhooks(tables: Mapping[str, WebhookTable]) -> dict[str, Webhook]:
    return {name: Webhook(name, one.provider or name, one.secret) for name, one in tables.items()}


def _entrance(control: _Control | None) -> Entrance | None:
    return Entrance(control.bind, control.token_hash) if control else None


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
        hooks=tuple(_hook(hook, one) for hook in one.hooks),
        strategy=one.strategy,
        shared=one.shared,
        keep=one.keep,
        reuse=one.reuse,
        verify=_verify(one.verify),
    )


def _hook(hook: _Hook, target: _Target) -> Hook:
    return Hook(
        hook.name or kinds.called(hook.run), hook.stage, hook.run, hook.timeout, hook.env,
        Rights(
            hook.user or target.user,
            hook.memory_max or target.memory_max,
            hook.tasks_max or target.tasks_max,
        ),
    )  # fmt: skip


def _verify(one: _Verify | None) -> Verify | None:
    return Verify(one.url, one.expect, one.within, one.stable_for) if one else None


# ---- faults that no single value shows --------------------------------------------------------


def bad_names(document: Mapping[str, Any]) -> Iterator[str]:
    """Targets and webhooks with names that cannot be typed or put into a URL."""
    for kind in ("targets", "webhooks", "notify"):
        tables = document.get(kind)
        for name, table in tables.items() if isinstance(tables, dict) else ():
            if not NAME.fullmatch(name):
                yield (
                    f"{kind}.{name}: cannot be a name; use letters, digits, - and _, a letter first"
                )
            if kind == "webhooks" and isinstance(table, dict) and "provider" not in table:
                try:
                    kinds.provider(name)
                except ValueError as error:
                    yield f"{kind}.{name}.provider: {error}"


def _only_for_releases(document: Mapping[str, Any]) -> Iterator[str]:
    """Keys that say nothing about a tree in place."""
    targets = document.get("targets")
    for name, target in targets.items() if isinstance(targets, dict) else ():
        if isinstance(target, dict) and target.get("strategy") != Strategy.RELEASES:
            for key in ("shared", "keep", "reuse"):
                if key in target:
                    yield f'targets.{name}.{key}: needs strategy = "releases"'


def _shared_paths(document: Mapping[str, Any], places: Places) -> Iterator[str]:
    """Targets whose trees are one, or one inside another."""
    targets = document.get("targets")
    if not isinstance(targets, dict):
        return
    owners: dict[Path, str] = {}
    paths: dict[str, Path] = {}
    for name, target in targets.items():
        path = places.absolute(target.get("path")) if isinstance(target, dict) else None
        if path is not None:
            paths[name] = real(path)
            owners.setdefault(paths[name], name)
    for name, path in paths.items():
        others = {owners[one] for one in (path, *path.parents) if one in owners} - {name}
        for other in sorted(others):
            yield (
                f"targets.{name}.path: {path} is the path of target {other} too, or one is"
                " inside the other; give each a folder of its own"
            )
