"""Eight bodies of 25 MB at once: what the memory grows by, beside adnanh/webhook's."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from tests.bench import receiver
from tests.bench.load import request_file
from tests.bench.programs import Program
from tests.bench.settings import Effort
from tests.bench.table import Aim, Row, under
from tests.remotes import Upstream, push_payload

_AT_ONCE = 8
_SIZE = 25 * 1024 * 1024 - 1024
_PIECE = 1 << 16
_ID = b"DELIVERY-ID"


def rows(root: Path, effort: Effort) -> Iterator[Row]:
    upstream = Upstream(root / "upstream")
    payload = push_payload(upstream.url, upstream.commit({"a": "1"}))
    size = max(1 << 20, int(_SIZE * effort.scale))
    ours, theirs = (
        request_file(root, path, payload, size).read_bytes()
        for path in ("/webhook/github", "/hooks/bench")
    )
    shapes: list[tuple[str, Callable[[bytes], bytes], list[int], Aim]] = [
        ("signed", lambda whole: whole, [202], under(40, "MB")),
        ("without a signature", _unsigned, [401], under(4, "MB")),
        ("longer than announced as legal", _too_long, [413], under(4, "MB")),
    ]
    with ExitStack() as running:
        agent = running.enter_context(receiver.agent(root / "agent", upstream.url))
        webhook = running.enter_context(receiver.webhook(root / "webhook", "nothing"))
        beside = _grown(webhook, theirs, [200])
        for what, change, answers, aim in shapes:
            grown = _grown(agent, change(ours), answers)
            yield Row.of(
                f"{_AT_ONCE} bodies of {size / 1e6:.0f} MB at once, {what}: memory over idle",
                "MB", [grown], "webhook, signed", [beside], aim,
            )  # fmt: skip


def _unsigned(whole: bytes) -> bytes:
    return whole.replace(b"X-Hub-Signature-256", b"X-Nothing-Of-The-So", 1)


def _too_long(whole: bytes) -> bytes:
    """In pieces, without a word of how many there will be."""
    head, _, body = whole.partition(b"\r\n\r\n")
    lines = [one for one in head.split(b"\r\n") if not one.startswith(b"Content-Length")]
    piece = b"%x\r\n%s\r\n" % (_PIECE, body[:_PIECE].ljust(_PIECE))
    many = 26 * 1024 * 1024 // _PIECE + 1
    more = [*lines, b"Transfer-Encoding: chunked", b"", b""]
    return b"\r\n".join(more) + piece * many + b"0\r\n\r\n"


def _grown(server: Program, request: bytes, answers: list[int]) -> float:
    """MB over what it had before, at the most, while so many are sent at once."""
    server.forget_peak()
    before = server.memory()
    got: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: got.append(_send(server.port, request, n)))
        for n in range(_AT_ONCE)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(set(got)) == answers, got
    return server.memory("VmHWM") - before


def _send(port: int, request: bytes, n: int) -> int:
    """Send it whole, whatever is answered meanwhile; the answer's status."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as one:
        one.sendall(request.replace(_ID, b"bodies-%d-%d" % (id(request), n), 1))
        return int(one.recv(4096).split()[1])
