"""A Debian of its own, booted by its own systemd in a container without a network. As root.

What it is made of (mmdebstrap, and the program's libraries) is kept between runs in the folder that
$GITOPS_AGENT_TEST_CACHE names, where it is set.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

CHECKOUT = Path(__file__).parents[2]
NEEDED = ("mmdebstrap", "systemd-nspawn", "nsenter")
PACKAGES = (
    "systemd,systemd-sysv,dbus,ca-certificates,caddy,curl,git,nginx,openssh-client,openssh-server,"
    "openssl,procps,python3-venv"
)
PROGRAM = "/opt/gitops-agent"
PATIENCE = 60.0
CERTIFICATE = "/etc/letsencrypt/live/deploy.example.org/fullchain.pem"
"""No authority outside gives the machine one, so it is its own, and trusted in it."""
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/root",
    "SSL_CERT_FILE": CERTIFICATE,
}
_NAMESPACES = ["-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w"]


class NoMachine(Exception):
    """None can be booted here; the reason is in the message."""


def _call(*command: str, **options: Any) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
        said = next((line for line in lines if "ERROR" in line), lines[-1])
        raise NoMachine(f"{command[0]}: {said}")


def _pip(*arguments: str) -> None:
    _call(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments)


# ---- what it is made of -------------------------------------------------------------------------


def wheel(folder: Path) -> Path:
    """The program as it is now."""
    _pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(CHECKOUT))
    return next(folder.glob("gitops_agent-*.whl"))


def base(folder: Path, program: Path) -> Path:
    """A root with Debian's packages and, in /wheels, what the program needs."""
    cache = os.environ.get("GITOPS_AGENT_TEST_CACHE")
    needs = (CHECKOUT / "pyproject.toml").read_text().partition("[project.optional")[0]
    key = hashlib.sha256(f"{PACKAGES}\n{needs}".encode()).hexdigest()[:12]
    root = (Path(cache) if cache else folder) / f"root-{key}"
    if not root.exists():
        aside = root.with_suffix(".new")
        shutil.rmtree(aside, ignore_errors=True)
        aside.parent.mkdir(parents=True, exist_ok=True)
        _call("mmdebstrap", "--quiet", "--variant=minbase", "--dpkgopt=force-unsafe-io",
              f"--include={PACKAGES}", "--customize-hook=chroot $1 systemctl --quiet disable caddy",
              "bookworm", str(aside))  # fmt: skip
        _pip("download", "--quiet", "--only-binary=:all:", "--python-version=3.11",
             f"--dest={aside}/wheels", str(program))  # fmt: skip
        aside.rename(root)
    return root


# ---- cgroups ------------------------------------------------------------------------------------

_MOST_PROCESSES = "4096"
# A shell's: step into each of these groups, then be the rest of the command line.
_JOIN = 'until [ "$1" = in ]; do echo $$ > "$1/cgroup.procs"; shift; done; shift; exec "$@"'


def _own_groups(name: str) -> Iterator[Path]:
    """A group in each tree in which a systemd keeps its services, so that two do not meet.

    And in that which counts processes, so that what forks without end has one in the machine.
    """
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, tree, path = line.split(":", 2)
        if tree in ("", "name=systemd", "pids"):
            mounted = Path("/sys/fs/cgroup", tree.removeprefix("name=") or "unified")
            root = mounted if mounted.exists() else Path("/sys/fs/cgroup")
            yield root / path.lstrip("/") / name


def _make(group: Path) -> None:
    try:
        group.mkdir()
    except OSError as error:
        raise NoMachine(f"no cgroup of its own: {error}") from None
    if (group / "pids.max").exists():
        (group / "pids.max").write_text(_MOST_PROCESSES)


def _remove(group: Path) -> None:
    for folder in sorted(group.rglob("*/"), reverse=True):
        folder.rmdir()
    group.rmdir()


# ---- the machine --------------------------------------------------------------------------------


class Machine:
    """A booted system. Commands run in it as in a root shell of it.

    Its root is an overlay in memory over the one it is made from; it lives in the container's own
    mounts, so that nothing is left of it whatever happens to the tests.
    """

    def __init__(self) -> None:
        self._container: subprocess.Popen[bytes] | None = None
        self._groups: list[Path] = []
        self._init = 0

    @property
    def root(self) -> Path:
        """Its root folder, as it is seen from outside."""
        return Path(f"/proc/{self._init}/root")

    def boot(self, source: Path) -> None:
        name = f"gitops-agent-{os.getpid()}"
        for group in _own_groups(name):
            _make(group)
            self._groups.append(group)
        self._container = subprocess.Popen(
            ["sh", "-c", _JOIN, "sh", *map(str, self._groups), "in",
             "setpriv", "--pdeathsig", "TERM", "systemd-nspawn", "--quiet", f"--machine={name}",
             f"--directory={source}", "--volatile=overlay", "--boot", "--register=no",
             "--keep-unit", "--private-network", "--console=pipe"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._init = self._find_init()
        self.until("systemctl is-system-running | grep -Eq 'running|degraded'")

    def _find_init(self) -> int:
        assert self._container
        children = Path(f"/proc/{self._container.pid}/task/{self._container.pid}/children")
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self._container.poll() is not None:
                assert self._container.stderr
                raise NoMachine(f"systemd-nspawn: {self._container.stderr.read().decode()[-300:]}")
            for child in children.read_text().split():
                if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                    return int(child)
            time.sleep(0.1)
        raise NoMachine("systemd did not start in the container")

    def stop(self) -> None:
        if self._container:
            self._container.terminate()
            try:
                self._container.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                self._container.kill()
                self._container.communicate()
        for group in self._groups:
            _remove(group)

    def enter(self, *namespaces: str) -> list[str]:
        """The beginning of a command line that runs in these of its namespaces."""
        return ["nsenter", "-t", str(self._init), *(namespaces or _NAMESPACES)]

    def run(self, script: str, *, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run a shell script; its output together. AssertionError where it fails, unless told."""
        done = subprocess.run(
            [*self.enter(), "bash", "-euo", "pipefail", "-c", script],
            env=_ENVIRONMENT, text=True, timeout=PATIENCE * 2, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0 or not check, f"{script}\n{done.stdout}"
        return done

    def says(self, script: str) -> str:
        """What a shell script prints."""
        return self.run(script).stdout.strip()

    def until(self, script: str) -> None:
        """Wait until a shell script succeeds."""
        deadline = time.monotonic() + PATIENCE
        while (done := self.run(script, check=False)).returncode:
            assert time.monotonic() < deadline, f"{script}\n{done.stdout}\n{self.log()}"
            time.sleep(0.1)

    def log(self) -> str:
        script = "journalctl --no-pager -o short-monotonic -n 60 -u 'gitops-agent*'"
        return self.run(script, check=False).stdout

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """A file in it."""
        inside = self.root / path.lstrip("/")
        inside.parent.mkdir(parents=True, exist_ok=True)
        inside.write_text(text)
        inside.chmod(mode)


@contextmanager
def booted() -> Iterator[Machine]:
    """A fresh machine with the program's wheels in /wheels. NoMachine where there can be none."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if os.getuid() != 0 or missing:
        raise NoMachine(f"missing: {', '.join(missing)}" if missing else "only root can boot one")
    machine = Machine()
    with TemporaryDirectory(prefix="gitops-agent-machine-") as folder:
        program = wheel(Path(folder))
        source = base(Path(folder), program)
        try:
            machine.boot(source)
            shutil.copy(program, machine.root / "wheels")
            yield machine
        finally:
            machine.stop()
