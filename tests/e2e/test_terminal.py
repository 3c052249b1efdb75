"""The commands in a real terminal, looked at; and completion in real shells."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agents import Agent
from tests.remotes import Upstream
from tests.screens import Screen, screen

PROGRAM = Path(sys.executable).parent / "gitops-agent"
RED, GREEN = "\x1b[31m", "\x1b[32m"


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        shutil.which(program) is None, reason=f"no {program} here; Debian's package has its name"
    )


@pytest.fixture
def live(agent: Agent, upstream: Upstream) -> Agent:
    """An agent with a target that is up to date, one that is held and one in error."""
    agent.hook("gate", f"test ! -e bad || {{ printf '{RED}bad{chr(27)}[0m\\n'; exit 3; }}")
    gate = 'hooks = [{ run = ["gate"] }]'
    more = "".join(
        f'[targets.{name}]\nrepo = "{repo}"\npath = "{agent.root}/srv/{name}"\n{gate}\n'
        for name, repo in (("api", agent.repo), ("docs", "/no/such/repository"))
    )
    agent.configure(target=f"{gate}\n{more}")
    first = upstream.commit({"a": "1"})
    agent.start()
    agent.wait_for_log("deployment.finished", target="shop", revision=first)
    agent.wait_for_log("deployment.finished", target="api", revision=first)
    return agent


@pytest.fixture
def at(live: Agent) -> Iterator[Screen]:
    path = f"{PROGRAM.parent}:{os.environ['PATH']}"
    with screen(live.root, PATH=path, GITOPS_AGENT_CONFIG=str(live.config)) as one:
        one.run("stty -g > before; clear")
        yield one


def left_as_it_was(at: Screen) -> bool:
    """The shell has its terminal back, its modes and its screen."""
    at.run("clear; stty -g | cmp - before && echo the same")
    at.wait_until(lambda seen: seen.startswith("the same"), "the same modes")
    return at.ask("#{alternate_on}#{cursor_flag}") == "01"


# ---- watch --------------------------------------------------------------------------------------


@needs("tmux")
def test_watch_shows_all_and_leaves_the_terminal_as_it_was(at: Screen, live: Agent) -> None:
    at.run("echo what was there; gitops-agent watch --every 0.2")
    seen = at.wait_for("2 up-to-date, 1 error", "q ends")
    lines = seen.splitlines()
    assert lines[0].startswith("gitops-agent ")
    assert lines[4].split()[:2] == ["docs", "error"]
    assert "docs: the remote could not be fetched" in seen
    assert at.ask("#{alternate_on}") == "1"

    at.resize(60, 12)
    at.wait_until(
        lambda seen: len(seen.splitlines()[-1]) < 60 and "q ends" in seen, "narrow screen"
    )
    at.type("C-z")  # It cannot be stopped, for the shell would write into its screen.
    at.resize(120, 30)  # For the socket's whole path.
    live.kill()
    at.wait_for("no agent answers on")
    live.start()
    at.wait_for("2 up-to-date, 1 error")
    at.type("q")
    at.wait_for("what was there")
    assert left_as_it_was(at)


@needs("tmux")
def test_watch_ended_by_a_signal_leaves_it_too(at: Screen, live: Agent) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        at.run("gitops-agent watch & echo $! > pid; fg")
        at.wait_for("q ends")
        os.kill(int((live.root / "pid").read_text()), number)
        at.wait_until(lambda seen: "q ends" not in seen, "end")
        assert left_as_it_was(at)


@needs("tmux")
def test_watch_scrolls(at: Screen, live: Agent, upstream: Upstream) -> None:
    text = live.config.read_text()
    for n in range(20):
        text += f'[targets.site-{n:02d}]\nrepo = "{live.repo}"\npath = "{live.root}/srv/{n}"\n'
    live.config.write_text(text)
    live.signal(signal.SIGHUP)
    live.wait_for_log("agent.reloaded")
    at.run("gitops-agent watch --every 0.2")
    seen = at.wait_for("22 up-to-date, 1 error", "of 23, arrows scroll")
    assert "site-19" not in seen
    at.type("End")
    at.wait_for("site-19")
    at.type("g")
    at.wait_until(lambda seen: "site-19" not in seen and "docs " in seen, "first page")
    at.type("Down", "Down", "q")
    at.wait_until(lambda seen: "q ends" not in seen, "end")
    assert left_as_it_was(at)


def test_watch_wants_a_terminal(live: Agent) -> None:
    done = live.command("watch", stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    assert "`watch --json`" in done.stderr
    with subprocess.Popen(
        [PROGRAM, "watch", "--json", "--every", "0.1", "--config", live.config],
        stdout=subprocess.PIPE,
    ) as watching:
        assert watching.stdout
        for _ in range(3):
            assert watching.stdout.readline().startswith(b'{"version":')
        watching.kill()


@needs("tmux")
def test_what_is_too_long_for_the_screen_goes_on_set_in(
    at: Screen, live: Agent, upstream: Upstream
) -> None:
    bad = upstream.commit({"bad": "x"}, "a subject that is longer than this narrow screen is wide")
    live.push(bad)
    live.wait_for_log("deployment.finished", target="shop", revision=bad)
    at.resize(50, 60)
    at.run("clear; gitops-agent history shop -n 1; gitops-agent status; echo the end")
    seen = at.wait_for("\nthe end\n")
    assert "\n    a subject that is longer than this narrow\n        screen is wide (Ada)\n" in seen
    assert "\n  push a newer revision, or\n      `gitops-agent sync shop --force` to try" in seen


# ---- following ----------------------------------------------------------------------------------


@needs("tmux")
def test_sync_wait_shows_it_live_and_says_how_it_ended(
    at: Screen, live: Agent, upstream: Upstream
) -> None:
    go = live.root / "go"
    os.mkfifo(go)
    live.hook(
        "gate",
        f"printf '{GREEN}building{chr(27)}[0m\\n\\033]0;owned\\007'; cat {go}; test ! -e bad",
    )
    upstream.commit({"bad": "x"})
    at.run("gitops-agent sync shop --wait; echo exit $?")
    at.wait_for("--> activate: gate", "building", "activate: gate, ")
    assert re.search(r"\x1b\[32m(\x1b\[49m)?building", at.coloured())
    go.write_text("once")
    at.wait_for("exit 1 (")
    go.write_text("and on the way back")
    seen = at.wait_for("what was live before is live again", "\nexit 1\n")
    assert "rolled-back in " in seen
    assert "activate: gate, " not in seen
    assert "owned" not in at.ask("#{pane_title}")


@needs("tmux")
def test_no_color_is_respected(at: Screen, live: Agent, upstream: Upstream) -> None:
    bad = upstream.commit({"bad": "x"})
    live.push(bad)
    live.wait_for_log("deployment.finished", target="shop", revision=bad)
    at.run("export NO_COLOR=1; gitops-agent logs shop; gitops-agent status; gitops-agent doctor")
    at.wait_for("things to mend")
    at.resize(80, 80)
    seen = at.coloured()
    for colour in ("[31m", "[32m", "[33m", "[36m", ";31", ";32"):
        assert colour not in seen
    assert "rolled-back" in seen


@needs("tmux")
def test_interrupted_it_only_stops_looking(at: Screen, live: Agent, upstream: Upstream) -> None:
    go = live.root / "go"
    os.mkfifo(go)
    live.hook("gate", f"echo begun; cat {go}")
    a = upstream.commit({"a": "2"})
    at.run("gitops-agent sync shop --wait; echo exit $?")
    at.wait_for("begun")
    at.type("C-c")
    at.wait_for("gitops-agent logs -f shop", "exit 130")
    at.run("clear; gitops-agent logs -f shop; echo exit $?")
    at.wait_for("begun")
    go.write_text("go on")
    at.wait_for("deployed in ", "exit 0")
    live.wait_for_log("deployment.finished", target="shop", revision=a, outcome="deployed")


# ---- completion ---------------------------------------------------------------------------------


def complete(live: Agent, shell: str, *words: str) -> str:
    path = f"{PROGRAM.parent}:{os.environ['PATH']}"
    environ = {**os.environ, "PATH": path, "GITOPS_AGENT_CONFIG": str(live.config)}
    done = subprocess.run(
        [shell, *words], env=environ, cwd=live.root, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_bash_completes_commands_and_targets(agent: Agent) -> None:
    agent.configure(target=f'[targets.shed]\nrepo = "{agent.repo}"\npath = "x"\n')
    script = (
        "source <(gitops-agent completion bash); "
        "COMP_WORDS=(gitops-agent {}); COMP_CWORD={}; _gitops_agent_completion gitops-agent; echo ${{COMPREPLY[@]}}"
    )
    for words, place, found in (
        ("ro", 1, "rollback"),
        ("sync sh", 2, "shop shed"),
        ("logs --config agent.toml sho", 4, "shop"),
        ("completion ''", 2, "bash zsh fish"),
    ):
        assert complete(agent, "bash", "-c", script.format(words, place)).split() == found.split()
    agent.config.write_text("no toml")
    assert complete(agent, "bash", "-c", script.format("sync sh", 2)).split() == []


@needs("fish")
def test_fish_completes_too(agent: Agent) -> None:
    agent.configure()
    script = "gitops-agent completion fish | source; complete -C 'gitops-agent {}'"
    assert complete(agent, "fish", "-c", script.format("sync sh")).split() == ["shop"]
    assert complete(agent, "fish", "-c", script.format("rollb")).startswith("rollback\t")


@needs("tmux")
@needs("zsh")
def test_zsh_completes_too(agent: Agent) -> None:
    agent.configure()
    (agent.root / ".zshrc").write_text(
        "autoload -Uz compinit; compinit -u -D; PS1='%% '; source <(gitops-agent completion zsh)\n"
    )
    path = f"{PROGRAM.parent}:{os.environ['PATH']}"
    environ = {"PATH": path, "GITOPS_AGENT_CONFIG": str(agent.config), "ZDOTDIR": str(agent.root)}
    with screen(agent.root, **environ) as at:
        at.run("exec zsh")
        at.wait_until(lambda seen: "\n%" in seen, "prompt")
        at.type("gitops-agent sync s", "Tab")
        at.wait_for("gitops-agent sync shop")
        at.type("C-u", "gitops-agent roll", "Tab")
        at.wait_for("gitops-agent rollback")
