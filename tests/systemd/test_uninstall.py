"""Away with it. The last of these files: nothing is installed after it."""

from tests.systemd.machine import PROGRAM, Machine
from tests.systemd.shop import ON_THE_MACHINE, live

pytestmark = ON_THE_MACHINE


def test_uninstall_leaves_state_and_configuration_unless_told(installed: Machine) -> None:
    installed.run("gitops-agent uninstall")
    assert installed.run("command -v gitops-agent", check=False).returncode
    assert installed.says("systemctl list-unit-files 'gitops-agent*' --no-legend || true") == ""
    kept = "ls -d /var/lib/gitops-agent/journal.db /etc/gitops-agent/agent.toml /srv/shop"
    assert len(installed.says(kept).split()) == 3
    installed.run(f"{PROGRAM}/bin/gitops-agent install")
    live(installed, installed.says("git -C /root/shop rev-parse HEAD"))
    installed.run(f"{PROGRAM}/bin/gitops-agent uninstall --purge")
    gone = installed.says("ls /var/lib /etc | grep gitops-agent || true")
    assert gone == ""
    assert installed.run("id gitops-agent", check=False).returncode
    assert installed.says("ls /srv/shop/.git/HEAD") == "/srv/shop/.git/HEAD"
