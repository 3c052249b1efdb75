"""Talks to a running agent over its control socket. For the commands; synchronous."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec

from agent.errors import AgentError, NotLetIn, NotRunning
from agent.places import SYSTEM_CONTROL

T = TypeVar("T")
_OBJECT = dict[str, Any]
_OBJECTS = list[dict[str, Any]]
_LONGEST_ANSWER = 10.0
_LONGEST_LOOK = 300.0


class Accepted(msgspec.Struct):
    """A wish that was recorded, and its number."""

    request: int
    target: str


class GoingBack(Accepted):
    """A wish for an earlier revision, which it has found."""

    goal: str
    subject: str


class Client:
    """Asks the agent behind `socket`. NotRunning where none answers; AgentError for a refusal.

    NotLetIn where this user may not ask.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket)),
            base_url="http://agent",
            timeout=_LONGEST_ANSWER,
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def status(self) -> dict[str, Any]:
        return self._get("/v1/status", _OBJECT)

    def target(self, name: str) -> dict[str, Any]:
        """What `status` has of one target."""
        return self._get(f"/v1/targets/{name}", _OBJECT)

    def history(self, target: str | None, limit: int) -> list[dict[str, Any]]:
        query = {"limit": limit, **({"target": target} if target else {})}
        return self._get("/v1/history", _OBJECTS, **query)

    def deployment(self, name: str) -> dict[str, Any]:
        return self._get(f"/v1/deployments/{name}", _OBJECT)

    def sync(self, target: str, actor: str, *, force: bool) -> Accepted:
        """Ask for a look."""
        return self._tell(target, "sync", Accepted, actor=actor, force=force)

    def rollback(self, target: str, actor: str, to: str | None) -> GoingBack:
        """Ask for an earlier revision."""
        return self._tell(target, "rollback", GoingBack, actor=actor, to=to)

    def pause(self, target: str, actor: str, seconds: float | None, reason: str) -> dict[str, Any]:
        return self._tell(target, "pause", _OBJECT, actor=actor, seconds=seconds, reason=reason)

    def resume(self, target: str, actor: str) -> None:
        self._tell(target, "resume", type(None), actor=actor)

    def cancel(self, target: str, actor: str) -> None:
        self._tell(target, "cancel", type(None), actor=actor)

    def reload(self, actor: str) -> dict[str, Any]:
        """Have agent.toml read again; gives what was not taken of it."""
        return self._ask("POST", "/v1/reload", _OBJECT, {"actor": actor})

    def diff(self, target: str) -> dict[str, Any]:
        return self._ask("GET", f"/v1/targets/{target}/diff", _OBJECT, timeout=_LONGEST_LOOK)

    def looks(self, target: str | None, limit: int) -> list[dict[str, Any]]:
        query = {"limit": limit, **({"target": target} if target else {})}
        return self._get("/v1/looks", _OBJECTS, **query)

    def result(self, request: int, wait: float) -> dict[str, Any]:
        """What came of a request, after `wait` seconds at most; `result` is None until then."""
        return self._ask(
            "GET", f"/v1/requests/{request}", _OBJECT, query={"wait": wait},
            timeout=wait + _LONGEST_ANSWER,
        )  # fmt: skip

    def doctor(self, url: str | None) -> list[dict[str, Any]]:
        """What the agent finds wrong; some seconds, or minutes where remotes do not answer."""
        return self._ask("POST", "/v1/doctor", _OBJECTS, {"url": url}, timeout=_LONGEST_LOOK)

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
                    yield self._read(line, _OBJECT)
        except httpx.TransportError as error:
            raise self._no_answer(error) from error

    def _tell(self, target: str, what: str, kind: type[T], **how: Any) -> T:
        return self._ask("POST", f"/v1/targets/{target}/{what}", kind, how)

    def _get(self, path: str, kind: type[T], **query: Any) -> T:
        return self._ask("GET", path, kind, query=query)

    def _ask(
        self,
        method: str,
        path: str,
        kind: type[T],
        body: Any = None,
        query: dict[str, Any] | None = None,
        timeout: float = _LONGEST_ANSWER,
    ) -> T:
        try:
            response = self._http.request(method, path, json=body, params=query, timeout=timeout)
        except httpx.TransportError as error:
            raise self._no_answer(error) from error
        self._check(response)
        return self._read(response.content or b"null", kind)

    def _read(self, content: bytes | str, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(content, type=kind)
        except msgspec.DecodeError as error:
            raise AgentError(
                f"what answers on {self._socket} is no agent of this version ({error});"
                " restart it if it was upgraded"
            ) from error

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
        if not isinstance(error, httpx.ConnectError):
            log = "`journalctl -u gitops-agent`" if system else "its log"
            return NotRunning(
                f"the agent on {self._socket} does not answer ({error or type(error).__name__});"
                f" {log} says what is wrong: if it can open no more files, end what holds them, or"
                " start it again"
            )
        start = "systemctl start gitops-agent" if system else "gitops-agent run"
        return NotRunning(
            f"no agent answers on {self._socket}; start one with `{start}`, or name its"
            " configuration with --config"
        )
