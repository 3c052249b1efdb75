"""Receiver and core as two processes, as systemd runs them, on one folder."""

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.agents import PATIENCE, SECRET, Agent
from tests.remotes import Upstream, delivery, push_payload

TOKEN = """[targets.shop.git]
token = { file = "token" }
[[targets.shop.hooks]]
run = ["no-such-hook"]
"""


class Pair:
    """The two processes, and the agent whose configuration they share."""

    def __init__(self, root: Path, upstream: Upstream) -> None:
        self.upstream = upstream
        self.agent = Agent(root / "agent", upstream.url)
        self.agent.hook("ok", "true")
        self.agent.configure('[[targets.shop.hooks]]\nrun = ["ok"]\n')
        self.receiver = self.agent.part("receiver")
        self.core = self.agent.part("core")


@pytest.fixture
def pair(root: Path, upstream: Upstream) -> Iterator[Pair]:
    one = Pair(root, upstream)
    yield one
    for process in (one.core, one.receiver):
        if process.running:
            process.kill()


def test_a_push_goes_from_the_one_to_the_other(pair: Pair) -> None:
    pair.receiver.start()
    pair.core.start()
    first = pair.upstream.commit({"a": "1"})
    assert pair.agent.push(first, number="id-1").status_code == 202
    assert pair.core.finished(first)["outcome"] == "deployed"
    assert pair.agent.push(first, number="id-1").json()["status"] == "duplicate"
    assert httpx.get(f"{pair.agent.url}/healthz").status_code == 200
    assert (pair.core.stop(), pair.receiver.stop()) == (0, 0)


def test_what_came_while_the_core_was_dead_is_deployed_at_its_start(pair: Pair) -> None:
    pair.receiver.start()
    pair.core.start()
    first = pair.upstream.commit({"a": "1"})
    pair.agent.push(first)
    pair.core.finished(first)
    pair.core.kill()
    second = pair.upstream.commit({"a": "2"})
    assert pair.agent.push(second, number="id-2").status_code == 202
    pair.receiver.kill()
    pair.core.spawn()
    pair.core.wait_for_log("letters.unread")
    pair.receiver.start()
    assert pair.core.finished(second)["outcome"] == "deployed"
    requests = [one for one in pair.agent.history() if one["delivery"] == "id-2"]
    assert len(requests) <= 1


def test_the_core_follows_a_receiver_that_was_started_again(pair: Pair) -> None:
    pair.receiver.start()
    pair.core.start()
    for n in range(3):
        revision = pair.upstream.commit({"a": str(n)})
        assert pair.agent.push(revision).status_code == 202
        assert pair.core.finished(revision)["outcome"] == "deployed"
        pair.receiver.kill()
        pair.receiver.start()


def test_status_tells_what_the_receiver_refused(pair: Pair) -> None:
    pair.receiver.start()
    pair.core.start()
    headers, body = delivery("push", push_payload(pair.agent.repo, "a" * 40), "another secret")
    assert pair.agent.post(headers, body).status_code == 401
    pair.agent.push("b" * 40)
    pair.core.wait_for_log("look.waits", "deployment.finished", "sync.tried_again")
    told = pair.agent.command("status").stdout
    assert "no right" in told or "refused" in told, told


def test_doctor_asks_the_receiver_itself_where_the_core_may_not(pair: Pair) -> None:
    first = pair.upstream.commit({"a": "1"})
    pair.receiver.start()
    pair.core.start()
    pair.core.finished(first)
    done = pair.agent.command("doctor", "--json", "--url", pair.agent.url)
    assert done.returncode == 0, done.stdout
    found = {one["about"]: one["verdict"] for one in json.loads(done.stdout)["findings"]}
    assert found[f"listener 127.0.0.1:{pair.agent.port}"] == "ok"
    assert found["public, 2 MB"] == "ok"
    # For a user who may read no secret the rest is as good.
    (pair.agent.root / "secret").unlink()
    done = pair.agent.command("doctor", "--json")
    found = {one["about"]: one["verdict"] for one in json.loads(done.stdout)["findings"]}
    assert (done.returncode, found["listener of the receiver"]) == (0, "note")


def test_each_reads_only_its_own_part_of_the_configuration(pair: Pair) -> None:
    pair.agent.configure(TOKEN)
    pair.receiver.start()
    assert pair.core.spawn().wait(PATIENCE) == 78
    assert "targets.shop.git.token" in pair.core.log()
    assert "no hook" in pair.core.log()
    pair.agent.configure()
    (pair.agent.root / "secret").unlink()
    pair.core.start()
    pair.receiver.signal(signal.SIGHUP)
    pair.receiver.wait_for_log("reload.refused")


def test_the_receiver_reloads(pair: Pair) -> None:
    pair.receiver.start()
    other = "another secret, as long as it has to be"
    (pair.agent.root / "secret").write_text(other)
    pair.receiver.signal(signal.SIGHUP)
    pair.receiver.wait_for_log("receiver.reloaded")
    payload = push_payload(pair.agent.repo, "a" * 40)
    assert pair.agent.post(*delivery("push", payload, other)).status_code == 202
    assert pair.agent.post(*delivery("push", payload, SECRET)).status_code == 401


def test_nobody_but_its_user_may_ask_the_receiver(pair: Pair) -> None:
    pair.receiver.start()
    feed = pair.agent.state_dir / "feed.sock"
    assert feed.stat().st_mode & 0o777 == 0o600
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(str(feed))
        one.sendall(b"\xff\xff\xff\xff nonsense")
        assert one.recv(1) == b""
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(str(feed))
        one.sendall(b"\0\0\0\x08nonsense")
        assert one.recv(1) == b""
    pair.core.start()
    revision = pair.upstream.commit({"a": "1"})
    assert pair.agent.push(revision).status_code == 202
    pair.core.finished(revision)
