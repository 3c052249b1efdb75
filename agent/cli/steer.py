"""Commands that steer: sync, send-push."""

import getpass
import os
import time
from typing import Any

import click
import msgspec

from agent import terminal
from agent.cli import base
from agent.client import Client
from agent.errors import AgentError, Exit
from agent.words import printable

_BRIEFLY, _AT_LENGTH = 0.2, 25.0


@click.command()
@base.with_config
@base.with_json
@click.argument("target")
@click.option("--wait", is_flag=True, help="Show it to its end; exit 1 if it does not go well.")
@click.option("--force", is_flag=True, help="Also a held revision, or one that is live already.")
def sync(config_file: str | None, target: str, *, wait: bool, force: bool, as_json: bool) -> None:
    """Deploy now what the branch says."""
    with base.client(config_file) as client:
        number = client.sync(target, _actor(), force=force)
        if not wait:
            answer = {"request": number, "target": target}
            asked = f"{target} is looked at now; `gitops-agent logs -f {target}` follows it"
            base.print_json(answer) if as_json else click.echo(asked)
            return
        result = _wait(client, number, quiet=as_json)
    if as_json:
        base.print_json(result)
    if result["result"] not in ("deployed", "up-to-date"):
        raise click.exceptions.Exit(Exit.FAILED)


def _actor() -> str:
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _wait(client: Client, number: int, *, quiet: bool) -> dict[str, Any]:
    """Until the request is through; its deployment's output meanwhile."""
    with terminal.progress(f"waiting for sync {number}"):
        result = client.result(number, _BRIEFLY)
        while result["result"] is None and result["deployment"] is None:
            result = client.result(number, _BRIEFLY)
    if result["deployment"] and not quiet:
        end = terminal.show_pieces(client.log(result["deployment"], follow=True))
        if end:
            terminal.show_end(end)
    while result["result"] is None:
        result = client.result(number, _AT_LENGTH)
    if not result["deployment"] and not quiet:
        click.echo(f"{result['target']}: {result['result']}: {printable(result['why'])}")
    return result


@click.command("send-push")
@base.with_config
@base.with_json
@click.argument("target")
@click.option("--revision", help="The revision to announce; default: what the remote shows.")
def send_push(config_file: str | None, target: str, revision: str | None, *, as_json: bool) -> None:
    """Send a signed push delivery to one's own agent, as GitHub would."""
    settings = base.load(config_file)
    from agent import setup

    if target not in settings.targets:
        raise AgentError(f"there is no target {target}; there are: {', '.join(settings.targets)}")
    answer = setup.send_push(settings, settings.targets[target], revision, time.time())
    said = f"{answer['status']} {msgspec.json.encode(answer['body']).decode()}"
    base.print_json(answer) if as_json else click.echo(said)
    if answer["status"] not in (200, 202):
        raise click.exceptions.Exit(Exit.FAILED)
