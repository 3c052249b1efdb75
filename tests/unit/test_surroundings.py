import os
import subprocess
import sys

import pytest

from agent import surroundings


def test_the_environment_is_scrubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {
        "PATH": "/bin",
        "HOME": "/root",
        "GIT_DIR": "/evil",
        "LD_PRELOAD": "x",
        "TOKEN": "x",
        "https_proxy": "p",
        "TERM": "xterm",
    }
    monkeypatch.setattr(os, "environ", environ)
    surroundings.scrub()
    kept = {"PATH": "/bin", "HOME": "/root", "https_proxy": "p", "TERM": "xterm"}
    assert environ == {**kept, "GIT_PYTHON_REFRESH": "quiet"}


@pytest.mark.parametrize("asked", ["", "nonsense", "bash_source"])
def test_the_shells_completion_is_no_way_around_it(asked: str) -> None:
    """click reads this variable before any command, and goes on to the command where it is empty."""
    program = (
        "import os, click, agent.cli as cli; cli.cli.callback = lambda: None\n"
        "@cli.cli.command()\n"
        "def show(): click.echo(os.environ.get('TOKEN', 'scrubbed'))\n"
        "try: cli.main()\n"
        "finally: click.echo(os.environ.get('TOKEN', 'scrubbed'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "show"], capture_output=True, text=True,
        env={**os.environ, "_GITOPS_AGENT_COMPLETE": asked, "TOKEN": "a secret"},
    )  # fmt: skip
    assert "a secret" not in done.stdout
    assert "scrubbed" in done.stdout, done.stderr
