"""What doctor asks of the listener: a signed ping, from here and by its public address.

A ping changes nothing. Its body is one that a proxy which touches bodies would change, and it is
signed with the right secret: what is refused then was changed on its way.
"""

import time
from collections.abc import Iterator, Mapping, Sequence

import httpx
import msgspec

from agent import sender
from agent.doctor import RECEIVERS, Finding, note, ok, wrong
from agent.forges.signature import Refusal
from agent.model import Webhook
from agent.tally import Tally

_PATIENCE = 10.0
_LARGE = 2 * 1024 * 1024
# White space, an escape and a letter that some would write otherwise; all of it is signed.
_SMALL = b'{ "zen": "Caf\\u00e9 \xc3\xa9 \\/",\r\n\t"hook_id": 1 }\n'

_CHANGED = {
    Refusal.UNSIGNED: "the header X-Hub-Signature-256 did not arrive: have the proxy pass it on",
    Refusal.SHA1_ONLY: "the header X-Hub-Signature-256 did not arrive: have the proxy pass it on",
    Refusal.MALFORMED: "the header X-Hub-Signature-256 was changed: have the proxy leave it be",
    Refusal.ENCODED: "the body was compressed: switch that off in the proxy for this path",
    Refusal.MISMATCH: "the body was changed: have the proxy pass it on byte for byte",
}
MEANINGS = {
    403: "something in front wants a login or blocks it: let POST /webhook/ through without one",
    404: "the proxy does not pass /webhook/ on, or passes it on under another path",
    405: "something else answers there: the proxy has to pass POST /webhook/ on",
    408: "the body did not arrive in time: the way is very slow, or the proxy holds it back",
    413: "the proxy takes no large bodies, and GitHub's go up to 25 MB: nginx needs"
    " `client_max_body_size 26m;`",
    500: "the proxy failed at it, such as for want of room for the body: see its error log",
    502: "the proxy does not reach the agent: compare its upstream with `bind` in [server]",
    503: "the journal cannot be written, or the proxy finds no agent: see `space` and `agent`",
    504: "the proxy waits for the agent in vain: compare its upstream with `bind` in [server]",
}  # fmt: skip


def local(webhooks: Mapping[str, Webhook], listening: Sequence[str]) -> Iterator[Finding]:
    """Whether each address on which the agent listens answers a ping."""
    if not webhooks:
        yield note("listener", "no [webhooks.NAME] is configured, so only the poll deploys")
        return
    webhook = next(iter(webhooks.values()))
    if not webhook.secrets:
        said = "not asked: only the receiver, a process of its own, may read the webhooks' secrets"
        yield note(RECEIVERS, said, "as root, `gitops-agent doctor` asks it itself")
        return
    for address in listening:
        transport, base = sender.way_to(address)
        with httpx.Client(transport=transport, timeout=_PATIENCE) as http:
            yield _pinged(http, base, f"listener {address}", webhook, _SMALL, None)


def public(
    webhooks: Mapping[str, Webhook], url: str | None, tally: Tally | None
) -> Iterator[Finding]:
    """Whether the public address answers one, for each webhook; then whether it takes a large one.

    `tally` is the agent's own, which knows why it refused what came from there.
    """
    if not any(one.secrets for one in webhooks.values()):
        return
    if url is None:
        todo = 'name it with --url https://HOST, or as url = "https://HOST" in [server]'
        yield note("public address", "not tried, for none is known", todo)
        return
    base = url.rstrip("/")
    with httpx.Client(timeout=_PATIENCE) as http:
        for webhook in webhooks.values():
            about = f"public {base}/webhook/{webhook.name}"
            found = _pinged(http, base, about, webhook, _SMALL, tally)
            yield found
        if found.verdict == "ok":
            large = msgspec.json.encode({"zen": "x" * _LARGE})
            yield _pinged(http, base, "public, 2 MB", webhook, large, tally)


def _pinged(
    http: httpx.Client, base: str, about: str, webhook: Webhook, body: bytes, tally: Tally | None
) -> Finding:
    headers = sender.signed(webhook, "ping", body, "gitops-agent doctor")
    started = time.monotonic()
    try:
        answer = http.post(f"{base}/webhook/{webhook.name}", content=body, headers=headers)
    except httpx.HTTPError as error:
        return wrong(about, f"no answer: {error or type(error).__name__}", _unreachable(error))
    if answer.status_code == 401:
        return wrong(about, "a ping with the right signature was refused there with 401",
                     _why_refused(webhook, headers["X-GitHub-Delivery"], tally))  # fmt: skip
    if answer.is_redirect:
        to = answer.headers.get("location", "elsewhere")
        todo = f"GitHub follows no redirect: give it the address at the end, {to}"
        return wrong(about, f"it redirects to {to}", todo)
    if answer.status_code != 200 or answer.content != b'{"status":"pong"}':
        todo = MEANINGS.get(answer.status_code, "something else answers there, and not this agent")
        return wrong(about, f"answers {answer.status_code} to a ping", todo)
    return ok(about, f"answers a signed ping in {time.monotonic() - started:.2f} s")


def _why_refused(webhook: Webhook, delivery: str, tally: Tally | None) -> str:
    """Why the agent refused that ping, if it was this agent at all."""
    for why, refused in (tally.refused.get(webhook.name, {}) if tally else {}).items():
        if refused.delivery == delivery:
            return _CHANGED[why]
    return (
        "if `listener` is well, a proxy changes the body or drops X-Hub-Signature-256; if not, the"
        " agent read its secret before that was changed, or another one answers there"
    )


def _unreachable(error: Exception) -> str:
    words = str(error).lower()
    if "name or service" in words or "resolve" in words or "nodename" in words:
        return "the name has no address yet: look at DNS"
    if "certificate" in words or "ssl" in words:
        return "GitHub refuses this certificate too: renew it, or mend its chain"
    if "refused" in words:
        return "nobody listens there: is the proxy running, and does the port match?"
    return (
        "a firewall may keep it out; or this host cannot reach its own public address, then try"
        " from outside: `curl -i -X POST URL` says 401 where all is well"
    )
