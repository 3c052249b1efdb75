"""What every command leans on: options, exit statuses, and how faults are said."""

import os
import signal
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from agent import terminal
from agent.errors import AgentError, ConfigError
from agent.places import SYSTEM_CONFIG, find

if TYPE_CHECKING:
    from agent.client import Client
    from agent.config import Settings

environ = dict(os.environ)
"""The process's own, as it was before `main` scrubbed it."""

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
            terminal.complain(f"gitops-agent: {error}")
            ctx.exit(error.exit)


def _say_faults(error: ConfigError) -> None:
    count = len(error.faults)
    where = f"{error.source}: " if error.source else ""
    terminal.complain(f"gitops-agent: {where}{count} fault{'s' if count > 1 else ''}")
    for fault in error.faults:
        terminal.complain(f"  {fault}")


@contextmanager
def following(name: str) -> Iterator[None]:
    """While the block runs, ^C ends the looking on and nothing else."""
    try:
        yield
    except KeyboardInterrupt:
        again = f"`gitops-agent logs -f {name}` follows it"
        click.echo(err=True)
        terminal.complain(f"no longer looked on; what runs goes on, and {again}")
        raise click.exceptions.Exit(128 + signal.SIGINT) from None


def with_config(command: C) -> C:
    """Every command takes --config."""
    return click.option(
        "--config", "config_file", metavar="FILE",
        help=f"Default: $GITOPS_AGENT_CONFIG, else ./agent.toml, else {SYSTEM_CONFIG}.",
    )(command)  # fmt: skip


def with_json(command: C) -> C:
    """Those that answer take --json."""
    return click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")(command)


def with_target(command: C) -> C:
    """Those on one target take its name."""
    return click.argument("target", shell_complete=targets)(command)


def targets(ctx: click.Context, _: click.Parameter, begun: str) -> list[str]:
    """The targets whose names begin so, as far as the file can be read; for completion."""
    try:
        file = find(ctx.params.get("config_file"), environ)
        named = tomllib.loads(file.read_text()).get("targets", {})
    except (ConfigError, OSError, ValueError):
        return []
    return [name for name in named if name.startswith(begun)]


def load(config_file: str | None) -> "Settings":
    from agent import config

    return config.load(find(config_file, environ), environ)


def client(config_file: str | None) -> "Client":
    """The client needs only the socket's place, so faults elsewhere do not keep it away."""
    from agent import config
    from agent.client import Client

    return Client(config.control_socket(find(config_file, environ), environ))


def print_json(answer: Any) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(answer)))
