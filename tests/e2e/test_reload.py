"""SIGHUP while something runs: what was begun goes on, and what is new keeps out of its way."""

import os
import signal

from tests.agents import Agent
from tests.remotes import Upstream, git


def test_a_target_that_is_renamed_waits_for_what_runs_in_its_path(
    agent: Agent, upstream: Upstream
) -> None:
    go = agent.root / "go"
    os.mkfifo(go)
    agent.hook("wait", f"read _ < {go}; git rev-parse HEAD > {agent.root}/$DEPLOY_TARGET")
    agent.configure('[[targets.shop.hooks]]\nrun = ["wait"]')
    first = upstream.commit({"a": "1"})
    agent.start()
    agent.wait_for_log("step.started", name="wait")
    second = upstream.commit({"a": "2"})
    agent.config.write_text(agent.config.read_text().replace("targets.shop", "targets.store"))
    agent.signal(signal.SIGHUP)
    agent.wait_for_log("deployment.waits", target="store")
    assert git("rev-parse", "HEAD", cwd=agent.tree) == first
    go.write_text("go\n")
    assert agent.finished(first)["outcome"] == "deployed"
    go.write_text("go\n")
    assert agent.finished(second)["outcome"] == "deployed"
    assert (agent.root / "shop").read_text().strip() == first
    assert (agent.root / "store").read_text().strip() == second


def test_a_target_that_is_taken_away_is_not_tried_again(agent: Agent, upstream: Upstream) -> None:
    agent.configure()
    with_it = agent.config.read_text()
    agent.repo = f"{upstream.url}-not-there"
    agent.configure()
    agent.start()
    agent.wait_for_log("sync.tried_again", target="shop")
    revision = upstream.commit({"a": "1"})
    agent.config.write_text(with_it.replace("targets.shop", "targets.other"))
    agent.signal(signal.SIGHUP)
    agent.finished(revision)
    agent.wait_for_log("wish.dropped", target="shop")
    assert agent.stop() == 0
    assert agent.log().count("sync.tried_again") == 1
