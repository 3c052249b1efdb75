"""What other users of the host get, and what either process gets of the other."""

import pytest

from tests.systemd.machine import Machine
from tests.systemd.shop import ON_THE_MACHINE, SECRET

pytestmark = ON_THE_MACHINE


@pytest.mark.parametrize(
    ("user", "path"),
    [
        ("nobody", "/run/gitops-agent/control.sock"),
        ("nobody", "/run/gitops-agent-feed.sock"),
        ("nobody", "/run/gitops-agent-hooks.sock"),
        ("nobody", "/var/lib/gitops-agent/journal.db"),
        ("nobody", "/var/lib/gitops-agent-receiver/inbox.db"),
        ("nobody", SECRET),
        ("nobody", "/etc/gitops-agent/credentials/core/deploy-key"),
        ("nobody", "/run/credentials/gitops-agent.service/gitops_deploy-key"),
        ("gitops-agent-receiver", "/run/gitops-agent/control.sock"),
        ("gitops-agent-receiver", "/run/credentials/gitops-agent.service/gitops_deploy-key"),
        ("gitops-agent-receiver", "/var/lib/gitops-agent/journal.db"),
        ("gitops-agent-receiver", "/run/gitops-agent-hooks.sock"),
        ("gitops-agent-hooks", "/run/gitops-agent/control.sock"),
        ("gitops-agent-hooks", "/run/gitops-agent-hooks.sock"),
        ("gitops-agent-hooks", "/run/credentials/gitops-agent.service/gitops_deploy-key"),
        ("gitops-agent-hooks", "/var/lib/gitops-agent/journal.db"),
        ("gitops-agent", "/run/credentials/gitops-agent-receiver.service/gitops_github-webhook"),
        ("gitops-agent", "/var/lib/gitops-agent-receiver/inbox.db"),
    ],
)
def test_another_user_gets_nothing(installed: Machine, user: str, path: str) -> None:
    assert installed.run(f"test -e {path}", check=False).returncode == 0, f"there is no {path}"
    opened = (
        "import socket, sys\n"
        "def tried(path):\n"
        "    try: open(path, 'rb')\n"
        "    except PermissionError: return True\n"
        "    except OSError: pass\n"
        "    try: socket.socket(socket.AF_UNIX).connect(path)\n"
        "    except PermissionError: return True\n"
        f"sys.exit(not tried('{path}'))"
    )
    as_user = f"setpriv --reuid {user} --regid $(id -g {user}) --clear-groups"
    installed.run(f'{as_user} python3 -c "{opened}"')


def test_the_receiver_sees_no_network_and_no_secret_of_the_core(installed: Machine) -> None:
    process = installed.says("systemctl show -P MainPID gitops-agent-receiver")
    interfaces = installed.says(f"nsenter -t {process} -n tail -n +3 /proc/net/dev | wc -l")
    assert interfaces == "1"
    assert (
        installed.says("ls /run/credentials/gitops-agent-receiver.service")
        == "gitops_github-webhook"
    )
    status = installed.says(f"grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/{process}/status")
    assert status.split() == ["CapEff:", "0000000000000000", "NoNewPrivs:", "1", "Seccomp:", "2"]
    assert "receiver.unsealed" not in installed.says("journalctl -o cat -u gitops-agent-receiver")
