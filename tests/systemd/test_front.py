"""What stands in front of the agent: nginx and Caddy, as the page has them."""

import json

from tests.systemd.machine import CERTIFICATE, Machine
from tests.systemd.page import blocks
from tests.systemd.shop import ON_THE_MACHINE, deliver

pytestmark = ON_THE_MACHINE

URL = "https://deploy.example.org/webhook/github"
DIRECT = "http://127.0.0.1:9000/webhook/github"
CADDY_CA = "/var/lib/caddy/.local/share/caddy/pki/authorities/local/root.crt"
# Caddy, too, is its own authority.
OFFLINE = "{\n\tlocal_certs\n\tskip_install_trust\n}\n"


def refused_from(machine: Machine) -> set[str]:
    """The addresses of those whose deliveries were refused, as the receiver took them."""
    told = "journalctl -o json -u gitops-agent-receiver DEPLOY_EVENT=delivery.refused"
    return {json.loads(line)["DEPLOY_CLIENT"] for line in machine.says(told).splitlines()}


def passes_on(machine: Machine, authority: str, client: str) -> None:
    """A signed delivery, and its client; what that says of itself is believed from nobody."""
    tls, forged = f"--cacert {authority}", "-H 'X-Forwarded-For: 6.6.6.6'"
    assert deliver(machine, f"{tls} {URL}") == '{"status":"pong"}'
    deliver(machine, f"{tls} --interface {client} {forged} {URL}", secret="wrong")
    machine.until(f"journalctl -u gitops-agent-receiver DEPLOY_CLIENT={client} | grep -q refused")
    assert "6.6.6.6" not in refused_from(machine)
    other = f"curl -s -o /dev/null -w '%{{http_code}}' {tls} https://deploy.example.org/metrics"
    assert machine.says(other) == "404"


def test_nginx_passes_deliveries_and_their_clients_on(installed: Machine) -> None:
    passes_on(installed, CERTIFICATE, "127.0.0.3")


def test_caddy_does_too(installed: Machine) -> None:
    (page,) = blocks("caddyfile")
    installed.write("/etc/caddy/Caddyfile", OFFLINE + page)
    try:
        installed.run("systemctl stop nginx; systemctl start caddy")
        installed.until(f"curl -sf --cacert {CADDY_CA} -o /dev/null -X POST {URL} || test $? = 22")
        passes_on(installed, CADDY_CA, "127.0.0.5")
    finally:
        installed.run("systemctl stop caddy; systemctl start nginx")


def test_who_comes_directly_is_believed_nothing(installed: Machine) -> None:
    forged = "-H 'X-Forwarded-For: 6.6.6.6'"
    deliver(installed, f"--interface 127.0.0.4 {forged} {DIRECT}", secret="wrong")
    installed.until("journalctl -u gitops-agent-receiver DEPLOY_CLIENT=127.0.0.4 | grep -q refused")
    assert "6.6.6.6" not in refused_from(installed)
