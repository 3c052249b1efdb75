"""The shop that the machine deploys, as its developer, its forge and its operator see it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.systemd.machine import Machine

REPO = "git@github.com:acme/shop.git"
CONFIG = "/etc/gitops-agent/agent.toml"
SECRET = "/etc/gitops-agent/credentials/receiver/github-webhook"
BOTH = "gitops-agent gitops-agent-receiver"

ON_THE_MACHINE = [
    pytest.mark.systemd,
    pytest.mark.xdist_group("systemd"),  # one machine for all of them
    pytest.mark.timeout(400),
]


def push(machine: Machine, text: str = "date +%N > n") -> str:
    """A developer's commit, pushed; gives the revision."""
    return machine.says(
        f"cd /root/shop; {text}; git add --all; git commit --quiet -m change --allow-empty;"
        " git push --quiet origin main 2>/dev/null; git rev-parse HEAD"
    )


def live(machine: Machine, revision: str) -> None:
    """Wait until a revision is live and nothing runs any more."""
    wanted = (
        "import json, sys; one = json.load(sys.stdin)['targets'][0];"
        f"sys.exit(not (one['live'] == '{revision}' and one['condition'] == 'settled'"
        " and not one['syncing']))"
    )
    asked = "curl -sf --unix-socket /run/gitops-agent/control.sock http://agent/v1/status"
    machine.until(f'{asked} | python3 -c "{wanted}"')
    assert machine.says("git -C /srv/shop -c safe.directory=/srv/shop rev-parse HEAD") == revision


def deliver(machine: Machine, how: str, *, event: str = "ping", secret: str | None = None) -> str:
    """Post a delivery with curl, signed; `how` is the rest of its command line. Gives the answer."""
    key = secret or machine.says(f"cat {SECRET}")
    return machine.says(
        'body=\'{"zen": "x"}\';'
        f" mac=$(printf %s \"$body\" | openssl dgst -sha256 -hmac '{key}' | sed 's/.* //');"
        f' curl -sS -X POST -H "X-Hub-Signature-256: sha256=$mac" -H "X-GitHub-Event: {event}"'
        " -H 'X-GitHub-Delivery: a-b-c' -H 'Content-Type: application/json'"
        f' --data-binary "$body" {how}'
    )


@contextmanager
def configured(machine: Machine, change: Callable[[str], str]) -> Iterator[None]:
    """With another agent.toml, which has been installed and read; with the one before at the end."""
    before = machine.says(f"cat {CONFIG}") + "\n"
    machine.write(CONFIG, change(before))
    try:
        machine.run(f"gitops-agent install; systemctl reload {BOTH}")
        yield
    finally:
        machine.write(CONFIG, before)
        machine.run(f"gitops-agent install; systemctl reload {BOTH}")
