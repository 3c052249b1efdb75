"""How a sink that speaks HTTP is asked, and what its answer means. Redirects are not followed."""

from collections.abc import Mapping

import httpx

from agent import __version__
from agent.notifiers import Undelivered

TIMEOUT = 10.0
USER_AGENT = f"gitops-agent/{__version__}"
HOPELESS = frozenset((400, 410, 413, 422))
"""Answers by which the same request will never be taken."""


def post(
    url: str, body: bytes, headers: Mapping[str, str], auth: tuple[str, str] | None = None
) -> None:
    """POST a JSON body. Undelivered unless the answer is a 2xx."""
    sent = {"Content-Type": "application/json", "User-Agent": USER_AGENT, **headers}
    try:
        answer = httpx.post(url, content=body, headers=sent, auth=auth, timeout=TIMEOUT)
    except httpx.HTTPError as error:
        raise Undelivered(f"it could not be reached: {error}") from None
    if not answer.is_success:
        said = " ".join(answer.text[:200].split())
        raise Undelivered(
            f"it answered {answer.status_code} {said}", again=answer.status_code not in HOPELESS
        )
