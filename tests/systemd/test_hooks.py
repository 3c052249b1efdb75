"""The page's hook, which restarts a service."""

from tests.systemd.machine import Machine
from tests.systemd.page import blocks
from tests.systemd.shop import ON_THE_MACHINE, configured, live, push

pytestmark = ON_THE_MACHINE

SHOP = "[Service]\nExecStart=sleep infinity\n"


def test_the_page_s_hook_restarts_a_service(installed: Machine) -> None:
    installed.write("/etc/systemd/system/shop.service", SHOP)
    installed.run("systemctl start shop")
    started = "systemctl show -P InvocationID shop"
    before = installed.says(started)
    (page,) = blocks("toml")
    with configured(installed, lambda text: f"{text}\n{page}"):
        revision = push(installed)
        installed.run("gitops-agent send-push shop")
        live(installed, revision)
    assert installed.says(f"systemctl is-active shop; {started}").split()[0] == "active"
    assert installed.says(started) != before
