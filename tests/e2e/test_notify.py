"""A deployment is told to whom it concerns: whole agents, real receivers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agents import Agent
from tests.receivers import GitHub, Receiver, alertmanager, github, verified
from tests.remotes import Upstream, serve_http

SIGNING = "whsec_" + "c2VjcmV0IG9mIHRoZSB0ZXN0cywgbG9uZyBlbm91Z2g="
TOKEN = "ghs_a-token-of-the-tests"
CHECK = '[[targets.shop.hooks]]\nstage = "verify"\nrun = ["check"]\n'
FAILS_ON_BAD = """
test ! -e bad && exit 0
printf 'checking\\n\\033[31mno: %s\\033[0m @everyone\\n' "$(cat bad)"
exit 3
"""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as one:
        yield one


def with_webhook(agent: Agent, receiver: Receiver, more: str = "") -> None:
    (agent.root / "signing").write_text(SIGNING)
    (agent.root / "signing").chmod(0o600)
    agent.hook("check", FAILS_ON_BAD)
    agent.configure(
        f'{CHECK}\n[notify.ops]\nkind = "webhook"\nurl = "{receiver.url}/"\n'
        f'secret = {{ file = "signing" }}\n{more}'
    )


def heard(receiver: Receiver) -> Any:
    return verified(receiver.next(), SIGNING)


def test_a_failure_is_told_once_and_so_is_the_recovery(
    agent: Agent, upstream: Upstream, receiver: Receiver
) -> None:
    a = upstream.commit({"a": "1"})
    with_webhook(agent, receiver, 'link = "https://agent.example/{deployment}"')
    agent.start()
    agent.finished(a)
    assert heard(receiver)["type"] == "deployment.deployed"

    b = upstream.commit({"bad": f"the key is {SIGNING}", "b": "1"}, "Break <!channel> it")
    agent.push(b)
    failure = heard(receiver)
    agent.command("sync", "shop", "--force", "--wait")
    c = upstream.commit({"bad": None}, "Mend it")
    agent.push(c)
    agent.finished(c)
    recovery = heard(receiver)
    assert agent.stop() == 0
    assert receiver.nothing_more()

    data = failure["data"]
    assert failure["type"] == "deployment.rolled_back"
    assert (data["revision"], data["previous"], data["path"]) == (b, a, str(agent.tree))
    assert data["detail"] == "verify hook check: exit 3"
    assert data["output"] == [{
        "step": "verify hook check", "result": "exit 3",
        "lines": ["checking", "no: the key is [secret] @\u200beveryone"],
    }]  # fmt: skip
    assert [one["subject"] for one in data["commits"]] == ["Break <\u200b!channel> it"]
    assert data["files"] == 2
    assert data["link"] == f"https://agent.example/{data['deployment']}"
    assert f"{b[:10]} FAILED, {a[:10]} is live again" in data["title"]
    assert "`gitops-agent sync shop --force`" in data["text"]
    assert (recovery["type"], recovery["data"]["recovered"]) == ("deployment.deployed", True)
    assert f"recovered, {c[:10]} is live" in recovery["data"]["title"]
    assert SIGNING not in agent.log()


def test_a_sink_that_is_down_delays_nothing_and_hears_it_all_after_a_crash(
    agent: Agent, upstream: Upstream, receiver: Receiver
) -> None:
    a = upstream.commit({"a": "1"})
    with_webhook(agent, receiver)
    receiver.status = 503
    agent.start()
    agent.finished(a)
    agent.wait_for_log("notice.waits", sink="ops")
    b = upstream.commit({"bad": "it", "b": "1"})
    agent.push(b)
    assert agent.finished(b)["outcome"] == "rolled-back"
    said = agent.command("status").stdout
    assert "notify.ops: 2 notices not told yet" in said
    assert "answered 503" in said
    agent.kill()

    # What was on its way when the agent died may arrive as well, under the same id.
    receiver.status = 200
    agent.start()
    types: dict[str, str] = {}
    while "deployment.rolled_back" not in types.values():
        received = receiver.next()
        types[received.headers["webhook-id"]] = verified(received, SIGNING)["type"]
    assert list(types.values()) == ["deployment.deployed", "deployment.rolled_back"]
    agent.wait_for_log("notice.told", sink="ops", outcome="rolled-back")
    assert "notify.ops" not in agent.command("status").stdout


def test_one_that_never_answers_keeps_nobody_from_stopping(
    agent: Agent, upstream: Upstream, receiver: Receiver
) -> None:
    a = upstream.commit({"a": "1"})
    with_webhook(agent, receiver)
    receiver.hangs = True
    agent.start()
    agent.finished(a)
    assert receiver.asked.wait(20)
    assert agent.stop() == 0


def test_an_alert_stands_while_a_target_fails(
    agent: Agent, upstream: Upstream, tmp_path: Path
) -> None:
    a = upstream.commit({"a": "1"})
    agent.hook("check", FAILS_ON_BAD)
    with alertmanager(tmp_path / "alertmanager") as real:
        agent.configure(f'{CHECK}\n[notify.alertmanager]\nurl = "{real.url}"\n')
        agent.start()
        agent.finished(a)
        b = upstream.commit({"bad": "it"})
        agent.push(b)
        fired = real.next("firing")
        agent.stop()
        agent.start()
        c = upstream.commit({"bad": None})
        agent.push(c)
        agent.finished(c)
        resolved = real.next("resolved")
        assert real.alerts() == []
    assert fired["labels"]["target"] == "shop"
    assert "FAILED" in fired["annotations"]["summary"]
    assert "no: it" in fired["annotations"]["description"]
    assert resolved["fingerprint"] == fired["fingerprint"]


def test_github_sees_where_a_commit_is_live(tmp_path: Path) -> None:
    upstream = Upstream(tmp_path / "forge" / "acme")
    a = upstream.commit({"a": "1"})
    with serve_http(tmp_path / "forge") as remote, github(GitHub(TOKEN)) as forge:
        agent = Agent(tmp_path / "agent", remote.url("acme/shop.git"))
        agent.hook("check", FAILS_ON_BAD)
        (agent.root / "token").write_text(TOKEN)
        (agent.root / "token").chmod(0o600)
        agent.configure(
            f'{CHECK}\n[notify.github]\nurl = "{forge.url}"\ntoken = {{ file = "token" }}\n'
            'environment = "production"\nlink = "https://agent.example/{deployment}"\n'
        )
        agent.start()
        agent.finished(a)
        forge.wait_for(2)
        b = upstream.commit({"bad": "it"})
        agent.push(b)
        agent.finished(b)
        forge.wait_for(4)
        agent.stop()
    assert [(one["sha"], one["environment"]) for one in forge.deployments] == [
        (a, "production"), (b, "production"),
    ]  # fmt: skip
    assert [(number, one["state"]) for number, one in forge.progress] == [
        (1, "in_progress"), (1, "success"), (2, "in_progress"), (2, "failure"),
    ]  # fmt: skip
    assert [(revision, one["state"]) for revision, one in forge.statuses] == [
        (a, "pending"), (a, "success"), (b, "pending"), (b, "failure"),
    ]  # fmt: skip
    assert all(one["target_url"].startswith("https://agent.example/") for _, one in forge.statuses)
    assert TOKEN not in agent.log()


def test_a_sink_is_tried_out(agent: Agent, upstream: Upstream, receiver: Receiver) -> None:
    upstream.commit({"a": "1"})
    with_webhook(agent, receiver)
    done = agent.command("send-notice", "ops")
    assert (done.returncode, done.stdout) == (
        0,
        f"[notify.ops] took it: {heard(receiver)['data']['title']}\n",
    )
    receiver.status = 401
    done = agent.command("send-notice", "ops")
    assert done.returncode == 1
    assert "[notify.ops] did not take it: it answered 401 ok" in done.stderr
    assert "there are: ops" in agent.command("send-notice", "none").stderr
