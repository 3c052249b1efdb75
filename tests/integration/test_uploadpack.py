"""Remotes that are asked in this process: by real git over smart HTTP, and by servers that err."""

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from agent import uploadpack
from agent.mirror import Tips
from agent.model import GitAccess, Secret, Source
from agent.uploadpack import Asker, Connection
from tests.remotes import HttpRemote, Upstream, certificate, serve_http

MAIN = "refs/heads/main"
A, B = "a" * 40, "b" * 40


def ask(source: Source) -> Tips | None:
    async def once() -> Tips | None:
        asker = Asker()
        try:
            async with asyncio.timeout(30):
                return await asker.tips(source, [MAIN])
        finally:
            await asker.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(once())


def test_other_remotes_are_not_asked(upstream: Upstream) -> None:
    upstream.commit({"a": "1"})
    assert ask(Source(upstream.url)) is None
    assert ask(Source("ssh://127.0.0.1:9/shop.git")) is None


def test_the_token_is_sent_there_and_nowhere_else(
    tmp_path: Path, upstream: Upstream, http_remote: HttpRemote
) -> None:
    a = upstream.commit({"a": "1"})
    file = tmp_path / "token"
    source = Source(http_remote.url(), GitAccess(Secret("a token", path=file)))
    http_remote.token = "the token"
    file.write_text("another\n")
    assert ask(source) is None
    file.write_text("the token\n")
    assert ask(source) == {MAIN: a}
    file.unlink()
    assert ask(source) is None
    file.write_text("the token\n")
    with serve_http(tmp_path) as elsewhere:
        http_remote.redirect_to = f"http://localhost:{elsewhere.port}"
        assert ask(source) is None
        assert elsewhere.requests == []


def test_https_to_whom_git_on_this_host_trusts(
    tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = upstream.commit({"a": "1"})
    both, authorities = certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(both)
    with serve_http(upstream.path.parent, tls=tls) as remote:
        source = Source(f"https://127.0.0.1:{remote.port}/shop.git")
        assert ask(source) is None
        monkeypatch.setenv("GIT_SSL_CAINFO", str(authorities))
        assert ask(source) == {MAIN: a}
        assert ask(Source(source.url.replace("127.0.0.1", "localhost"))) is None


def test_where_a_proxy_is_wanted_git_asks_it(
    upstream: Upstream, http_remote: HttpRemote, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = upstream.commit({"a": "1"})
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert ask(Source(http_remote.url())) is None
    assert http_remote.requests == []
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert ask(Source(http_remote.url())) == {MAIN: a}


def test_a_remote_that_hangs_has_its_time(
    upstream: Upstream, http_remote: HttpRemote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploadpack, "_DEADLINE", 0.2)
    http_remote.hang = True
    assert ask(Source(http_remote.url())) is None


def test_too_long_an_answer_is_none(
    upstream: Upstream, http_remote: HttpRemote, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.commit({"a": "1"})
    monkeypatch.setattr(uploadpack, "_MOST_BYTES", 10)
    assert ask(Source(http_remote.url())) is None


def test_nobody_listens() -> None:
    assert ask(Source("http://127.0.0.1:9/shop.git")) is None
    assert ask(Source("https://127.0.0.1:9/shop.git")) is None


# ---- servers that err, and connections --------------------------------------------------------


def answer(revision: str, status: str = "200 OK", kind: str = "", more: str = "") -> bytes:
    """What a git server says of the branch."""
    line = f"{len(revision) + len(MAIN) + 6:04x}{revision} {MAIN}\n0000"
    kind = kind or "application/x-git-upload-pack-result"
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{more}Content-Length: {len(line)}\r\n"
    return f"{head}\r\n{line}".encode()


class Scripted:
    """A server with an answer for each request, in their order; after the last it hangs up."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)
        self._connections = 0
        self.asked: list[int] = []
        """For each request, which connection it came over."""
        self.heads: list[bytes] = []
        self.left = asyncio.Event()
        """Set when one has closed its connection."""

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        number, self.writer = self._connections, writer
        try:
            while self._answers:
                head = await reader.readuntil(b"\r\n\r\n")
                size = re.search(rb"Content-Length: ([0-9]+)", head)
                await reader.readexactly(int(size[1]) if size else 0)
                self.asked.append(number)
                self.heads.append(head)
                writer.write(self._answers.pop(0))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left.set()
        writer.close()


Ask = Callable[..., Awaitable[Tips | None]]


def with_server(server: Scripted, ask: Callable[[Ask], Awaitable[None]]) -> None:
    """Run `ask`, which is given a way to ask that server."""

    async def main() -> None:
        asker = Asker()
        listening = await asyncio.start_server(server.talk, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        host = f"http://ada@127.0.0.1:{port}"
        try:
            async with asyncio.timeout(20):
                await ask(lambda path="/shop.git": asker.tips(Source(f"{host}{path}"), [MAIN]))
        finally:
            await asker.close()
            listening.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_no_address_says_more_than_its_request_line() -> None:
    server = Scripted(answer(A))

    async def ask(one: Ask) -> None:
        for path in ("/a b.git", "/ü.git", "/shop.git?x=1", "/x\r\nX: y", "/x\x7f"):
            assert await one(path) is None

    with_server(server, ask)
    assert server.asked == []


def test_many_questions_go_over_one_connection() -> None:
    server = Scripted(answer(A), answer(B))

    async def ask(one: Ask) -> None:
        assert [await one(), await one()] == [{MAIN: A}, {MAIN: B}]

    with_server(server, ask)
    assert server.asked == [1, 1]
    assert all(b"\r\nHost: 127.0.0.1:" in head for head in server.heads)


@pytest.mark.parametrize(
    "odd",
    [
        answer(A, "302 Found", more="Location: http://127.0.0.1:9/shop.git\r\n"),
        answer(A, "401 Unauthorized"),
        answer(A, "404 Not Found"),
        answer(A, kind="text/html"),
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    ],
)
def test_after_an_odd_answer_the_next_question_has_a_connection_of_its_own(
    odd: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    server = Scripted(odd, answer(B))

    async def ask(one: Ask) -> None:
        assert [await one(), await one()] == [None, {MAIN: B}]

    with_server(server, ask)
    assert server.asked == [1, 2]
    assert caplog.records == []


@pytest.mark.parametrize("said", [b"", answer(A)[:-4]])
def test_one_that_is_hung_up_on_is_no_answer(said: bytes) -> None:
    async def ask(one: Ask) -> None:
        assert await one() is None

    with_server(Scripted(said), ask)


def test_who_says_that_it_closes_is_not_asked_there_again() -> None:
    server = Scripted(answer(A, more="Connection: close\r\n"), answer(B))

    async def ask(one: Ask) -> None:
        assert [await one(), await one()] == [{MAIN: A}, {MAIN: B}]

    with_server(server, ask)
    assert server.asked == [1, 2]


def test_an_idle_connection_that_is_closed_is_not_used_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, lose = Scripted(answer(A), answer(B)), Connection.connection_lost

    async def ask(one: Ask) -> None:
        lost = asyncio.Event()
        monkeypatch.setattr(Connection, "connection_lost", lambda *told: (lose(*told), lost.set()))
        assert await one() == {MAIN: A}
        server.writer.close()
        await lost.wait()
        assert await one() == {MAIN: B}

    with_server(server, ask)
    assert server.asked == [1, 2]


def test_who_speaks_unasked_is_left() -> None:
    server = Scripted(answer(A), answer(B))

    async def ask(one: Ask) -> None:
        assert await one() == {MAIN: A}
        server.writer.write(answer(A))
        await server.left.wait()
        assert await one() == {MAIN: B}

    with_server(server, ask)
    assert server.asked == [1, 2]


def test_an_answer_that_nobody_waits_for_any_more_is_not_the_next_one_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Scripted(b"", answer(B))

    async def ask(one: Ask) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(uploadpack, "_DEADLINE", 0.05)
            assert await one() is None
        assert await one() == {MAIN: B}

    with_server(server, ask)
    assert server.asked == [1, 2]
