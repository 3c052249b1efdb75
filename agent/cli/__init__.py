"""The commands. They talk to a running agent over its control socket only."""

import os

import click

from agent import __version__, surroundings
from agent.cli import doctor, host, hosting, look, shell, steer
from agent.cli.base import Group

_COMMANDS = (
    host.run,
    host.demo,
    host.init,
    host.check,
    host.token,
    hosting.install,
    hosting.uninstall,
    doctor.doctor,
    look.status,
    look.watch,
    look.history,
    look.diff,
    look.logs,
    steer.sync,
    steer.rollback,
    steer.pause,
    steer.resume,
    steer.cancel,
    steer.send_push,
    steer.send_notice,
    shell.completion,
)


# What rich does by itself (https://no-color.org).
_COLOUR = False if os.environ.get("NO_COLOR") else None


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "color": _COLOUR})
@click.version_option(__version__, prog_name="gitops-agent")
def cli() -> None:
    """Push-to-deploy for ordinary Linux hosts: git is the truth, a bad deploy undoes itself."""


for _command in _COMMANDS:
    cli.add_command(_command)


def main() -> None:
    """Every command begins here; no child of it sees more of the environment than git may."""
    surroundings.open_streams()
    surroundings.scrub()
    cli(prog_name="gitops-agent")
