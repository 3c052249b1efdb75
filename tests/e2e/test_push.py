"""A push becomes live: whole agents, real remotes, real hooks."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent import tokens
from tests.agents import SECRET, Agent
from tests.remotes import (
    HttpRemote,
    SshRemote,
    Upstream,
    delivery,
    free_port,
    git,
    push_payload,
)

RECORD = 'echo "$DEPLOY_REASON $DEPLOY_ATTEMPT $DEPLOY_REVISION" >> {root}/ran'
ACTIVATE = '[[targets.shop.hooks]]\nrun = ["record"]\n'


def recorded(agent: Agent) -> list[list[str]]:
    path = agent.root / "ran"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def with_recorder(agent: Agent, **options: str) -> None:
    agent.hook("record", RECORD.format(root=agent.root))
    agent.configure(ACTIVATE, **options)


def test_push_to_hook(agent: Agent, upstream: Upstream) -> None:
    a = upstream.commit({"index.html": "one"})
    with_recorder(agent)
    agent.start()
    agent.finished(a)
    b = upstream.commit({"index.html": "two"})
    answer = agent.push(b, number="72d3162e-cc78-11e3-81ab-4c9367dc0958")
    assert answer.status_code == 202
    assert answer.json() == {
        "status": "queued",
        "delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        "targets": ["shop"],
    }
    done = agent.finished(b)
    assert done["outcome"] == "deployed"
    assert done["delivery"] == "72d3162e-cc78-11e3-81ab-4c9367dc0958"
    assert recorded(agent) == [["start", "1", a], ["push", "1", b]]
    assert (agent.tree / "index.html").read_text() == "two"
    assert agent.stop() == 0


def test_a_lost_webhook_is_found_by_the_poll(agent: Agent, upstream: Upstream) -> None:
    a = upstream.commit({"a": "1"})
    with_recorder(agent, poll="1s")
    agent.start()
    agent.finished(a)
    b = upstream.commit({"a": "2"})
    assert agent.finished(b)["outcome"] == "deployed"
    assert recorded(agent)[-1] == ["poll", "1", b]


def test_the_same_delivery_twice_is_one_deployment(agent: Agent, upstream: Upstream) -> None:
    a = upstream.commit({"a": "1"})
    with_recorder(agent)
    agent.start()
    agent.finished(a)
    b = upstream.commit({"a": "2"})
    first = agent.push(b, number="same-id")
    agent.finished(b)
    second = agent.push(b, number="same-id")
    assert (first.status_code, second.status_code) == (202, 200)
    assert second.json() == {"status": "duplicate", "delivery": "same-id", "targets": ["shop"]}
    agent.stop()
    agent.start()
    third = agent.push(b, number="same-id")
    assert (third.status_code, third.json()["status"]) == (200, "duplicate")
    assert recorded(agent) == [["start", "1", a], ["push", "1", b]]


def test_fifty_pushes_during_a_deployment_end_in_one_more(agent: Agent, upstream: Upstream) -> None:
    go, started = agent.root / "go", agent.root / "started"
    os.mkfifo(go)
    os.mkfifo(started)
    slow = f'case "$(cat slow)" in yes) echo > {started}; cat {go} ;; esac\n'
    agent.hook("record", slow + RECORD.format(root=agent.root))
    agent.configure(ACTIVATE)
    a = upstream.commit({"slow": "yes"})
    agent.start()
    started.read_text()
    answers = []
    for n in range(50):
        tip = upstream.commit({"slow": "no", "n": str(n)})
        answers.append(agent.push(tip).status_code)
    assert answers == [202] * 50
    go.write_text("go")
    agent.finished(tip)
    assert [line[2] for line in recorded(agent)] == [a, tip]
    with agent.client() as client:
        assert not client.status()["targets"][0]["waiting"]


def test_over_http_with_a_token(
    tmp_path: Path, upstream: Upstream, http_remote: HttpRemote
) -> None:
    a = upstream.commit({"a": "1"})
    http_remote.token = "ghp_recognisable_token_of_this_test"
    agent = Agent(tmp_path / "agent", http_remote.url())
    token = agent.root / "token"
    token.write_text(http_remote.token + "\n")
    token.chmod(0o600)
    with_recorder(agent, target=f'git.token = {{ file = "{token}" }}')
    agent.start()
    try:
        assert agent.finished(a)["outcome"] == "deployed"
        b = upstream.commit({"a": "2"})
        assert agent.push(b).status_code == 202
        assert agent.finished(b)["outcome"] == "deployed"
        assert http_remote.token not in agent.log()
    finally:
        agent.stop()


def test_over_ssh_and_a_delivery_that_names_it_by_https(
    tmp_path: Path, upstream: Upstream, ssh_remote: SshRemote
) -> None:
    a = upstream.commit({"a": "1"})
    url = ssh_remote.url(upstream.path)
    agent = Agent(tmp_path / "agent", url)
    keys = f'git.ssh_key = {{ file = "{ssh_remote.key}" }}\ngit.known_hosts = "{ssh_remote.known_hosts}"'
    with_recorder(agent, target=keys)
    agent.start()
    try:
        assert agent.finished(a)["outcome"] == "deployed"
        b = upstream.commit({"a": "2"})
        assert agent.push(b, url=f"https://127.0.0.1{upstream.path}").status_code == 202
        assert agent.finished(b)["outcome"] == "deployed"
    finally:
        agent.stop()


def test_an_unknown_ssh_host_key_is_refused(
    tmp_path: Path, upstream: Upstream, ssh_remote: SshRemote
) -> None:
    upstream.commit({"a": "1"})
    (tmp_path / "nobody").write_text("")
    agent = Agent(tmp_path / "agent", ssh_remote.url(upstream.path))
    keys = f'git.ssh_key = {{ file = "{ssh_remote.key}" }}\ngit.known_hosts = "{tmp_path}/nobody"'
    agent.configure(target=keys)
    agent.start()
    try:
        why = agent.wait_for_log("remote.failed")["why"]
        assert "Host key verification failed" in why
    finally:
        agent.stop()


def test_a_force_push_is_deployed(agent: Agent, upstream: Upstream) -> None:
    a = upstream.commit({"a": "1"})
    with_recorder(agent)
    agent.start()
    agent.finished(a)
    b = upstream.force_push({"b": "1"})
    agent.push(b)
    agent.finished(b)
    assert [line[2] for line in recorded(agent)] == [a, b]
    assert git("status", "--porcelain", cwd=agent.tree) == ""


def test_a_deleted_branch_changes_nothing_until_it_is_back(
    agent: Agent, upstream: Upstream
) -> None:
    a = upstream.commit({"a": "1"})
    with_recorder(agent)
    agent.start()
    agent.finished(a)
    upstream.delete_branch("main")
    headers, body = delivery("push", push_payload(agent.repo, "0" * 40), SECRET)
    answer = agent.post(headers, body)
    assert (answer.status_code, answer.json()["reason"]) == (200, "the branch was deleted")
    assert agent.command("sync", "shop", "--wait").returncode == 1
    b = upstream.commit({"a": "2"})
    agent.push(b)
    agent.finished(b)
    assert [line[2] for line in recorded(agent)] == [a, b]


@pytest.mark.parametrize("stage", ["build", "activate", "verify"])
def test_a_failing_gate_is_undone_and_held(agent: Agent, upstream: Upstream, stage: str) -> None:
    agent.hook("gate", "test ! -e bad")
    agent.hook("record", RECORD.format(root=agent.root))
    hooks = f'[[targets.shop.hooks]]\nstage = "{stage}"\nrun = ["gate"]\n'
    agent.configure(hooks + ACTIVATE)
    a = upstream.commit({"a": "1"})
    agent.start()
    agent.finished(a)
    b = upstream.commit({"a": "2", "bad": ""})
    agent.push(b)
    assert agent.finished(b)["outcome"] == "rolled-back"
    assert git("rev-parse", "HEAD", cwd=agent.tree) == a
    assert recorded(agent)[-1][0] == "rollback"
    held = agent.command("status")
    assert f"{b[:10]} is held: {stage} hook gate: exit 1" in held.stdout
    assert agent.command("sync", "shop", "--wait").returncode == 1
    c = upstream.commit({"bad": None})
    agent.push(c)
    assert agent.finished(c)["outcome"] == "deployed"


def test_exit_75_is_tried_again(agent: Agent, upstream: Upstream) -> None:
    record = RECORD.format(root=agent.root)
    agent.hook("record", f'{record}\n[ "$DEPLOY_ATTEMPT" -ge 2 ] || exit 75')
    agent.configure(ACTIVATE)
    a = upstream.commit({"a": "1"})
    agent.start()
    agent.wait_for_log("deployment.finished", outcome="deployed")
    assert recorded(agent) == [["start", "1", a], ["start", "2", a]]


# ---- stopping, dying, two at once -------------------------------------------------------------


def slow_hook(agent: Agent, upstream: Upstream) -> tuple[str, Path]:
    """An agent whose hook says that it has started and then waits for `go`."""
    started = agent.root / "started"
    os.mkfifo(started)
    record = RECORD.format(root=agent.root)
    go = agent.root / "go"
    wait = f"[ -e {go} ] || echo > {started}; until [ -e {go} ]; do sleep 0.05; done"
    agent.hook("record", f"{record}\n{wait}")
    agent.configure(ACTIVATE)
    return upstream.commit({"a": "1"}), started


def test_sigterm_in_the_middle_of_a_hook_lets_it_end(agent: Agent, upstream: Upstream) -> None:
    go, started = agent.root / "go", agent.root / "started"
    os.mkfifo(go)
    os.mkfifo(started)
    agent.hook("record", f"echo > {started}; cat {go}\n" + RECORD.format(root=agent.root))
    agent.configure(ACTIVATE)
    a = upstream.commit({"a": "1"})
    agent.start()
    started.read_text()
    agent.signal(signal.SIGTERM)
    agent.wait_for_log("agent.stopping")
    go.write_text("go")
    assert agent.wait() == 0
    assert recorded(agent) == [["start", "1", a]]
    assert '"outcome":"deployed"' in agent.log()


def test_a_hook_that_outlasts_the_drain_is_interrupted_and_gone_on_with(
    agent: Agent, upstream: Upstream
) -> None:
    a, started = slow_hook(agent, upstream)
    agent.configure(ACTIVATE, top='drain = "100ms"')
    agent.start()
    started.read_text()
    assert agent.stop() == 0
    assert '"outcome":"interrupted"' in agent.log()
    (agent.root / "go").touch()
    agent.start()
    assert agent.finished(a)["outcome"] == "deployed"
    assert recorded(agent) == [["start", "1", a], ["start", "2", a]]


def test_a_second_signal_does_not_wait(agent: Agent, upstream: Upstream) -> None:
    _, started = slow_hook(agent, upstream)
    agent.start()
    started.read_text()
    agent.signal(signal.SIGTERM)
    agent.wait_for_log("agent.stopping")
    agent.signal(signal.SIGINT)
    assert agent.wait() == 0
    assert '"outcome":"interrupted"' in agent.log()


def test_after_kill_9_the_hook_goes_on_and_the_next_start_finds_it(
    agent: Agent, upstream: Upstream
) -> None:
    a, started = slow_hook(agent, upstream)
    agent.start()
    started.read_text()
    agent.kill()
    agent.start()
    agent.wait_for_log("deployment.found_again")
    (agent.root / "go").touch()
    assert agent.finished(a)["outcome"] == "deployed"
    assert recorded(agent) == [["start", "1", a]]
    assert [one["outcome"] for one in agent.history()] == ["deployed"]


def test_an_acknowledged_push_outlives_kill_9(agent: Agent, upstream: Upstream) -> None:
    a, started = slow_hook(agent, upstream)
    agent.start()
    started.read_text()
    b = upstream.commit({"a": "2"})
    assert agent.push(b, number="never-lost").status_code == 202
    agent.kill()
    (agent.root / "go").touch()
    agent.start()
    done = agent.finished(b)
    assert (done["outcome"], done["delivery"]) == ("deployed", "never-lost")
    assert recorded(agent)[0] == ["start", "1", a]
    assert recorded(agent)[-1] == ["push", "1", b]


def test_a_second_agent_on_the_same_state_refuses_and_names_the_first(
    agent: Agent, upstream: Upstream
) -> None:
    agent.configure()
    agent.start()
    second = agent.command("run")
    assert second.returncode == 1
    assert f"another agent (pid {agent.pid}) is using" in second.stderr
    assert str(agent.state_dir) in second.stderr


def test_a_second_agent_on_the_same_path_refuses_and_names_the_first(
    agent: Agent, upstream: Upstream, tmp_path: Path
) -> None:
    agent.configure()
    agent.start()
    other = Agent(tmp_path / "other", upstream.url)
    other.tree = agent.tree
    other.configure()
    second = other.command("run")
    assert second.returncode == 1
    assert f"another agent (pid {agent.pid}) is using the path {agent.tree}" in second.stderr


def test_a_port_that_is_taken_is_said_so(agent: Agent, upstream: Upstream, tmp_path: Path) -> None:
    agent.configure()
    agent.start()
    other = Agent(tmp_path / "other", upstream.url)
    other.port = agent.port
    other.configure()
    second = other.command("run")
    assert second.returncode == 1
    assert f"cannot listen on 127.0.0.1:{agent.port}: Address already in use" in second.stderr


# ---- reload -----------------------------------------------------------------------------------


def test_sighup_reads_the_configuration_again(agent: Agent, upstream: Upstream) -> None:
    a = upstream.commit({"a": "1"})
    agent.configure()
    agent.start()
    agent.finished(a)
    with agent.config.open("a") as file:
        file.write(f'[targets.copy]\nrepo = "{agent.repo}"\npath = "{agent.root}/srv/copy"\n')
    agent.signal(signal.SIGHUP)
    assert agent.wait_for_log("agent.reloaded")["targets"] == 2
    agent.wait_for_log("deployment.finished", target="copy")
    b = upstream.commit({"a": "2"})
    assert agent.push(b).json()["targets"] == ["shop", "copy"]


def test_a_faulty_configuration_is_refused_and_the_old_kept(
    agent: Agent, upstream: Upstream
) -> None:
    a = upstream.commit({"a": "1"})
    agent.configure()
    agent.start()
    agent.finished(a)
    whole = agent.config.read_text()
    agent.config.write_text(whole[: len(whole) // 2])
    agent.signal(signal.SIGHUP)
    assert agent.wait_for_log("reload.refused")["faults"]
    b = upstream.commit({"a": "2"})
    assert agent.push(b).status_code == 202
    assert agent.finished(b)["outcome"] == "deployed"


def test_a_refused_reload_is_told_until_one_is_taken(agent: Agent) -> None:
    agent.configure()
    agent.start()
    whole = agent.config.read_text()
    agent.config.write_text(whole.replace('interval = "off"', 'interval = "often"'))
    agent.signal(signal.SIGHUP)
    agent.wait_for_log("reload.refused")
    said = agent.command("status").stdout
    assert re.search(
        r"^agent\.toml: reload refused .*: poll\.interval: must be a duration", said, re.M
    )
    assert "`gitops-agent reload`" in said
    refused = agent.command("reload")
    assert (refused.returncode, refused.stdout) == (78, "")
    assert "\n  poll.interval: must be a duration" in refused.stderr
    assert json.loads(agent.command("reload", "--json").stdout)["refused"]
    agent.config.write_text(whole + f'[metrics]\nbind = "127.0.0.1:{free_port()}"\n')
    taken = agent.command("reload")
    assert taken.returncode == 0
    assert "[metrics] bind was changed, and is not in force before a restart" in taken.stdout
    agent.config.write_text(whole)
    assert agent.command("reload").stdout == "agent.toml is read\n"
    assert "agent.toml" not in agent.command("status").stdout


def test_what_takes_a_restart_is_told_and_left_as_it_was(agent: Agent, upstream: Upstream) -> None:
    a = upstream.commit({"a": "1"})
    agent.hook("say", "echo said")
    agent.configure('[[targets.shop.hooks]]\nrun = ["say"]\n')
    agent.start()
    agent.finished(a)
    whole = agent.config.read_text()
    elsewhere = whole.replace(f":{agent.port}", f":{free_port()}")
    elsewhere = elsewhere.replace(str(agent.state_dir), f"{agent.state_dir}-2")
    control = f'bind = "127.0.0.1:{free_port()}"\ntoken_hash = "{tokens.hashed(tokens.make())}"'
    agent.config.write_text(f"{elsewhere}\n[control]\n{control}\n")
    later = ["[server] bind", "state_dir", "[control] bind"]
    agent.signal(signal.SIGHUP)
    agent.wait_for_log("agent.reloaded", needs_restart=later)
    # It stays so, whatever else is read meanwhile.
    agent.config.write_text(agent.config.read_text().replace("[poll]", "[poll] # as before"))
    agent.signal(signal.SIGHUP)
    with agent.client() as client:
        assert client.status()["reload"]["needs_restart"] == later
        found = [one for one in client.doctor(None) if one["about"] == "configuration"]
        assert [one["todo"] for one in found] == ["systemctl restart gitops-agent"]
        assert any(piece["text"] == "said\n" for piece in client.log("shop", follow=False))
    assert agent.push(upstream.commit({"a": "2"})).status_code == 202
    agent.config.write_text(whole)
    agent.signal(signal.SIGHUP)
    agent.wait_for_log("agent.reloaded", needs_restart=[])


# ---- a socket from systemd --------------------------------------------------------------------

PASS_SOCKET = """
import os, socket, sys
one = socket.create_server(("127.0.0.1", 0))
print(one.getsockname()[1], flush=True)
os.dup2(one.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.executable, [sys.executable, "-m", "agent", "run", *sys.argv[1:]])
"""


def test_a_passed_socket_wins_and_readiness_is_told(
    agent: Agent, upstream: Upstream, tmp_path: Path
) -> None:
    import socket

    agent.configure()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        notified.settimeout(30)
        with subprocess.Popen(
            [sys.executable, "-c", PASS_SOCKET, "--config", str(agent.config)],
            env=agent.environ({"NOTIFY_SOCKET": str(tmp_path / "notify")}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout
            assert process.stderr
            drain = threading.Thread(target=process.stderr.read)
            drain.start()
            agent.port = int(process.stdout.readline())
            while notified.recv(1000) != b"READY=1":
                """What it says of itself may come before."""
            assert agent.push("a" * 40).status_code == 202
            process.terminate()
            while notified.recv(1000) != b"STOPPING=1":
                """And after."""
            assert process.wait(30) == 0
            drain.join()
