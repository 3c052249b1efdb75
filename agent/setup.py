"""What the commands do that set an agent up and try it out: init, check, send-push, send-notice.

They work without a running agent; nothing here is used by one.
"""

import os
import re
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import msgspec

from agent import logs, notifiers, sender
from agent.cancel import Cancel
from agent.config import Settings
from agent.doctor import Finding, ok, wrong
from agent.errors import AgentError, ConfigError, RemoteFailed
from agent.installation import SECRET
from agent.kinds import Branch, Name, Repo, TreePath, WebUrl
from agent.messages import trial
from agent.model import Target
from agent.notifier import hide, order
from agent.notifiers import Undelivered
from agent.places import SYSTEM_CONFIG, Places
from agent.readers import readers
from agent.remedies import remedy
from agent.repository import list_branches
from agent.words import many, no_branch

_CONFIG = """\
# gitops-agent: {repo_toml} ({branch}) is kept live at {path_toml}.
# The project's agent.toml.example has every key.

[server]
bind = "127.0.0.1:9000"        # put a TLS proxy in front, or "0.0.0.0:9000"
trusted_proxies = ["127.0.0.1"]
{url}

[poll]
interval = "3m"

[webhooks.github]              # POST /webhook/github
secret = {{ {secret} }}

[targets.{name}]
repo = {repo_toml}
branch = {branch_toml}
path = {path_toml}

[[targets.{name}.hooks]]
stage = "activate"
run = ["announce"]
"""
_HOOK = """\
#!/bin/sh
# Runs after each deployment, in the deployed tree. Put what makes it live here, such as
# `systemctl reload shop`; exit 0 is done, 75 is "try again later", anything else undoes it.
set -eu
echo "$DEPLOY_TARGET is at $DEPLOY_REVISION ($DEPLOY_REASON), in $DEPLOY_TREE"
"""
_FORM = """\
Wrote {config}
      {secret_file} (mode 0600)
      {hook}

In GitHub: the repository's Settings > Webhooks > Add webhook

  Payload URL   {payload_url}
  Content type  {content_type}
  Secret        {secret}
  Events        Just the push event

The secret is shown this once; it is also in the file above.

Next:  gitops-agent check --config {config}
       {then}
"""


# ---- init -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wish:
    """What `init` is asked to set up."""

    file: Path
    repo: str
    branch: str
    path: str
    target: str
    url: str | None


def target_name(repo: str) -> str:
    """A target's name made from its repository's: `https://host/acme/shop.git` is `shop`."""
    last = re.split(r"[/:]", repo.rstrip("/").removesuffix(".git"))[-1]
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", last).strip("-_").lower()
    return name if name[:1].isalpha() else f"t-{name}".rstrip("-")


@dataclass(frozen=True, slots=True)
class Written:
    """What `init` has set up, and what to enter in GitHub's form."""

    config: str
    secret_file: str
    hook: str
    payload_url: str
    content_type: str
    secret: str
    events: tuple[str, ...] = ("push",)


def write(wish: Wish, environ: Mapping[str, str]) -> Written:
    """Write the configuration, its secret and a first hook.

    AgentError where a configuration is there already: it is never overwritten. ConfigError where
    `check` would find faults in what is wished; nothing is written then.
    """
    file, wish = wish.file.absolute(), _from_here(wish)
    folder = file.parent
    secret_file = SECRET if file == SYSTEM_CONFIG else folder / "webhook-secret"
    hook = folder / "deploy_hooks" / "announce"
    for one in (file, secret_file):
        if one.exists():
            raise AgentError(f"{one} is there already; move it away, or name another with --config")
    if faults := list(_faults(wish, Places(file, {}, environ), environ)):
        raise ConfigError(faults)
    secret = secrets.token_urlsafe(32)
    hook.parent.mkdir(parents=True, exist_ok=True)
    secret_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    create(secret_file, secret + "\n", 0o600)
    if not hook.exists():
        create(hook, _HOOK, 0o755)
    create(file, _filled_in(wish, secret_file), 0o644)
    url = f"{(wish.url or 'https://YOUR-HOST').rstrip('/')}/webhook/github"
    return Written(str(file), str(secret_file), str(hook), url, "application/json", secret)


def _from_here(wish: Wish) -> Wish:
    """With paths as the shell means them; those in agent.toml are from its own folder."""
    repo, path = wish.repo, wish.path
    if repo.startswith(("./", "../", "~")):
        repo = os.path.normpath(Path(repo).expanduser().absolute())
    if path:
        path = os.path.normpath(Path(path).expanduser().absolute())
    return replace(wish, repo=repo, path=path)


def _faults(wish: Wish, places: Places, environ: Mapping[str, str]) -> Iterator[str]:
    """What the readers of agent.toml say of each value, by its option."""
    read = readers(places, environ)
    given: tuple[tuple[str, Any, str | None], ...] = (
        ("--repo", Repo, wish.repo), ("--branch", Branch, wish.branch),
        ("--path", TreePath, wish.path), ("--target", Name, wish.target),
        ("--url", WebUrl, wish.url),
    )  # fmt: skip
    for option, kind, value in given:
        try:
            if value is not None:
                read[kind](value, kind)
        except ValueError as error:
            yield f"{option}: {error}"


def form(written: Written) -> str:
    """What to tell the operator."""
    system = written.config == str(SYSTEM_CONFIG)
    then = "gitops-agent install" if system else f"gitops-agent run --config {written.config}"
    return _FORM.format(**asdict(written), then=then)


def _filled_in(wish: Wish, secret_file: Path) -> str:
    return _CONFIG.format(
        branch=wish.branch,
        name=wish.target,
        secret=(
            f"credential = {_toml(SECRET.name)}"
            if secret_file == SECRET
            else f"file = {_toml(str(secret_file))}"
        ),
        repo_toml=_toml(wish.repo),
        branch_toml=_toml(wish.branch),
        path_toml=_toml(wish.path),
        url=f"url = {_toml(wish.url)}" if wish.url else '# url = "https://YOUR-HOST"',
    )


def _toml(text: str) -> str:
    """A TOML basic string; JSON's escapes are all among TOML's."""
    return msgspec.json.encode(text).decode()


def create(path: Path, text: str, mode: int) -> None:
    """Write a file that was not there, never more open than `mode`."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    path.chmod(mode)


# ---- check ------------------------------------------------------------------------------------


def reach(target: Target) -> Finding:
    """Whether the target's branch can be read, how long that took, and what to do if not."""
    started = time.monotonic()
    try:
        branches = list_branches(target.source)
    except RemoteFailed as error:
        return wrong(target.name, f"{target.repo}: {error}", remedy(str(error), target.name))
    took = time.monotonic() - started
    tip = branches.get(target.ref)
    if tip is None:
        said = no_branch(target.repo, target.branch, branches)
        return wrong(target.name, said, "push one, or change `branch`")
    hooks = many(len(target.hooks), "hook")
    says = f"{target.branch} is at {tip[:12]} ({took:.1f} s), {hooks}, goes to {target.path}"
    return ok(target.name, says)


# ---- send-push --------------------------------------------------------------------------------


def send_push(
    settings: Settings, target: Target, revision: str | None, now: float
) -> dict[str, Any]:
    """Send the agent of `settings` a push of `target`'s branch; gives its status and body."""
    webhook = next((one for one in settings.webhooks.values() if one.provider == "github"), None)
    if webhook is None:
        raise AgentError("the configuration has no [webhooks.github] to send a push to")
    if revision is None:
        branches = list_branches(target.source)
        if target.ref not in branches:
            raise AgentError(no_branch(target.repo, target.branch, branches))
        revision = branches[target.ref]
    body = _push_body(target, revision, now)
    headers = sender.signed(webhook, "push", body, "GitHub-Hookshot/gitops-agent")
    transport, base = sender.way_to(settings.bind)
    try:
        with httpx.Client(transport=transport, base_url=base, timeout=10.0) as http:
            answer = http.post(f"/webhook/{webhook.name}", content=body, headers=headers)
    except httpx.TransportError as error:
        raise AgentError(f"no agent listens on {settings.bind}: {error}") from error
    return {"status": answer.status_code, "body": answer.json()}


def _push_body(target: Target, revision: str, now: float) -> bytes:
    """The part of GitHub's push payload that says which repository and what it is at."""
    repository = {
        "full_name": target_name(target.repo),
        "clone_url": target.repo,
        "pushed_at": int(now),
        "default_branch": target.branch,
    }
    push = {
        "ref": target.ref,
        "before": "0" * len(revision),
        "after": revision,
        "created": False,
        "deleted": False,
        "forced": False,
        "commits": [],
        "repository": repository,
        "pusher": {"name": "gitops-agent send-push"},
    }
    return msgspec.json.encode(push)


# ---- send-notice ------------------------------------------------------------------------------


def send_notice(settings: Settings, name: str, target: str | None, now: float) -> str:
    """Have the sink `name` told of a test; gives what to look for. AgentError if it fails."""
    sink = settings.sinks.get(name)
    if sink is None:
        known = ", ".join(settings.sinks) or "none"
        raise AgentError(f"there is no [notify.{name}]; there are: {known}")
    about = settings.targets.get(target or min(sink.targets, default=""))
    if about is None or about.name not in sink.targets:
        raise AgentError(f"[notify.{name}] is told of {', '.join(sorted(sink.targets)) or 'none'}")
    revision = list_branches(about.source).get(about.ref) if sink.kind == "github" else None
    if sink.kind == "github" and revision is None:
        raise AgentError(f"{about.repo} has no branch {about.branch} to set a status on")
    message = trial(name, socket.gethostname(), about, revision or "", now)
    hide(settings.secrets())
    try:
        notifiers.send(order(sink, [message]), Cancel())
    except Undelivered as error:
        raise AgentError(f"[notify.{name}] did not take it: {logs.redact(str(error))}") from None
    return f"[notify.{name}] took it: {message.title}"
