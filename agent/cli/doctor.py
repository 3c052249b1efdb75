"""`doctor`: why a webhook does not fire, or fires and nothing happens."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import msgspec

from agent import __version__, terminal
from agent.cli import base
from agent.doctor import RECEIVERS, Finding, Verdict, note, wrong
from agent.errors import AgentError, ConfigError, Exit, NotRunning
from agent.places import find


@click.command()
@base.with_config
@base.with_json
@click.option("--url", metavar="URL", help="This host as GitHub reaches it, https://host.")
@click.option("--all", "every", is_flag=True, help="Also what is well, in full.")
@click.option(
    "--github-token-file", "token_file", metavar="FILE", type=click.Path(path_type=Path),
    help="Look into GitHub's own delivery log too; default: the token in $GITHUB_TOKEN.",
)  # fmt: skip
def doctor(
    config_file: str | None, url: str | None, token_file: Path | None, *, every: bool, as_json: bool
) -> None:
    """Find out why a webhook does not fire, or why it fires and nothing happens."""
    file = find(config_file, base.environ)
    with terminal.progress("looking around"):
        findings = list(_look(file, url, _token(token_file)))
    bad = sum(one.verdict is Verdict.WRONG for one in findings)
    if as_json:
        base.print_json({"ok": not bad, "findings": findings})
    else:
        terminal.show_findings(findings, every=every)
    if bad:
        raise click.exceptions.Exit(Exit.FAILED)


def _token(file: Path | None) -> str | None:
    if file is None:
        return base.environ.get("GITHUB_TOKEN")
    try:
        return file.read_text().strip()
    except OSError as error:
        raise AgentError(f"{file} cannot be read: {error.strerror}") from None


def _look(file: Path, url: str | None, token: str | None) -> Iterator[Finding]:
    """The agent's own findings where one runs, else what can be found without it."""
    from agent import config
    from agent.client import Client

    try:
        with Client(config.control_socket(file, base.environ)) as client:
            status, found = client.status(), client.doctor(url)
    except NotRunning as error:
        yield wrong("agent", f"{error}", "`systemctl status gitops-agent` says why a service ended")
        yield from _without_agent(file, url, token)
        return
    for one in msgspec.convert(found, list[Finding]):
        yield from (_receiver(file, url) or [one]) if one.about == RECEIVERS else [one]
    if status["version"] != __version__:
        said = f"this command is {__version__}, the agent {status['version']}"
        yield note("agent", said, "systemctl restart gitops-agent")
    repos = [one["repo"] for one in status["targets"]]
    yield from _github(repos, [one["name"] for one in status["webhooks"]], token)


def _receiver(file: Path, url: str | None) -> list[Finding]:
    """What the core may not ask; nothing where the secrets cannot be read by this user either."""
    from agent import public
    from agent.doctor import listener

    try:
        part = public.load(file, base.environ)
    except ConfigError:
        return []
    here = listener.local(part.webhooks, [part.bind])
    return [*here, *listener.public(part.webhooks, url or part.url, None)]


def _without_agent(file: Path, url: str | None, token: str | None) -> Iterator[Finding]:
    from agent import config
    from agent.doctor import examine

    try:
        settings = config.load(file, base.environ)
    except ConfigError as error:
        for fault in error.faults:
            yield wrong("configuration", fault, f"mend it in {error.source or file}")
        return
    yield from examine.from_outside(settings, url)
    repos = [one.repo for one in settings.targets.values()]
    yield from _github(repos, list(settings.webhooks), token)


def _github(repos: Iterable[str], webhooks: list[str], token: str | None) -> Iterator[Finding]:
    from agent.doctor import github

    if token:
        yield from github.log(repos, webhooks, token, base.environ.get("GITHUB_API_URL"))
    elif any("github" in repo for repo in repos):
        yield note("github", "its delivery log was not looked at, for there is no token",
                   "--github-token-file FILE, with the right `Webhooks: read`")  # fmt: skip
