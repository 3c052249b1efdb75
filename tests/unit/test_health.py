"""The built-in health check, against a real server whose answers are set one by one."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from agent import health
from agent.cancel import Cancel
from agent.model import Verify
from tests.remotes import certificate


class Answers(ThreadingHTTPServer):
    """Gives the statuses of `plan` in turn, the last one for ever."""

    def __init__(self, *plan: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.plan = list(plan)
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/health?deep=1"


class _Handler(BaseHTTPRequestHandler):
    server: Answers

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        plan = self.server.plan
        status = plan.pop(0) if len(plan) > 1 else plan[0]
        self.send_response(status)
        self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def answering(*plan: int) -> Iterator[Answers]:
    with Answers(*plan) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_EVERY", 0.01)


def watch(
    check: Verify, limit: float = 60.0, cancel: Cancel | None = None
) -> tuple[str | None, list[str]]:
    said: list[str] = []
    return health.watch(check, limit, cancel or Cancel(), said.append), said


def test_good_answers_for_a_while_are_good() -> None:
    with answering(503, 503, 200) as server:
        wrong, said = watch(Verify(server.url, within=60, stable_for=0.05))
        assert wrong is None
        assert [line.rsplit(" ", 1)[1] for line in said] == ["503", "200"]
        assert len(server.asked) > 3
        assert set(server.asked) == {"/health?deep=1"}


def test_a_bad_answer_begins_the_wait_anew_while_there_is_time() -> None:
    with answering(200, 500, 200) as server:
        wrong, said = watch(Verify(server.url, within=60, stable_for=0.05))
        assert wrong is None
        assert [line.rsplit(" ", 1)[1] for line in said] == ["200", "500", "200"]


def test_a_bad_answer_after_that_is_the_end() -> None:
    with answering(200, 500) as server:
        wrong, _ = watch(Verify(server.url, within=0, stable_for=60))
        assert wrong
        assert "answers 500, not 200" in wrong


def test_one_that_never_is_good_is_given_up() -> None:
    with answering(404) as server:
        wrong, _ = watch(Verify(server.url, within=0.02, stable_for=0))
        assert wrong
        assert f"{server.url} answers 404, not 200" in wrong


def test_the_deployment_s_own_time_is_a_limit_too() -> None:
    with answering(200) as server:
        wrong, _ = watch(Verify(server.url, within=60, stable_for=60), limit=0.02)
        assert wrong
        assert "answers 200, but the deployment has no time left" in wrong


def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    with answering(302) as server:
        assert watch(Verify(server.url, expect=302, stable_for=0))[0] is None
        assert len(server.asked) == 1


def test_nobody_there_is_told_as_such() -> None:
    with answering(200) as server:
        url = server.url
    wrong, _ = watch(Verify(url, within=0))
    assert wrong
    assert "Connection refused" in wrong


def test_a_cancel_ends_the_wait() -> None:
    cancel = Cancel()
    cancel.set()
    with answering(503) as server:
        assert watch(Verify(server.url, within=60), cancel=cancel)[0] == "canceled"
    cancel.close()


# ---- servers that are none ----------------------------------------------------------------------


@contextmanager
def connected(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """The URL of a server that does `serve` with each connection, until the other side ends it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def work() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection, suppress(OSError):
                        serve(connection)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def without_end(text: bytes) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        while True:
            connection.sendall(text)

    return serve


def silent(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


@pytest.mark.parametrize(
    "serve", [silent, without_end(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")]
)
def test_one_that_comes_to_no_status_is_waited_for_no_longer(
    monkeypatch: pytest.MonkeyPatch, serve: Callable[[socket.socket], None]
) -> None:
    monkeypatch.setattr(health, "_LONGEST_ANSWER", 0.2)
    with connected(serve) as at:
        assert watch(Verify(f"http://{at}", within=0))[0] is not None
        _, said = watch(Verify(f"http://{at}", within=0))
        assert said[0].endswith("answers nothing (within 0.2 s)")


def test_of_an_answer_nothing_but_its_status_is_read() -> None:
    with connected(without_end(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(1024))) as at:
        assert watch(Verify(f"http://{at}", stable_for=0))[0] is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"SSH-2.0-x\r\n", "no HTTP but b'SSH-2.0-x"),
        (b"HTTP/1.1 2000 OK\r\n", "no HTTP but"),
        (b"x" * 100_000, "Separator is not found"),
    ],
)
def test_what_is_no_http_is_told_as_such(text: bytes, why: str) -> None:
    with connected(without_end(text)) as at:
        wrong, _ = watch(Verify(f"http://{at}", within=0))
        assert wrong
        assert why in wrong


def test_a_certificate_that_nobody_knows_is_not_good_enough(tmp_path: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate(tmp_path)[0])

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            secured.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    with connected(serve) as at:
        wrong, _ = watch(Verify(f"https://{at}", within=0))
    assert wrong
    assert "certificate verify failed: self-signed certificate" in wrong


def test_a_cancel_ends_the_wait_for_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_LONGEST_ANSWER", 3600.0)
    cancel = Cancel()

    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        cancel.set()
        silent(connection)

    with connected(serve) as at:
        assert watch(Verify(f"http://{at}"), cancel=cancel) == ("canceled", [])
    cancel.close()
