"""The hook runner as systemd starts it, but by hand: root, real users, a connection for each hook."""

import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import granted, hooks, runner, runs
from agent.acl import ALL, READ, let_in
from agent.cancel import Cancel
from agent.errors import LeftRunning
from agent.granted import Configuration, Refused, check_unchangeable, find_user
from agent.hooks import Result
from agent.model import Hook, Reason, Rights, Stage, Strategy, Target
from agent.runs import Runs
from agent.supervisor import Files
from tests.integration.test_runs import HOPS, Held, python

AGENT, USER, OTHER = "mail", "news", "games"
CONNECT = runs._connect
A, B = "a" * 40, "b" * 40

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can run a hook as another user")


class Host:
    """A root-owned agent.toml, a target's folder, and a runner that is started as systemd does."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tree = root / "srv" / "shop"
        self.hooks_dir = root / "etc" / "deploy_hooks"
        self.config = root / "etc" / "agent.toml"
        self.state = root / "state"
        self.socket = root / "hooks.sock"
        for folder in (self.tree, self.hooks_dir, self.state):
            folder.mkdir(parents=True)
        shutil.chown(self.tree, AGENT, USER)
        self.tree.chmod(0o775)
        self.of_the_target = ""
        self.lines: list[str] = []
        self.hooks: list[Hook] = []
        self.strategy = Strategy.IN_PLACE
        self.agent = find_user(AGENT)
        self.asked_by = self.agent.uid
        self._asked = 0
        self._started = threading.Condition()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.socket))
        self._listener.listen()
        self._units: list[subprocess.Popen[bytes]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            # Not while the test is somebody else for a moment (`connect`).
            with connection, self._started:
                argv = [sys.executable, "-P", "-m", "agent.runner", AGENT, str(self.config)]
                self._units.append(
                    subprocess.Popen(
                        argv, stdin=connection.fileno(), stderr=subprocess.PIPE, cwd="/"
                    )
                )
                self._started.notify_all()

    def connect(self, path: Path) -> socket.socket:
        """As a process of the agent's user does."""
        with self._started:
            os.seteuid(self.asked_by)
            try:
                connection = CONNECT(path)
            finally:
                os.seteuid(0)
            self._asked += 1
        return connection

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for unit in self._units:
            unit.communicate(timeout=30)

    def said(self) -> str:
        """What the last runner told systemd's journal."""
        with self._started:
            assert self._started.wait_for(lambda: len(self._units) == self._asked, 30)
        return self._units[-1].communicate(timeout=30)[1].decode()

    def hook(self, text: str, more: str = f'user = "{USER}"', name: str = "") -> Hook:
        """Configure one more hook."""
        path = self.hooks_dir / (name or f"hook-{len(self.hooks)}")
        path.write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return self.add([path.name], (str(path),), more)

    def add(self, run: list[str], argv: tuple[str, ...], more: str = f'user = "{USER}"') -> Hook:
        self.lines.append(f"[[targets.shop.hooks]]\nrun = {json.dumps(run)}\n{more}\n")
        self.hooks.append(Hook(f"hook-{len(self.hooks)}", Stage.ACTIVATE, argv, 30.0))
        self.write()
        return self.hooks[-1]

    def write(self) -> None:
        self.config.write_text(
            f'state_dir = "{self.state}"\n[targets.shop]\nstrategy = "{self.strategy.value}"\n'
            f'repo = "https://x.example/shop.git"\npath = "{self.tree}"\n'
            + "".join((self.of_the_target, *self.lines))
        )

    def command(self, hook: Hook, tree: Path | None = None) -> hooks.Command:
        """What the agent makes of a hook."""
        changed = self.state / "changed"
        changed.write_text("README\nsrc/x\n")
        target = Target(
            "shop", "https://x.example/shop.git", "main", self.tree, None, 60.0,
            hooks=tuple(self.hooks), strategy=self.strategy,
        )  # fmt: skip
        situation = hooks.Situation(
            f"d-{os.urandom(4).hex()}", target, Reason.PUSH, 1, B, A, tree or self.tree, changed,
            self.state, "/nowhere",
        )  # fmt: skip
        return hooks.command(hook, situation)

    def run(self, hook: Hook, cancel: Cancel, stop: Cancel | None = None, **how: Any) -> Result:
        return self.run_command(self.command(hook), cancel, stop, **how)

    def run_command(
        self, command: hooks.Command, cancel: Cancel, stop: Cancel | None = None, **how: Any
    ) -> Result:
        one = Runs(self.socket, stop or cancel)
        try:
            return one.run(command, self.state / "log", self.state / "runs", cancel, **how)
        finally:
            one.close()

    def log(self) -> str:
        return (self.state / "log").read_text()


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    one = Host(folder)
    one.socket.chmod(0o666)
    monkeypatch.setattr(runs, "_connect", one.connect)
    yield one
    one.close()
    shutil.rmtree(folder)


@pytest.fixture
def cancel() -> Iterator[Cancel]:
    one = Cancel()
    yield one
    one.close()


# ---- as its user ----------------------------------------------------------------------------------


def test_a_hook_runs_as_its_user_and_is_told_what_it_is_told_anywhere(
    host: Host, cancel: Cancel
) -> None:
    show = 'id -un; id -Gn; pwd; cat "$DEPLOY_CHANGED_FILES"; touch "$TMPDIR/x" made; umask; env'
    result = host.run(host.hook(show, f'user = "{USER}"\nenv = {{ MINE = "1" }}'), cancel)
    assert result.ok, host.log()
    user, groups, cwd, *changed, umask = host.log().splitlines()[:6]
    assert (user, groups, cwd, changed) == (USER, USER, str(host.tree), ["README", "src/x"])
    assert umask == "0022"
    env = dict(line.split("=", 1) for line in host.log().splitlines()[6:])
    del env["PWD"]
    tmp, changed_files = env.pop("TMPDIR"), env.pop("DEPLOY_CHANGED_FILES")
    assert changed_files == f"{tmp}/changed-files"
    assert env.pop("DEPLOY_ID").startswith("d-")
    assert env == {
        "PATH": hooks.PATH, "HOME": pwd.getpwnam(USER).pw_dir, "LANG": "C.UTF-8", "MINE": "1",
        "DEPLOY_TARGET": "shop", "DEPLOY_STAGE": "activate", "DEPLOY_REASON": "push",
        "DEPLOY_ATTEMPT": "1", "DEPLOY_REPO": "https://x.example/shop.git",
        "DEPLOY_REF": "refs/heads/main", "DEPLOY_REVISION": B, "DEPLOY_PREVIOUS_REVISION": A,
        "DEPLOY_PATH": str(host.tree), "DEPLOY_TREE": str(host.tree),
    }  # fmt: skip
    assert (host.tree / "made").owner() == USER
    assert Path(tmp).owner() == USER
    shutil.rmtree(tmp)


def test_a_hook_has_none_of_root_s_or_the_agent_s_files(host: Host, cancel: Cancel) -> None:
    listing = "ls -l /proc/self/fd | grep -c -e log -e lifeline -e changed -e socket"
    assert host.run(host.hook(listing), cancel) == Result(exit=1)
    assert host.log() == "0\n"


def test_how_a_hook_of_another_user_ends_is_told(host: Host, cancel: Cancel) -> None:
    assert host.run(host.hook("exit 75"), cancel) == Result(exit=75)


def test_a_program_of_the_tree_runs_as_the_user(host: Host, cancel: Cancel) -> None:
    program = host.tree / "build"
    program.write_text("#!/bin/sh\nid -un\n")
    program.chmod(0o755)
    assert host.run(host.add(["./build"], ("./build",)), cancel).ok
    assert host.log() == f"{USER}\n"


def test_the_time_is_the_file_s_whatever_the_agent_says(host: Host, cancel: Cancel) -> None:
    slow = host.hook("sleep 60", f'user = "{USER}"\ntimeout = "300ms"')
    assert host.run(slow, cancel) == Result(timed_out=0.3)


def test_the_agent_may_give_it_less(host: Host, cancel: Cancel) -> None:
    assert host.run(host.hook("sleep 60"), cancel, timeout=0.2) == Result(timed_out=0.2)


@pytest.mark.xdist_group("runs")
def test_a_hostile_hook_of_another_user_leaves_nothing(host: Host, cancel: Cancel) -> None:
    interpreter = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if interpreter is None:
        pytest.skip("no Python here that another user can run")
    held = Held(host.root / "held")
    (host.root / "held").chmod(0o622)
    # The hook itself heeds SIGTERM; what it has hidden does not.
    ends = f"hide({HOPS!r})\nsignal.signal(signal.SIGTERM, signal.SIG_DFL)\nsignal.pause()"
    text = python(held, ends, interpreter)
    try:
        hostile = host.hook(text, f'user = "{USER}"\ntimeout = "1s"')
        assert host.run(hostile, cancel) == Result(timed_out=1.0)
        assert held.by_none()
    finally:
        held.close()


# ---- the agent stops, or dies ---------------------------------------------------------------------


@pytest.fixture
def slow(host: Host) -> Callable[[], None]:
    """A configured hook; gives a wait for its start."""
    os.mkfifo(host.root / "started", 0o666)
    os.mkfifo(host.root / "go", 0o666)
    for fifo in ("started", "go"):
        (host.root / fifo).chmod(0o666)
    host.hook(f"echo >> {host.tree}/starts; echo > {host.root}/started; read x < {host.root}/go")
    return lambda: (host.root / "started").read_text() and None


def left_running(host: Host, cancel: Cancel, slow: Callable[[], None]) -> hooks.Command:
    """A command whose agent has stopped while it ran."""
    command = host.command(host.hooks[0])
    stop = Cancel()
    stopping = threading.Thread(target=lambda: (slow(), stop.set()))
    stopping.start()
    with pytest.raises(LeftRunning):
        host.run_command(command, cancel, stop)
    stopping.join()
    stop.close()
    return command


def test_a_hook_goes_on_without_an_agent_that_stops_and_is_found_again(
    host: Host, cancel: Cancel, slow: Callable[[], None]
) -> None:
    command = left_running(host, cancel, slow)
    going = threading.Thread(target=(host.root / "go").write_text, args=("go\n",))
    going.start()
    assert host.run_command(command, cancel).ok
    going.join()
    assert (host.tree / "starts").read_text() == "\n"


def test_one_that_was_found_again_can_be_ended(
    host: Host, cancel: Cancel, slow: Callable[[], None]
) -> None:
    command = left_running(host, cancel, slow)
    cancel.set()
    assert host.run_command(command, cancel, Cancel()) == Result(canceled=True)


def test_without_its_socket_the_revision_is_tried_again(host: Host, cancel: Cancel) -> None:
    hook = host.hook("exit 0")
    host.socket.unlink()
    result = host.run(hook, cancel)
    assert result.temporary
    assert str(host.socket) in str(result)
    assert not (host.state / "runs").exists()


# ---- who asks, and for what -----------------------------------------------------------------------


@pytest.mark.parametrize("user", [OTHER, USER, "root"])
def test_nobody_but_the_agent_is_served(host: Host, cancel: Cancel, user: str) -> None:
    host.asked_by = pwd.getpwnam(user).pw_uid
    result = host.run(host.hook("touch ran"), cancel)
    assert result.lost
    assert not (host.tree / "ran").exists()
    assert f"uid {host.asked_by} asked, who is not {AGENT}" in host.said()


def refusal(host: Host, cancel: Cancel, command: hooks.Command) -> str:
    """Why the runner does not run it, as the operator reads it in the deployment's history."""
    result = host.run_command(command, cancel)
    assert result.temporary, result
    assert str(result) in host.log()
    why = str(result).removeprefix("the hook runner refused it: ")
    assert why in host.said()
    return why


def test_only_what_is_configured_is_run(host: Host, cancel: Cancel) -> None:
    command = host.command(host.hook("touch ran"))
    for argv in (("/bin/sh", "-c", "touch ran"), (*command.argv, "more")):
        other = hooks.Command(argv, command.env, command.cwd, 30.0, command.deployment)
        assert "systemctl reload gitops-agent" in refusal(host, cancel, other)
        shutil.rmtree(host.state / "runs")
    beyond = hooks.Command(command.argv, command.env, command.cwd, 30.0, command.deployment, 7)
    assert "systemctl reload gitops-agent" in refusal(host, cancel, beyond)
    shutil.rmtree(host.state / "runs")
    from_the_end = replace(command, number=-1)
    assert "not of the form" in refusal(host, cancel, from_the_end)
    shutil.rmtree(host.state / "runs")
    assert "not of the form" in refusal(host, cancel, replace(command, timeout=0.0))
    assert not (host.tree / "ran").exists()


@pytest.mark.parametrize(
    "facts",
    [
        {"DEPLOY_ID": "../x"}, {"DEPLOY_ID": ""}, {"DEPLOY_REVISION": "main"},
        {"DEPLOY_PREVIOUS_REVISION": "-x"}, {"DEPLOY_REASON": "because"}, {"DEPLOY_ATTEMPT": "-1"},
        {"DEPLOY_ATTEMPT": "1\n"}, {"DEPLOY_OUTCOME": "great"}, {"DEPLOY_TREE": "srv/shop"},
        {"DEPLOY_TREE": "/etc"}, {"DEPLOY_TREE": "{tree}/.."}, {"DEPLOY_TREE": "{tree}/releases/x"},
        {"DEPLOY_TARGET": "other"},
    ],
)  # fmt: skip
def test_a_fact_that_cannot_be_one_is_refused(
    host: Host, cancel: Cancel, facts: dict[str, str]
) -> None:
    command = host.command(host.hook("touch ran"))
    told = {key: text.format(tree=host.tree) for key, text in facts.items()}
    other = hooks.Command(command.argv, {**command.env, **told}, command.cwd, 30.0, "d-1")
    refusal(host, cancel, other)
    assert not (host.tree / "ran").exists()


def test_a_release_is_a_tree_of_its_target(host: Host, cancel: Cancel) -> None:
    host.strategy = Strategy.RELEASES
    hook = host.hook("pwd")
    release = host.tree / "releases" / B
    release.mkdir(parents=True)
    assert host.run_command(host.command(hook, release), cancel).ok
    assert host.log() == f"{release}\n"
    shutil.rmtree(host.state / "runs")
    assert "is no tree of target shop" in refusal(host, cancel, host.command(hook, host.tree))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (f'user = "{AGENT}"', "is the agent's own"),
        ('user = "no-such-user"', "there is no user 'no-such-user'"),
        ("", "there is no user 'gitops-agent-hooks'"),
        (f'user = "{USER}"\ntimeout = "soon"', "must be a duration"),
    ],
)
def test_whom_no_hook_runs_as(host: Host, cancel: Cancel, more: str, says: str) -> None:
    if not more and granted.SYSTEM_HOOK_USER in {one.pw_name for one in pwd.getpwall()}:
        pytest.skip("gitops-agent is installed on this host")
    assert says in refusal(host, cancel, host.command(host.hook("touch ran", more)))
    assert not (host.tree / "ran").exists()


def test_a_program_of_the_tree_is_never_root_s(host: Host, cancel: Cancel) -> None:
    hook = host.add(["./build"], ("./build",), 'user = "root"')
    assert "never runs as root" in refusal(host, cancel, host.command(hook))
    shutil.rmtree(host.state / "runs")
    assert host.run(host.hook("id -un", 'user = "root"'), cancel).ok
    assert host.log().endswith("\nroot\n")


def test_a_release_that_is_a_link_is_no_tree(host: Host, cancel: Cancel) -> None:
    host.strategy = Strategy.RELEASES
    hook = host.hook("touch ran")
    (host.tree / "releases").mkdir()
    (host.tree / "releases" / B).symlink_to(host.root)
    command = host.command(hook, host.tree / "releases" / B)
    assert "is no tree of target shop" in refusal(host, cancel, command)
    (host.tree / "releases" / B).unlink()
    (host.tree / "releases").rmdir()
    (host.tree / "releases").symlink_to(host.root)
    (host.root / B).mkdir()
    shutil.rmtree(host.state / "runs")
    assert "is no tree of target shop" in refusal(host, cancel, command)
    assert not (host.root / "ran").exists()


@pytest.mark.parametrize("what", ["hook", "hooks_dir", "config"])
def test_what_the_agent_could_change_is_not_run(host: Host, cancel: Cancel, what: str) -> None:
    hook = host.hook("touch ran")
    path = {"hook": Path(hook.run[0]), "hooks_dir": host.hooks_dir, "config": host.config}[what]
    shutil.chown(path, AGENT)
    why = refusal(host, cancel, host.command(hook))
    assert f"{path} can be changed by others than root" in why
    assert not (host.tree / "ran").exists()


def test_who_could_change_what(host: Host) -> None:
    agent, file = host.agent, host.root / "file"
    file.touch(mode=0o644)
    check_unchangeable(file, agent, {0})
    shutil.chown(file, USER)
    check_unchangeable(file, agent, {0, find_user(USER).uid})
    for owner, group, mode in ((USER, None, 0o644), (0, AGENT, 0o664), (0, None, 0o646)):
        shutil.chown(file, owner, group or "root")
        file.chmod(mode)
        with pytest.raises(Refused, match="can be changed by others"):
            check_unchangeable(file, agent, {0})


def test_a_link_is_no_way_around_that(host: Host) -> None:
    """Neither one where the agent may put another in its place, nor one that leads there."""
    theirs = host.root / "theirs"
    theirs.mkdir()
    for folder in (theirs, host.hooks_dir):
        (folder / "program").touch(mode=0o755)
    (theirs / "link").symlink_to(host.hooks_dir / "program")
    (host.hooks_dir / "link").symlink_to(theirs / "program")
    shutil.chown(theirs, AGENT)
    for link in (theirs / "link", host.hooks_dir / "link"):
        with pytest.raises(Refused, match=f"^{theirs} can be changed by others"):
            check_unchangeable(link, host.agent, {0})


def test_a_list_of_who_else_may_change_it_counts(host: Host) -> None:
    let_in(host.hooks_dir, {find_user(USER).uid: READ}, {}, sticky=False)
    check_unchangeable(host.hooks_dir, host.agent, {0})
    let_in(host.hooks_dir, {host.agent.uid: ALL}, {}, sticky=False)
    with pytest.raises(Refused, match="can be changed by others"):
        check_unchangeable(host.hooks_dir, host.agent, {0})


# ---- the files that come along --------------------------------------------------------------------


def test_files_of_another_kind_are_not_written_to(host: Host) -> None:
    """A descriptor of /proc that the agent could open might do more in the hands of root."""
    with ExitStack() as opened:

        def at(path: str | Path) -> int:
            fd = os.open(path, os.O_RDWR | os.O_CREAT)
            opened.callback(os.close, fd)
            return fd

        plain, reading, writing = at(host.state / "plain"), *os.pipe()
        for fd in (reading, writing):
            opened.callback(os.close, fd)
        runner.check_files(Files(plain, plain, reading), plain)
        for one in (at("/proc/self/oom_score_adj"), at("/dev/null"), writing):
            for files, changed in (
                (Files(one, plain, reading), plain),
                (Files(plain, one, reading), plain),
                (Files(plain, plain, reading), one),
            ):
                with pytest.raises(Refused, match="no plain file on a disk"):
                    runner.check_files(files, changed)
        with pytest.raises(Refused, match="no FIFO"):
            runner.check_files(Files(plain, plain, plain), plain)


@pytest.mark.parametrize(
    ("files", "says"), [(4, "no plain file on a disk"), (3, "3 files came along instead of 4")]
)
def test_other_files_than_a_run_s_are_refused_first_of_all(
    host: Host, files: int, says: str
) -> None:
    ours, theirs = socket.socketpair()
    with ours, Path(os.devnull).open("r+b") as null:
        socket.send_fds(ours, [b"{}"], [null.fileno()] * files)
        ours.shutdown(socket.SHUT_WR)
        with pytest.raises(Refused, match=says):
            runner.serve(theirs, find_user("root"), host.config)


def test_one_that_asks_for_nothing_is_refused(host: Host) -> None:
    host.hook("true")
    with runs._connect(host.socket) as silent:
        silent.shutdown(socket.SHUT_WR)
        assert silent.recv(1) == b""
    assert "refused: " in host.said()


def test_one_that_says_nothing_is_not_waited_for_for_ever(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_PATIENCE", 0.05)
    ours, theirs = socket.socketpair()
    with ours, pytest.raises(TimeoutError):
        runner.serve(theirs, find_user("root"), host.config)


def test_limits_that_cannot_be_kept_are_refused_and_not_passed_over(
    host: Host, cancel: Cancel
) -> None:
    controllers = Path("/sys/fs/cgroup/cgroup.controllers")
    if controllers.exists() and "memory" in controllers.read_text():
        pytest.skip("this host keeps limits; tests/systemd/ tries them")
    command = host.command(host.hook("true", f'user = "{USER}"\nmemory_max = "64MB"'))
    assert "cannot be kept on this host" in refusal(host, cancel, command)


def test_the_configuration_s_own_values_are_the_agent_s(host: Host) -> None:
    host.hook("true", f'user = "{USER}"\ntasks_max = 7\nmemory_max = "1MiB"\ntimeout = "9s"')
    (hook,) = Configuration(host.config, host.agent).target("shop", 0).hooks
    assert (hook.timeout, hook.rights.tasks_max, hook.rights.memory_max) == (9.0, 7, 1 << 20)


def test_a_hook_s_own_values_come_before_its_target_s(host: Host) -> None:
    host.of_the_target = f'user = "{OTHER}"\ntasks_max = 1\nmemory_max = "2MiB"\n'
    host.hook("true", f'user = "{USER}"\ntasks_max = 7')
    host.hook("true", "")
    read = Configuration(host.config, host.agent)
    rights = [hook.rights for n in (0, 1) for hook in read.target("shop", n).hooks]
    assert rights == [Rights(USER, 2 << 20, 7), Rights(OTHER, 2 << 20, 1)]
