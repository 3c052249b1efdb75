"""`doctor`, and what else asks: for root, for a member of the group, and for anyone else."""

import json

import pytest

from tests.systemd.machine import Machine
from tests.systemd.shop import ON_THE_MACHINE

pytestmark = ON_THE_MACHINE


def as_user(name: str) -> str:
    """The beginning of a command line that runs as that user of the machine."""
    return f"cd /; setpriv --reuid {name} --regid {name} --init-groups env HOME=/home/{name}"


@pytest.fixture(scope="module")
def people(installed: Machine) -> Machine:
    """With Ada, who is in the agent's group, and Bob, who is not."""
    installed.run("useradd --create-home --groups gitops-agent ada; useradd --create-home bob")
    return installed


def test_to_root_it_says_that_all_is_well_up_to_the_public_address(installed: Machine) -> None:
    told = json.loads(installed.says("gitops-agent doctor --json 2>/dev/null"))
    wrong = [one for one in told["findings"] if one["verdict"] == "wrong"]
    assert (told["ok"], wrong) == (True, [])
    well = {one["about"] for one in told["findings"] if one["verdict"] == "ok"}
    assert {"listener 127.0.0.1:9000", "public, 2 MB", "remote shop", "path shop"} <= well


def test_a_member_of_the_group_hears_all_but_what_needs_the_secrets(people: Machine) -> None:
    told = json.loads(people.says(f"{as_user('ada')} gitops-agent doctor --json 2>/dev/null"))
    assert told["ok"]
    notes = {one["about"]: one["todo"] for one in told["findings"] if one["verdict"] == "note"}
    assert notes["listener of the receiver"].startswith("as root")
    assert "up-to-date" in people.says(f"{as_user('ada')} gitops-agent status")


@pytest.mark.parametrize("command", ["doctor", "status", "sync shop"])
def test_anyone_else_is_told_what_to_type_and_nothing_more(people: Machine, command: str) -> None:
    done = people.run(f"{as_user('bob')} gitops-agent {command} 2>&1", check=False)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == (
        "gitops-agent: you may not open the control socket /run/gitops-agent/control.sock;"
        " use sudo, or become a member of its group"
    )


def test_a_secret_that_is_not_for_them_is_no_fault_of_the_file(people: Machine) -> None:
    done = people.run(f"{as_user('bob')} gitops-agent check", check=False)
    assert done.returncode == 78
    assert "credential deploy-key is for root and its service; use sudo" in done.stdout


def test_a_core_that_is_stopped_is_said_with_how_to_start_it(installed: Machine) -> None:
    installed.run("systemctl stop gitops-agent")
    done = installed.run("gitops-agent doctor --json 2>/dev/null", check=False)
    installed.run("systemctl start gitops-agent")
    assert done.returncode == 1
    wrong = [one for one in json.loads(done.stdout)["findings"] if one["verdict"] == "wrong"]
    assert [one["about"] for one in wrong] == ["agent"]
    assert "start one with `systemctl start gitops-agent`" in wrong[0]["says"]
