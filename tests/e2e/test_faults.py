"""What hosts do to an agent: full disks, no descriptors left, and prying eyes."""

import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests import canaries
from tests.agents import PATIENCE, SECRET, Agent
from tests.remotes import HttpRemote, Upstream, delivery, git, push_payload
from tests.soak.power_cut import NoMount, keep_mounts


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no disk of its own for a test here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def healthz(agent: Agent) -> int:
    return httpx.get(f"{agent.url}/healthz").status_code


def test_a_full_disk_is_no_false_202_and_got_over(
    agent: Agent, upstream: Upstream, small_disk: Path
) -> None:
    agent.state_dir = small_disk / "state"
    agent.configure()
    a = upstream.commit({"a": "1"})
    agent.start()
    agent.finished(a)
    assert healthz(agent) == 200
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    b = upstream.commit({"a": "2"})
    headers, body = delivery("push", push_payload(agent.repo, b), SECRET)
    for _ in range(200):
        answer = agent.post({**headers, "X-GitHub-Delivery": os.urandom(8).hex()}, body)
        if answer.status_code == 503:
            break
        assert answer.status_code == 202
    assert answer.status_code == 503
    assert healthz(agent) == 503
    assert "STALLED" in agent.command("status").stdout
    assert git("status", "--porcelain", cwd=agent.tree) == ""
    filler.unlink()
    agent.wait_for_log("inbox.recovered")
    assert healthz(agent) == 200
    assert agent.post(headers, body).status_code == 202
    assert agent.finished(b)["outcome"] == "deployed"


def fill(folder: Path, but: int) -> Path:
    """Leave `but` bytes free; gives the file that takes the others."""
    filler = folder / "filler"
    with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    os.truncate(filler, filler.stat().st_size - but)
    return filler


@pytest.mark.parametrize(
    ("strategy", "free", "says"),
    [
        ("in-place", 0, "No space left|Out of diskspace|unable to write"),
        ("in-place", 760_000, r"no room: .* takes 0\.\d+ MB more in .*, and 0\.\d+ MB are free"),
        ("releases", 300_000, "unable to write file"),
    ],
)
def test_a_full_disk_under_the_tree_leaves_it_whole_and_is_got_over(
    agent: Agent, upstream: Upstream, small_disk: Path, strategy: str, free: int, says: str
) -> None:
    agent.tree = small_disk / "shop"
    live = agent.tree / "current" if strategy == "releases" else agent.tree
    agent.configure(target=f'strategy = "{strategy}"')
    a = upstream.commit({"which": "a", **{f"{n}": os.urandom(20_000) for n in range(20)}})
    agent.start()
    agent.finished(a)
    before = {one.name: one.read_bytes() for one in live.iterdir() if one.is_file()}
    filler = fill(small_disk, free)
    b = upstream.commit({"which": "b", **{f"{n}": os.urandom(30_000) for n in range(20)}})
    assert agent.push(b).status_code == 202
    ended = agent.finished(b)
    assert ended["outcome"] == "failed"
    assert re.search(says, ended["detail"]), ended["detail"]
    assert {one.name: one.read_bytes() for one in live.iterdir() if one.is_file()} == before
    assert "tried again in" in agent.command("status").stdout
    filler.unlink()
    agent.wait_for_log("deployment.finished", revision=b, outcome="deployed")
    assert (live / "which").read_text() == "b"
    assert [one["outcome"] for one in agent.history()][-2:] == ["failed", "deployed"]


def test_a_way_back_for_which_there_is_no_room_is_gone_on_with(
    agent: Agent, upstream: Upstream, small_disk: Path
) -> None:
    agent.tree = small_disk / "shop"
    agent.hook("fill", f"test -e good || dd if=/dev/zero of={small_disk}/filler bs=4k")
    agent.configure('[[targets.shop.hooks]]\nrun = ["fill"]')
    a = upstream.commit({"good": "", "which": "a"})
    agent.start()
    agent.finished(a)
    b = upstream.commit({"good": None, "which": "b" * 9000})
    assert agent.push(b).status_code == 202
    assert agent.finished(b)["outcome"] == "broken"
    assert (
        "shop: left between two revisions: activate hook fill: exit 1; and on the way back to"
        in (agent.command("status").stdout)
    )
    (small_disk / "filler").unlink()
    assert agent.wait_for_log("deployment.finished", revision=a, outcome="rolled-back")
    assert git("rev-parse", "HEAD", cwd=agent.tree) == a
    assert git("status", "--porcelain", cwd=agent.tree) == ""
    assert (agent.tree / "which").read_text() == "a"


class FailingDisk:
    """An ext4 of its own that the kernel makes read-only at its first error."""

    def __init__(self, folder: Path, image: Path) -> None:
        self.folder = folder
        self._image = image

    def mount(self) -> "subprocess.CompletedProcess[str]":
        command = ["mount", "-o", "loop,errors=remount-ro", str(self._image), str(self.folder)]
        return subprocess.run(command, capture_output=True, text=True)

    def unmount(self) -> bool:
        return not subprocess.run(["umount", str(self.folder)], capture_output=True).returncode

    def fail(self) -> None:
        (device,) = (
            line.split()[0].removeprefix("/dev/")
            for line in Path("/proc/mounts").read_text().splitlines()
            if line.split()[1] == str(self.folder)
        )
        Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("a test")


@pytest.fixture
def own_mounts() -> None:
    try:
        keep_mounts()
    except NoMount as error:
        pytest.skip(f"no disk of its own for a test here: {error}")


@pytest.fixture
def failing_disk(tmp_path: Path, own_mounts: None) -> Iterator[FailingDisk]:
    image, folder = tmp_path / "image", tmp_path / "disk"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(32 << 20)
    made = subprocess.run(["mkfs.ext4", "-q", str(image)], capture_output=True, text=True)
    disk = FailingDisk(folder, image)
    mounted = made if made.returncode else disk.mount()
    if mounted.returncode:
        pytest.skip(f"no disk of its own for a test here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(folder)], check=True)


def until(true: Callable[[], bool], what: str) -> None:
    """Ask again and again: nobody tells when a mount is let go of."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_a_disk_that_goes_read_only_is_no_false_202_and_got_over(
    agent: Agent, upstream: Upstream, failing_disk: FailingDisk
) -> None:
    agent.configure()
    agent.state_dir.mkdir(parents=True)
    for name in ("journal.db", "inbox.db"):
        (agent.state_dir / name).symlink_to(failing_disk.folder / name)
    a = upstream.commit({"a": "1"})
    agent.start()
    agent.finished(a)
    failing_disk.fail()
    b = upstream.commit({"a": "2"})
    assert agent.push(b).status_code == 503
    assert agent.command("sync", "shop").returncode == 1
    assert healthz(agent) == 503
    told = agent.command("status").stdout
    assert "STALLED: the inbox cannot be used: " in told
    assert git("rev-parse", "HEAD", cwd=agent.tree) == a
    assert git("status", "--porcelain", cwd=agent.tree) == ""
    # It lets go of what is on the disk, so that a person can check it and mount it again.
    until(failing_disk.unmount, "the agent holds on to the disk")
    assert agent.push(b).status_code == 503
    assert not list(failing_disk.folder.iterdir())
    assert failing_disk.mount().returncode == 0
    agent.wait_for_log("journal.recovered")
    # What was refused meanwhile is found by the look that follows.
    assert agent.finished(b)["outcome"] == "deployed"
    assert healthz(agent) == 200
    assert agent.push(b).status_code == 202
    assert [one["revision"] for one in agent.history()] == [b, a]


def test_no_descriptors_left(agent: Agent, upstream: Upstream) -> None:
    agent.configure()
    a = upstream.commit({"a": "1"})
    agent.start()
    agent.finished(a)
    hard = resource.prlimit(agent.pid, resource.RLIMIT_NOFILE)
    used = len(list(Path(f"/proc/{agent.pid}/fd").iterdir()))
    # Enough for one connection at a time, and not for a git.
    resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (used + 2, hard[1]))
    assert healthz(agent) == 503
    told = agent.command("status").stdout
    assert "STALLED: it can open no more files" in told
    b = upstream.commit({"a": "2"})
    # On the disk, so no false one; the look has to wait.
    assert agent.push(b).status_code == 202
    agent.wait_for_log("sync.tried_again")
    agent.wait_for_log("descriptors.exhausted")
    assert "sync.crashed" not in agent.log()
    resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (8, hard[1]))
    # Nobody is let in: the forge sees that it failed.
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{agent.url}/healthz", timeout=0.5)
    told = agent.command("status")
    assert told.returncode == 75
    assert "does not answer" in told.stderr
    assert git("rev-parse", "HEAD", cwd=agent.tree) == a
    resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, hard)
    assert agent.finished(b)["outcome"] == "deployed"
    agent.wait_for_log("descriptors.recovered")
    assert healthz(agent) == 200


def test_the_agent_takes_all_descriptors_and_hooks_get_what_it_was_started_with(
    agent: Agent, upstream: Upstream
) -> None:
    agent.hook("limits", f"ulimit -Sn > {agent.root}/soft; ulimit -Hn > {agent.root}/hard")
    agent.configure('[[targets.shop.hooks]]\nrun = ["limits"]\n')
    a = upstream.commit({"a": "1"})
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (555, before[1]))
    try:
        agent.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    agent.finished(a)
    assert resource.prlimit(agent.pid, resource.RLIMIT_NOFILE) == (before[1], before[1])
    limits = [(agent.root / name).read_text().strip() for name in ("soft", "hard")]
    assert limits == ["555", str(before[1])]


def test_a_demanded_password_is_one_clear_line(
    agent: Agent, upstream: Upstream, http_remote: HttpRemote
) -> None:
    upstream.commit({"a": "1"})
    http_remote.token = "another one entirely"
    agent.repo = http_remote.url()
    agent.configure(target="# no git.token")
    agent.start()
    agent.wait_for_log("sync.tried_again")
    says = agent.command("status").stdout.splitlines()
    place = says.index(
        "shop: the remote demands a password, and no token is configured for it:"
        " nothing new is fetched, and what is live stays"
    )
    assert says[place + 1].startswith(
        "  put a token with the right to read contents into [targets.shop.git] token = { file = … }"
    )
    agent.configure()
    agent.signal(signal.SIGHUP)
    refused = (
        "the remote refused the token of environment variable CANARY_TOKEN:"
        " nothing new is fetched, and what is live stays"
    )
    agent.wait_for_log("remote.failed", why=refused)
    assert f"shop: {refused}\n  renew the token" in agent.command("status").stdout


def test_a_host_that_hangs_keeps_no_other_target_waiting(
    agent: Agent, upstream: Upstream, http_remote: HttpRemote
) -> None:
    http_remote.hang = True
    agent.configure(
        "".join(
            f'[targets.other-{n}]\nrepo = "{http_remote.url(f"{n}.git")}"\n'
            f'path = "{agent.root}/srv/other-{n}"\n'
            for n in range(20)
        )
    )
    a = upstream.commit({"a": "1"})
    agent.start()
    agent.finished(a)
    until(lambda: len(http_remote.requests) >= 8, "nobody asks the remote that hangs")
    b = upstream.commit({"a": "2"})
    assert agent.push(b).status_code == 202
    assert agent.finished(b)["outcome"] == "deployed"
    with agent.client() as client:
        states = {one["name"]: one["state"] for one in client.status()["targets"]}
    assert states.pop("shop") == "up-to-date"
    assert set(states.values()) == {"syncing"}
    assert agent.stop() == 0


def test_no_secret_gets_out_of_failures_and_commands(
    tmp_path: Path, upstream: Upstream, http_remote: HttpRemote
) -> None:
    """Every way in which something is refused or explained; `conftest` then looks everywhere."""
    http_remote.token = canaries.TOKEN
    agent = Agent(tmp_path / "agent", http_remote.url())
    agent.hook("look", "env; cat /proc/*/cmdline 2>/dev/null | tr '\\0' ' '; test ! -e bad")
    agent.configure('[[targets.shop.hooks]]\nrun = ["look"]\n')
    a = upstream.commit({"a": "1"})
    agent.start()
    agent.finished(a)
    b = upstream.commit({"bad": ""})
    assert agent.push(b).status_code == 202
    assert agent.finished(b)["outcome"] == "rolled-back"
    for secret in (canaries.ENVIRONMENT, canaries.CREDENTIAL, "a forged secret"):
        agent.post(*delivery("push", b"{}", secret))
    http_remote.token = "another"
    agent.command("sync", "shop", "--wait")
    agent.signal(signal.SIGHUP)
    agent.wait_for_log("agent.reloaded")
    for words in (["status"], ["history"], ["logs"], ["check"], ["doctor"], ["send-push", "shop"]):
        agent.command(*words)
    agent.stop()
    agent.command("doctor")
    agent.config.write_text(agent.config.read_text() + "oops")
    agent.command("check")
