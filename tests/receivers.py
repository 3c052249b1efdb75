"""Real receivers of notices for tests: mail, Slack's webhook, a signed one, Alertmanager, GitHub."""

import json
import queue
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from openapi_core import OpenAPI
from openapi_core.contrib.werkzeug import WerkzeugOpenAPIRequest, WerkzeugOpenAPIResponse
from standardwebhooks import Webhook
from werkzeug import Request, Response
from werkzeug.serving import make_server

from tests.remotes import free_port

PATIENCE = 20.0


# ---- mail ---------------------------------------------------------------------------------------


class Mailbox:
    """An SMTP server that keeps what it is sent."""

    def __init__(self) -> None:
        self._mails: queue.Queue[EmailMessage] = queue.Queue()
        self.port = free_port()
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port)

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        content = envelope.content
        assert isinstance(content, bytes)
        self._mails.put(BytesParser(policy=default).parsebytes(content))
        return "250 OK"

    def next(self) -> EmailMessage:
        return self._mails.get(timeout=PATIENCE)

    def __enter__(self) -> "Mailbox":
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()


# ---- HTTP receivers -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Receiver:
    """An HTTP server that keeps each POST and answers it with `status`.

    While it `hangs` it reads a request and never answers.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.status = 200
        self.hangs = False
        self.asked = threading.Event()
        self._received: queue.Queue[Received] = queue.Queue()
        self._released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_CONNECT(self) -> None:
                """As a proxy would; but what is behind the tunnel is this server itself."""
                assert tls
                self.send_response(200)
                self.end_headers()
                with tls.wrap_socket(self.connection, server_side=True) as self.connection:
                    self.rfile = self.connection.makefile("rb")
                    self.wfile = self.connection.makefile("wb", buffering=0)  # type: ignore[assignment]
                    self.handle_one_request()
                    self.close_connection = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {key.lower(): value for key, value in self.headers.items()}
                outer._received.put(Received(self.path, headers, body))
                outer.asked.set()
                if outer.hangs:
                    outer._released.wait(PATIENCE)
                    return
                self.send_response(outer.status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def next(self, timeout: float = PATIENCE) -> Received:
        return self._received.get(timeout=timeout)

    def nothing_more(self) -> bool:
        return self._received.empty()

    def __enter__(self) -> "Receiver":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()


def verified(received: Received, secret: str) -> Any:
    """The payload, once the Standard Webhooks library has found the signature right."""
    return Webhook(secret).verify(received.body, received.headers)


@contextmanager
def slack(folder: Path) -> Iterator[tuple[Receiver, dict[str, str]]]:
    """hooks.slack.com, reached by a proxy, and the environment that leads there."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("hooks.slack.com").configure_cert(context)
    trusted = folder / "authority.pem"
    authority.cert_pem.write_to_path(str(trusted))
    with Receiver(context) as receiver:
        yield receiver, {"HTTPS_PROXY": receiver.url, "SSL_CERT_FILE": str(trusted)}


# ---- Alertmanager -------------------------------------------------------------------------------

_CONFIG = """
route: {{receiver: tests, group_by: [alertname, target], group_wait: 0s, group_interval: 1s}}
receivers: [{{name: tests, webhook_configs: [{{url: "{url}", send_resolved: true}}]}}]
"""


@dataclass
class Alertmanager:
    """Debian's prometheus-alertmanager, and what it passes on."""

    url: str
    passed_on: Receiver

    def alerts(self) -> list[dict[str, Any]]:
        """What it says is firing now."""
        return list(httpx.get(f"{self.url}/api/v2/alerts").json())

    def next(self, status: str) -> dict[str, Any]:
        """The next alert that it passes on with this status."""
        while True:
            told = self.passed_on.next().json
            if told["status"] == status:
                return dict(told["alerts"][0])


@contextmanager
def alertmanager(folder: Path) -> Iterator[Alertmanager]:
    program = shutil.which("prometheus-alertmanager")
    if program is None:
        pytest.skip("no prometheus-alertmanager here; Debian's package has that name")
    folder.mkdir()
    port = free_port()
    with Receiver() as receiver:
        (folder / "config.yml").write_text(_CONFIG.format(url=receiver.url))
        process = subprocess.Popen(
            [program, f"--config.file={folder}/config.yml", f"--storage.path={folder}/data",
             f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(f"{url}/-/ready")
            yield Alertmanager(url, receiver)
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if httpx.get(url).is_success:
                return
        except httpx.TransportError:
            assert time.monotonic() < deadline
        time.sleep(0.05)


# ---- GitHub -------------------------------------------------------------------------------------

_DESCRIPTION = Path(__file__).parent / "data" / "github-openapi.json"


@dataclass
class GitHub:
    """The part of GitHub's API that the agent uses, for the repository acme/shop.

    Every request, and every answer, is checked against GitHub's own OpenAPI description.
    """

    token: str
    app: str = ""
    public_key: bytes = b""
    down: bool = False
    url: str = ""
    deployments: list[dict[str, Any]] = field(default_factory=list)
    progress: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    """A deployment's number, and a status it was given."""
    statuses: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """A revision, and a status it was given."""
    faults: list[str] = field(default_factory=list)
    grown: threading.Condition = field(default_factory=threading.Condition)

    def answer(self, request: Request) -> Response:
        if self.down:
            return Response("down", 502)
        asked = WerkzeugOpenAPIRequest(request)
        try:
            self._api.validate_request(asked)
            answer = self._route(request)
            self._api.validate_response(asked, WerkzeugOpenAPIResponse(answer))
        except Exception as error:  # noqa: BLE001 - whatever is wrong, the test is told
            with self.grown:
                cause = error.__cause__ or error
                self.faults.append(f"{request.method} {request.path}: {error!r} {cause}")
                self.grown.notify_all()
            return Response("{}", 500, mimetype="application/json")
        with self.grown:
            self.grown.notify_all()
        return answer

    def _route(self, request: Request) -> Response:
        path = request.path.removeprefix("/api/v3")
        kind, given = request.headers["Authorization"].split(" ", 1)
        if path.startswith("/app/") or path.endswith("/installation"):
            known = jwt.decode(given, self.public_key, algorithms=["RS256"])
            assert (kind.lower(), known["iss"]) == ("bearer", self.app)
            return _json(_INSTALLATION if request.method == "GET" else {
                "token": self.token, "expires_at": "2030-01-01T00:00:00Z",
            }, request)  # fmt: skip
        assert given == self.token
        route = path.removeprefix("/repos/acme/shop")
        assert route != path
        if request.method == "GET":
            return _json(self._list(request), request)
        return _json(self._take(route, dict(request.json)), request)

    def _list(self, request: Request) -> list[dict[str, Any]]:
        asked = request.args
        return [
            one
            for one in self.deployments
            if (one["sha"], one["environment"]) == (asked["sha"], asked["environment"])
        ]

    def _take(self, route: str, given: dict[str, Any]) -> dict[str, Any]:
        if route == "/deployments":
            number = len(self.deployments) + 1
            self.deployments.append({**_DEPLOYMENT, **given, "id": number, "sha": given["ref"]})
            return self.deployments[-1]
        if route.startswith("/statuses/"):
            self.statuses.append((route.rpartition("/")[2], given))
            return {**_STATUS, **given}
        number = int(route.split("/")[2])
        assert 0 < number <= len(self.deployments)
        self.progress.append((number, given))
        return {**_DEPLOYMENT_STATUS, **given}

    def wait_for(self, statuses: int) -> None:
        """Until commits have been given so many statuses."""
        with self.grown:
            told = self.grown.wait_for(
                lambda: self.faults or len(self.statuses) >= statuses, PATIENCE
            )
        assert not self.faults, self.faults
        assert told, self

    def serve_at(self, url: str) -> None:
        self.url = url
        spec = json.loads(_DESCRIPTION.read_text())
        self._api = OpenAPI.from_dict({**spec, "servers": [{"url": url}]})


@contextmanager
def github(one: GitHub) -> Iterator[GitHub]:
    """Serve `one` as a GitHub Enterprise Server has its API, at /api/v3."""

    @Request.application
    def application(request: Request) -> Response:
        return one.answer(request)

    server = make_server("127.0.0.1", 0, application, threaded=True)
    one.serve_at(f"http://127.0.0.1:{server.server_port}/api/v3")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield one
    finally:
        server.shutdown()
        thread.join(PATIENCE)
        server.server_close()
        assert not one.faults, one.faults


def _json(content: Any, request: Request) -> Response:
    status = 200 if request.method == "GET" else 201
    return Response(json.dumps(content), status, mimetype="application/json")


_AT = "2026-01-01T00:00:00Z"
_URL = "https://github.example/x"
_DEPLOYMENT = {
    "url": _URL, "node_id": "n", "task": "deploy", "original_environment": "x",
    "description": None, "creator": None, "created_at": _AT, "updated_at": _AT,
    "statuses_url": _URL, "repository_url": _URL,
}  # fmt: skip
_DEPLOYMENT_STATUS = {
    "url": _URL, "id": 1, "node_id": "n", "creator": None, "description": "", "target_url": "",
    "created_at": _AT, "updated_at": _AT, "deployment_url": _URL, "repository_url": _URL,
}  # fmt: skip
_STATUS = {
    "url": _URL, "avatar_url": None, "id": 1, "node_id": "n", "target_url": None,
    "created_at": _AT, "updated_at": _AT, "creator": None,
}  # fmt: skip
_ACCOUNT = {
    "id": 1, "node_id": "n", "slug": "acme", "name": "Acme", "html_url": _URL, "avatar_url": _URL,
    "created_at": _AT, "updated_at": _AT,
}  # fmt: skip
_INSTALLATION = {
    "id": 7, "account": _ACCOUNT, "repository_selection": "all", "access_tokens_url": _URL,
    "repositories_url": _URL, "html_url": _URL, "app_id": 1, "target_id": 1,
    "target_type": "User", "permissions": {}, "events": [], "created_at": _AT,
    "updated_at": _AT, "single_file_name": None, "app_slug": "x", "suspended_by": None,
    "suspended_at": None,
}  # fmt: skip
