"""Commands for root: put the agent onto this host as services of systemd, and take it away."""

import click

from agent.cli import base
from agent.errors import ConfigError
from agent.places import SYSTEM_CONFIG


@click.command()
@click.option("--dry-run", "dry", is_flag=True, help="Show each file and command; change nothing.")
def install(*, dry: bool) -> None:
    """Make this host run the agent by systemd. Again is harmless, and says what changed."""
    from agent.install import Installer

    faults = Installer(click.echo, dry=dry).install(base.environ)
    if faults:
        click.echo(f"All is in place; mend {SYSTEM_CONFIG} and type `gitops-agent install` again.")
        raise ConfigError(faults, str(SYSTEM_CONFIG))


@click.command()
@click.option("--dry-run", "dry", is_flag=True, help="Say what would go; change nothing.")
@click.option(
    "--purge", is_flag=True, help="State, configuration, credentials and users as well. For good."
)
def uninstall(*, dry: bool, purge: bool) -> None:
    """Take away what `install` brought; state and configuration stay, trees always."""
    from agent.install import Installer

    Installer(click.echo, dry=dry).uninstall(purge=purge)
