"""Back to GitHub: each deployment as one of its deployments, and a status on the commit.

So a pull request shows where its commits are live, and the commit how that went. With a token, or
as a GitHub App that is installed on the repository.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from gidgethub import BadRequest, GitHubException
from gidgethub.httpx import GitHubAPI

from agent.messages import Message
from agent.notifiers import Undelivered
from agent.notifiers.http import HOPELESS, TIMEOUT, USER_AGENT

_LONGEST = 140
"""Characters in a description."""
_MARK = "gitops_agent"
_PROGRESS = {"started": "in_progress", "deployed": "success", "interrupted": "error",
             "canceled": "inactive"}  # fmt: skip
_STATUS = {"started": "pending", "deployed": "success", "interrupted": "error", "canceled": "error",
           "test": "success"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    url: str
    repositories: Mapping[str, str]
    """Each target's `owner/name`."""
    environment: str
    token: str | None = None
    app: str | None = None
    private_key: str | None = None


def send(settings: Settings, messages: Sequence[Message]) -> None:
    try:
        asyncio.run(_send(settings, messages))
    except BadRequest as error:
        raise Undelivered(f"GitHub: {error}", again=error.status_code not in HOPELESS) from None
    except (GitHubException, httpx.HTTPError) as error:
        raise Undelivered(f"GitHub could not be asked: {error}") from None


async def _send(settings: Settings, messages: Sequence[Message]) -> None:
    async with httpx.AsyncClient(timeout=TIMEOUT) as client:
        for message in messages:
            repository = f"/repos/{settings.repositories[message.target]}"
            github = GitHubAPI(client, USER_AGENT, base_url=settings.url)
            github.oauth_token = settings.token or await _app_token(github, settings, repository)
            await _Repository(github, repository, settings).tell(message)


async def _app_token(github: GitHubAPI, settings: Settings, repository: str) -> str:
    """A token of the App's installation on this repository; it is good for an hour."""
    # It brings cryptography, which a token has no need of.
    from gidgethub.apps import get_installation_access_token, get_jwt

    assert settings.app
    assert settings.private_key
    app, key = settings.app, settings.private_key
    jwt = get_jwt(app_id=app, private_key=key)
    found = await github.getitem(f"{repository}/installation", jwt=jwt)
    granted = await get_installation_access_token(
        github, installation_id=str(found["id"]), app_id=app, private_key=key
    )
    return str(granted["token"])


class _Repository:
    """One repository at GitHub, for as long as it takes to tell it a message."""

    def __init__(self, github: GitHubAPI, path: str, settings: Settings) -> None:
        self._github = github
        self._path = path
        self._settings = settings

    async def tell(self, message: Message) -> None:
        environment = self._settings.environment.format(target=message.target, host=message.host)
        shown = {"description": message.title[:_LONGEST]}
        if message.event != "test":
            number = await self._deployment(message, environment)
            status = {"state": _PROGRESS.get(_event(message), "failure"), **shown}
            if message.link:
                status["log_url"] = message.link
            await self._github.post(f"{self._path}/deployments/{number}/statuses", data=status)
        mark = {"state": _STATUS.get(_event(message), "failure"), **shown,
                "context": f"gitops-agent/{environment}"}  # fmt: skip
        if message.link:
            mark["target_url"] = message.link
        await self._github.post(f"{self._path}/statuses/{message.revision}", data=mark)

    async def _deployment(self, message: Message, environment: str) -> int:
        """GitHub's number for the message's deployment, which is made where it is not there yet.

        Looked for first, so that a message that is sent again makes no second one.
        """
        query = "?sha={sha}&environment={environment}&task=deploy"
        known = {"sha": message.revision, "environment": environment}
        for one in await self._github.getitem(f"{self._path}/deployments{query}", known):
            if _payload(one).get(_MARK) == message.deployment:
                return int(one["id"])
        made = await self._github.post(f"{self._path}/deployments", data={
            "ref": message.revision,
            "environment": environment,
            "description": f"{message.reason}: {message.why}"[:_LONGEST],
            "payload": {_MARK: message.deployment},
            # It is on its way already, whatever other checks say, and of exactly this commit.
            "auto_merge": False,
            "required_contexts": [],
        })  # fmt: skip
        return int(made["id"])


def _event(message: Message) -> str:
    """What brought the revision before back, after a crash, went well."""
    restored = message.event == "rolled-back" and message.revision == message.live
    return "deployed" if restored else message.event


def _payload(deployment: Mapping[str, Any]) -> Mapping[str, Any]:
    payload = deployment.get("payload")
    return payload if isinstance(payload, dict) else {}
