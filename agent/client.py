"""Talks to a running agent over its control socket. For the commands; synchronous."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec

from agent.errors import AgentError, NotLetIn, NotRunning
from agent.places import SYSTEM_CONTROL

_LONGEST_ANSWER = 35.0
_LONGEST_LOOK = 300.0


class Client:
    """Asks the agent behind `socket`. NotRunning where none answers; AgentError for a refusal.

    NotLetIn where this user may not ask.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket)),
            base_url="http://agent",
            timeout=httpx.Timeout(5.0, read=_LONGEST_ANSWER),
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def status(self) -> dict[str, Any]:
        return self._get("/v1/status")  # type: ignore[no-any-return]

    def history(self, target: str | None, limit: int) -> list[dict[str, Any]]:
        query = {"limit": limit, **({"target": target} if target else {})}
        return self._get("/v1/history", **query)  # type: ignore[no-any-return]

    def deployment(self, name: str) -> dict[str, Any]:
        return self._get(f"/v1/deployments/{name}")  # type: ignore[no-any-return]

    def sync(self, target: str, actor: str, *, force: bool) -> int:
        """Ask for a look; gives the request's number."""
        return int(self._tell(target, "sync", actor=actor, force=force)["request"])

    def rollback(self, target: str, actor: str, to: str | None) -> int:
        """Ask for an earlier revision; gives the request's number."""
        return int(self._tell(target, "rollback", actor=actor, to=to)["request"])

    def pause(self, target: str, actor: str, seconds: float | None, reason: str) -> dict[str, Any]:
        return self._tell(target, "pause", actor=actor, seconds=seconds, reason=reason)  # type: ignore[no-any-return]

    def resume(self, target: str, actor: str) -> None:
        self._tell(target, "resume", actor=actor)

    def cancel(self, target: str, actor: str) -> None:
        self._tell(target, "cancel", actor=actor)

    def diff(self, target: str) -> dict[str, Any]:
        return self._get(f"/v1/targets/{target}/diff")  # type: ignore[no-any-return]

    def looks(self, target: str | None, limit: int) -> list[dict[str, Any]]:
        query = {"limit": limit, **({"target": target} if target else {})}
        return self._get("/v1/looks", **query)  # type: ignore[no-any-return]

    def result(self, request: int, wait: float) -> dict[str, Any]:
        """What came of a request, after `wait` seconds at most; `result` is None until then."""
        return self._get(f"/v1/requests/{request}", wait=wait)  # type: ignore[no-any-return]

    def doctor(self, url: str | None) -> list[dict[str, Any]]:
        """What the agent finds wrong; some seconds, or minutes where remotes do not answer."""
        return self._ask("POST", "/v1/doctor", {"url": url}, timeout=_LONGEST_LOOK)  # type: ignore[no-any-return]

    def log(self, name: str, *, follow: bool) -> Iterator[dict[str, Any]]:
        """The pieces of a deployment's log, as they come."""
        query = {"follow": str(follow).lower()}
        try:
            with self._http.stream(
                "GET", f"/v1/deployments/{name}/log", params=query, timeout=None
            ) as response:
                if response.is_error:
                    response.read()
                self._check(response)
                for line in response.iter_lines():
                    yield msgspec.json.decode(line)
        except httpx.TransportError as error:
            raise self._no_answer(error) from error

    def _tell(self, target: str, what: str, **how: Any) -> Any:
        return self._ask("POST", f"/v1/targets/{target}/{what}", how)

    def _get(self, path: str, **query: Any) -> Any:
        return self._ask("GET", path, None, query)

    def _ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: dict[str, Any] | None = None,
        timeout: float = _LONGEST_ANSWER,
    ) -> Any:
        try:
            response = self._http.request(method, path, json=body, params=query, timeout=timeout)
        except httpx.TransportError as error:
            raise self._no_answer(error) from error
        self._check(response)
        return response.json() if response.content else None

    def _check(self, response: httpx.Response) -> None:
        if response.is_error:
            try:
                detail = response.json()["detail"]
            except (ValueError, KeyError, TypeError):
                detail = response.text
            raise AgentError(str(detail))

    def _no_answer(self, error: Exception) -> AgentError:
        if isinstance(error.__cause__, PermissionError) or "Permission denied" in str(error):
            return NotLetIn(
                f"you may not open the control socket {self._socket}; use sudo, or become a member"
                " of its group"
            )
        system = self._socket == SYSTEM_CONTROL
        start = "systemctl start gitops-agent" if system else "gitops-agent run"
        return NotRunning(
            f"no agent answers on {self._socket} ({error}); start one with `{start}`, or name its"
            " configuration with --config"
        )
