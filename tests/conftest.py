"""What every test may use: an upstream, and the ways to reach it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agents import Agent
from tests.house import House
from tests.remotes import HttpRemote, SshRemote, Upstream, serve_http, serve_ssh

_LONG = ("tests/systemd/", "test_a_death_at_any_step", "test_a_reader_never", "tests/e2e/test_soak")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, so that at the end no worker is waited for."""
    items.sort(key=lambda one: not any(name in one.nodeid for name in _LONG))


@pytest.fixture
def upstream(tmp_path: Path) -> Upstream:
    return Upstream(tmp_path / "upstream")


@pytest.fixture
def http_remote(upstream: Upstream) -> Iterator[HttpRemote]:
    with serve_http(upstream.path.parent) as remote:
        yield remote


@pytest.fixture
def ssh_remote(tmp_path: Path) -> Iterator[SshRemote]:
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if sshd is None:
        pytest.skip("no sshd here; Debian's package is openssh-server")
    with serve_ssh(tmp_path / "ssh", sshd) as remote:
        yield remote


@pytest.fixture
def agent(tmp_path: Path, upstream: Upstream) -> Iterator[Agent]:
    one = Agent(tmp_path / "agent", upstream.url)
    yield one
    if one.running:
        one.stop()


@pytest.fixture
def house(tmp_path: Path, upstream: Upstream) -> Iterator[House]:
    one = House(tmp_path / "house" if (tmp_path / "house").mkdir() is None else tmp_path, upstream)
    yield one
    one.close()
