"""Hooks as the user they name, each in a unit of systemd's, on the installed machine."""

import json
from collections.abc import Iterator

import pytest

from tests.systemd.machine import Machine

pytestmark = [
    pytest.mark.systemd,
    pytest.mark.xdist_group("systemd"),  # one machine for all of them
    pytest.mark.timeout(400),
]

REPO = "git@github.com:acme/shop.git"
UNITS = "systemctl list-units --no-legend --plain 'gitops-agent-hooks@*'"
SITE = f"""
[targets.site]
repo = "{REPO}"
path = "/srv/site"
strategy = "releases"
keep = 1
user = "site"

[targets.site.git]
ssh_key = {{ credential = "deploy-key" }}
known_hosts = "/etc/gitops-agent/known_hosts"

[[targets.site.hooks]]
stage = "build"
run = ["./build"]

[[targets.site.hooks]]
run = ["wait"]
"""
# What the repository has: it writes into the tree, and says who and where it is.
BUILD = """#!/bin/sh
set -eu
mkdir -p out/in; echo built > out/in/page
id -un; cat /proc/self/cgroup; ls -A /tmp
"""
# The operator's: told to by the revision, it waits.
WAIT = """#!/bin/sh
set -eu
[ -e slow ] || exit 0
echo $$ >> "$HOME/begun"
until [ -e "$HOME/go" ]; do sleep 0.1; done
"""
# In a session of its own, without an environment, deaf to what can be heard, and never done.
HOSTILE = """#!/usr/bin/python3
import os, signal, time
os.path.exists("bad") or os._exit(0)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    open("/home/site/bred", "w").close()
    while True:
        try:
            if os.fork() == 0:
                time.sleep(0.1)
                os._exit(0)
        except OSError:
            pass
while True:
    signal.pause()
"""
EATS = """#!/usr/bin/python3
import os, time
os.path.exists("bad") or os._exit(0)
if os.fork() == 0:
    os.setsid()
    time.sleep(600)
eaten = []
while True:
    eaten.append(bytearray(os.urandom(1 << 20)))
"""


@pytest.fixture(scope="module")
def site(installed: Machine) -> Iterator[Machine]:
    """A second target, whose hooks run as `site`."""
    installed.run(
        "useradd --system --create-home site; cd /etc/gitops-agent; cp agent.toml /root/one.toml;"
        "sed -i '1i drain = \"1s\"' agent.toml"
    )
    installed.write("/etc/gitops-agent/deploy_hooks/wait", WAIT, 0o755)
    revision = push(installed, f"cat > build <<'END'\n{BUILD}END\nchmod 755 build")
    add_hooks(installed, SITE)
    assert ended(installed, revision)["outcome"] == "deployed"
    yield installed
    push(installed, "git rm --quiet build")
    installed.run("cp /root/one.toml /etc/gitops-agent/agent.toml; gitops-agent install")
    installed.run("systemctl restart gitops-agent")


def add_hooks(machine: Machine, text: str) -> None:
    """More of agent.toml, and the agent told of it."""
    machine.run(f"cat >> /etc/gitops-agent/agent.toml <<'END'\n{text}END\ngitops-agent install")
    machine.run("systemctl restart gitops-agent")


def push(machine: Machine, change: str) -> str:
    """A developer's commit, pushed; gives the revision."""
    return machine.says(
        f"cd /root/shop; {change}\ngit add --all; git commit --quiet -m change;"
        " git push --quiet origin main 2>/dev/null; git rev-parse HEAD"
    )


def deploy(machine: Machine, change: str = "date +%N > n") -> str:
    """Have a change of the repository deployed to the second target; gives its revision."""
    revision = push(machine, change)
    machine.run("gitops-agent sync site")
    return revision


def ended(machine: Machine, revision: str) -> dict[str, str]:
    """How the only deployment of a revision has ended, once nothing of it runs any more."""
    one = (
        "import json, sys;"
        f"[one] = [one for one in json.load(sys.stdin) if one['revision'] == '{revision}'];"
        "json.dump(one, sys.stdout); sys.exit(not one['ended_at'])"
    )
    machine.until(f'gitops-agent history site --json | python3 -c "{one}"')
    machine.until(f'test -z "$({UNITS})"')
    found: dict[str, str] = json.loads(
        machine.says(f'gitops-agent history site --json | python3 -c "{one}"')
    )
    return found


def test_a_hook_runs_as_its_user_in_a_unit_of_its_own(site: Machine) -> None:
    said = site.says("gitops-agent logs site")
    assert "\nsite\n" in said
    assert "/gitops-agent-hooks@" in said
    assert "gitops-agent.service" not in said
    assert "hook-" in said, "its /tmp has its own folder"
    release = "$(readlink -f /srv/site/current)"
    assert site.says(f"stat -c %U {release}/out/in/page {release}/n").split() == [
        "site",
        "gitops-agent",
    ]


def test_what_hooks_made_goes_with_its_release(site: Machine) -> None:
    for _ in range(3):
        assert ended(site, deploy(site))["outcome"] == "deployed"
    site.until("test -e /srv/site/releases/.spare/n -a ! -e /srv/site/releases/.spare/out")
    assert "tree.not_removed" not in site.says("journalctl -o cat -u gitops-agent")


def test_a_folder_that_keeps_the_agent_out_holds_up_no_release(site: Machine) -> None:
    """It cannot be cleaned away, so that each release after it is another tree."""
    keeps = "cp build /root/build; echo 'mkdir -m 0700 private; touch private/x' >> build"
    assert ended(site, deploy(site, keeps))["outcome"] == "deployed"
    for _ in range(3):
        assert ended(site, deploy(site))["outcome"] == "deployed"
    site.until("journalctl -o cat -u gitops-agent | grep 'tree.not_cleaned.*target=site'")
    for change in ("cp /root/build build", "date +%N > n", "date +%N > n"):
        assert ended(site, deploy(site, change))["outcome"] == "deployed"
    site.run("test ! -e /srv/site/current/private; rm -r /srv/site/releases/.gone-*")


def test_a_restart_of_the_agent_in_the_middle_of_a_hook_finds_it_again(site: Machine) -> None:
    site.run("rm -f /home/site/begun /home/site/go")
    revision = deploy(site, "touch slow")
    site.until("test -e /home/site/begun")
    for how in ("restart", "kill -s KILL"):
        site.run(f"systemctl {how} gitops-agent")
        site.until("gitops-agent status")
        site.run("kill -0 $(cat /home/site/begun)")
    found = "journalctl -o cat -u gitops-agent | grep -c 'found_again target=site'"
    site.until(f"test $({found}) -ge 2")
    site.run("setpriv --reuid site --clear-groups touch /home/site/go")
    assert ended(site, revision)["outcome"] == "deployed"
    assert site.says("wc -l < /home/site/begun") == "1"
    push(site, "git rm --quiet slow")


def fails(machine: Machine, program: str, more: str) -> str:
    """Deploy a revision at which one more hook goes bad; how that ended. Nothing of it is left."""
    machine.write("/etc/gitops-agent/deploy_hooks/bad", program, 0o755)
    machine.run("cp /etc/gitops-agent/agent.toml /root/two.toml")
    add_hooks(machine, f'\n[[targets.site.hooks]]\nrun = ["bad"]\n{more}\n')
    one = ended(machine, deploy(machine, "touch bad"))
    assert machine.run("pgrep -l -u site", check=False).stdout == ""
    machine.run("cp /root/two.toml /etc/gitops-agent/agent.toml; systemctl reload gitops-agent")
    push(machine, "git rm --quiet bad")
    assert one["outcome"] == "rolled-back"
    return one["detail"]


def test_a_hostile_hook_leaves_no_process(site: Machine) -> None:
    assert "timed out after 2 s" in fails(site, HOSTILE, 'timeout = "2s"')
    site.run("test -e /home/site/bred")


@pytest.mark.parametrize(
    ("program", "limit", "says"),
    [
        (HOSTILE, "tasks_max = 20", "timed out after 2 s; it ran into its tasks_max"),
        (EATS, 'memory_max = "64MB"', "killed by SIGKILL; it ran into its memory_max"),
    ],
)
def test_limits_are_kept(site: Machine, program: str, limit: str, says: str) -> None:
    if "memory" not in site.says("cat /sys/fs/cgroup/cgroup.controllers || true"):
        pytest.skip("this host has its controllers in cgroups of version 1, which no limit is for")
    assert says in fails(site, program, f'timeout = "2s"\n{limit}')


def test_the_agent_s_own_user_gets_nothing_else_run(site: Machine) -> None:
    asks = (
        "import json, os, socket; one = socket.socket(socket.AF_UNIX);"
        "one.connect('/run/gitops-agent-hooks.sock'); home = '/var/lib/gitops-agent/';"
        "os.mkfifo(home + 'line'); line = os.open(home + 'line', os.O_RDWR);"
        "files = [os.open(home + name, os.O_RDWR | os.O_CREAT) for name in ('a', 'b', 'c')];"
        "ask = {'target': 'site', 'number': 1, 'argv': ['/usr/bin/id'], 'timeout': 5, 'facts': {"
        "'DEPLOY_ID': 'x', 'DEPLOY_REASON': 'push', 'DEPLOY_ATTEMPT': '1',"
        "'DEPLOY_REVISION': 'a' * 40, 'DEPLOY_TREE': os.path.realpath('/srv/site/current')}};"
        "socket.send_fds(one, [json.dumps(ask).encode()], [files[0], files[1], line, files[2]]);"
        "one.shutdown(socket.SHUT_WR); one.recv(1)"
    )
    as_agent = "setpriv --reuid gitops-agent --regid gitops-agent --clear-groups"
    site.run(f'{as_agent} python3 -c "{asks}"')
    site.until("grep -q 'the hook runner refused it: agent.toml' /var/lib/gitops-agent/b")
    site.until("journalctl -o cat -u 'gitops-agent-hooks@*' | grep 'refused: agent.toml is not'")
    site.run("cd /var/lib/gitops-agent; rm a b c line")
