"""A canary that is let out is found, wherever it went."""

from pathlib import Path

import pytest

from tests import canaries
from tests.agents import Agent
from tests.canaries import Aviary
from tests.remotes import HttpRemote, Upstream

LEAKS = {
    "a hook's log": ("cat ../../secret", "logs/"),
    "the tree": ("cat ../../secret > leaked", "srv/shop/leaked"),
    "what a hook saved elsewhere": ("base64 ../../secret > ../../kept", "kept"),
}


@pytest.mark.parametrize(("leak", "place"), LEAKS.values(), ids=LEAKS.keys())
def test_a_secret_that_a_hook_lets_out_is_found(
    agent: Agent, upstream: Upstream, aviaries: list[Aviary], leak: str, place: str
) -> None:
    agent.hook("leak", leak)
    agent.configure('[[targets.shop.hooks]]\nrun = ["leak"]\n')
    a = upstream.commit({"a": "1"})
    agent.start()
    agent.finished(a)
    agent.stop()
    (aviary,) = aviaries
    aviaries.clear()
    (found,) = aviary.escaped()
    assert canaries.FILE in found
    assert place in found


def test_a_secret_in_an_argument_an_environment_a_log_or_in_output_is_found(
    agent: Agent, upstream: Upstream, aviaries: list[Aviary]
) -> None:
    agent.hook("look", "true")
    agent.configure(
        f'[[targets.shop.hooks]]\nrun = ["look", "{canaries.FILE}"]\n'
        f'env = {{ X = "{canaries.ENVIRONMENT}" }}\n'
    )
    a = upstream.commit({"a": canaries.TOKEN}, canaries.CREDENTIAL)
    agent.start()
    agent.finished(a)
    agent.command("history")
    agent.stop()
    (aviary,) = aviaries
    aviaries.clear()
    found = aviary.escaped()
    for secret, place in (
        (canaries.FILE, "seen/hook."),
        (canaries.ENVIRONMENT, "seen/hook."),
        (canaries.TOKEN, "srv/shop/a"),
        (canaries.CREDENTIAL, "state/journal.db"),
        (canaries.CREDENTIAL, "what was heard"),
    ):
        assert any(one.startswith(repr(secret)) and place in one for one in found)


def test_gits_and_hooks_are_really_watched(
    tmp_path: Path, upstream: Upstream, http_remote: HttpRemote, aviaries: list[Aviary]
) -> None:
    http_remote.token = canaries.TOKEN
    agent = Agent(tmp_path / "agent", http_remote.url())
    agent.hook("look", "true")
    agent.configure('[[targets.shop.hooks]]\nrun = ["look"]\n')
    a = upstream.commit({"a": "1"})
    agent.start()
    agent.finished(a)
    agent.stop()
    (aviary,) = aviaries
    noted = {path.name.partition(".")[0]: path.read_text() for path in aviary.seen.iterdir()}
    assert "GITOPS_AGENT_TOKEN=" in "".join(path.read_text() for path in aviary.seen.glob("git.*"))
    assert "DEPLOY_REVISION=" in noted["hook"]
    assert aviary.logs[0]
