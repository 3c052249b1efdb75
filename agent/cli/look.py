"""Commands that look: status, watch, history, diff, logs."""

import sys
import time

import click
import msgspec

from agent import terminal
from agent.cli import base
from agent.errors import AgentError


@click.command()
@base.with_config
@base.with_json
def status(config_file: str | None, *, as_json: bool) -> None:
    """Every target: live revision, last outcome, next poll, last webhook."""
    with base.client(config_file) as client:
        answer = client.status()
    base.print_json(answer) if as_json else terminal.show_status(answer)


@click.command()
@base.with_config
@base.with_json
@click.option(
    "--every", metavar="SECONDS", default=1.0, show_default=True, type=click.FloatRange(0.1)
)
def watch(config_file: str | None, every: float, *, as_json: bool) -> None:
    """All targets on the whole screen, until q; with --json a status on each line, until ^C."""
    with base.client(config_file) as client:
        if as_json:
            while True:
                click.echo(msgspec.json.encode(client.status()))
                time.sleep(every)
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise click.UsageError("this is no terminal; `status`, or `watch --json`, is for pipes")
        terminal.watch(client, every)


@click.command()
@base.with_config
@base.with_json
@click.argument("target", required=False, shell_complete=base.targets)
@click.option("-n", "--limit", default=20, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--looks", is_flag=True, help="The looks that left something alone instead, and why.")
def history(
    config_file: str | None, target: str | None, limit: int, *, looks: bool, as_json: bool
) -> None:
    """Past deployments, newest first, and why each one ran."""
    with base.client(config_file) as client:
        answer = client.looks(target, limit) if looks else client.history(target, limit)
    if as_json:
        base.print_json(answer)
    elif looks:
        terminal.show_looks(answer)
    else:
        terminal.show_history(answer)


@click.command()
@base.with_config
@base.with_json
@base.with_target
def diff(config_file: str | None, target: str, *, as_json: bool) -> None:
    """What a sync would bring: commits and files. Changes nothing."""
    with base.client(config_file) as client:
        answer = client.diff(target)
    base.print_json(answer) if as_json else terminal.show_difference(answer)


@click.command()
@base.with_config
@base.with_json
@click.argument("name", metavar="[TARGET|ID]", required=False, shell_complete=base.targets)
@click.option("-f", "--follow", is_flag=True, help="Follow it to its end.")
def logs(config_file: str | None, name: str | None, *, follow: bool, as_json: bool) -> None:
    """A deployment's hook output: a target's newest, one by id, or the newest of all.

    Followed, a target's goes on until nothing runs there and no look is waited for.
    """
    with base.client(config_file) as client:
        if name is None:
            newest = client.history(None, 1)
            if not newest:
                raise AgentError("there has been no deployment yet")
            name = newest[0]["id"]
        pieces = client.log(name, follow=follow)
        with base.following(name):
            if as_json:
                for piece in pieces:
                    click.echo(msgspec.json.encode(piece))
            else:
                terminal.show_pieces(pieces)
