"""`restart-service` and `compose-up`. Programs called systemctl and docker stand in: not every test
machine has them. They keep a state, and record what they are asked.
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.shipped import Host, explains

# ---- restart-service --------------------------------------------------------------------------

SYSTEMCTL = """
import json, os, pathlib, sys
root = pathlib.Path({root!r})
words = sys.argv[1:]
with (root / "asked").open("a") as asked:
    print("systemctl", *words, file=asked)
if "XDG_RUNTIME_DIR" not in os.environ and "--user" in words:
    sys.exit("Failed to connect to bus: No medium found")
script = json.loads((root / "systemd.json").read_text())
verb = next(word for word in words if not word.startswith("-"))
if verb == "show":
    script["shown"] = script.get("shown", 0) + 1
    unit = words[-1]
    looks = script["units"].get(unit, [dict(LoadState="not-found", ActiveState="inactive")])
    # The first look is from before the restart; the last one stays.
    n = 0 if not script.get("restarted") else min(script.setdefault("n", {{}}).get(unit, 0) + 1, len(looks) - 1)
    script.setdefault("n", {{}})[unit] = n
    state = dict(LoadState="loaded", SubState="running", Result="success", Type="notify",
                 MainPID="1", NRestarts="0", ExecMainStatus="0", NeedDaemonReload="no")
    for item in {{**state, **looks[n]}}.items():
        print("=".join(item))
elif verb in ("restart", "reload-or-restart"):
    script["restarted"] = True
(root / "systemd.json").write_text(json.dumps(script))
if verb in ("restart", "reload-or-restart") and "refuse" in script:
    sys.exit(script["refuse"])
"""
UP = {"ActiveState": "active"}
DEAD = {"ActiveState": "failed", "SubState": "failed", "Result": "exit-code", "ExecMainStatus": "3"}
STARTING = {"ActiveState": "activating", "SubState": "start"}

Systemd = Callable[..., None]


@pytest.fixture
def systemd(host: Host) -> Systemd:
    """Has units go through the states given, one a look, the first of them before the restart."""

    def prepare(refuse: str = "", **units: Sequence[dict[str, str]]) -> None:
        script: dict[str, object] = {"units": {f"{name}.service": s for name, s in units.items()}}
        if refuse:
            script["refuse"] = refuse
        (host.root / "systemd.json").write_text(json.dumps(script))
        host.program("systemctl", SYSTEMCTL.format(root=str(host.root)))
        host.program("journalctl", "import sys\nprint('journal of', *sys.argv[1:])\n")

    return prepare


def told(host: Host) -> list[str]:
    return [line for line in host.commands() if " show " not in line]


def test_services_are_restarted_and_waited_for(host: Host, systemd: Systemd) -> None:
    systemd(web=[UP, STARTING, UP], jobs=[DEAD, UP])
    status, output = host.run(
        "restart-service", "--stable-for", "0s", "web.service", "jobs.service"
    )
    assert status == 0, output
    assert "web.service: active (running)" in output
    assert told(host) == [
        "systemctl --no-ask-password reset-failed -- web.service jobs.service",
        "systemctl --no-ask-password restart -- web.service jobs.service",
    ]


def test_a_reload_of_a_user_s_service_whose_file_changed(host: Host, systemd: Systemd) -> None:
    systemd(web=[{**UP, "NeedDaemonReload": "yes"}, {"ActiveState": "reloading"}, UP])
    status, output = host.run(
        "restart-service", "--user", "--reload", "--stable-for", "0s", "web.service"
    )
    assert status == 0, output
    assert told(host) == [
        "systemctl --user --no-ask-password daemon-reload",
        "systemctl --user --no-ask-password reset-failed -- web.service",
        "systemctl --user --no-ask-password reload-or-restart -- web.service",
    ]


@pytest.mark.parametrize(
    ("states", "says"),
    [
        ([UP, DEAD], "failed (failed), exit-code, exit status 3"),
        ([UP, UP, {"ActiveState": "activating", "SubState": "auto-restart"}], "auto-restart"),
        ([UP, STARTING], "not up, and steadily so"),
        ([UP, {"ActiveState": "inactive", "SubState": "dead"}], "not up, and steadily so"),
    ],
)
def test_one_that_does_not_stay_up_fails_with_its_journal(
    host: Host, systemd: Systemd, states: list[dict[str, str]], says: str
) -> None:
    systemd(web=states)
    status, output = host.run(
        "restart-service", "--within", "3s", "--stable-for", "0.5s", "web.service"
    )
    assert (status, explains(output)) == (1, True)
    assert says in output
    assert (
        "journal of --no-pager --quiet --output=short-iso --lines 30 --unit web.service" in output
    )


def test_one_that_was_started_anew_must_be_stable_from_then(host: Host, systemd: Systemd) -> None:
    systemd(web=[UP, UP, {**UP, "MainPID": "2"}, {**UP, "MainPID": "3"}, {**UP, "MainPID": "4"}])
    status, output = host.run("restart-service", "--stable-for", "0.3s", "web.service")
    assert status == 0, output
    # One look before; then every 0.2 s, of which the last two are of the process that stayed.
    assert sum(" show " in line for line in host.commands()) >= 6


def test_a_oneshot_that_has_done_its_work_is_well(host: Host, systemd: Systemd) -> None:
    done = {"ActiveState": "inactive", "SubState": "dead", "Type": "oneshot"}
    systemd(job=[done, done])
    assert host.run("restart-service", "--stable-for", "0s", "job.service")[0] == 0


@pytest.mark.parametrize(
    ("refuse", "status", "says"),
    [
        ("Failed to restart web.service: Interactive authentication required.", 1, "polkit rule"),
        ("Failed to restart web.service: Access denied", 1, "polkit rule"),
        ("Failed to connect to bus: No such file or directory", 1, "systemd does not run here"),
        ("Job for web.service canceled.", 75, "systemctl list-jobs"),
        (
            "Failed to restart web.service: Transaction for web.service/restart is destructive.",
            75,
            "systemctl list-jobs",
        ),
        ("Unit web.service is masked.", 1, "try it by hand"),
    ],
)
def test_what_systemd_says_against_it_is_sorted(
    host: Host, systemd: Systemd, refuse: str, status: int, says: str
) -> None:
    systemd(refuse, web=[UP])
    got, output = host.run("restart-service", "web.service")
    assert (got, explains(output)) == (status, True)
    assert refuse in output
    assert says in output


def test_a_unit_that_is_not_there_and_a_host_without_systemd(host: Host, systemd: Systemd) -> None:
    systemd(web=[UP])
    status, output = host.run("restart-service", "wbe.service")
    assert (status, explains(output)) == (1, True)
    assert "systemd knows no unit wbe.service" in output
    assert told(host) == []
    python = Path(sys.executable)
    (host.bin / "python3").symlink_to(python)
    (host.bin / "systemctl").unlink()
    status, output = host.run("restart-service", "web.service", PATH=str(host.bin))
    assert (status, explains(output)) == (1, True)


# ---- compose-up -------------------------------------------------------------------------------

DOCKER = """
import json, os, pathlib, sys
root = pathlib.Path({root!r})
words = sys.argv[1:]
with (root / "asked").open("a") as asked:
    print("docker", *words, file=asked)
for verb, said in json.loads((root / "docker.json").read_text()).items():
    if verb in words:
        sys.exit(said)
"""


@pytest.fixture
def docker(host: Host) -> Callable[..., None]:
    """Has `docker compose VERB` fail with the words given."""

    def prepare(**fails: str) -> None:
        (host.root / "docker.json").write_text(json.dumps(fails))
        host.program("docker", DOCKER.format(root=str(host.root)))

    return prepare


def test_a_project_is_pulled_built_and_brought_up(host: Host, docker: Callable[..., None]) -> None:
    docker()
    status, output = host.run(
        "compose-up", "-f", "x.yaml", "--profile", "prod", "--within", "3m", "web"
    )
    assert status == 0, output
    compose = "docker compose --file x.yaml --profile prod"
    assert host.commands() == [
        f"{compose} version --short",
        f"{compose} config --quiet",
        f"{compose} pull --ignore-buildable web",
        f"{compose} build --pull web",
        f"{compose} up --detach --wait --wait-timeout 180 --remove-orphans --no-build web",
    ]


def test_preparing_changes_nothing_that_runs(host: Host, docker: Callable[..., None]) -> None:
    docker()
    assert host.run("compose-up", "--prepare")[0] == 0
    assert not any(" up " in line for line in host.commands())
    host.asked.unlink()
    assert host.run("compose-up", "--no-pull")[0] == 0
    assert [line for line in host.commands() if "pull" in line] == []


@pytest.mark.parametrize(
    ("fails", "arguments", "status", "says"),
    [
        ({"version": "unknown command: docker compose"}, (), 1, "docker-compose-plugin"),
        ({"config": "no configuration file provided: not found"}, (), 1, "cannot be used"),
        ({"pull": "Cannot connect to the Docker daemon at unix:///x."}, (), 75, "daemon"),
        ({"pull": "dial tcp: lookup ghcr.io: no such host"}, (), 75, "registry"),
        ({"pull": "Error: toomanyrequests: rate limit"}, (), 75, "registry"),
        ({"pull": "manifest unknown"}, (), 1, "--image-to-come"),
        ({"pull": "manifest unknown"}, ("--image-to-come",), 75, "not have the image yet"),
        (
            {"pull": "permission denied while trying to connect to the Docker daemon socket"},
            (),
            1,
            "group docker",
        ),
        ({"build": "process '/bin/sh -c make' did not complete"}, (), 1, "try it by hand"),
        ({"up": "container shop-web-1 is unhealthy"}, (), 1, "not everything is up"),
    ],
)
def test_where_compose_fails_it_is_sorted(
    host: Host,
    docker: Callable[..., None],
    fails: dict[str, str],
    arguments: Sequence[str],
    status: int,
    says: str,
) -> None:
    docker(**fails)
    got, output = host.run("compose-up", *arguments)
    assert (got, explains(output)) == (status, True), output
    assert says in output
    asked_for_logs = any(" logs " in line for line in host.commands())
    assert asked_for_logs is ("up" in fails)


def test_a_tree_that_moves_needs_a_project_s_name(host: Host, docker: Callable[..., None]) -> None:
    docker()
    status, output = host.run("compose-up", DEPLOY_PATH="/srv/live")
    assert (status, explains(output)) == (1, True)
    assert host.commands() == []
    assert host.run("compose-up", "-p", "shop", DEPLOY_PATH="/srv/live")[0] == 0
    assert all(line.startswith("docker compose --project-name shop ") for line in host.commands())
