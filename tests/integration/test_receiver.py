"""The contract's table of answers, over real sockets and with a real inbox."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest

from agent import plan
from agent.connections import Limits
from agent.errors import JournalUnavailable
from agent.forges.signature import Refusal
from agent.inbox import Inbox
from agent.model import Letter, Target, Webhook
from agent.receiver import MOST_BYTES, Receiver, public_app
from tests.remotes import delivery, push_payload, sign
from tests.serving import serving

OLD, NEW = "the old secret, still valid", "the new secret, not everywhere"
URL = "https://github.com/acme/shop.git"
SHA = "ab" * 20


class House:
    def __init__(self, root: Path) -> None:
        self.inbox = Inbox(root)
        self.letters: list[Letter] = []
        self.healthy = True
        self.receiver = Receiver(self.inbox, self.letters.append, lambda: 1000.0)
        webhook = Webhook("github", "github", (NEW.encode(), OLD.encode()))
        targets = [
            Target("shop", URL, "main", Path("/srv/shop"), None, 60.0),
            Target("copy", "git@github.com:acme/shop.git", "main", Path("/srv/copy"), None, 60.0),
        ]
        self.receiver.track({"github": webhook}, plan.Routes(targets))
        self.client = httpx.Client(timeout=20)

    @contextmanager
    def open(self) -> Iterator[None]:
        app = public_app(self.receiver, lambda: self.healthy)
        with serving(app, Limits(), self.receiver.take) as (host, port), self.client:
            self.client.base_url = httpx.URL(f"http://{host}:{port}")
            yield

    def send(self, event: str = "push", payload=None, secret: str = NEW, **options):
        payload = push_payload(URL, SHA) if payload is None else payload
        headers, body = delivery(event, payload, secret, **options)
        return self.client.post("/webhook/github", content=body, headers=headers)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    one = House(tmp_path)
    with one.open():
        yield one
    one.inbox.close()


def test_a_push_is_queued_once_it_is_on_disk(house: House) -> None:
    answer = house.send(number="id-1")
    assert answer.status_code == 202
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"status": "queued", "delivery": "id-1", "targets": ["shop", "copy"]}
    assert house.letters == [Letter(1, "id-1", SHA, ("shop", "copy"), 1000.0)]
    assert house.inbox.after(0).result() == house.letters


def test_the_same_delivery_again_is_a_duplicate(house: House) -> None:
    house.send(number="id-1")
    answer = house.send(number="id-1")
    assert answer.status_code == 200
    assert answer.json() == {"status": "duplicate", "delivery": "id-1", "targets": ["shop", "copy"]}
    assert len(house.letters) == 1


def test_a_request_for_the_whole_url_is_the_same(house: House) -> None:
    """As to a proxy; a server has to take it (RFC 9112, 3.2.2)."""
    headers, body = delivery("push", push_payload(URL, SHA), NEW)
    whole = {"target": b"http://deploy.example.org/webhook/github"}
    answer = house.client.post("/", headers=headers, content=body, extensions=whole)
    assert answer.status_code == 202


def test_a_form_is_the_same(house: House) -> None:
    assert house.send(form=True).status_code == 202


def test_an_older_secret_still_matches(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    assert house.send(secret=OLD).status_code == 202
    assert "secret=1" in capsys.readouterr().out


def test_ping(house: House) -> None:
    answer = house.send("ping", {"zen": "Design for failure.", "hook_id": 1})
    assert (answer.status_code, answer.json()) == (200, {"status": "pong"})
    assert house.receiver.tally.verified == {"github": 1000.0}


@pytest.mark.parametrize(
    ("event", "payload", "reason"),
    [
        ("push", push_payload(URL, SHA, "refs/heads/other"), "no target tracks this branch"),
        ("push", push_payload(URL, SHA, "refs/tags/main"), "not a branch"),
        ("push", push_payload(URL, "0" * 40), "the branch was deleted"),
        (
            "push",
            push_payload("https://github.com/acme/x", SHA),
            "no target tracks this repository",
        ),
        ("issues", {"action": "opened"}, "the agent has no use for issues events"),
    ],
)
def test_what_is_ignored_says_why(house: House, event, payload, reason) -> None:
    answer = house.send(event, payload)
    assert (answer.status_code, answer.json()) == (200, {"status": "ignored", "reason": reason})
    assert house.letters == []
    assert house.receiver.tally.ignored == {("github", reason): 1}


def test_every_forgery_gets_one_answer(house: House) -> None:
    headers, body = delivery("push", push_payload(URL, SHA), NEW)
    right = headers["X-Hub-Signature-256"]
    answers = set()
    for wrong in (
        None,
        "",
        "sha256=",
        "sha256=" + "0" * 64,
        right[:-1],
        right.upper(),
        "sha1=" + right[7:],
        sign("another secret altogether", body),
        "\u00e9" * 10,
    ):
        sent = {name: value for name, value in headers.items() if name != "X-Hub-Signature-256"}
        if wrong is not None:
            sent["X-Hub-Signature-256"] = wrong.encode("latin-1")  # type: ignore[assignment]
        answer = house.client.post("/webhook/github", content=body, headers=sent)
        told = {k: v for k, v in answer.headers.items() if k != "date"}
        answers.add((answer.status_code, answer.content, tuple(sorted(told.items()))))
    # Also what could not be parsed: nothing is, before it is verified.
    for other in (body + b" ", b"not JSON"):
        answer = house.client.post("/webhook/github", content=other, headers=headers)
        told = {k: v for k, v in answer.headers.items() if k != "date"}
        answers.add((answer.status_code, answer.content, tuple(sorted(told.items()))))
    assert len(answers) == 1
    assert answers.pop()[:2] == (401, b'{"error":"unauthorized"}')
    assert house.letters == []
    refused = house.receiver.tally.refused["github"]
    assert {why.value: one.count for why, one in refused.items()} == {
        "sha1-only": 1,
        "malformed": 6,
        "mismatch": 4,
    }
    assert house.receiver.tally.answers == {("github", "refused"): 11}
    assert house.receiver.tally.verified == {}
    assert refused[Refusal.MISMATCH].agent == "GitHub-Hookshot/044aadd"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"X-Hub-Signature-256": None, "X-Hub-Signature": None}, Refusal.UNSIGNED),
        ({"X-Hub-Signature-256": None}, Refusal.SHA1_ONLY),
        ({"X-Hub-Signature-256": "sha256=nonsense"}, Refusal.MALFORMED),
        ({"X-Hub-Signature-256": "sha256=" + "0" * 64}, Refusal.MISMATCH),
        (
            {"X-Hub-Signature-256": "sha256=" + "0" * 64, "Content-Encoding": "gzip"},
            Refusal.ENCODED,
        ),
    ],
)
def test_why_a_signature_was_not_right_is_kept_for_the_operator(
    house: House, changed: dict[str, str | None], why: Refusal
) -> None:
    headers, body = delivery("push", push_payload(URL, SHA), NEW, number="the-id")
    sent = {name: value for name, value in {**headers, **changed}.items() if value is not None}
    # The server takes no ASCII control characters; those beyond ASCII steer a terminal as well.
    sent["User-Agent"] = b"\x87 Bad\x9b[31m " + b"x" * 100  # type: ignore[assignment]
    assert house.client.post("/webhook/github", content=body, headers=sent).status_code == 401
    ((found, refused),) = house.receiver.tally.refused["github"].items()
    assert (found, refused.count, refused.at, refused.delivery) == (why, 1, 1000.0, "the-id")
    assert refused.agent.startswith(" Bad[31m xxx")
    assert len(refused.agent) < 64


def test_requests_for_no_webhook_are_counted_without_their_name(house: House) -> None:
    for name in ("gitlab", "x" * 1000, "github/"):
        assert house.client.post(f"/webhook/{name}", content=b"").status_code == 404
    assert house.receiver.tally.unknown == 3
    assert house.receiver.tally.answers == {}


def test_a_signature_header_that_comes_twice_is_none(house: House) -> None:
    headers, body = delivery("push", push_payload(URL, SHA), NEW)
    twice = [*headers.items(), ("X-Hub-Signature-256", headers["X-Hub-Signature-256"])]
    assert house.client.post("/webhook/github", content=body, headers=twice).status_code == 401


@pytest.mark.parametrize(
    "payload",
    [b"", b"not json", b"[]", b"{}", b"\xff\xfe", b'{"ref": "refs/heads/main"}', b"[" * 200_000,
     b'{"a":' * 5000 + b"1" + b"}" * 5000, push_payload("", SHA), push_payload(URL, "HEAD")],
)  # fmt: skip
def test_signed_rubbish_is_a_bad_request(house: House, payload) -> None:
    answer = house.send(payload=payload)
    assert (answer.status_code, answer.json()) == (400, {"error": "bad request"})


@pytest.mark.parametrize("name", ["X-GitHub-Delivery", "X-GitHub-Event"])
@pytest.mark.parametrize("value", [None, "", "../../x", "x" * 65, "a b"])
def test_odd_headers_are_a_bad_request(house: House, name: str, value: str | None) -> None:
    headers, body = delivery("push", push_payload(URL, SHA), NEW)
    del headers[name]
    if value is not None:
        headers[name] = value
    assert house.client.post("/webhook/github", content=body, headers=headers).status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/webhook/nobody", 404),
        ("GET", "/webhook/nobody", 404),
        ("POST", "/webhook", 404),
        ("POST", "/webhook/", 404),
        ("POST", "/webhook/github/x", 404),
        ("POST", "/webhookgithub", 404),
        ("POST", "/", 404),
        ("GET", "/schema", 404),
        ("GET", "/webhook/github", 405),
        ("PUT", "/webhook/github", 405),
        ("HEAD", "/webhook/github", 405),
        ("DELETE", "/webhook/github", 405),
        ("POST", "/healthz", 405),
    ],
)
def test_other_requests(house: House, method: str, path: str, status: int) -> None:
    headers, body = delivery("push", push_payload(URL, SHA), NEW)
    answer = house.client.request(method, path, content=body, headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    if method != "HEAD":
        assert "error" in answer.json()


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "multipart/form-data", "\u00e9"])
def test_another_content_type(house: House, content_type: str | None) -> None:
    headers, body = delivery("push", push_payload(URL, SHA), NEW)
    del headers["Content-Type"]
    if content_type is not None:
        headers["Content-Type"] = content_type.encode("latin-1")  # type: ignore[assignment]
    assert house.client.post("/webhook/github", content=body, headers=headers).status_code == 415


def test_a_content_type_with_parameters(house: House) -> None:
    headers, body = delivery("push", push_payload(URL, SHA), NEW)
    headers["Content-Type"] = "Application/JSON; charset=utf-8"
    assert house.client.post("/webhook/github", content=body, headers=headers).status_code == 202


def padded(size: int) -> bytes:
    start = json.dumps(push_payload(URL, SHA)).encode()[:-1] + b', "padding": "'
    return start + b"x" * (size - len(start) - 2) + b'"}'


def test_the_largest_legal_body_is_taken(house: House) -> None:
    assert house.send(payload=padded(MOST_BYTES)).status_code == 202


def test_a_body_over_the_limit_is_refused(house: House) -> None:
    answer = house.send(payload=padded(MOST_BYTES + 1))
    assert (answer.status_code, answer.json()["error"]) == (413, "too large")


def test_what_is_announced_over_the_limit_is_refused_before_it_comes(house: House) -> None:
    announced = {"Content-Length": str(MOST_BYTES + 1)}
    assert told_to_a_beginning(house, announced, b"").startswith(b"HTTP/1.1 413 ")


def test_a_streamed_body_over_the_limit_is_refused_on_its_way(house: House) -> None:
    sent = b"%x\r\n" % (MOST_BYTES + 2) + bytes(MOST_BYTES + 1)
    chunked = {"Transfer-Encoding": "chunked"}
    assert told_to_a_beginning(house, chunked, sent).startswith(b"HTTP/1.1 413 ")


def told_to_a_beginning(house: House, framing: dict[str, str], sent: bytes) -> bytes:
    """The answer to a delivery of which only the beginning comes."""
    headers = {"Host": "x", **delivery("push", b"", NEW)[0], **framing}
    lines = [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join(("POST /webhook/github HTTP/1.1", *lines, "", ""))
    url = house.client.base_url
    with socket.create_connection((url.host, url.port or 80), 20) as connection:
        connection.sendall(head.encode() + sent)
        return connection.recv(1000)


def test_an_inbox_that_cannot_be_written_is_no_false_202(house: House) -> None:
    house.inbox.close()
    answer = house.send()
    assert answer.status_code == 503
    assert house.letters == []
    with pytest.raises(JournalUnavailable):
        house.inbox.after(0).result()


def test_no_room_to_spool_is_a_503(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    assert house.send(payload=padded(1_000_000)).status_code == 503
    assert house.send().status_code == 202


def test_healthz(house: House) -> None:
    answer = house.client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    house.healthy = False
    assert house.client.get("/healthz").status_code == 503


def test_a_form_that_is_none(house: House) -> None:
    headers, body = delivery("push", urlencode({"x": "1"}).encode(), NEW)
    headers["Content-Type"] = "application/x-www-form-urlencoded"
    assert house.client.post("/webhook/github", content=body, headers=headers).status_code == 400
