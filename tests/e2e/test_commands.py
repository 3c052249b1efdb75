"""The commands, as a person types them."""

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest

from agent import cli
from tests.agents import PATIENCE, Agent
from tests.remotes import HttpRemote, Upstream


@pytest.fixture
def live(agent: Agent, upstream: Upstream) -> Agent:
    """An agent that has deployed one revision."""
    agent.hook("announce", 'echo "live at $DEPLOY_REVISION"; test ! -e bad')
    agent.configure('[[targets.shop.hooks]]\nrun = ["announce"]\n', poll="3m")
    agent.first = upstream.commit({"a": "1"}, "first \x1b[31mred")  # type: ignore[attr-defined]
    agent.start()
    agent.finished(agent.first)  # type: ignore[attr-defined]
    return agent


def command(*arguments: str, cwd: Path, **env: str) -> "subprocess.CompletedProcess[str]":
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GITOPS_")}
    return subprocess.run(
        [sys.executable, "-m", "agent", *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
        env={**kept, "PYTHONPATH": str(Path(__file__).parents[2]), **env},
    )  # fmt: skip


def test_demo_does_the_main_job_and_says_how_long_it_took(tmp_path: Path) -> None:
    # A socket's path must be short, and pytest's folders are not.
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        done = command("demo", cwd=tmp_path, TMPDIR=short)
        assert list(Path(short).iterdir()) == []
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"from push to hook: \d+ ms", done.stdout)
    why = re.findall(r"because of: (\w+)", done.stdout)
    assert why == ["start", "push", "poll"]
    assert "All of it in" in done.stdout


def test_status_fits_80_columns_and_says_it_all(live: Agent) -> None:
    done = live.command("status")
    assert done.returncode == 0
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    row = next(line for line in done.stdout.splitlines() if line.startswith("shop "))
    assert live.first[:10] in row  # type: ignore[attr-defined]
    assert "deployed" in row
    assert "never" in row
    assert re.search(r"\d+ (min|s)", row)


def test_status_in_json(live: Agent) -> None:
    answer = json.loads(live.command("status", "--json").stdout)
    (target,) = answer["targets"]
    assert target["live"] == live.first  # type: ignore[attr-defined]
    assert target["last"]["outcome"] == "deployed"
    assert answer["healthy"] is True
    assert answer["webhooks"] == [
        {"name": "github", "last_verified": None, "refused": 0, "refusals": {}, "ignored": {}}
    ]


def test_in_a_pipe_a_line_is_a_line_and_nothing_is_cut(agent: Agent, upstream: Upstream) -> None:
    name, hook = "customer-portal-production-eu-west-1", "check-that-" * 4 + "it-works"
    subject = "one reason after another " * 8
    agent.hook("gate", "exit 3")
    gate = f'{{ name = "{hook}", run = ["gate"] }}'
    more = f'[targets.{name}]\nrepo = "{upstream.url}"\npath = "{agent.root}/b"\nhooks = [{gate}]'
    agent.configure(target=more)
    first = upstream.commit({"a": "1"}, subject)
    agent.start()
    agent.wait_for_log("deployment.finished", target=name)
    agent.finished(first)
    held = f"{name}: {first[:10]} is held: activate hook {hook}: exit 3"
    agent.command("sync", name, "--wait")
    found = {words: agent.command(*words).stdout for words in (
        ("status",), ("history",), ("history", "--looks"), ("diff", name), ("doctor",),
    )}  # fmt: skip
    for said in found.values():
        assert [line for line in said.splitlines() if line != line.rstrip()] == []
    status, history, looks, *_ = found.values()
    assert held in status.splitlines()
    assert status.splitlines()[3].split()[:2] == [name, "held"]
    assert f"    {subject.strip()} (Ada)" in history.splitlines()
    assert f"is held: activate hook {hook}: exit 3\n" in looks
    assert f"target {name}: {held.removeprefix(f'{name}: ')}\n" in found["doctor",]


def test_what_is_tried_again_says_what_had_failed(agent: Agent, upstream: Upstream) -> None:
    agent.tree = Path("/proc/shop")  # Where no folder can be made, by nobody.
    agent.configure()
    first = upstream.commit({"a": "1"})
    agent.start()
    agent.finished(first)
    with agent.client() as client:
        client.pause("shop", "ada", None, "")  # So that no next try comes between.
    failed = agent.history()[0]["detail"]
    assert failed.startswith(f"check out {first[:12]}: ")
    said = agent.command("status").stdout
    again = rf"^shop: {first[:10]} is tried again in [\d.]+ s: {re.escape(failed)}$"
    assert re.search(again, said, re.MULTILINE)
    assert (
        "  `gitops-agent logs shop` says more; `gitops-agent sync shop` tries it at once\n" in said
    )


def test_history_says_why_and_cannot_steer_a_terminal(live: Agent) -> None:
    done = live.command("history", "shop")
    assert done.returncode == 0
    assert "start: the branch is at" in done.stdout
    assert "first" in done.stdout
    assert "\x1b" not in done.stdout
    assert live.command("history", "nobody").returncode == 1


def test_logs_of_a_target_of_an_id_and_of_the_newest(live: Agent) -> None:
    (one,) = live.history()
    outputs = {
        live.command("logs", *name).stdout for name in ([], ["shop"], [one["id"]], [one["id"][-6:]])
    }
    assert len(outputs) == 1
    output = outputs.pop()
    assert f"live at {one['revision']}" in output
    assert "--> activate: announce" in output
    assert re.search(rf"^shop {one['revision'][:10]} deployed in [\d.]+ s\n\Z", output, re.M)
    unknown = live.command("logs", "19990101")
    assert unknown.returncode == 1
    assert unknown.stderr == (
        "gitops-agent: there is no target and no deployment 19990101; targets: shop;"
        " `gitops-agent history` lists the deployments\n"
    )


def test_logs_follow_a_deployment_to_its_end(agent: Agent, upstream: Upstream) -> None:
    go, started = agent.root / "go", agent.root / "started"
    os.mkfifo(go)
    os.mkfifo(started)
    agent.hook("slow", f"echo before; echo > {started}; cat {go}; echo after")
    agent.configure('[[targets.shop.hooks]]\nrun = ["slow"]\n')
    upstream.commit({"a": "1"})
    agent.start()
    started.read_text()
    with subprocess.Popen(
        [sys.executable, "-m", "agent", "logs", "-f", "shop", "--config", str(agent.config)],
        stdout=subprocess.PIPE, text=True,
    ) as follower:  # fmt: skip
        assert follower.stdout
        for line in follower.stdout:
            if line == "before\n":
                break
        go.write_text("go")
        rest = follower.stdout.read()
    assert "after\n" in rest
    assert "deployed" in rest
    assert follower.returncode == 0


def followed(agent: Agent, go: threading.Event) -> str:
    """What `logs -f` says of a sync, once the remote may answer it."""
    assert "gitops-agent logs -f shop" in agent.command("sync", "shop").stdout
    with subprocess.Popen(
        [sys.executable, "-m", "agent", "logs", "-f", "shop", "--config", str(agent.config)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as follower:  # fmt: skip
        assert follower.stdout
        assert follower.stderr
        assert follower.stderr.readline() == "waiting for the look at shop\n"
        go.set()
        said = follower.stdout.read()
    assert follower.returncode == 0
    return said


def test_logs_follow_what_comes_of_a_sync_however_long_its_look_takes(
    agent: Agent, upstream: Upstream, http_remote: HttpRemote
) -> None:
    go = threading.Event()
    agent.repo = http_remote.url()
    agent.hook("announce", 'echo "live at $DEPLOY_REVISION"')
    agent.configure('[[targets.shop.hooks]]\nrun = ["announce"]\n')
    first = upstream.commit({"a": "1"})
    agent.start()
    agent.finished(first)
    http_remote.spoil = lambda _, content: content if go.wait(PATIENCE) else b""

    second = upstream.commit({"a": "2"})
    said = followed(agent, go)
    assert f"live at {second}\n" in said
    assert f"live at {first}\n" not in said
    ends = rf"^shop {second[:10]} deployed in [\d.]+ s\n\Z"
    assert re.search(ends, said, re.MULTILINE)

    go.clear()
    nothing = f"shop: up-to-date: {second[:12]} is live\n"
    assert followed(agent, go) == nothing
    said = agent.command("logs", "-f", "shop").stdout
    assert f"live at {second}\n" in said
    assert said.endswith(nothing)


def test_sync_wait_shows_it_to_its_end(live: Agent, upstream: Upstream) -> None:
    upstream.commit({"a": "2"})
    done = live.command("sync", "shop", "--wait")
    assert done.returncode == 0
    assert "live at" in done.stdout
    assert "deployed" in done.stdout
    again = live.command("sync", "shop", "--wait")
    assert (again.returncode, "up-to-date" in again.stdout) == (0, True)
    forced = live.command("sync", "shop", "--wait", "--force", "--json")
    assert json.loads(forced.stdout)["result"] == "deployed"


def test_sync_wait_of_a_bad_revision_exits_1(live: Agent, upstream: Upstream) -> None:
    upstream.commit({"bad": "x"})
    done = live.command("sync", "shop", "--wait")
    assert done.returncode == 1
    assert "rolled-back" in done.stdout
    assert live.command("sync", "nobody").returncode == 1


def test_sync_without_wait_answers_at_once(live: Agent) -> None:
    done = live.command("sync", "shop")
    assert done.returncode == 0
    assert "gitops-agent logs -f shop" in done.stdout
    assert json.loads(live.command("sync", "shop", "--json").stdout)["target"] == "shop"


def test_send_push_is_a_real_delivery(live: Agent, upstream: Upstream) -> None:
    b = upstream.commit({"a": "2"})
    done = live.command("send-push", "shop", "--json")
    assert done.returncode == 0
    answer = json.loads(done.stdout)
    assert answer["status"] == 202
    assert live.finished(b)["delivery"] == answer["body"]["delivery"]
    assert live.command("send-push", "nobody").returncode == 1
    assert live.command("send-push", "shop", "--revision", "main").returncode == 2
    said = "202 queued for shop; `gitops-agent logs -f shop` follows it\n"
    assert live.command("send-push", "shop").stdout == said
    (live.root / "secret").write_text("another secret than the agent has")
    done = live.command("send-push", "shop")
    assert done.returncode == 1
    means = "401 unauthorized: the agent has another secret in mind than its file names: `systemctl"
    assert done.stdout.startswith(means)
    status = json.loads(live.command("status", "--json").stdout)
    assert status["targets"][0]["last_webhook"]


def test_without_an_agent_they_exit_75(agent: Agent) -> None:
    agent.configure()
    for words in (["status"], ["history"], ["logs"], ["sync", "shop"]):
        done = agent.command(*words)
        assert done.returncode == 75, words
        assert "gitops-agent run" in done.stderr
    assert agent.command("send-push", "shop", "--revision", "a" * 40).returncode == 1


def test_help_says_in_whole_what_each_command_is_for(tmp_path: Path) -> None:
    commands = command("--help", cwd=tmp_path).stdout.partition("Commands:\n")[2].splitlines()
    assert len(commands) == len(cli._COMMANDS)
    assert [line for line in commands if line.endswith("...") or len(line) > 80] == []


def test_usage_is_2() -> None:
    done = subprocess.run([sys.executable, "-m", "agent", "nonsense"], capture_output=True)
    assert done.returncode == 2


@pytest.mark.parametrize("words", [["run"], ["check"], ["status"]])
def test_no_configuration_is_78(tmp_path: Path, words: list[str]) -> None:
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 78
    assert "gitops-agent init" in done.stderr


def test_faults_are_all_told_with_78(agent: Agent) -> None:
    agent.configure('[[targets.shop.hooks]]\nrun = ["nope"]\n', poll="often", top="paralel = 3")
    done = agent.command("check")
    assert done.returncode == 78
    assert "3 faults" in done.stderr
    for key in (
        "paralel: unknown key; did you mean parallel?",
        "poll.interval: ",
        "targets.shop.hooks[0].run: ",
    ):
        assert key in done.stderr


def test_check_reaches_every_remote(agent: Agent, upstream: Upstream) -> None:
    agent.configure(
        target='[targets.gone]\nrepo = "/no/such/repository"\npath = "x"\n'
        f'[targets.other]\nrepo = "{upstream.url}"\nbranch = "nope"\npath = "y"\n'
    )
    a = upstream.commit({"a": "1"})
    done = agent.command("check")
    assert done.returncode == 1
    assert f"ok     shop: main is at {a[:12]}" in done.stdout
    assert "wrong  gone: /no/such/repository: the remote could not be read" in done.stdout
    assert f"{upstream.url} has no branch nope; it has: main\n" in done.stdout
    found = json.loads(agent.command("check", "--json").stdout)
    assert [one["ok"] for one in found["targets"]] == [True, False, False]
    assert (
        "compare" in found["targets"][1]["todo"] or "name is wrong" in found["targets"][1]["todo"]
    )
    assert not agent.tree.exists()
    assert not agent.state_dir.exists()


def test_check_looks_at_hooks_and_paths_as_doctor_does(agent: Agent, upstream: Upstream) -> None:
    upstream.commit({"a": "1"})
    agent.hook("windows", "#!/bin/sh\r\necho\r\n")
    agent.configure('[[targets.shop.hooks]]\nrun = ["windows"]\n')
    agent.config.write_text(agent.config.read_text().replace(str(agent.tree), "/proc/shop"))
    done = agent.command("check")
    assert done.returncode == 1
    assert re.search(r"^wrong +hook shop/windows: .*Windows line ends", done.stdout, re.M)
    assert f"-> `sed -i 's/\\r$//' {agent.hooks_dir}/windows`" in done.stdout
    assert "wrong  path shop: /proc is on no disk" in done.stdout
    agent.hook("windows", "exit 0")
    agent.configure('[[targets.shop.hooks]]\nrun = ["windows"]\n')
    assert agent.command("check").returncode == 0, "a note is no fault"


def test_submodules_are_told_in_the_first_step_and_by_check(
    agent: Agent, upstream: Upstream
) -> None:
    upstream.commit({".gitmodules": '[submodule "m"]\n\tpath = m\n\turl = ../m.git\n'})
    tip = upstream.point_submodule("m", "1" * 40)
    agent.configure()
    agent.start()
    assert agent.finished(tip)["outcome"] == "deployed"
    assert re.search(r"^    ok; submodules are not fetched", agent.command("logs").stdout, re.M)
    done = agent.command("check")
    assert done.returncode == 0
    assert "note   tree shop: submodules stay empty, for none is fetched: m" in done.stdout


def test_init_leaves_what_check_accepts(tmp_path: Path, upstream: Upstream) -> None:
    upstream.commit({"a": "1"})
    arguments = [
        "--repo",
        upstream.url,
        "--path",
        str(tmp_path / "srv"),
        "--url",
        "https://d.example",
    ]
    done = command("init", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    secret = (tmp_path / "webhook-secret").read_text().strip()
    assert done.stdout.count(secret) == 1
    assert "https://d.example/webhook/github" in done.stdout
    assert (tmp_path / "webhook-secret").stat().st_mode & 0o777 == 0o600
    assert secret not in (tmp_path / "agent.toml").read_text()
    checked = command("check", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    again = command("init", *arguments, cwd=tmp_path)
    assert again.returncode == 1
    assert "is there already" in again.stderr
    assert command("init", cwd=tmp_path).returncode == 2


@pytest.mark.parametrize(
    "wish",
    [
        ("--target", "my shop"),
        ("--target", "A/B"),
        ("--url", "deploy.example.org"),
        ("--path", ""),
        ("--path", "deploy_hooks/x"),
        ("--branch", "refs/heads/main"),
        ("--repo", "https://u:s3cret-token@example.org/x.git"),
    ],
    ids=" ".join,
)
def test_init_refuses_what_check_would_and_writes_nothing(
    tmp_path: Path, wish: tuple[str, str]
) -> None:
    given = {"--repo": "/srv/git/shop.git", "--path": "srv", **dict([wish])}
    done = command("init", *(word for pair in given.items() for word in pair), cwd=tmp_path)
    assert done.returncode == 78
    assert f"  {wish[0]}: " in done.stderr
    assert "s3cret" not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_init_takes_paths_from_where_it_is_typed(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    paths = ("--repo", "./git/shop.git", "--path", "srv/shop")
    done = command("init", *paths, "--config", "etc/agent.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shop = tomllib.loads((tmp_path / "etc" / "agent.toml").read_text())["targets"]["shop"]
    assert shop["path"] == f"{tmp_path}/srv/shop"
    assert shop["repo"] == f"{tmp_path}/git/shop.git"


def test_the_control_socket_is_for_owner_and_group(live: Agent) -> None:
    mode = (live.state_dir / "control.sock").stat().st_mode & 0o777
    assert mode == 0o660


def test_the_control_application_has_its_schema_and_a_page_of_its_requests(live: Agent) -> None:
    with live.client() as client:
        schema = client._get("/schema/openapi.json", dict[str, Any])
    page = (Path(__file__).parents[2] / "docs" / "scripts.md").read_text()
    told = set(re.findall(r"^\| `(GET|POST) (/v1/\S+)` \|", page, re.M))
    assert told == {
        (method.upper(), path) for path, methods in schema["paths"].items() for method in methods
    }
