"""Puts the agent onto a host as services of systemd, and takes it away again. For root.

What belongs there is data (`installation`); here it is compared with what is there, and changed.
Doing it again changes nothing, and says so.
"""

import os
import pwd
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from agent import __version__, acl, config, installation, toml
from agent.client import Client
from agent.errors import AgentError, ConfigError
from agent.installation import HOOKS, LINKS, UNITS, File, LetIn
from agent.places import SYSTEM_CONFIG, SYSTEM_CONTROL, SYSTEM_CREDENTIALS, SYSTEM_USER, Places

Say = Callable[[str], None]
_RUNNING = Path("/run/systemd/system")
_KEPT = (*installation.STATE, SYSTEM_CONFIG.parent)


class Installer:
    """One run of `install` or `uninstall`; `dry` only says what it would do."""

    def __init__(self, say: Say, *, dry: bool) -> None:
        self._say = say
        self._dry = dry
        self._changed: set[Path] = set()

    # ---- install ------------------------------------------------------------------------------

    def install(self, environ: Mapping[str, str]) -> tuple[str, ...]:
        """Bring the host to what it should be; gives the configuration's faults.

        With faults everything is in place, but nothing is started.
        """
        program = _program()
        _as_root(self._dry)
        why_not = installation.why_not_from(program) or _why_not_trusted(program)
        if why_not:
            raise AgentError(why_not)
        for link in LINKS:
            self._link(link, program.with_name(link.name))
        self._write(installation.system_files())
        self._write_drop_ins(environ)
        self._run("systemd-sysusers", "/etc/sysusers.d/gitops-agent.conf")
        self._run("systemd-tmpfiles", "--create", "/etc/tmpfiles.d/gitops-agent.conf")
        self._write(_operators_files())
        self._make_paths(environ)
        self._let_in(environ)
        if not _RUNNING.exists():
            self._say("systemd does not run here: the units start at the next boot")
            self._run("systemctl", "enable", "--quiet", *installation.units())
            return ()
        self._run("systemctl", "daemon-reload")
        # Whether there is a hook runner decides what agent.toml may say.
        self._run("systemctl", "start", HOOKS)
        faults = () if self._dry else _faults(environ)
        if not faults:
            self._start()
        return faults

    def _link(self, link: Path, program: Path) -> None:
        """The command, and what the units start, where everybody looks for it."""
        if program.parent in (link.parent, Path("/usr/bin")):
            return
        if link.is_symlink() and link.readlink() == program:
            self._say(f"same     {link}")
            return
        if link.exists() and not link.is_symlink():
            raise AgentError(f"{link} is there and is no link of ours; move it away")
        self._note("link", link, f"-> {program}")
        if not self._dry:
            link.unlink(missing_ok=True)
            link.symlink_to(program)

    def _write(self, files: Iterable[File]) -> None:
        for file in files:
            if file.once and file.path.exists():
                self._say(f"kept     {file.path}")
            elif _is_there(file):
                self._say(f"same     {file.path}")
            else:
                self._note("write", file.path, f"(mode {file.mode:04o})")
                self._put(file)

    def _put(self, file: File) -> None:
        if self._dry:
            shown = "(a secret made at random)\n" if file.mode == 0o600 else file.text
            self._say("".join(f"    {line}\n" for line in shown.splitlines()).rstrip("\n"))
            return
        file.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        aside = file.path.with_name(f".{file.path.name}.new")
        aside.unlink(missing_ok=True)
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, file.mode)
        with os.fdopen(descriptor, "w") as opened:
            opened.write(file.text)
        aside.chmod(file.mode)
        aside.rename(file.path)

    def _write_drop_ins(self, environ: Mapping[str, str]) -> None:
        document, places = _document(environ)
        for file in installation.drop_ins(document, places):
            if file.text:
                self._write([file])
            elif file.path.exists():
                self._remove(file.path)

    def _make_paths(self, environ: Mapping[str, str]) -> None:
        """The targets' folders, which the core may not make itself; those that are there stay."""
        document, places = _document(environ)
        for path in installation.target_paths(document, places):
            if path.exists():
                if path.stat().st_uid == 0:
                    self._say(f"note     {path} is root's: `chown -R {SYSTEM_USER}: {path}`")
                continue
            self._note("make", path, f"(owner {SYSTEM_USER})")
            if not self._dry:
                path.mkdir(mode=0o755, parents=True)
                shutil.chown(path, SYSTEM_USER, SYSTEM_USER)

    def _let_in(self, environ: Mapping[str, str]) -> None:
        """Give the users of hooks their part of the targets' folders, where they have it not."""
        document, places = _document(environ)
        for one in installation.let_in(document, places):
            # A user or a folder that is not there is told of as a fault, or in a dry run.
            with suppress(KeyError, FileNotFoundError):
                here, below = _by_uid(one.here), _by_uid(one.below)
                if acl.let_in(one.path, here, below, sticky=one.sticky, dry=self._dry):
                    self._say(f"let in   {one.path} {', '.join(one.here)}")
                    self._say_of_old(one)

    def _say_of_old(self, one: LetIn) -> None:
        """Root does not go through a folder in which others may put links; a person decides."""
        if any(one.path.iterdir()):
            users = ",".join(f"u:{user}:rwX" for user in one.below)
            self._say(
                f"note     {one.path} is not empty; for hooks to write to what is in it already:"
                f" `setfacl -R -m {users} -dm {users} {one.path}/FOLDER` (never .git)"
            )

    def _start(self) -> None:
        """Start what is not running; start again only what changed."""
        sockets = [name for name in installation.units() if name.endswith(".socket")]
        services = [name for name in installation.units() if name.endswith(".service")]
        self._run("systemctl", "enable", "--quiet", *sockets, *services)
        if any(path.parent.name.endswith(".socket.d") for path in self._changed):
            # Another address: the one thing for which listening has to end for a moment.
            self._run("systemctl", "stop", *services, *sockets)
        self._run("systemctl", "start", *sockets)
        again = any(map(self._is_changed, services))
        again = again or _running_version() not in (None, __version__)
        self._run("systemctl", "restart" if again else "start", *services)

    def _is_changed(self, unit: str) -> bool:
        return any(unit in (path.name, path.parent.stem) for path in self._changed)

    # ---- uninstall ----------------------------------------------------------------------------

    def uninstall(self, *, purge: bool) -> None:
        """Take away what `install` brought; state and configuration only with `purge`."""
        _as_root(self._dry)
        there = [name for name in installation.units() if (UNITS / name).exists()]
        if there and _RUNNING.exists():
            self._run("systemctl", "disable", "--quiet", "--now", *there)
        drop_ins = installation.drop_ins({}, Places(SYSTEM_CONFIG, {}, {}))
        for file in (*drop_ins, *installation.system_files()):
            if file.path.exists():
                self._remove(file.path)
        for link in filter(Path.is_symlink, LINKS):
            self._remove(link)
        if _RUNNING.exists():
            self._run("systemctl", "daemon-reload")
        if purge:
            self._purge()
        for path in _KEPT:
            if path.exists():
                self._say(f"kept     {path}")

    def _purge(self) -> None:
        for path in filter(Path.exists, _KEPT):
            self._note("remove", path, "and all that is in it")
            if not self._dry:
                shutil.rmtree(path)
        for user in installation.USERS:
            self._run("userdel", user)

    def _remove(self, path: Path) -> None:
        self._note("remove", path, "")
        if not self._dry:
            path.unlink()
            if path.parent.suffix == ".d" and not any(path.parent.iterdir()):
                path.parent.rmdir()

    # ---- saying and doing ---------------------------------------------------------------------

    def _note(self, what: str, path: Path, more: str) -> None:
        self._changed.add(path)
        self._say(f"{what:8} {path} {more}".rstrip())

    def _run(self, *command: str) -> None:
        """Run a command of systemd's; AgentError with what it said where that fails."""
        self._say(f"run      {' '.join(command)}")
        if self._dry:
            return
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip() or f"exit {done.returncode}"
            raise AgentError(f"`{' '.join(command)}` failed: {said}")


def _program() -> Path:
    """The command of the installation that is running now."""
    return Path(sys.prefix, "bin", "gitops-agent")


def _as_root(dry: bool) -> None:
    if os.geteuid() != 0 and not dry:
        raise AgentError("only root can do that; use sudo, or look first with --dry-run")


def _why_not_trusted(program: Path) -> str | None:
    """Nobody but root may change what root's units start."""
    if not program.exists():
        return f"there is no {program}; install the package there, with pip"
    for path in (program, *program.parents):
        info = path.stat()
        if info.st_uid != 0 or info.st_mode & 0o022:
            return (
                f"{path} can be changed by others than root, and root's units start what is in it;"
                f" `chown root: {path} && chmod go-w {path}`, or install it elsewhere"
            )
    return None


def _operators_files() -> Iterable[File]:
    """A secret only with the configuration that names it."""
    new = not SYSTEM_CONFIG.exists()
    for file in installation.operators_files(secrets.token_urlsafe(32)):
        if new or not file.path.is_relative_to(SYSTEM_CREDENTIALS):
            yield file


def _by_uid(users: Mapping[str, int]) -> dict[int, int]:
    return {pwd.getpwnam(name).pw_uid: may for name, may in users.items()}


def _is_there(file: File) -> bool:
    try:
        same = file.path.read_text() == file.text
    except FileNotFoundError:
        return False
    return same and file.path.stat().st_mode & 0o7777 == file.mode


def _document(environ: Mapping[str, str]) -> tuple[dict[str, object], Places]:
    """agent.toml as far as it can be read; its faults are told later, all at once."""
    try:
        document = toml.parse(SYSTEM_CONFIG)
    except ConfigError:
        document = {}
    return document, Places(SYSTEM_CONFIG, document, environ)


def _faults(environ: Mapping[str, str]) -> tuple[str, ...]:
    try:
        config.load(SYSTEM_CONFIG, environ)
    except ConfigError as error:
        return error.faults
    return ()


def _running_version() -> str | None:
    """What the agent that runs now says that it is."""
    try:
        with Client(SYSTEM_CONTROL) as client:
            return str(client.status()["version"])
    except AgentError:
        return None
