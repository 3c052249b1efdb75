"""The public side: deliveries in, /healthz, and nothing else.

A delivery's way: bounded bytes, verified, only then parsed, matched to targets, on disk, 202.
A short path on purpose: what is posted to a webhook meets no router, no middleware and no task of
its own, and what comes in one turn of the loop shares one transaction. The rest is Litestar's.
"""

import asyncio
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import IO, Any, NamedTuple, TypeVar

import msgspec
import structlog
from litestar import HttpMethod, Litestar, Request, get, route
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException
from litestar.response import Response

from agent import proxies
from agent.connections import Head, Reply, guarded
from agent.errors import JournalUnavailable, Malformed
from agent.forges import FORGES
from agent.forges.github import FORM, JSON
from agent.forges.signature import why_refused
from agent.inbox import Inbox
from agent.model import Delivery, Event, Letter, Ping, Push, Webhook
from agent.plan import Ignored, Matched, Routes
from agent.tally import Tally

T = TypeVar("T")
log = structlog.get_logger()

MOST_BYTES = 25 * 1024 * 1024
_IN_MEMORY = 256 * 1024
_PARSED_ASIDE = 512 * 1024
_PREFIX = b"/webhook/"
_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_EVENT = re.compile(r"[a-z_]{1,64}")
_NOT_RECORDED = {"error": "the delivery could not be recorded"}
_encode = msgspec.json.Encoder().encode


class Pushed(NamedTuple):
    """A verified push for some targets, until it is on disk."""

    delivery: Delivery
    push: Push
    targets: tuple[str, ...]
    arrival: "Arrival"


class Receiver:
    """Turns deliveries into answers. Holds what a reload replaces."""

    def __init__(
        self,
        inbox: Inbox,
        ring: Callable[[Letter], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._inbox = inbox
        self._ring = ring
        self._webhooks: Mapping[str, Webhook] = {}
        self._routes = Routes(())
        self._pushed: list[Pushed] = []
        # One thread, so that of many large bodies one at a time is in memory.
        self._aside = ThreadPoolExecutor(1, "receiver")
        self.clock = clock
        self.tally = Tally()
        self.trusted_proxies: tuple[str, ...] = ()

    def track(self, webhooks: Mapping[str, Webhook], routes: Routes) -> None:
        """The webhooks and targets there are, from a configuration that was read (again)."""
        self._webhooks = webhooks
        self._routes = routes

    def webhook(self, path: bytes) -> Webhook | None:
        """The webhook at `path`, as it came without the query."""
        name = path[len(_PREFIX) :] if path.startswith(_PREFIX) else b""
        return self._webhooks.get(name.decode("latin-1"))

    def take(self, head: Head, reply: Reply) -> "Arrival | None":
        """Whoever takes in the delivery that begins with `head`; None for what is none."""
        webhook = self.webhook(head.path) if head.method == b"POST" else None
        return Arrival(self, webhook, head, reply) if webhook else None

    def aside(self, work: Callable[[], T], then: Callable[[T], None], arrival: "Arrival") -> None:
        """Do what takes long beside the loop, and then go on in it."""
        done = asyncio.get_running_loop().run_in_executor(self._aside, work)
        done.add_done_callback(lambda done: guarded(arrival.reply, lambda: then(done.result())))

    def decide(self, delivery: Delivery, event: Event, arrival: "Arrival") -> None:
        """What becomes of a verified delivery; a push for a target is answered once on disk."""
        if isinstance(event, Ping):
            log.info("delivery.pong", **_told(delivery))
            arrival.answer(200, {"status": "pong"})
            return
        matched = (
            self._routes.match(event)
            if isinstance(event, Push)
            else Ignored(f"the agent has no use for {delivery.event} events")
        )
        if isinstance(event, Push) and isinstance(matched, Matched):
            self._record(Pushed(delivery, event, matched.targets, arrival))
        elif isinstance(matched, Ignored):
            log.info("delivery.ignored", reason=matched.reason, **_told(delivery))
            arrival.answer(200, {"status": "ignored", "reason": matched.reason})

    # ---- on disk, and only then acknowledged --------------------------------------------------

    def _record(self, one: Pushed) -> None:
        """Have it recorded, with all else that comes in this turn of the loop."""
        self._pushed.append(one)
        if len(self._pushed) == 1:
            asyncio.get_running_loop().call_soon(self._record_all)

    def _record_all(self) -> None:
        pushed, self._pushed = self._pushed, []
        received = self._inbox.receive([one[:3] for one in pushed], self.clock())
        asyncio.wrap_future(received).add_done_callback(partial(self._recorded, pushed))

    def _recorded(
        self, pushed: Sequence[Pushed], done: "asyncio.Future[list[Letter | None]]"
    ) -> None:
        """The transaction is through: acknowledge each, and tell of its letter."""
        letters: Sequence[Letter | JournalUnavailable | None]
        try:
            letters = done.result()
        except JournalUnavailable as error:
            letters = [error] * len(pushed)
        for one, letter in zip(pushed, letters, strict=True):
            guarded(one.arrival.reply, self._acknowledge, one, letter)

    def _acknowledge(self, one: Pushed, letter: Letter | JournalUnavailable | None) -> None:
        told = _told(one.delivery)
        told["ref"], told["revision"] = one.push.ref, one.push.revision
        if isinstance(letter, JournalUnavailable):
            log.error("delivery.not_recorded", why=str(letter), **told)
            one.arrival.answer(503, _NOT_RECORDED)
            return
        if letter:
            self._ring(letter)
        code, status = (202, "queued") if letter else (200, "duplicate")
        body = {"status": status, "delivery": one.delivery.id, "targets": one.targets}
        one.arrival.answer(code, body)
        log.info(f"delivery.{status}", targets=one.targets, **told)


def _told(delivery: Delivery) -> dict[str, Any]:
    """What every log line about a delivery says."""
    return {
        "webhook": delivery.webhook,
        "delivery": delivery.id,
        "kind": delivery.event,
        "secret": delivery.secret,
    }


# ---- one delivery -----------------------------------------------------------------------------


class Body:
    """A body as it comes: in memory while it is small, in a file without a name once it is not."""

    def __init__(self) -> None:
        self.size = 0
        self._pieces: list[bytes] = []
        self._file: IO[bytes] | None = None

    def add(self, chunk: bytes) -> None:
        """OSError where there is no room for it."""
        self.size += len(chunk)
        if self._file is None:
            self._pieces.append(chunk)
            if self.size <= _IN_MEMORY:
                return
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it outlives this call
            chunk = self._together()
        self._file.write(chunk)

    def _together(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def take(self) -> bytes:
        """The whole of it, once."""
        if self._file is None:
            return self._together()
        with self._file as file:
            file.seek(0)
            return file.read()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class Arrival:
    """One delivery as it comes in, hashed on its way (`connections.Taken`)."""

    def __init__(self, receiver: Receiver, webhook: Webhook, head: Head, reply: Reply) -> None:
        self.reply = reply
        self._receiver = receiver
        self._webhook = webhook
        self._forge = FORGES[webhook.provider]
        self._client = head.client
        self._headers = _single(head.headers)
        self._signer = self._forge.signer(webhook.secrets)
        self._claimed = self._headers.get(self._forge.SIGNATURE_HEADER)
        self._content_type = _content_type(self._headers)
        self._body = Body()

    def answer(self, status: int, body: Mapping[str, Any]) -> None:
        self._body.close()
        self._receiver.tally.answered(self._webhook.name, status, body)
        self.reply(status, _encode(body))

    def begin(self) -> None:
        """Refuse at once what the head alone shows to be in vain."""
        announced = self._headers.get(b"content-length", b"0")
        if self._content_type not in (JSON, FORM):
            self.answer(415, {"error": "unsupported media type"})
        elif announced.isdigit() and int(announced) > MOST_BYTES:
            self._refuse_size()
        elif not self._signer.can_match(self._claimed):
            self._refuse()

    def feed(self, chunk: bytes) -> None:
        if self._body.size + len(chunk) > MOST_BYTES:
            self._refuse_size()
            return
        self._signer.update(chunk)
        try:
            self._body.add(chunk)
        except OSError as error:
            # No room for the body, so no false 202 either.
            log.error("delivery.not_read", why=str(error))
            self.answer(503, _NOT_RECORDED)

    def complete(self) -> None:
        """Verify, and only then parse."""
        secret = self._signer.matched(self._claimed)
        if secret is None:
            self._refuse()
            return
        self._receiver.tally.verified[self._webhook.name] = self._receiver.clock()
        work = partial(self._parse, secret)
        if self._body.size > _PARSED_ASIDE:
            self._receiver.aside(work, self._go_on, self)
        else:
            self._go_on(work())

    def lost(self) -> None:
        self._body.close()
        self._receiver.tally.answered(self._webhook.name, 408, {})

    def _refuse_size(self) -> None:
        self.answer(413, {"error": "too large", "most": MOST_BYTES})

    def _refuse(self) -> None:
        name, forge = self._webhook.name, self._forge
        why = why_refused(self._headers, forge.SIGNATURE_HEADER, forge.SHA1_HEADER)
        now = self._receiver.clock()
        client = proxies.client(self._client, self._headers, self._receiver.trusted_proxies)
        self._receiver.tally.refuse(name, why, self._headers, client, now)
        log.warning("delivery.refused", webhook=name, client=client, why=why.value)
        self.answer(401, {"error": "unauthorized"})

    def _parse(self, secret: int) -> tuple[Delivery, Event] | Malformed:
        try:
            delivery, body = self._delivery(secret), self._body.take()
            return delivery, self._forge.parse(delivery.event, self._content_type, body)
        except Malformed as error:
            return error

    def _delivery(self, secret: int) -> Delivery:
        number = self._headers.get(self._forge.ID_HEADER, b"").decode("latin-1")
        event = self._headers.get(self._forge.EVENT_HEADER, b"").decode("latin-1")
        if not _ID.fullmatch(number) or not _EVENT.fullmatch(event):
            raise Malformed("its id or event header is missing or odd")
        return Delivery(self._webhook.name, number, event, secret)

    def _go_on(self, found: tuple[Delivery, Event] | Malformed) -> None:
        if isinstance(found, Malformed):
            log.warning("delivery.malformed", webhook=self._webhook.name, why=str(found)[:200])
            self.answer(400, {"error": "bad request"})
        else:
            self._receiver.decide(*found, self)


def _single(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Headers by lower-case name; one that came twice counts as absent."""
    found = dict(headers)
    if len(found) < len(headers):
        counted = Counter(name for name, _ in headers)
        found = {name: value for name, value in headers if counted[name] == 1}
    return found


def _content_type(headers: Mapping[bytes, bytes]) -> str:
    kind = headers.get(b"content-type", b"").partition(b";")[0]
    return kind.strip().lower().decode("latin-1")


# ---- everything else --------------------------------------------------------------------------


def public_app(receiver: Receiver, healthy: Callable[[], bool]) -> Litestar:
    """What the public listener answers where the receiver takes nothing."""

    @route("/webhook/{_name:path}", http_method=list(HttpMethod), sync_to_thread=False)
    def not_taken(request: Request[Any, Any, Any]) -> None:
        webhook = receiver.webhook(request.scope["raw_path"])
        if webhook is None:
            receiver.tally.answered("", 404, {})
            raise NotFoundException
        receiver.tally.answered(webhook.name, 405, {})
        raise MethodNotAllowedException

    @get("/healthz", sync_to_thread=False)
    def healthz() -> Response[dict[str, str]]:
        if healthy():
            return Response({"status": "ok"})
        return Response({"status": "stalled"}, status_code=503)

    def refuse(_: Any, error: Exception) -> Response[dict[str, str]]:
        status = error.status_code if isinstance(error, HTTPException) else 500
        if status == 500:
            log.exception("request.crashed", exc_info=error)
        texts = {404: "not found", 405: "method not allowed"}
        headers = {"allow": "POST"} if status == 405 else None
        return Response({"error": texts.get(status, "error")}, status_code=status, headers=headers)

    return Litestar(
        [not_taken, healthz],
        openapi_config=None,
        logging_config=None,
        exception_handlers={Exception: refuse},
        pdb_on_exception=False,
    )
