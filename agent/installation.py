"""What the agent needs on a host that runs systemd, as data: files, their text, their places.

The units, sysusers and tmpfiles lie in `agent/units/`, as they are, for packagers too. What depends
on this host's agent.toml stands in drop-ins beside them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.acl import ALL, READ
from agent.model import Strategy
from agent.places import (
    SYSTEM_CONFIG,
    SYSTEM_CREDENTIALS,
    SYSTEM_HOOK_USER,
    SYSTEM_STATE,
    SYSTEM_USER,
    Places,
    packaged,
)

USERS = (SYSTEM_USER, "gitops-agent-receiver", SYSTEM_HOOK_USER)
UNITS = Path("/etc/systemd/system")
LINKS = (Path("/usr/local/bin/gitops-agent"), Path("/usr/local/bin/gitops-agent-hook-runner"))
HOOKS = "gitops-agent-hooks.socket"
STATE = (
    SYSTEM_STATE,
    Path("/var/lib/gitops-agent-receiver"),
    Path("/var/lib/gitops-agent-hooks"),
)
SECRET = SYSTEM_CREDENTIALS / "receiver" / "github-webhook"

_HERE = Path(__file__).parent
_DEFAULT_BIND = "127.0.0.1:9000"
_SRV = Path("/srv")
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - refused, not used
_PLACES = {".service": UNITS, ".socket": UNITS, ".slice": UNITS,
           ".sysusers": Path("/etc/sysusers.d"), ".tmpfiles": Path("/etc/tmpfiles.d")}  # fmt: skip
_STARTER = """\
# gitops-agent's configuration. Beside it, agent.toml.example has every key.

[webhooks.github]              # POST /webhook/github
secret = { credential = "github-webhook" }

# [targets.shop]
# repo = "https://github.com/acme/shop.git"
# path = "/srv/shop"
#
# [[targets.shop.hooks]]
# run = ["restart-service", "shop.service"]   # a program in deploy_hooks/
"""


@dataclass(frozen=True, slots=True)
class File:
    """A file that belongs on the host."""

    path: Path
    text: str
    mode: int = 0o644
    once: bool = False
    """The operator's from then on: written only where there is none."""


def units() -> tuple[str, ...]:
    """The units that are started at boot, sockets first."""
    found = [
        path.name
        for path in sorted((_HERE / "units").iterdir())
        if path.suffix in (".socket", ".service") and "[Install]" in path.read_text()
    ]
    return tuple(sorted(found, key=lambda name: not name.endswith(".socket")))


def system_files() -> Iterator[File]:
    """Units, users and folders: the package's own, made anew at every install."""
    for path in sorted((_HERE / "units").iterdir()):
        folder = _PLACES.get(path.suffix)
        if folder:
            name = path.name if folder == UNITS else f"{path.stem}.conf"
            yield File(folder / name, path.read_text())
    yield File(Path(f"{SYSTEM_CONFIG}.example"), packaged("agent.toml.example").read_text())


def operators_files(secret: str) -> Iterator[File]:
    """A configuration to begin with, and hooks that are ready-made."""
    yield File(SYSTEM_CONFIG, _STARTER, once=True)
    yield File(SECRET, f"{secret}\n", 0o600, once=True)
    for path in sorted(packaged("deploy_hooks").iterdir()):
        mode = 0o644 if path.suffix else 0o755
        yield File(SYSTEM_CONFIG.parent / "deploy_hooks" / path.name, path.read_text(), mode, True)


def drop_ins(document: Mapping[str, Any], places: Places) -> Iterator[File]:
    """What agent.toml asks of the units; an empty text where it asks nothing."""
    server = document.get("server")
    bind = server.get("bind") if isinstance(server, dict) else None
    yield File(
        UNITS / "gitops-agent-receiver.socket.d" / "bind.conf",
        ""
        if not isinstance(bind, str) or bind == _DEFAULT_BIND
        else "# [server] bind in agent.toml; written by `gitops-agent install`\n[Socket]\n"
        f"ListenStream=\nListenStream={bind.removeprefix('unix:')}\n",
    )
    elsewhere = [path for path in target_paths(document, places) if not path.is_relative_to(_SRV)]
    yield File(
        UNITS / "gitops-agent.service.d" / "paths.conf",
        "# the targets' paths in agent.toml; written by `gitops-agent install`\n[Service]\n"
        + "".join(f"ReadWritePaths={_quoted(path)}\n" for path in elsewhere)
        if elsewhere
        else "",
    )


@dataclass(frozen=True, slots=True)
class LetIn:
    """Who is let into a target's folder, and what each may there and below (`acl`)."""

    path: Path
    here: Mapping[str, int]
    below: Mapping[str, int]
    sticky: bool


def let_in(document: Mapping[str, Any], places: Places) -> Iterator[LetIn]:
    """The users of each target's hooks, and the core into what they make; root is in anyway."""
    targets = document.get("targets")
    for table in targets.values() if isinstance(targets, dict) else ():
        path = places.absolute(table.get("path")) if isinstance(table, dict) else None
        users = _users(table) - {"root"} if path else None
        if path and users:
            releases = table.get("strategy") == Strategy.RELEASES
            # A tree in place has its .git in this very folder: nobody may put another there.
            yield LetIn(
                path, dict.fromkeys(sorted(users), READ if releases else ALL),
                dict.fromkeys([*sorted(users), SYSTEM_USER], ALL), sticky=not releases,
            )  # fmt: skip


def _users(target: Mapping[str, Any]) -> set[str]:
    """Whom the hooks of a target run as, as far as agent.toml says so without a fault."""
    hooks = target.get("hooks")
    tables = [one for one in hooks if isinstance(one, dict)] if isinstance(hooks, list) else []
    users = {one.get("user") or target.get("user") or SYSTEM_HOOK_USER for one in tables}
    return {user for user in users if isinstance(user, str)}


def target_paths(document: Mapping[str, Any], places: Places) -> list[Path]:
    """Where the targets are, as far as agent.toml says so without a fault."""
    targets = document.get("targets")
    tables = targets.values() if isinstance(targets, dict) else ()
    found = [places.absolute(one.get("path")) for one in tables if isinstance(one, dict)]
    return [path for path in found if path]


def _quoted(path: Path) -> str:
    """For a unit file, where % begins a specifier; with a - it need not be there yet."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"-{text}"'


def why_not_from(program: Path) -> str | None:
    """Why units of ours could not start `program` where it is, or None."""
    for folder in _HIDDEN:
        if program.is_relative_to(folder):
            return (
                f"{program} is in {folder}, which the units do not see; put it into a place of the"
                " system's: `python3 -m venv /opt/gitops-agent`, and install it with"
                " /opt/gitops-agent/bin/pip"
            )
    return None
