"""Commands about this host: be the agent, set one up, check it, show it."""

import gc
import sys
from pathlib import Path

import click

from agent import terminal
from agent.cli import base
from agent.errors import Exit
from agent.places import find


@click.command()
@base.with_config
@click.option(
    "--only",
    type=click.Choice(["receiver", "core"]),
    help="Be one of the two alone, beside the other; so do the units that `install` writes.",
)
def run(config_file: str | None, only: str | None) -> None:
    """Be the agent, in the foreground. SIGHUP reloads, SIGTERM drains."""
    environ = base.environ
    path = find(config_file, environ)
    # What is imported is no garbage; to look for some takes an eighth of a start.
    gc.disable()
    if only == "receiver":
        from agent import public, reception

        gc.enable()
        reception.run(public.load(path, environ), environ)
    else:
        from agent import config, service

        gc.enable()
        apart = only == "core"
        service.run(config.load(path, environ, apart=apart), environ, apart=apart)


@click.command()
@click.option("--keep", is_flag=True, help="Leave the temporary folder for a look around.")
def demo(*, keep: bool) -> None:
    """Show the whole way on loopback, for real: a repository, an agent, a push, a hook."""
    from agent.demo import run_demo

    run_demo(keep=keep)


@click.command()
@click.option(
    "--config",
    "config_file",
    metavar="FILE",
    help="Where to write it. Default: $GITOPS_AGENT_CONFIG, else ./agent.toml.",
)
@base.with_json
@click.option("--repo", metavar="URL", help="The repository, as git reaches it.")
@click.option("--branch", default="main", show_default=True)
@click.option("--path", "path", metavar="PATH", help="Where the tree goes on this host.")
@click.option("--target", metavar="NAME", help="The target's name; default: the repository's.")
@click.option("--url", metavar="URL", help="This host as GitHub reaches it, https://host.")
def init(
    config_file: str | None, repo: str | None, branch: str, path: str | None,
    target: str | None, url: str | None, *, as_json: bool,
) -> None:  # fmt: skip
    """Write an agent.toml, a secret and a first hook, and say what to enter in GitHub's form."""
    file = Path(config_file or base.environ.get("GITOPS_AGENT_CONFIG") or "agent.toml")
    from agent import setup

    if repo is None:
        repo = _ask("Repository URL, as git reaches it", "--repo")
    name = target or setup.target_name(repo)
    if path is None:
        path = _ask("Folder for the tree", "--path", f"/srv/{name}")
    written = setup.write(setup.Wish(file, repo, branch, path, name, url), base.environ)
    base.print_json(written) if as_json else click.echo(setup.form(written), nl=False)


def _ask(what: str, option: str, default: str | None = None) -> str:
    if sys.stdin.isatty():
        return str(click.prompt(what, default=default))
    if default is not None:
        return default
    raise click.UsageError(f"give {option}")


@click.command()
@base.with_json
def token(*, as_json: bool) -> None:
    """Make a token that opens the page and the control API on TCP, and the hash of it."""
    from agent import tokens

    made = tokens.make()
    hashed = tokens.hashed(made)
    if as_json:
        base.print_json({"token": made, "token_hash": hashed})
        return
    click.echo(f"The token, which is kept nowhere and shown only now:\n\n  {made}\n")
    click.echo("In agent.toml, the hash of it:\n\n[control]")
    click.echo(
        f'bind = "127.0.0.1:9001"        # put a TLS proxy in front\ntoken_hash = "{hashed}"'
    )


@click.command()
@base.with_config
@base.with_json
def check(config_file: str | None, *, as_json: bool) -> None:
    """Read the configuration, reach every remote, look at every hook; change nothing."""
    settings = base.load(config_file)
    from agent.doctor import Verdict, host
    from agent.setup import reach

    reached = []
    for target in settings.targets.values():
        with terminal.progress(f"reaching {target.repo}"):
            reached.append(reach(target))
    others = [one for one in host.check(settings) if one.verdict is not Verdict.OK]
    if as_json:
        targets = [
            {"target": one.about, "ok": one.verdict is Verdict.OK, "says": one.says,
             "todo": one.todo} for one in reached
        ]  # fmt: skip
        base.print_json({"config": str(settings.path), "targets": targets, "findings": others})
    else:
        click.echo(f"{settings.path} is sound; webhooks: {len(settings.webhooks)},"
                   f" targets: {len(reached)}")  # fmt: skip
        terminal.show_checked([*reached, *others])
    if any(one.verdict is Verdict.WRONG for one in (*reached, *others)):
        raise click.exceptions.Exit(Exit.FAILED)
