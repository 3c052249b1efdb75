"""What a hook leaves behind: nothing. And what becomes of it when the agent dies: it goes on."""

import os
import select
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent import cgroups, processes, runs
from agent.cancel import Cancel
from agent.hooks import Command, Result
from agent.runs import Runs, is_found

# One after another: some of them leave the host little room.
pytestmark = pytest.mark.xdist_group("runs")

PYTHON = os.path.realpath(sys.executable)
# Its own session, no environment, deaf to SIGTERM, and its parent is gone.
HIDE = f"""
import os, signal
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
def hide(code):
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    os.execve({PYTHON!r}, ["python", "-ISc", code], {{}})
"""
SITS = "import signal; signal.alarm(60); signal.pause()"
# Never the same process for long: no list of processes is ever right.
HOPS = "import os, time\nend = time.time() + 60\nwhile time.time() < end and os.fork() == 0: pass"
# Forks without end, and yet leaves the host room for others.
BREEDS = """import os, signal, time
signal.alarm(60)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while os.fork() or time.sleep(0.2): pass"""


@pytest.fixture
def cancel() -> Iterator[Cancel]:
    one = Cancel()
    yield one
    one.close()


@pytest.fixture(params=["in a cgroup", "without a cgroup"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runs]:
    """Runs where the kernel lends a cgroup, and where it does not."""
    probe = cgroups.Cgroup.make(cgroups.own(), f"hook-probe-{os.getpid()}")
    if probe:
        probe.remove()
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "in a cgroup" and not probe:
            pytest.skip("no cgroup may be made here: not root, or none was delegated")
        if request.param == "without a cgroup" and probe:
            patch.setattr(sys, "executable", without_cgroups(tmp_path))
        one = Runs()
        one.warm()
    yield one
    one.close()


def without_cgroups(folder: Path) -> str:
    """A Python in whose world no cgroup file system is mounted, as in many containers."""
    points = [
        line.split()[4]
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if " - cgroup2 " in line
    ]
    gone = "; ".join(f"umount -l {shlex.quote(point)}" for point in points)
    path = folder / "python"
    path.write_text(
        "#!/bin/sh\nexec unshare --mount sh -c"
        f' {shlex.quote(gone + "; exec " + sys.executable + " " + chr(34) + "$@" + chr(34))} sh "$@"\n'
    )
    path.chmod(0o755)
    return str(path)


class Held:
    """Whether anything that a hook started still lives: each of them holds this open."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.taking = f"import os; os.set_inheritable(os.open({str(path)!r}, os.O_WRONLY), True)\n"

    def close(self) -> None:
        os.close(self._reading)

    def by_none(self) -> bool:
        watch = select.poll()
        watch.register(self._reading, 0)
        return watch.poll(0) == [(self._reading, select.POLLHUP)]


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    one = Held(tmp_path / "held")
    yield one
    one.close()


def command(tmp_path: Path, text: str, timeout: float = 30.0) -> Command:
    path = tmp_path / f"hook-{os.urandom(4).hex()}"
    path.write_text(text)
    path.chmod(0o755)
    deployment = f"d-{os.urandom(4).hex()}"
    env = {"PATH": os.environ["PATH"], "DEPLOY_ID": deployment}
    return Command((str(path),), env, tmp_path, timeout, deployment)


def python(held: Held, text: str, interpreter: str = PYTHON) -> str:
    return f"#!{PYTHON} -IS\n{held.taking}{HIDE}\n{text}\n".replace(PYTHON, interpreter)


# ---- nothing is left ----------------------------------------------------------------------------


@pytest.mark.parametrize("code", [SITS, HOPS], ids=["sits", "hops"])
def test_a_hidden_daemon_is_ended_when_its_hook_ends(
    anywhere: Runs, tmp_path: Path, cancel: Cancel, held: Held, code: str
) -> None:
    one = command(tmp_path, python(held, f"hide({code!r})\nprint('ok', flush=True)"))
    result = anywhere.run(one, tmp_path / "log", tmp_path, cancel)
    assert result.ok
    assert result.left >= 1
    assert held.by_none()
    assert b"processes that the hook left running were ended" in (tmp_path / "log").read_bytes()


@pytest.mark.parametrize("code", [SITS, HOPS, BREEDS], ids=["sits", "hops", "breeds"])
def test_a_hook_that_will_not_end_is_ended_with_all_it_hid(
    anywhere: Runs, tmp_path: Path, cancel: Cancel, held: Held, code: str
) -> None:
    text = python(held, f"hide({code!r})\nwhile True: signal.pause()")
    result = anywhere.run(
        command(tmp_path, text, 1.0), tmp_path / "log", tmp_path, cancel, grace=0.1
    )
    assert result == Result(timed_out=1.0)
    assert held.by_none()
    assert (tmp_path / "log").read_bytes() == b""


# ---- the agent dies -----------------------------------------------------------------------------

AGENT = """
import sys
from pathlib import Path
from agent.cancel import Cancel
from agent.hooks import Command
from agent.runs import Runs
folder, hook, one = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
Runs().run(Command((hook,), {"DEPLOY_ID": one}, folder, 30.0, one), folder / "log", folder, Cancel())
"""


class Waits:
    """A hook that says when it has started, and ends when it is told to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("started", "go"):
            os.mkfifo(folder / name)
        self.command = command(
            folder, "#!/bin/sh\necho $$ >> pids\necho > started\nread answer < go\nexit 3\n"
        )  # fmt: skip

    def running(self) -> set[processes.Process]:
        return processes.marked(f"DEPLOY_ID={self.command.deployment}")

    def wait_for_start(self) -> None:
        (self._folder / "started").read_text()

    def go(self) -> None:
        (self._folder / "go").write_text("go\n")

    def pids(self) -> list[int]:
        return [int(line) for line in (self._folder / "pids").read_text().split()]


@pytest.fixture
def waits(tmp_path: Path) -> Waits:
    return Waits(tmp_path)


@pytest.fixture
def one() -> Iterator[Runs]:
    made = Runs()
    yield made
    made.close()


def kill_agent_in(waits: Waits, folder: Path) -> None:
    """An agent has begun to run the hook, and is killed."""
    argv = [
        sys.executable,
        "-c",
        AGENT,
        str(folder),
        waits.command.argv[0],
        waits.command.deployment,
    ]
    with subprocess.Popen(argv) as dying:
        waits.wait_for_start()
        dying.kill()


def supervisor(of: int) -> int:
    stat = Path(f"/proc/{of}/stat").read_text()
    return int(stat.rsplit(")", 1)[1].split()[1])


def test_a_hook_outlives_the_agent_and_is_found_again(
    one: Runs, waits: Waits, tmp_path: Path, cancel: Cancel
) -> None:
    kill_agent_in(waits, tmp_path)
    going = threading.Thread(target=waits.go)
    going.start()
    assert one.run(waits.command, tmp_path / "log", tmp_path, cancel) == Result(exit=3)
    going.join()
    assert one.run(waits.command, tmp_path / "log", tmp_path, cancel) == Result(exit=3)
    assert len(waits.pids()) == 1


def test_a_hook_that_was_found_again_can_be_ended(
    one: Runs, waits: Waits, tmp_path: Path, cancel: Cancel
) -> None:
    kill_agent_in(waits, tmp_path)
    cancel.set()
    assert one.run(waits.command, tmp_path / "log", tmp_path, cancel) == Result(canceled=True)
    assert len(waits.pids()) == 1


def test_the_hooks_of_a_dead_agent_can_be_ended_all_at_once(waits: Waits, tmp_path: Path) -> None:
    kill_agent_in(waits, tmp_path)
    assert runs.end_runs(tmp_path, waits.command.deployment) == 1
    assert waits.running() == set()


def test_a_hook_whose_supervisor_was_killed_is_ended_and_not_held_against_the_revision(
    one: Runs, waits: Waits, tmp_path: Path, cancel: Cancel
) -> None:
    def kill_supervisor() -> None:
        waits.wait_for_start()
        os.kill(supervisor(waits.pids()[0]), signal.SIGKILL)

    killer = threading.Thread(target=kill_supervisor)
    killer.start()
    result = one.run(waits.command, tmp_path / "log", tmp_path, cancel)
    killer.join()
    assert result.lost
    assert result.temporary
    assert not result.ok
    assert waits.running() == set()


def test_what_was_never_handed_over_is_not_handed_over_later(
    one: Runs, waits: Waits, tmp_path: Path, cancel: Cancel
) -> None:
    """The agent died after it had made a note of the run, and before anyone had the job."""
    os.mkfifo(tmp_path / "log.lifeline")
    assert one.run(waits.command, tmp_path / "log", tmp_path, cancel).lost
    assert not (tmp_path / "pids").exists()


def test_a_spawner_that_was_killed_is_started_again(
    one: Runs, tmp_path: Path, cancel: Cancel
) -> None:
    for n in range(3):
        assert one.run(command(tmp_path, "#!/bin/sh\n"), tmp_path / f"log{n}", tmp_path, cancel).ok
        kill_spawner()


def test_a_spawner_that_was_killed_is_missed_while_a_hook_of_its_runs(
    one: Runs, tmp_path: Path, cancel: Cancel
) -> None:
    os.mkfifo(tmp_path / "go")
    waiting = command(tmp_path, "#!/bin/sh\nread line <go\n")
    with ThreadPoolExecutor() as beside:
        first = beside.submit(one.run, waiting, tmp_path / "log", tmp_path, cancel)
        with (tmp_path / "go").open("w") as go:
            kill_spawner()
            assert one.run(command(tmp_path, "#!/bin/sh\n"), tmp_path / "l2", tmp_path, cancel).ok
            go.write("on\n")
        assert first.result().ok


def test_jumps_of_the_wall_clock_move_no_time_out(
    one: Runs, tmp_path: Path, cancel: Cancel, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = list(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        pytest.skip("no libfaketime here; Debian's package is faketime")
    offset, started, go = tmp_path / "offset", tmp_path / "started", tmp_path / "go"
    for fifo in (started, go):
        os.mkfifo(fifo)
    offset.write_text("+0")
    # The spawner's, and so each supervisor's.
    monkeypatch.setenv("LD_PRELOAD", str(found[0]))
    monkeypatch.setenv("FAKETIME_TIMESTAMP_FILE", str(offset))
    monkeypatch.setenv("FAKETIME_NO_CACHE", "1")
    monkeypatch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    waits = command(tmp_path, f"#!/bin/sh\necho > {started}; read line < {go}\n")
    with ThreadPoolExecutor() as beside:
        forth = beside.submit(one.run, waits, tmp_path / "forth", tmp_path, cancel)
        started.read_text()
        offset.write_text("+3600")
        go.write_text("on\n")
        assert forth.result().ok
        back = beside.submit(one.run, waits, tmp_path / "back", tmp_path, cancel, timeout=1.0)
        started.read_text()
        offset.write_text("-3600")
        assert back.result().timed_out == 1.0


def kill_spawner() -> None:
    mine = {child.pid for child in processes.below(os.getpid()) if child.parent == os.getpid()}
    spawner = next(pid for pid in mine if b"agent.supervisor" in cmdline(pid))
    os.kill(spawner, signal.SIGKILL)
    os.waitid(os.P_PID, spawner, os.WEXITED | os.WNOWAIT)


def cmdline(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_hook_has_none_of_the_files_of_its_run(one: Runs, tmp_path: Path, cancel: Cancel) -> None:
    listing = command(tmp_path, "#!/bin/sh\nls -l /proc/self/fd | grep -c -e log -e lifeline\n")
    assert one.run(listing, tmp_path / "log", tmp_path, cancel) == Result(exit=1)
    assert (tmp_path / "log").read_bytes() == b"0\n"


def test_a_host_that_cannot_says_so(one: Runs, tmp_path: Path, cancel: Cancel) -> None:
    result = one.run(command(tmp_path, "#!/bin/sh\n"), Path("/proc/no/log"), tmp_path, cancel)
    assert str(result) == "the host could not run it: No such file or directory"
    assert result.temporary


def test_a_hook_of_another_start_of_the_host_is_not_gone_on_from(
    one: Runs, tmp_path: Path, cancel: Cancel
) -> None:
    place = tmp_path / "place"
    one.run(command(tmp_path, "exit 0"), tmp_path / "log", place, cancel)
    assert is_found(place)
    (place / "boot").write_text("of another start")
    assert not is_found(place)
