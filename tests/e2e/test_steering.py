"""What a person does by hand, as it is typed, on a whole agent with releases."""

import json
import re
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
    goal, *_, end, hold = done.stdout.splitlines()
    assert goal == f"shop goes back to {live(shop)[:10]} (first)"
    assert "deployed" in end
    assert hold.startswith(f"  {left[:10]} is held until a newer revision comes; ")
    assert (shop.tree / "current" / "f").read_text() == "1"
    status = shop.command("status").stdout
    assert f"{left[:10]} is held: rolled back, asked for by" in status
    assert shop.push(left).json()["status"] == "queued"
    asked = shop.command("sync", "shop")
    keeps = f"shop: only a newer revision goes out: {left[:10]} is held: rolled back, asked for by"
    assert asked.stdout.startswith(keeps)
    todo = "  push a newer revision, or `gitops-agent sync shop --force` to try it again\n"
    assert asked.stdout.endswith(todo)
    assert asked.returncode == 0
    waited = shop.command("sync", "shop", "--wait")
    assert waited.stdout.startswith(f"shop: nothing is deployed: {left[:12]} is held: rolled back")
    assert waited.stdout.endswith(todo)
    again = shop.command("sync", "shop", "--wait", "--json")
    assert again.returncode == 1
    assert json.loads(again.stdout)["result"] == "held"
    looks = json.loads(shop.command("history", "shop", "--looks", "--json").stdout)
    assert {one["result"] for one in looks} == {"held"}
    assert any(one["why"].startswith("push, delivery") for one in looks)
    newest = json.loads(shop.command("history", "shop", "--json").stdout)[0]
    assert (newest["reason"], newest["outcome"]) == ("rollback", "deployed")
    assert shop.command("rollback", "shop").returncode == 1
    done = shop.command("rollback", "shop", "--to", left[:7], "--json")
    assert json.loads(done.stdout)["result"] == "deployed"
    assert live(shop) == left
    done = shop.command("rollback", "shop", "--to", left, "--no-wait")
    assert done.stdout.splitlines() == [
        f"shop goes back to {left[:10]} (second)", "`gitops-agent logs -f shop` follows it",
    ]  # fmt: skip
    assert shop.command("sync", "shop", "--wait").returncode == 0
    report = json.loads(shop.command("status", "--json").stdout)["targets"][0]
    assert (report["state"], report["held"]) == ("up-to-date", None)


@pytest.mark.parametrize("to", ["ffffffff", "HEAD", "../../etc", "2", ""])
def test_a_goal_that_was_never_deployed_touches_nothing(shop: Agent, to: str) -> None:
    before = live(shop)
    done = shop.command("rollback", "shop", "--to", to)
    assert done.returncode == 1
    short = "is too short to tell a revision; give at least 7 characters\n"
    says = short if len(to) < 2 else "was never deployed to shop"
    assert done.stderr.startswith(f"gitops-agent: {to!r} {says}")
    assert json.loads(shop.command("status", "--json").stdout)["healthy"]
    assert live(shop) == before
    assert len(shop.history()) == 2


def test_a_pause_outlives_a_restart_and_what_came_goes_out(shop: Agent, upstream: Upstream) -> None:
    paused = shop.command("pause", "shop")
    assert paused.stdout == (
        "shop is paused until somebody resumes it; `gitops-agent resume shop` ends that\n"
    )
    paused = shop.command("pause", "shop", "--for", "2h", "--reason", "audit")
    assert paused.returncode == 0
    assert re.search(
        r"^shop is paused until [\d: -]{19}: audit; `git.*\n  it was paused by", paused.stdout
    )
    asked = shop.command("sync", "shop")
    assert asked.stdout.startswith("shop: nothing goes out: paused by ")
    assert "  `gitops-agent resume shop` ends that" in asked.stdout
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
