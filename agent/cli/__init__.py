"""The commands. They talk to a running agent over its control socket only."""

import os

import click

from agent import __version__, surroundings
from agent.cli import doctor, host, hosting, look, shell, steer
from agent.cli.base import Group

_COMMANDS = (
    (host.run, "Be the agent, in the foreground"),
    (host.demo, "Show the whole way, for real, in a temporary folder"),
    (host.init, "Write an agent.toml, a secret and a first hook"),
    (host.check, "Look at the configuration, remotes and hooks"),
    (host.token, "Make a token for the page on TCP, and its hash"),
    (hosting.install, "Make this host run the agent by systemd"),
    (hosting.uninstall, "Take away what `install` brought"),
    (doctor.doctor, "Find out why a push is not deployed, or no webhook fires"),
    (look.status, "Every target: what is live, and what is wrong"),
    (look.watch, "All targets on the whole screen, until q"),
    (look.history, "Past deployments, and why each one ran"),
    (look.diff, "What a sync would bring"),
    (look.logs, "What hooks print, or have printed"),
    (steer.sync, "Deploy now what the branch says"),
    (steer.rollback, "Have an earlier revision live again"),
    (steer.pause, "Let nothing go out by itself"),
    (steer.resume, "End a pause"),
    (steer.cancel, "End the running deployment and go back"),
    (steer.send_push, "Send a signed push to one's own agent, as GitHub would"),
    (steer.send_notice, "Send a test to one of one's own sinks"),
    (steer.reload, "Have the agent read agent.toml again"),
    (shell.completion, "Print the completion script for a shell"),
)
"""Each with what it is for, in less than a line of 80 columns, for --help and completion."""


# What rich does by itself (https://no-color.org).
_COLOUR = False if os.environ.get("NO_COLOR") else None


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "color": _COLOUR})
@click.version_option(__version__, prog_name="gitops-agent")
def cli() -> None:
    """Push-to-deploy for ordinary Linux hosts: git is the truth, a bad deploy undoes itself."""


for _command, _says in _COMMANDS:
    _command.short_help = _says
    cli.add_command(_command)


def main() -> None:
    """Every command begins here; no child of it sees more of the environment than git may."""
    surroundings.open_streams()
    surroundings.scrub()
    cli(prog_name="gitops-agent")
