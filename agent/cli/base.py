"""What every command leans on: options, exit statuses, and how faults are said."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec

from agent import config
from agent.client import Client
from agent.config import Settings
from agent.errors import AgentError, ConfigError

C = TypeVar("C", bound=Callable[..., Any])


class Group(click.Group):
    """Turns the agent's own errors into words and exit statuses."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            _say_faults(error)
            ctx.exit(error.exit)
        except AgentError as error:
            click.echo(f"gitops-agent: {error}", err=True)
            ctx.exit(error.exit)


def _say_faults(error: ConfigError) -> None:
    count = len(error.faults)
    where = f"{error.source}: " if error.source else ""
    click.echo(f"gitops-agent: {where}{count} fault{'s' if count > 1 else ''}", err=True)
    for fault in error.faults:
        click.echo(f"  {fault}", err=True)


def with_config(command: C) -> C:
    """Every command takes --config."""
    return click.option("--config", "config_file", metavar="FILE", help="The agent.toml to use.")(
        command
    )


def with_json(command: C) -> C:
    """Those that answer take --json."""
    return click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")(command)


def load(config_file: str | None) -> Settings:
    return config.load(config.find(config_file, os.environ), os.environ)


def client(config_file: str | None) -> Client:
    """The client needs only the socket's place, so faults elsewhere do not keep it away."""
    return Client(config.control_socket(config.find(config_file, os.environ), os.environ))


def print_json(answer: Any) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(answer)))
