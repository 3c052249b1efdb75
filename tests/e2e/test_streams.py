"""An agent whose standard streams lead nowhere, as supervisors and shells start some."""

import os
import subprocess
import sys

import pytest

from tests.agents import PATIENCE, Agent
from tests.remotes import Upstream


@pytest.mark.parametrize("how", ["2>/dev/full", "2>&-", "<&- >&- 2>&-", "2>&1 | true"])
def test_a_log_that_cannot_be_written_stops_nothing(
    agent: Agent, upstream: Upstream, how: str
) -> None:
    told = agent.root / "told"
    os.mkfifo(told)
    agent.hook("tell", f'echo "$DEPLOY_REVISION" > {told}')
    agent.configure('[[targets.shop.hooks]]\nrun = ["tell"]')
    first = upstream.commit({"a": "1"})
    run = f'"$0" -m agent run --config "$1" {how}'
    with subprocess.Popen(
        ["sh", "-c", run, sys.executable, str(agent.config)],
        stdout=subprocess.DEVNULL,
        env=agent.environ({}),
    ) as shell:
        assert told.read_text().strip() == first
        with agent.client() as client:
            pid = client.status()["pid"]
        second = upstream.commit({"a": "2"})
        assert agent.push(second).status_code == 202
        assert told.read_text().strip() == second
        os.kill(pid, 15)
        assert shell.wait(PATIENCE) == 0
    assert (agent.tree / "a").read_text() == "2"
