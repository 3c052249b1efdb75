"""The agent as a service of a booted systemd, installed by its own `install`."""

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.systemd.machine import CHECKOUT, PROGRAM, Machine

pytestmark = [
    pytest.mark.systemd,
    pytest.mark.xdist_group("systemd"),  # one machine for all of them
    pytest.mark.timeout(400),
]

REPO = "git@github.com:acme/shop.git"
SECRET = "/etc/gitops-agent/credentials/receiver/github-webhook"
BOTH = "gitops-agent gitops-agent-receiver"
HOOK = """#!/bin/sh
set -eu
[ -e slow ] || exit 0
touch /var/lib/gitops-agent/begun
until [ -e /srv/go ]; do sleep 0.1; done
"""


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


# ---- installed ----------------------------------------------------------------------------------


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


# ---- logs ---------------------------------------------------------------------------------------


def test_the_journal_knows_the_target_and_the_level(installed: Machine) -> None:
    revision = push(installed)
    installed.run("gitops-agent send-push shop")
    live(installed, revision)
    told = installed.says(
        f"journalctl -o json DEPLOY_TARGET=shop DEPLOY_REVISION={revision}"
        " DEPLOY_EVENT=deployment.finished"
    )
    (entry,) = map(json.loads, told.splitlines())
    assert (entry["DEPLOY_OUTCOME"], entry["PRIORITY"]) == ("deployed", "6")
    assert entry["_SYSTEMD_UNIT"] == "gitops-agent.service"
    deliver(installed, "http://127.0.0.1:9000/webhook/github", secret="another")
    warnings = installed.says("journalctl -o cat -p warning -u gitops-agent-receiver -n 1")
    assert warnings.startswith("delivery.refused webhook=github client=127.0.0.1 why=mismatch")


# ---- in front of it -----------------------------------------------------------------------------


def test_nginx_passes_a_signed_delivery_and_its_client_on(installed: Machine) -> None:
    tls = "--cacert /etc/letsencrypt/live/deploy.example.org/fullchain.pem"
    url = "https://deploy.example.org/webhook/github"
    assert deliver(installed, f"{tls} {url}") == '{"status":"pong"}'
    forged = "-H 'X-Forwarded-For: 6.6.6.6'"

    def refused(client: str) -> None:
        told = f"DEPLOY_EVENT=delivery.refused DEPLOY_CLIENT={client}"
        installed.until(f"journalctl -o cat -u gitops-agent-receiver {told} | grep -q mismatch")

    deliver(installed, f"{tls} --interface 127.0.0.3 {forged} {url}", secret="wrong")
    refused("127.0.0.3")
    direct = "http://127.0.0.1:9000/webhook/github"
    deliver(installed, f"--interface 127.0.0.4 {forged} {direct}", secret="wrong")
    refused("127.0.0.4")
    assert "6.6.6.6" not in installed.says("journalctl -u gitops-agent-receiver -o cat")
    other = installed.says(
        f"curl -s -o /dev/null -w '%{{http_code}}' {tls} https://deploy.example.org/"
    )
    assert other == "404"


# ---- what others get ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "path"),
    [
        ("nobody", "/run/gitops-agent/control.sock"),
        ("nobody", "/run/gitops-agent-feed.sock"),
        ("nobody", "/var/lib/gitops-agent/journal.db"),
        ("nobody", "/var/lib/gitops-agent-receiver/inbox.db"),
        ("nobody", SECRET),
        ("nobody", "/etc/gitops-agent/credentials/core/deploy-key"),
        ("nobody", "/run/credentials/gitops-agent.service/gitops_deploy-key"),
        ("gitops-agent-receiver", "/run/gitops-agent/control.sock"),
        ("gitops-agent-receiver", "/run/credentials/gitops-agent.service/gitops_deploy-key"),
        ("gitops-agent-receiver", "/var/lib/gitops-agent/journal.db"),
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


# ---- whatever happens to it ---------------------------------------------------------------------


@pytest.mark.parametrize("what", ["reload", "restart"])
def test_a_deployment_in_flight_ends_well_over_a(installed: Machine, what: str) -> None:
    installed.write("/etc/gitops-agent/deploy_hooks/announce", HOOK, 0o755)
    installed.run("rm -f /var/lib/gitops-agent/begun /srv/go")
    revision = push(installed, "date +%N > slow")
    installed.run("gitops-agent send-push shop")
    installed.until("test -e /var/lib/gitops-agent/begun")
    installed.run(f"systemctl {what} --no-block {BOTH}")
    installed.until("journalctl -u gitops-agent -n 5 -o cat | grep -Eq 'agent.(reloaded|stopping)'")
    installed.run("touch /srv/go")
    live(installed, revision)
    told = installed.says("gitops-agent history shop --json")
    mine = [one["outcome"] for one in json.loads(told) if one["revision"] == revision]
    assert mine == ["deployed"]
    push(installed, "git rm --quiet slow")


@contextmanager
def streaming(machine: Machine, revision: str) -> Iterator[list[tuple[str, str]]]:
    """Deliveries without end in the background; how each was answered, and its id, at the end."""
    secret = machine.says(f"cat {SECRET}")
    sender = subprocess.Popen(
        [*machine.enter("-n"), sys.executable, "-m", "tests.systemd.stream", "9000", REPO, revision,
         secret],
        cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    answers: list[tuple[str, str]] = []
    try:
        yield answers
    finally:
        told, _ = sender.communicate(timeout=90)
        for line in told.splitlines():
            how, number = line.split()
            answers.append((how, number))


def taken(machine: Machine, folder: Path) -> set[str]:
    """The deliveries that woke their target, or will at the next start. Both have to be stopped.

    One sync request stands for all letters that were read with it; its delivery is the newest.
    """
    for name in ("gitops-agent/journal.db", "gitops-agent-receiver/inbox.db"):
        shutil.copy(machine.root / "var/lib" / name, folder)
    with closing(sqlite3.connect(folder / "journal.db")) as journal:
        requested = {row[0] for row in journal.execute("SELECT delivery FROM requests")}
        ((read,),) = journal.execute("SELECT n FROM cursors")
    with closing(sqlite3.connect(folder / "inbox.db")) as inbox:
        letters = list(inbox.execute("SELECT n, id FROM letters"))
    asked = max(n for n, delivery in letters if delivery in requested)
    return {delivery for n, delivery in letters if n <= asked or n > read}


UPGRADE = f"{PROGRAM}/bin/pip install --quiet --no-deps --force-reinstall gitops-agent"


@pytest.mark.parametrize(
    ("happens", "may_be_cut_off"),
    [
        ([f"systemctl reload {BOTH}", f"systemctl restart {BOTH}", f"systemctl restart {BOTH}"], False),
        ([UPGRADE, "gitops-agent install", f"systemctl restart {BOTH}"], False),
        (["systemctl kill -s KILL gitops-agent-receiver", "systemctl kill -s KILL gitops-agent",
          f"systemctl kill -s KILL {BOTH}"], True),
    ],
    ids=["reload and restart", "upgrade", "kill"],
)  # fmt: skip
def test_under_a_stream_of_deliveries_none_is_refused_and_none_lost(
    installed: Machine, happens: list[str], may_be_cut_off: bool, tmp_path: Path
) -> None:
    revision = push(installed)
    with streaming(installed, revision) as answers:
        for command in happens:
            installed.run(command)
            installed.until(f"systemctl is-active --quiet {BOTH}")
            installed.until("curl -sf http://127.0.0.1:9000/healthz")
    counted = Counter(how for how, _ in answers)
    assert counted["202"] >= 10
    assert set(counted) <= ({"202", "cut-off"} if may_be_cut_off else {"202"}), counted
    live(installed, revision)
    installed.run(f"systemctl stop {BOTH}")
    acknowledged = {number for how, number in answers if how == "202"}
    assert acknowledged - taken(installed, tmp_path) == set()
    installed.run(f"systemctl start {BOTH}")


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


# ---- other places, and away with it -------------------------------------------------------------


def test_another_address_and_a_target_elsewhere(installed: Machine) -> None:
    installed.run(
        "cp /etc/gitops-agent/agent.toml /root/before.toml; cd /etc/gitops-agent;"
        "sed -i 's/^bind = .*/bind = \"unix:\\/run\\/gitops-agent-http.sock\"/' agent.toml;"
        "sed -i 's/trusted_proxies = .*/trusted_proxies = [\"unix\"]/' agent.toml;"
        "printf '\\n[targets.copy]\\nrepo = \"git@github.com:acme/shop.git\"\\n"
        "path = \"/opt/copy\"\\n[targets.copy.git]\\nssh_key = { credential = \"deploy-key\" }\\n"
        "known_hosts = \"/etc/gitops-agent/known_hosts\"\\n' >> agent.toml"
    )  # fmt: skip
    lines = installed.says("gitops-agent install").splitlines()
    assert "make     /opt/copy (owner gitops-agent)" in lines
    assert sum("write" in line for line in lines) == 2
    tip = installed.says("git -C /root/shop rev-parse HEAD")
    installed.until(f"git -c safe.directory=/opt/copy -C /opt/copy rev-parse HEAD | grep -q {tip}")
    socket = "--unix-socket /run/gitops-agent-http.sock http://agent/webhook/github"
    assert deliver(installed, socket) == '{"status":"pong"}'
    installed.run("cp /root/before.toml /etc/gitops-agent/agent.toml; gitops-agent install")
    assert deliver(installed, "http://127.0.0.1:9000/webhook/github") == '{"status":"pong"}'


def test_a_faulty_configuration_is_told_and_starts_nothing_new(installed: Machine) -> None:
    installed.run("echo 'colour = 1' >> /etc/gitops-agent/agent.toml")
    done = installed.run("gitops-agent install", check=False)
    assert done.returncode == 78
    assert "colour: unknown key" in done.stdout
    installed.run(f"systemctl reload {BOTH}; systemctl is-active --quiet {BOTH}")
    installed.run("cp /root/before.toml /etc/gitops-agent/agent.toml; gitops-agent install")


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
