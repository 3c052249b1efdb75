"""What `install` makes of a fresh system, by the newcomer's page and after it."""

import re

import pytest

from tests.systemd.machine import Machine
from tests.systemd.shop import BOTH, CONFIG, ON_THE_MACHINE, configured, deliver, live, push

pytestmark = ON_THE_MACHINE


def test_the_newcomer_s_page_ends_with_a_deploying_service(installed: Machine) -> None:
    live(installed, installed.says("git -C /root/shop rev-parse HEAD"))
    assert installed.says(f"systemctl is-active {BOTH}").split() == ["active", "active"]
    installed.until("systemctl status gitops-agent | grep -q '1 target; last: shop deployed'")
    installed.until("systemctl status gitops-agent-receiver | grep -q '1 webhook,'")
    revision = push(installed)
    assert "202" in installed.says("gitops-agent send-push shop")
    live(installed, revision)


def test_to_install_again_changes_nothing_and_says_so(installed: Machine) -> None:
    before = installed.says(f"systemctl show -p MainPID {BOTH}")
    lines = installed.says("gitops-agent install").splitlines()
    assert {line.split()[0] for line in lines} == {"same", "kept", "run"}
    assert installed.says(f"systemctl show -p MainPID {BOTH}") == before
    shown = installed.says("echo x >> /etc/systemd/system/gitops-agent.service; "
                           "gitops-agent install --dry-run")  # fmt: skip
    assert "    ExecStart=gitops-agent run --only core" in shown
    changed = [
        line for line in installed.says("gitops-agent install").splitlines() if "write" in line
    ]
    assert changed == ["write    /etc/systemd/system/gitops-agent.service (mode 0644)"]
    assert installed.says(f"systemctl show -p MainPID {BOTH}") != before


@pytest.mark.parametrize(
    ("unit", "most"), [("gitops-agent-receiver.service", 0.4), ("gitops-agent.service", 1.3)]
)
def test_as_shipped_and_working_it_is_exposed_no_more_than(
    installed: Machine, unit: str, most: float
) -> None:
    told = installed.says(f"systemd-analyze security --no-pager {unit}")
    exposure = re.search(r"Overall exposure level for \S+: (\S+)", told)
    assert exposure
    assert float(exposure[1]) <= most
    assert installed.says(f"systemctl is-active {unit}") == "active"


def test_units_are_sound(installed: Machine) -> None:
    units = installed.says("ls /etc/systemd/system/gitops-agent*.{service,socket}").split()
    assert installed.says(f"systemd-analyze verify {' '.join(units)}") == ""


ELSEWHERE = """
[targets.copy]
repo = "git@github.com:acme/shop.git"
path = "/opt/copy"

[targets.copy.git]
ssh_key = { credential = "deploy-key" }
known_hosts = "/etc/gitops-agent/known_hosts"
"""


def elsewhere(text: str) -> str:
    """The configuration with a Unix socket for its address, and a target outside of /srv."""
    text = text.replace('bind = "127.0.0.1:9000"', 'bind = "unix:/run/gitops-agent-http.sock"')
    return text.replace('trusted_proxies = ["127.0.0.1"]', 'trusted_proxies = ["unix"]') + ELSEWHERE


def test_another_address_and_a_target_elsewhere(installed: Machine) -> None:
    with configured(installed, elsewhere):
        tip = installed.says("git -C /root/shop rev-parse HEAD")
        copied = "git -c safe.directory=/opt/copy -C /opt/copy rev-parse HEAD"
        installed.until(f"{copied} | grep -q {tip}")
        socket = "--unix-socket /run/gitops-agent-http.sock http://agent/webhook/github"
        assert deliver(installed, socket) == '{"status":"pong"}'
        lines = installed.says("gitops-agent install").splitlines()
        assert "same     /etc/systemd/system/gitops-agent.service.d/paths.conf" in lines
    assert deliver(installed, "http://127.0.0.1:9000/webhook/github") == '{"status":"pong"}'
    installed.run("test ! -e /etc/systemd/system/gitops-agent.service.d/paths.conf")


def test_a_faulty_configuration_is_told_and_starts_nothing_new(installed: Machine) -> None:
    installed.run(f"cp -p {CONFIG} /root/before.toml; echo '[colour]' >> {CONFIG}")
    done = installed.run("gitops-agent install", check=False)
    installed.run(f"systemctl reload {BOTH}; systemctl is-active --quiet {BOTH}")
    installed.run(f"cp -p /root/before.toml {CONFIG}; gitops-agent install")
    assert done.returncode == 78
    assert "colour: unknown key" in done.stdout
