"""Commands that steer: sync, rollback, pause, resume, cancel, send-push, send-notice."""

import getpass
import os
import time
from typing import TYPE_CHECKING, Any

import click
import msgspec

from agent import terminal
from agent.cli import base
from agent.errors import AgentError, Exit
from agent.words import printable

if TYPE_CHECKING:
    from agent.client import Client

_BRIEFLY, _AT_LENGTH = 0.2, 25.0


@click.command()
@base.with_config
@base.with_json
@base.with_target
@click.option("--wait", is_flag=True, help="Show it to its end; exit 1 if it does not go well.")
@click.option("--force", is_flag=True, help="Also a held revision, or one that is live already.")
def sync(config_file: str | None, target: str, *, wait: bool, force: bool, as_json: bool) -> None:
    """Deploy now what the branch says."""
    with base.client(config_file) as client:
        number = client.sync(target, _actor(), force=force)
        _see_through(client, target, number, wait=wait, as_json=as_json)


@click.command()
@base.with_config
@base.with_json
@base.with_target
@click.option("--to", metavar="REVISION", help="Default: the last good one before what is live.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Show it to its end.")
def rollback(
    config_file: str | None, target: str, to: str | None, *, wait: bool, as_json: bool
) -> None:
    """Have an earlier revision live again; the one it leaves is held."""
    with base.client(config_file) as client:
        number = client.rollback(target, _actor(), to)
        _see_through(client, target, number, wait=wait, as_json=as_json)


@click.command()
@base.with_config
@base.with_json
@base.with_target
@click.option("--for", "duration", metavar="DURATION", help='Such as "2h"; default: until resumed.')
@click.option("--reason", default="", help="Why, for whoever looks at it later.")
def pause(
    config_file: str | None, target: str, duration: str | None, reason: str, *, as_json: bool
) -> None:
    """Let nothing go out by itself; pushes meanwhile are remembered."""
    seconds = _seconds(duration)
    with base.client(config_file) as client:
        answer = client.pause(target, _actor(), seconds, reason)
    said = f"{target} is paused; `gitops-agent resume {target}` ends that"
    base.print_json(answer) if as_json else click.echo(said)


def _seconds(duration: str | None) -> float | None:
    if duration is None:
        return None
    from agent import kinds
    from agent.model import LONGEST_PAUSE

    try:
        seconds = kinds.parse_duration(duration)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--for") from None
    if not 0 < seconds <= LONGEST_PAUSE:
        raise click.BadParameter(
            "must be longer than nothing, and ten years at most; leave it away to pause until"
            " `resume`",
            param_hint="--for",
        )
    return seconds


@click.command()
@base.with_config
@base.with_json
@base.with_target
def resume(config_file: str | None, target: str, *, as_json: bool) -> None:
    """End a pause; the newest push that came meanwhile goes out."""
    with base.client(config_file) as client:
        client.resume(target, _actor())
    said = f"{target} is resumed; `gitops-agent status` says what follows"
    base.print_json({"target": target}) if as_json else click.echo(said)


@click.command()
@base.with_config
@base.with_json
@base.with_target
def cancel(config_file: str | None, target: str, *, as_json: bool) -> None:
    """End a running deployment, hooks and all, the way a failure would."""
    with base.client(config_file) as client:
        client.cancel(target, _actor())
    said = f"{target}'s deployment is being canceled; `gitops-agent logs -f {target}` follows it"
    base.print_json({"target": target}) if as_json else click.echo(said)


def _see_through(client: "Client", target: str, number: int, *, wait: bool, as_json: bool) -> None:
    """Say what was asked for, or show it to its end; exit 1 if it does not go well."""
    if not wait:
        answer = {"request": number, "target": target}
        asked = f"{target} is looked at now; `gitops-agent logs -f {target}` follows it"
        base.print_json(answer) if as_json else click.echo(asked)
        return
    with base.following(target):
        result = _wait(client, number, quiet=as_json)
    if as_json:
        base.print_json(result)
    if result["result"] not in ("deployed", "up-to-date"):
        raise click.exceptions.Exit(Exit.FAILED)


def _actor() -> str:
    try:
        return base.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _wait(client: "Client", number: int, *, quiet: bool) -> dict[str, Any]:
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
@base.with_target
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


@click.command("send-notice")
@base.with_config
@base.with_json
@click.argument("sink")
@click.option("--target", help="The target it is about; default: the first that the sink has.")
def send_notice(config_file: str | None, sink: str, target: str | None, *, as_json: bool) -> None:
    """Send a test to one of one's own sinks, [notify.SINK], as the agent would."""
    settings = base.load(config_file)
    from agent import setup

    with terminal.progress(f"telling {sink}"):
        said = setup.send_notice(settings, sink, target, time.time())
    base.print_json({"sink": sink, "said": said}) if as_json else click.echo(said)
