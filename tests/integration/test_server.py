"""Deadlines and the cap on connections, over real sockets."""

import asyncio
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import tests.serving
from agent.connections import Head, Limits, Reply, Taker
from agent.errors import AgentError
from agent.server import Server, bind

REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
QUICK = Limits(headers=0.2, body=0.3, connections=64)


class App:
    """Reads the body and says what it was; `hold` keeps it from answering until it is set."""

    def __init__(self) -> None:
        self.disconnected = threading.Event()
        self.begun = threading.Event()
        self.hold: threading.Event | None = None
        self.answer_early = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun.set()
        body = b""
        while not self.answer_early:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.disconnected.set()
                return
            body += message["body"]
            if not message["more_body"]:
                break
        if self.hold:
            await asyncio.to_thread(self.hold.wait)
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@contextmanager
def serving(
    app: App, limits: Limits | None = QUICK, taker: Taker | None = None
) -> Iterator[tuple[str, int]]:
    with tests.serving.serving(app, limits, taker) as address:
        yield address


def connect(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, timeout=20)


def read_all(one: socket.socket) -> bytes:
    """Everything until the server closes."""
    received = b""
    try:
        while chunk := one.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass
    return received


def ask(one: socket.socket, request: bytes = REQUEST) -> bytes:
    """One answer, on a connection that stays open."""
    one.sendall(request)
    received = b""
    while not received.endswith(b"\r\n\r\nhello"):
        chunk = one.recv(65536)
        assert chunk, received
        received += chunk
    return received


@pytest.fixture
def app() -> App:
    return App()


def test_a_request_is_answered_and_the_connection_kept(app: App) -> None:
    with serving(app) as address, connect(address) as one:
        for _ in range(3):
            assert ask(one).startswith(b"HTTP/1.1 200 OK")


def test_pipelined_requests_are_each_answered(app: App) -> None:
    with serving(app) as address, connect(address) as one:
        one.sendall(REQUEST * 3)
        received = b""
        while received.count(b"\r\n\r\nhello") < 3:
            received += one.recv(65536)
        assert received.count(b"200 OK") == 3


def test_a_silent_connection_is_closed_without_a_word(app: App) -> None:
    with serving(app) as address, connect(address) as one:
        assert read_all(one) == b""


def test_half_a_head_gets_a_408(app: App) -> None:
    with serving(app) as address, connect(address) as one:
        one.sendall(b"POST / HTTP/1.1\r\nHost:")
        assert read_all(one).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("start", [b"", REQUEST[:-5].replace(b"5", b"50000")], ids=["head", "body"])
def test_a_byte_now_and_then_buys_no_time(app: App, start: bytes) -> None:
    with serving(app) as address, connect(address) as one:
        one.sendall(start)
        one.settimeout(0.02)
        received = b""
        for _ in range(1000):
            try:
                one.send(b"x")
                chunk = one.recv(1000)
            except TimeoutError:
                continue
            except OSError:
                break
            received += chunk
            if not chunk:
                break
        else:
            pytest.fail("it went on for ever")
        assert received.startswith(b"HTTP/1.1 40")


def test_half_a_body_gets_a_408_and_the_application_a_disconnect(app: App) -> None:
    with serving(app) as address, connect(address) as one:
        one.sendall(REQUEST[:-2])
        assert read_all(one).startswith(b"HTTP/1.1 408 ")
        assert app.disconnected.wait(10)


def test_an_answered_request_whose_body_never_ends_is_closed(app: App) -> None:
    app.answer_early = True
    with serving(app) as address, connect(address) as one:
        one.sendall(REQUEST[:-2])
        received = read_all(one)
        assert received.startswith(b"HTTP/1.1 200 OK")
        assert b"408" not in received


def test_the_rest_of_an_answered_body_is_read_away(app: App) -> None:
    app.answer_early = True
    with serving(app) as address, connect(address) as one:
        one.sendall(REQUEST[:-2])
        assert one.recv(1000).startswith(b"HTTP/1.1 200 OK")
        app.answer_early = False
        one.sendall(REQUEST[-2:])
        assert ask(one).startswith(b"HTTP/1.1 200 OK")


def test_an_idle_connection_is_closed(app: App) -> None:
    with serving(app) as address, connect(address) as one:
        ask(one)
        assert read_all(one) == b""


def test_a_head_without_end_is_refused(app: App) -> None:
    with serving(app, Limits()) as address, connect(address) as one:
        one.sendall(b"GET / HTTP/1.1\r\n" + b"X-Y: " + b"z" * 70_000)
        assert read_all(one).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("asked", ["taken", "not taken"])
@pytest.mark.parametrize(
    ("begun", "more"),
    [
        (b"1\r\na\r\n0\r\n", b"X-A: " + b"z" * 1017 + b"\r\n"),
        (b"1\r\na\r\n0\r\nX-A: ", b"z" * 1024),
        (b"1;", b"z" * 1024),
    ],
    ids=["trailers", "a trailer", "an extension"],
)
def test_what_comes_beside_a_body_has_an_end(
    app: App, clerk: "Clerk", asked: str, begun: bytes, more: bytes
) -> None:
    """Of what is kept of it no deadline would be short enough."""
    patient = Limits(headers=60, body=60, connections=64)
    path = b"/taken" if asked == "taken" else b"/"
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % path
    with serving(app, patient, clerk.take) as address, connect(address) as one:
        one.sendall(head + begun)
        with pytest.raises(OSError, match="reset|Broken pipe"):
            for _ in range(1024):
                one.sendall(more * 64)


def test_trailers_are_passed_over(app: App) -> None:
    request = (
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n0\r\nX-A: b\r\n\r\n"
    )
    with serving(app) as address, connect(address) as one:
        for _ in range(2):
            assert ask(one, request).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    "rubbish",
    [b"hello\r\n\r\n", b"\x16\x03\x01\x00\xa5", b"GET  HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n",
     b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"GET http://[ HTTP/1.1\r\n\r\n",
     b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"],
)  # fmt: skip
def test_what_is_not_http_is_refused(app: App, rubbish: bytes) -> None:
    with serving(app) as address, connect(address) as one:
        one.sendall(rubbish)
        received = read_all(one)
        assert not received.startswith(b"HTTP/1.1 2")
        with connect(address) as other:
            assert ask(other)


@pytest.mark.parametrize("words", [b"", b"POST / HTTP/1.1\r\nHost: x", REQUEST[:-1]])
def test_waiting_connections_make_room(app: App, words: bytes) -> None:
    patient = Limits(headers=60, body=60, connections=32)
    with serving(app, patient) as address, ExitStack() as crowd:
        waiting = [crowd.enter_context(connect(address)) for _ in range(32)]
        for one in waiting:
            one.sendall(words)
        for _ in range(100):
            crowd.enter_context(connect(address)).sendall(words)
            with connect(address) as real:
                assert ask(real).startswith(b"HTTP/1.1 200 OK")
        assert read_all(waiting[0]) == b""


def test_who_is_being_answered_is_not_sent_away(app: App) -> None:
    app.hold = threading.Event()
    patient = Limits(headers=60, body=60, connections=8)
    with serving(app, patient) as address, connect(address) as real, ExitStack() as crowd:
        real.sendall(REQUEST)
        assert app.begun.wait(10)
        for _ in range(50):
            crowd.enter_context(connect(address))
        app.hold.set()
        assert real.recv(1000).startswith(b"HTTP/1.1 200 OK")


def test_a_stop_finishes_what_is_being_answered(app: App) -> None:
    app.hold = threading.Event()
    answered: list[bytes] = []
    with serving(app, Limits()) as address:
        one = connect(address)
        one.sendall(REQUEST)
        assert app.begun.wait(10)
        reader = threading.Thread(target=lambda: answered.append(read_all(one)))
        reader.start()
        threading.Timer(0.3, app.hold.set).start()
    reader.join(10)
    one.close()
    assert answered[0].startswith(b"HTTP/1.1 200 OK")


def test_without_limits_nobody_is_hurried(app: App) -> None:
    with serving(app, None) as address, connect(address) as one:
        one.sendall(REQUEST[:-1])
        assert app.begun.wait(10)
        one.sendall(REQUEST[-1:])
        assert one.recv(1000).startswith(b"HTTP/1.1 200 OK")


# ---- the short path ---------------------------------------------------------------------------


class Clerk:
    """Takes what is posted to /taken: says what the body was, or waits until it is told to."""

    def __init__(self) -> None:
        self.heads: list[Head] = []
        self.lost = threading.Event()
        self.waits = False
        self.begun = threading.Event()
        self.refuses = False
        self.fails = False
        self.replies: list[Callable[[], None]] = []

    def take(self, head: Head, reply: Reply) -> "Job | None":
        if head.path != b"/taken":
            return None
        self.heads.append(head)
        return Job(self, reply)


class Job:
    def __init__(self, clerk: Clerk, reply: Reply) -> None:
        self.clerk = clerk
        self.reply = reply
        self.body = b""

    def begin(self) -> None:
        if self.clerk.fails:
            raise KeyError("a fault of ours")
        if self.clerk.refuses:
            self.reply(401, b"no")

    def feed(self, chunk: bytes) -> None:
        self.body += chunk

    def complete(self) -> None:
        loop = asyncio.get_running_loop()
        self.clerk.replies.append(
            lambda: loop.call_soon_threadsafe(self.reply, 202, self.body) and None
        )
        if not self.clerk.waits:
            self.reply(202, self.body)
        self.clerk.begun.set()

    def lost(self) -> None:
        self.clerk.lost.set()


TAKEN = REQUEST.replace(b"POST / ", b"POST /taken?x=1 ")


@pytest.fixture
def clerk() -> Clerk:
    return Clerk()


def test_what_is_taken_does_not_reach_the_application(app: App, clerk: Clerk) -> None:
    with serving(app, QUICK, clerk.take) as address, connect(address) as one:
        for _ in range(3):
            answer = ask(one, TAKEN)
            assert answer.startswith(b"HTTP/1.1 202 Accepted\r\n")
            assert b"content-type: application/json\r\ncontent-length: 5\r\n" in answer
        assert not app.begun.is_set()
        assert ask(one).startswith(b"HTTP/1.1 200 OK")
        assert ask(one, TAKEN).startswith(b"HTTP/1.1 202")
    head = clerk.heads[0]
    assert (head.method, head.path, head.client) == (b"POST", b"/taken", "127.0.0.1")
    assert (b"content-length", b"5") in head.headers


def test_a_chunked_body_is_fed_as_it_comes(app: App, clerk: Clerk) -> None:
    with serving(app, QUICK, clerk.take) as address, connect(address) as one:
        one.sendall(b"POST /taken HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n")
        assert ask(one, b"2\r\nlo\r\n0\r\n\r\n").startswith(b"HTTP/1.1 202")


def test_who_asks_whether_to_go_on_is_told_so(app: App, clerk: Clerk) -> None:
    asking = TAKEN.replace(b"\r\n\r\nhello", b"\r\nExpect: 100-continue\r\n\r\n")
    with serving(app, QUICK, clerk.take) as address, connect(address) as one:
        one.sendall(asking)
        assert one.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert ask(one, b"hello").startswith(b"HTTP/1.1 202")
        clerk.refuses = True
        one.sendall(asking)
        assert one.recv(1000).startswith(b"HTTP/1.1 401 ")


def test_half_a_taken_body_gets_a_408_and_is_told_as_lost(app: App, clerk: Clerk) -> None:
    with serving(app, QUICK, clerk.take) as address, connect(address) as one:
        one.sendall(TAKEN[:-2])
        assert read_all(one).startswith(b"HTTP/1.1 408 ")
        assert clerk.lost.wait(10)


def test_the_rest_of_a_refused_body_is_read_away_in_its_time(app: App, clerk: Clerk) -> None:
    clerk.refuses = True
    with serving(app, QUICK, clerk.take) as address:
        with connect(address) as one:
            one.sendall(TAKEN[:-2])
            assert one.recv(1000).startswith(b"HTTP/1.1 401 ")
            clerk.refuses = False
            one.sendall(TAKEN[-2:])
            assert ask(one, TAKEN).startswith(b"HTTP/1.1 202 ")
        clerk.refuses = True
        with connect(address) as one:
            one.sendall(TAKEN[:-2])
            received = read_all(one)
            assert received.startswith(b"HTTP/1.1 401 ")
            assert b"408" not in received
    assert not clerk.lost.is_set()


def test_a_fault_in_taking_is_a_500(
    app: App, clerk: Clerk, capsys: pytest.CaptureFixture[str]
) -> None:
    clerk.fails = True
    with serving(app, QUICK, clerk.take) as address, connect(address) as one:
        one.sendall(TAKEN)
        assert one.recv(1000).startswith(b"HTTP/1.1 500 ")
    assert "a fault of ours" in capsys.readouterr().out


@pytest.mark.parametrize("behind", [TAKEN, REQUEST])
def test_a_request_behind_one_that_waits_closes_after_that(
    app: App, clerk: Clerk, behind: bytes
) -> None:
    clerk.waits = True
    with serving(app, QUICK, clerk.take) as address, connect(address) as one:
        one.sendall(TAKEN + behind)
        assert clerk.begun.wait(10)
        clerk.replies[0]()
        received = read_all(one)
        assert received.startswith(b"HTTP/1.1 202 ")
        assert received.count(b"HTTP/1.1") == 1
        assert b"connection: close" in received
    assert len(clerk.heads) == 1


def test_a_taken_request_behind_the_application_s_closes_after_that(app: App, clerk: Clerk) -> None:
    app.hold = threading.Event()
    with serving(app, QUICK, clerk.take) as address, connect(address) as one:
        one.sendall(REQUEST + TAKEN)
        assert app.begun.wait(10)
        app.hold.set()
        received = read_all(one)
        assert received.startswith(b"HTTP/1.1 200 ")
        assert received.count(b"HTTP/1.1") == 1
    assert clerk.heads == []


def test_an_older_client_s_connection_is_closed(app: App, clerk: Clerk) -> None:
    with serving(app, QUICK, clerk.take) as address, connect(address) as one:
        one.sendall(TAKEN.replace(b"HTTP/1.1", b"HTTP/1.0"))
        received = read_all(one)
        assert received.startswith(b"HTTP/1.1 202 ")
        assert b"connection: close" in received


def test_a_stop_finishes_what_was_taken(app: App, clerk: Clerk) -> None:
    clerk.waits = True
    answered: list[bytes] = []
    with serving(app, Limits(), clerk.take) as address:
        one = connect(address)
        one.sendall(TAKEN)
        assert clerk.begun.wait(10)
        reader = threading.Thread(target=lambda: answered.append(read_all(one)))
        reader.start()
        threading.Timer(0.3, clerk.replies[0]).start()
    reader.join(10)
    one.close()
    assert answered[0].startswith(b"HTTP/1.1 202 ")


@pytest.mark.parametrize("request_", [REQUEST, TAKEN], ids=["application", "short path"])
def test_who_was_let_in_before_a_stop_may_still_ask_once(
    app: App, clerk: Clerk, request_: bytes
) -> None:
    answered: list[bytes] = []

    def ask_once_it_stops(address: tuple[str, int], one: socket.socket) -> None:
        # Refused, or reset where it stood in the queue of a socket that was just closed.
        with suppress(ConnectionError):
            while True:
                connect(address).close()
        one.sendall(request_)
        answered.append(read_all(one))

    with serving(app, Limits(), clerk.take) as address:
        one = connect(address)
        with connect(address) as other:
            # In their order: once this one is answered, the one before was let in.
            assert ask(other, TAKEN).startswith(b"HTTP/1.1 202 ")
        late = threading.Thread(target=ask_once_it_stops, args=(address, one))
        late.start()
    late.join(10)
    one.close()
    assert answered[0].startswith(b"HTTP/1.1 20")
    assert b"connection: close" in answered[0]


def test_a_reply_to_who_has_left_goes_nowhere(app: App, clerk: Clerk) -> None:
    clerk.waits = True
    with serving(app, QUICK, clerk.take) as address:
        with connect(address) as one:
            one.sendall(TAKEN)
            assert clerk.begun.wait(10)
        assert clerk.lost.wait(10)
        clerk.replies[0]()
        clerk.waits = False
        with connect(address) as other:
            assert ask(other, TAKEN).startswith(b"HTTP/1.1 202 ")


# ---- sockets ----------------------------------------------------------------------------------


def test_a_unix_socket_has_its_mode(tmp_path: Path) -> None:
    with bind(f"unix:{tmp_path}/s", mode=0o660) as one:
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o660
        assert not one.getblocking()
        assert not os.get_inheritable(one.fileno())


def test_a_stale_one_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    bind(f"unix:{tmp_path}/s").close()
    with bind(f"unix:{tmp_path}/s"), pytest.raises(AgentError, match="somebody listens"):
        bind(f"unix:{tmp_path}/s")


def test_a_file_that_is_no_socket_is_left(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("mine")
    with pytest.raises(AgentError, match="is no socket"):
        bind(f"unix:{tmp_path}/s")
    assert (tmp_path / "s").read_text() == "mine"


@pytest.mark.parametrize("address", ["192.0.2.1:80", "[2001:db8::1]:80", "unix:/no/such/folder/s"])
def test_an_address_that_cannot_be_had_says_so(address: str) -> None:
    with pytest.raises(AgentError, match="cannot listen on"):
        bind(address)


def test_where_it_listens_is_told(tmp_path: Path) -> None:
    with bind("127.0.0.1:0") as tcp, bind(f"unix:{tmp_path}/s") as unix, bind("[::1]:0") as six:
        names = Server(App(), [tcp, unix, six], None).addresses()
        assert names[0] == f"127.0.0.1:{tcp.getsockname()[1]}"
        assert names[1] == f"unix:{tmp_path}/s"
        assert names[2] == f"[::1]:{six.getsockname()[1]}"
