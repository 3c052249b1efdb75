"""The commands. They talk to a running agent over its control socket only."""

import getpass
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from agent import __version__, config, terminal
from agent.client import Client
from agent.config import Settings
from agent.errors import AgentError, ConfigError, Exit

_BRIEFLY, _AT_LENGTH = 0.2, 25.0
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


def _load(config_file: str | None) -> Settings:
    return config.load(config.find(config_file, os.environ), os.environ)


def _client(config_file: str | None) -> Client:
    """The client needs only the socket's place, so faults elsewhere do not keep it away."""
    return Client(config.control_socket(config.find(config_file, os.environ), os.environ))


def _print_json(answer: Any) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(answer)))


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gitops-agent")
def cli() -> None:
    """Push-to-deploy for ordinary Linux hosts: git is the truth, a bad deploy undoes itself."""


@cli.command()
@with_config
def run(config_file: str | None) -> None:
    """Be the agent, in the foreground. SIGHUP reloads, SIGTERM drains."""
    environ = dict(os.environ)
    settings = _load(config_file)
    from agent import service

    service.run(settings, environ)


@cli.command()
@click.option("--keep", is_flag=True, help="Leave the temporary folder for a look around.")
def demo(*, keep: bool) -> None:
    """Show the whole way on loopback, for real: a repository, an agent, a push, a hook."""
    from agent.demo import run_demo

    run_demo(keep=keep)


@cli.command()
@with_config
@click.option("--repo", metavar="URL", help="The repository, as git reaches it.")
@click.option("--branch", default="main", show_default=True)
@click.option("--path", "path", metavar="PATH", help="Where the tree goes on this host.")
@click.option("--target", metavar="NAME", help="The target's name; default: the repository's.")
@click.option("--url", metavar="URL", help="This host as GitHub reaches it, https://host.")
def init(
    config_file: str | None, repo: str | None, branch: str, path: str | None,
    target: str | None, url: str | None,
) -> None:  # fmt: skip
    """Write an agent.toml, a secret and a first hook, and say what to enter in GitHub's form."""
    from agent import setup

    file = Path(config_file or os.environ.get("GITOPS_AGENT_CONFIG") or "agent.toml")
    if repo is None:
        repo = _ask("Repository URL, as git reaches it", "--repo")
    name = target or setup.target_name(repo)
    if path is None:
        path = _ask("Folder for the tree", "--path", f"/srv/{name}")
    click.echo(setup.write(setup.Wish(file, repo, branch, path, name, url)), nl=False)


def _ask(what: str, option: str, default: str | None = None) -> str:
    if sys.stdin.isatty():
        return str(click.prompt(what, default=default))
    if default is not None:
        return default
    raise click.UsageError(f"give {option}")


@cli.command()
@with_config
@with_json
def check(config_file: str | None, *, as_json: bool) -> None:
    """Read the configuration, reach every remote, look at every hook; change nothing."""
    settings = _load(config_file)
    from agent.setup import reach

    findings = []
    for target in settings.targets.values():
        with terminal.progress(f"reaching {target.repo}"):
            findings.append(reach(target))
    if as_json:
        _print_json({"config": str(settings.path), "targets": findings})
    else:
        click.echo(f"{settings.path} is sound; webhooks: {len(settings.webhooks)},"
                   f" targets: {len(findings)}")  # fmt: skip
        for one in findings:
            mark, colour = ("ok  ", "green") if one["ok"] else ("FAIL", "red")
            click.secho(mark, fg=colour, nl=False)
            click.echo(f" {one['target']}: {terminal.printable(one['says'])}")
    if not all(one["ok"] for one in findings):
        raise click.exceptions.Exit(Exit.FAILED)


@cli.command()
@with_config
@with_json
def status(config_file: str | None, *, as_json: bool) -> None:
    """Every target: live revision, last outcome, next poll, last webhook."""
    with _client(config_file) as client:
        answer = client.status()
    _print_json(answer) if as_json else terminal.show_status(answer)


@cli.command()
@with_config
@with_json
@click.argument("target", required=False)
@click.option("-n", "--limit", default=20, show_default=True, type=click.IntRange(1, 10_000))
def history(config_file: str | None, target: str | None, limit: int, *, as_json: bool) -> None:
    """Past deployments, newest first, and why each one ran."""
    with _client(config_file) as client:
        answer = client.history(target, limit)
    _print_json(answer) if as_json else terminal.show_history(answer)


@cli.command()
@with_config
@with_json
@click.argument("name", metavar="[TARGET|ID]", required=False)
@click.option("-f", "--follow", is_flag=True, help="Follow it to its end.")
def logs(config_file: str | None, name: str | None, *, follow: bool, as_json: bool) -> None:
    """A deployment's hook output: a target's newest, one by id, or the newest of all."""
    with _client(config_file) as client:
        if name is None:
            newest = client.history(None, 1)
            if not newest:
                raise AgentError("there has been no deployment yet")
            name = newest[0]["id"]
        pieces = client.log(name, follow=follow)
        if as_json:
            for piece in pieces:
                click.echo(msgspec.json.encode(piece))
        elif end := terminal.show_pieces(pieces):
            terminal.show_end(end)


@cli.command()
@with_config
@with_json
@click.argument("target")
@click.option("--wait", is_flag=True, help="Show it to its end; exit 1 if it does not go well.")
@click.option("--force", is_flag=True, help="Also a held revision, or one that is live already.")
def sync(config_file: str | None, target: str, *, wait: bool, force: bool, as_json: bool) -> None:
    """Deploy now what the branch says."""
    with _client(config_file) as client:
        number = client.sync(target, _actor(), force=force)
        if not wait:
            answer = {"request": number, "target": target}
            asked = f"{target} is looked at now; `gitops-agent logs -f {target}` follows it"
            _print_json(answer) if as_json else click.echo(asked)
            return
        result = _wait(client, number, quiet=as_json)
    if as_json:
        _print_json(result)
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
        click.echo(f"{result['target']}: {result['result']}: {terminal.printable(result['why'])}")
    return result


@cli.command("send-push")
@with_config
@with_json
@click.argument("target")
@click.option("--revision", help="The revision to announce; default: what the remote shows.")
def send_push(config_file: str | None, target: str, revision: str | None, *, as_json: bool) -> None:
    """Send a signed push delivery to one's own agent, as GitHub would."""
    settings = _load(config_file)
    from agent import setup

    if target not in settings.targets:
        raise AgentError(f"there is no target {target}; there are: {', '.join(settings.targets)}")
    answer = setup.send_push(settings, settings.targets[target], revision, time.time())
    said = f"{answer['status']} {msgspec.json.encode(answer['body']).decode()}"
    _print_json(answer) if as_json else click.echo(said)
    if answer["status"] not in (200, 202):
        raise click.exceptions.Exit(Exit.FAILED)


main = partial(cli, prog_name="gitops-agent")
