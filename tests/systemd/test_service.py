"""The services at work: what they tell the journal, and how they are stopped and started."""

import json

import pytest

from tests.systemd.machine import Machine
from tests.systemd.shop import BOTH, ON_THE_MACHINE, deliver, live, push

pytestmark = ON_THE_MACHINE


def test_the_journal_knows_the_target_and_the_level(installed: Machine) -> None:
    revision = push(installed)
    installed.run("gitops-agent send-push shop")
    live(installed, revision)
    finished = (
        f"journalctl -o json DEPLOY_TARGET=shop DEPLOY_REVISION={revision}"
        " DEPLOY_EVENT=deployment.finished"
    )
    installed.until(f"{finished} | grep -q .")
    (entry,) = map(json.loads, installed.says(finished).splitlines())
    assert (entry["DEPLOY_OUTCOME"], entry["PRIORITY"]) == ("deployed", "6")
    assert entry["_SYSTEMD_UNIT"] == "gitops-agent.service"
    deliver(installed, "http://127.0.0.1:9000/webhook/github", secret="another")
    refused = "delivery.refused webhook=github client=127.0.0.1 why=mismatch"
    warnings = "journalctl -o cat -p warning -u gitops-agent-receiver"
    installed.until(f"{warnings} | grep -q '^{refused}'")


SLOW = """#!/bin/sh
set -eu
[ -e slow ] || exit 0
touch ~/begun
until [ -e /srv/go ]; do sleep 0.1; done
"""
HOME = "/var/lib/gitops-agent-hooks"


@pytest.mark.parametrize(
    "what",
    ["systemctl --no-block reload", "systemctl --no-block restart", "systemctl kill -s KILL"],
)
def test_a_deployment_in_flight_ends_well_over(installed: Machine, what: str) -> None:
    installed.write("/etc/gitops-agent/deploy_hooks/announce", SLOW, 0o755)
    installed.run(f"rm -f {HOME}/begun /srv/go")
    revision = push(installed, "date +%N > slow")
    installed.run("gitops-agent send-push shop")
    installed.until(f"test -e {HOME}/begun")
    installed.run(f"{what} {BOTH}")
    said = "agent.(reloaded|stopping)|code=killed"
    installed.until(f"journalctl -u gitops-agent -n 5 -o cat | grep -Eq '{said}'")
    installed.run("touch /srv/go")
    live(installed, revision)
    told = json.loads(installed.says("gitops-agent history shop --json"))
    assert [one["outcome"] for one in told if one["revision"] == revision] == ["deployed"]
    push(installed, "git rm --quiet slow")


def test_one_that_hangs_is_started_again(installed: Machine) -> None:
    quick = "[Service]\nWatchdogSec=3s\nTimeoutAbortSec=1s\n"
    before = {}
    for unit in BOTH.split():
        installed.write(f"/etc/systemd/system/{unit}.service.d/quick.conf", quick)
    installed.run(f"systemctl daemon-reload; systemctl restart {BOTH}")
    for unit in BOTH.split():
        before[unit] = installed.says(f"systemctl show -P MainPID {unit}")
        installed.run(f"kill -STOP {before[unit]}")
    for unit, process in before.items():
        installed.until(f"test $(systemctl show -P NRestarts {unit}) -gt 0")
        installed.until(f"systemctl is-active --quiet {unit}")
        assert installed.says(f"systemctl show -P MainPID {unit}") != process
        assert "watchdog" in installed.says(f"journalctl -u {unit} -n 40 -o cat").lower()
    installed.run("rm /etc/systemd/system/gitops-agent*.d/quick.conf; systemctl daemon-reload")
