"""The commands' side of the control socket: what else may be behind it, and how that is told."""

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from agent.client import Client
from agent.errors import AgentError


@contextmanager
def answering(body: bytes, status: int = 200) -> Iterator[Client]:
    """A client of a socket behind which everything is answered with `body`."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with TemporaryDirectory(dir="/tmp") as folder:
        path = Path(folder, "control.sock")
        with socketserver.UnixStreamServer(str(path), Answer) as server:
            serving = threading.Thread(
                target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
            )
            serving.start()
            try:
                with Client(path) as client:
                    yield client
            finally:
                server.shutdown()
                serving.join()


@pytest.mark.parametrize(
    ("body", "ask"),
    [
        (b"[]", lambda one: one.status()),
        (b"null", lambda one: one.deployment("d1")),
        (b'{"target": "shop"}', lambda one: one.history("shop", 1)),
        (b"[1, 2]", lambda one: one.looks(None, 1)),
        (b'"ok"', lambda one: one.doctor(None)),
        (b'{"number": 7}', lambda one: one.sync("shop", "ada", force=False)),
        (b'{"request": "seven"}', lambda one: one.rollback("shop", "ada", None)),
        (b"{}", lambda one: one.resume("shop", "ada")),
        (b"<html>another server</html>", lambda one: one.diff("shop")),
        (b"\xff\xfe", lambda one: one.result(1, 0.0)),
        (b"7\n", lambda one: list(one.log("d1", follow=False))),
        (b"not JSON\n", lambda one: list(one.log("d1", follow=True))),
    ],
)
def test_an_agent_of_another_version_is_said_to_be_one(
    body: bytes, ask: Callable[[Client], Any]
) -> None:
    with answering(body) as client, pytest.raises(AgentError) as told:
        ask(client)
    assert str(told.value).startswith("what answers on /tmp/")
    assert "control.sock is no agent of this version (" in str(told.value)
    assert str(told.value).endswith("; restart it if it was upgraded")


def test_what_is_of_the_shape_is_read() -> None:
    accepted = {"request": 7, "target": "shop", "goal": "abc", "subject": "", "later": True}
    with answering(json.dumps(accepted).encode()) as client:
        assert client.sync("shop", "ada", force=True).request == 7
        assert client.rollback("shop", "ada", "abc").goal == "abc"
    with answering(b"") as client:
        client.cancel("shop", "ada")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"detail": "there is no target x"}', "there is no target x"),
        (b'{"error": "another shape"}', '{"error": "another shape"}'),
        (b"Bad Gateway", "Bad Gateway"),
        (b"[]", "[]"),
    ],
)
def test_a_refusal_is_told_in_its_own_words(body: bytes, told: str) -> None:
    with answering(body, 400) as client:
        for ask in (client.status, lambda: list(client.log("d1", follow=False))):
            with pytest.raises(AgentError) as error:
                ask()
            assert str(error.value) == told
