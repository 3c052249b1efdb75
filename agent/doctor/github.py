"""What GitHub itself says of its deliveries to us, asked with a token.

https://docs.github.com/en/rest/repos/webhooks: the token needs the repository permission
"Webhooks: read".
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

from agent.doctor import Finding, note, ok, wrong
from agent.doctor.listener import MEANINGS
from agent.plan import repository_identity

_PATIENCE = 15.0
_MOST = 50
_API = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
_ANSWERS = {
    0: "GitHub could not reach it: a firewall, DNS, or a certificate it does not trust",
    401: "the secret there is not the one here, or a proxy changed the body",
    404: "the path there is no /webhook/NAME of this agent",
    415: "its content type has to be application/json",
    **{status: todo for status, todo in MEANINGS.items() if status not in (404, 405)},
}


def log(
    repos: Iterable[str], webhooks: Collection[str], token: str, api: str | None
) -> Iterator[Finding]:
    """What GitHub's delivery log has for each repository; `api` where it is not the host's own."""
    for identity in dict.fromkeys(map(repository_identity, repos)):
        host, _, name = identity.partition(":")
        if not host or name.count("/") != 2:
            continue
        headers = {**_API, "Authorization": f"Bearer {token}"}
        base = api or _api_of(host)
        with httpx.Client(base_url=base, headers=headers, timeout=_PATIENCE) as http:
            yield from _repository(http, f"github {name[1:]}", f"/repos{name}/hooks", webhooks)


def _api_of(host: str) -> str:
    return "https://api.github.com" if host == "github.com" else f"https://{host}/api/v3"


def _repository(
    http: httpx.Client, about: str, path: str, webhooks: Collection[str]
) -> Iterator[Finding]:
    try:
        hooks = _get(http, path, per_page=100)
        ours = [one for one in hooks if _is_ours(one["config"].get("url", ""), webhooks)]
        if not ours:
            paths = ", ".join(f"https://HOST/webhook/{name}" for name in webhooks)
            yield wrong(about, f"has no webhook for this agent among its {len(hooks)}",
                        f"Settings > Webhooks > Add webhook, with {paths}; one of the"
                        " organisation's is not seen here")  # fmt: skip
        for hook in ours:
            yield from _hook(http, about, path, hook)
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        yield note(about, f"GitHub answers {status} to the question for its webhooks",
                   "the token needs the repository permission `Webhooks: read`")  # fmt: skip
    except (httpx.HTTPError, KeyError, TypeError, ValueError) as error:
        yield note(about, f"GitHub could not be asked: {error or type(error).__name__}")


def _get(http: httpx.Client, path: str, **query: int) -> list[dict[str, Any]]:
    answer = http.get(path, params=query)
    answer.raise_for_status()
    found: list[dict[str, Any]] = answer.json()
    return found


def _is_ours(url: str, webhooks: Collection[str]) -> bool:
    return any(urlsplit(url).path.endswith(f"/webhook/{name}") for name in webhooks)


def _hook(http: httpx.Client, about: str, path: str, hook: Mapping[str, Any]) -> Iterator[Finding]:
    url = hook["config"]["url"]
    if not hook["active"]:
        yield wrong(about, f"its webhook for {url} is switched off", "tick `Active` in its form")
    if not {"push", "*"} & set(hook["events"]):
        said = f"its webhook for {url} is told of {', '.join(hook['events'])}, and not of pushes"
        yield wrong(about, said, "choose `Just the push event` in its form")
    deliveries = _get(http, f"{path}/{hook['id']}/deliveries", per_page=_MOST)
    if not deliveries:
        yield note(about, f"nothing was ever delivered to {url}", "push something, or Redeliver")
        return
    answers = Counter(int(one["status_code"]) for one in deliveries)
    good = sum(count for status, count in answers.items() if 200 <= status < 300)
    yield ok(about, f"{good} of the last {len(deliveries)} deliveries to {url} were taken")
    newest = int(deliveries[0]["status_code"])
    for status, count in answers.items():
        if not 200 <= status < 300:
            said = f"{count} of them were answered {status or 'not at all'}"
            todo = _ANSWERS.get(status, "see Recent Deliveries in its form")
            # What the newest delivery was spared is over.
            yield wrong(about, said, todo) if status == newest else note(about, said, todo)
