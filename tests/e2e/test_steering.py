"""What a person does by hand, as it is typed, on a whole agent with releases."""

import json
import signal
from pathlib import Path

import pytest

from tests.agents import Agent
from tests.remotes import Upstream

HOOKS = """
[[targets.shop.hooks]]
stage = "verify"
run = ["gate"]
"""


@pytest.fixture
def shop(agent: Agent, upstream: Upstream) -> Agent:
    """An agent with two good releases."""
    agent.hook("gate", "test ! -e bad")
    agent.configure(HOOKS, target='strategy = "releases"\nkeep = 3')
    revision = upstream.commit({"f": "1"}, "first")
    agent.start()
    agent.finished(revision)
    revision = upstream.commit({"f": "2"}, "second")
    agent.push(revision)
    agent.finished(revision)
    return agent


def live(agent: Agent) -> str:
    return str((agent.tree / "current").readlink()).removeprefix("releases/")


def test_a_rollback_is_shown_to_its_end_and_holds(shop: Agent, upstream: Upstream) -> None:
    left = live(shop)
    done = shop.command("rollback", "shop")
    assert done.returncode == 0, done.stderr
    assert "deployed" in done.stdout
    assert (shop.tree / "current" / "f").read_text() == "1"
    status = shop.command("status").stdout
    assert f"{left[:10]} is held: rolled back, asked for by" in status
    assert shop.push(left).json()["status"] == "queued"
    again = shop.command("sync", "shop", "--wait", "--json")
    assert again.returncode == 1
    assert json.loads(again.stdout)["result"] == "held"
    looks = json.loads(shop.command("history", "shop", "--looks", "--json").stdout)
    assert {one["result"] for one in looks} == {"held"}
    assert any(one["why"].startswith("push, delivery") for one in looks)
    newest = json.loads(shop.command("history", "shop", "--json").stdout)[0]
    assert (newest["reason"], newest["outcome"]) == ("rollback", "deployed")
    assert shop.command("rollback", "shop").returncode == 1
    assert shop.command("rollback", "shop", "--to", left[:12], "--json").returncode == 0
    assert live(shop) == left
    assert shop.command("sync", "shop", "--wait").returncode == 0
    report = json.loads(shop.command("status", "--json").stdout)["targets"][0]
    assert (report["state"], report["held"]) == ("up-to-date", None)


@pytest.mark.parametrize("to", ["ffffffff", "HEAD", "../../etc", ""])
def test_a_goal_that_was_never_deployed_touches_nothing(shop: Agent, to: str) -> None:
    before = live(shop)
    done = shop.command("rollback", "shop", "--to", to)
    assert done.returncode == 1
    says = "could be several revisions" if to == "" else "was never deployed to shop"
    assert done.stderr.startswith(f"gitops-agent: {to!r} {says}")
    assert json.loads(shop.command("status", "--json").stdout)["healthy"]
    assert live(shop) == before
    assert len(shop.history()) == 2


def test_a_pause_outlives_a_restart_and_what_came_goes_out(shop: Agent, upstream: Upstream) -> None:
    assert shop.command("pause", "shop", "--for", "2h", "--reason", "audit").returncode == 0
    before = live(shop)
    upstream.commit({"f": "3"})
    newest = upstream.commit({"f": "4"})
    assert shop.push(newest, number="the-push").status_code == 202
    shop.wait_for_log("look.left_alone", result="paused")
    shop.kill()
    shop.start()
    shop.wait_for_log("look.left_alone", result="paused")
    status = json.loads(shop.command("status", "--json").stdout)["targets"][0]
    assert (status["state"], status["paused"]["reason"]) == ("paused", "audit")
    assert live(shop) == before
    diff = shop.command("diff", "shop").stdout
    assert "nothing: shop was paused by" in diff
    assert "M f" in diff
    assert shop.command("resume", "shop").returncode == 0
    assert shop.finished(newest)["delivery"] == "the-push"
    assert live(shop) == newest
    assert shop.command("resume", "shop").returncode == 1


def test_a_pause_ends_by_itself(shop: Agent, upstream: Upstream) -> None:
    assert shop.command("pause", "shop", "--for", "1s").returncode == 0
    newest = upstream.commit({"f": "3"})
    shop.push(newest)
    shop.finished(newest)


def test_a_cancel_ends_a_running_deployment(
    shop: Agent, upstream: Upstream, tmp_path: Path
) -> None:
    before = live(shop)
    assert shop.command("cancel", "shop").returncode == 1
    shop.hook("gate", f"test ! -e bad || {{ echo > {tmp_path}/started; exec sleep 60; }}")
    shop.signal(signal.SIGHUP)
    revision = upstream.commit({"bad": "x"})
    shop.push(revision)
    shop.wait_for_log("step.started", name="gate")
    done = shop.command("cancel", "shop")
    assert done.returncode == 0, done.stderr
    assert shop.finished(revision)["outcome"] == "canceled"
    assert live(shop) == before


def test_faults_are_told_at_once(shop: Agent) -> None:
    for arguments in (["pause", "nope"], ["resume", "nope"], ["cancel", "nope"], ["diff", "nope"]):
        done = shop.command(*arguments)
        assert done.returncode == 1
        assert "there is no target nope; there are: shop" in done.stderr
    for length in ("soon", "0s", "99999999d"):
        assert shop.command("pause", "shop", "--for", length).returncode == 2
