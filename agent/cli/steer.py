"""Commands that steer: sync, rollback, pause, resume, cancel, send-push, send-notice."""

import getpass
import os
import time
from typing import TYPE_CHECKING, Any

import click

from agent import terminal
from agent.cli import base
from agent.errors import AgentError, ConfigError, Exit

if TYPE_CHECKING:
    from agent.client import Accepted, Client

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
        asked = client.sync(target, _actor(), force=force)
        if wait:
            _see_through(client, asked, quiet=as_json)
        elif as_json:
            base.print_json(asked)
        else:
            terminal.show_asked(client.target(target), force=force)


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
        asked = client.rollback(target, _actor(), to)
        if not as_json:
            terminal.show_goal(target, asked.goal, asked.subject)
        if wait:
            _see_through(client, asked, quiet=as_json)
        elif as_json:
            base.print_json(asked)
        else:
            terminal.tell(f"`gitops-agent logs -f {target}` follows it")


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
        before = client.target(target)["paused"]
        answer = client.pause(target, _actor(), seconds, reason)
    base.print_json(answer) if as_json else terminal.show_pause(target, answer, before)


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
    base.print_json({"target": target}) if as_json else terminal.tell(said)


@click.command()
@base.with_config
@base.with_json
@base.with_target
def cancel(config_file: str | None, target: str, *, as_json: bool) -> None:
    """End a running deployment, hooks and all, the way a failure would."""
    with base.client(config_file) as client:
        client.cancel(target, _actor())
    said = f"{target}'s deployment is being canceled; `gitops-agent logs -f {target}` follows it"
    base.print_json({"target": target}) if as_json else terminal.tell(said)


def _see_through(client: "Client", asked: "Accepted", *, quiet: bool) -> None:
    """Show what was asked for to its end, where `quiet` in JSON; exit 1 if it does not go well."""
    with base.following(asked.target):
        result = _wait(client, asked.request, quiet=quiet)
    if quiet:
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
        terminal.show_pieces(client.log(result["deployment"], follow=True))
    while result["result"] is None:
        result = client.result(number, _AT_LENGTH)
    if not result["deployment"] and not quiet:
        terminal.show_left(result)
    return result


def _whole(_: click.Context, __: click.Parameter, revision: str | None) -> str | None:
    from agent.model import REVISION

    if revision is not None and not REVISION.fullmatch(revision):
        raise click.BadParameter("must be a whole commit id, 40 or 64 lower-case hex digits")
    return revision


@click.command()
@base.with_config
@base.with_json
def reload(config_file: str | None, *, as_json: bool) -> None:
    """Have the agent read agent.toml again, as SIGHUP does; say what it does not take.

    Of a service this is the core; `systemctl reload` has the receiver read its part, too.
    """
    with base.client(config_file) as client:
        answer = client.reload(_actor())
    if as_json:
        base.print_json(answer)
    if answer["refused"] and not as_json:
        raise ConfigError(answer["refused"], "refused, and the configuration before goes on")
    if answer["refused"]:
        raise click.exceptions.Exit(Exit.CONFIG)
    if not as_json:
        click.echo("agent.toml is read")
        for what in answer["needs_restart"]:
            click.echo(f"  {what} was changed, and is not in force before a restart")


@click.command("send-push")
@base.with_config
@base.with_json
@base.with_target
@click.option(
    "--revision", callback=_whole, help="The revision to announce; default: what the remote shows."
)
def send_push(config_file: str | None, target: str, revision: str | None, *, as_json: bool) -> None:
    """Send a signed push delivery to one's own agent, as GitHub would."""
    settings = base.load(config_file)
    from agent import sender, setup

    if target not in settings.targets:
        raise AgentError(f"there is no target {target}; there are: {', '.join(settings.targets)}")
    answer = setup.send_push(settings, settings.targets[target], revision, time.time())
    said = sender.told(answer["status"], answer["body"], target)
    base.print_json(answer) if as_json else terminal.tell(said)
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
    base.print_json({"sink": sink, "said": said}) if as_json else terminal.tell(said)
