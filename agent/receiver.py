"""The public side: deliveries in, /healthz, and nothing else.

A delivery's way: bounded bytes, verified, only then parsed, matched to targets, on disk, 202.
A short path on purpose: one plain ASGI route inside Litestar, no middleware, no logging per
request beyond one line a delivery.
"""

import asyncio
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import IO, Any

import msgspec
import structlog
from litestar import Litestar, asgi, get
from litestar.exceptions import HTTPException
from litestar.response import Response
from litestar.types import Receive, Scope, Send

from agent.errors import JournalUnavailable, Malformed
from agent.forges import FORGES
from agent.forges.github import FORM, JSON
from agent.forges.signature import Hmac, why_refused
from agent.inbox import Inbox
from agent.model import Delivery, Event, Letter, Ping, Push, Webhook
from agent.plan import Ignored, Routes
from agent.tally import Tally

log = structlog.get_logger()

MOST_BYTES = 25 * 1024 * 1024
_IN_MEMORY = 256 * 1024
_PARSED_ASIDE = 512 * 1024
_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_EVENT = re.compile(r"[a-z_]{1,64}")

_UNAUTHORIZED = (401, {"error": "unauthorized"})
_TOO_LARGE = (413, {"error": "too large", "most": MOST_BYTES})
_NOT_RECORDED = (503, {"error": "the delivery could not be recorded"})

Answer = tuple[int, Mapping[str, Any]]


class TooLarge(Exception):
    """The body is, or says that it is, over MOST_BYTES."""


class Gone(Exception):
    """The client went away, or its time was up, before the body was whole."""


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
        self._clock = clock
        self._webhooks: Mapping[str, Webhook] = {}
        self._routes = Routes(())
        self.tally = Tally()

    def track(self, webhooks: Mapping[str, Webhook], routes: Routes) -> None:
        """The webhooks and targets there are, from a configuration that was read (again)."""
        self._webhooks = webhooks
        self._routes = routes

    async def answer(self, name: str, scope: Scope, receive: Receive) -> Answer:
        """What to answer to a request for /webhook/`name` (CONTRACT: HTTP)."""
        try:
            status, body = await self._answer(name, scope, receive)
        except OSError as error:
            # The spool could not be written: no room for the body, so no false 202 either.
            log.error("delivery.not_read", why=str(error))
            status, body = _NOT_RECORDED
        self.tally.answered(name, status, body)
        return status, body

    async def _answer(self, name: str, scope: Scope, receive: Receive) -> Answer:
        webhook = self._webhooks.get(name)
        if webhook is None:
            return 404, {"error": "not found"}
        if scope.get("method") != "POST":
            return 405, {"error": "method not allowed"}
        headers = _single(scope["headers"])
        content_type = headers.get(b"content-type", b"").split(b";")[0].strip().lower().decode()
        if content_type not in (JSON, FORM):
            return 415, {"error": "unsupported media type"}
        forge = FORGES[webhook.provider]
        signer = forge.signer(webhook.secrets)
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as spool:
            try:
                size = await _read(headers, receive, signer, spool)
            except TooLarge:
                return _TOO_LARGE
            except Gone:
                return 408, {"error": "request timeout"}
            secret = signer.matched(headers.get(forge.SIGNATURE_HEADER))
            if secret is None:
                self._refuse(webhook, headers, scope)
                return _UNAUTHORIZED
            self.tally.verified[name] = self._clock()
            try:
                delivery = _delivery(webhook, headers, secret)
                parse = forge.parse
                spool.seek(0)
                if size > _PARSED_ASIDE:
                    event = await asyncio.to_thread(
                        lambda: parse(delivery.event, content_type, spool.read())
                    )
                else:
                    event = parse(delivery.event, content_type, spool.read())
            except Malformed as error:
                log.warning("delivery.malformed", webhook=name, why=str(error)[:200])
                return 400, {"error": "bad request"}
        return await self._take(delivery, event)

    def _refuse(self, webhook: Webhook, headers: Mapping[bytes, bytes], scope: Scope) -> None:
        forge = FORGES[webhook.provider]
        why = why_refused(headers, forge.SIGNATURE_HEADER, forge.SHA1_HEADER)
        client = scope.get("client")
        address = client[0] if client else "unix"
        self.tally.refuse(webhook.name, why, headers, address, self._clock())
        log.warning("delivery.refused", webhook=webhook.name, client=address, why=why.value)

    async def _take(self, delivery: Delivery, event: Event) -> Answer:
        told = log.bind(
            webhook=delivery.webhook, delivery=delivery.id, event=delivery.event,
            secret=delivery.secret,
        )  # fmt: skip
        if isinstance(event, Ping):
            told.info("delivery.pong")
            return 200, {"status": "pong"}
        matched = (
            self._routes.match(event)
            if isinstance(event, Push)
            else Ignored(f"the agent has no use for {delivery.event} events")
        )
        if isinstance(matched, Ignored) or not isinstance(event, Push):
            reason = matched.reason if isinstance(matched, Ignored) else ""
            told.info("delivery.ignored", reason=reason)
            return 200, {"status": "ignored", "reason": reason}
        return await self._queue(told, delivery, event, matched.targets)

    async def _queue(
        self, told: Any, delivery: Delivery, push: Push, targets: tuple[str, ...]
    ) -> Answer:
        """Only after the commit is a push acknowledged, and its letter told of."""
        told = told.bind(ref=push.ref, revision=push.revision, targets=targets)
        try:
            received = self._inbox.receive(delivery, push, targets, self._clock())
            letter = await asyncio.wrap_future(received)
        except JournalUnavailable as error:
            told.error("delivery.not_recorded", why=str(error))
            return _NOT_RECORDED
        body = {"delivery": delivery.id, "targets": targets}
        if letter is None:
            told.info("delivery.duplicate")
            return 200, {"status": "duplicate", **body}
        told.info("delivery.queued")
        self._ring(letter)
        return 202, {"status": "queued", **body}


def _webhook_name(scope: Scope) -> str:
    """The NAME of /webhook/NAME; empty for the other paths that a mount lets through."""
    path = scope["raw_path"].partition(b"?")[0]
    prefix = b"/webhook/"
    return path[len(prefix) :].decode("latin-1") if path.startswith(prefix) else ""


def _single(headers: Any) -> dict[bytes, bytes]:
    """Headers by lower-case name; one that came twice counts as absent."""
    found: dict[bytes, bytes] = {}
    twice = set()
    for name, value in headers:
        if name in found:
            twice.add(name)
        found[name] = value
    for name in twice:
        del found[name]
    return found


def _delivery(webhook: Webhook, headers: Mapping[bytes, bytes], secret: int) -> Delivery:
    forge = FORGES[webhook.provider]
    number = headers.get(forge.ID_HEADER, b"").decode("latin-1")
    event = headers.get(forge.EVENT_HEADER, b"").decode("latin-1")
    if not _ID.fullmatch(number) or not _EVENT.fullmatch(event):
        raise Malformed("its id or event header is missing or odd")
    return Delivery(webhook.name, number, event, secret)


async def _read(
    headers: Mapping[bytes, bytes], receive: Receive, signer: Hmac, spool: IO[bytes]
) -> int:
    """Take the body as it comes, into the signature and the spool; its size in bytes."""
    announced = headers.get(b"content-length", b"0")
    if announced.isdigit() and int(announced) > MOST_BYTES:
        raise TooLarge
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        if message["type"] != "http.request":
            continue
        chunk = message["body"]
        size += len(chunk)
        if size > MOST_BYTES:
            raise TooLarge
        signer.update(chunk)
        spool.write(chunk)
        if not message["more_body"]:
            return size


async def _send(send: Send, answer: Answer) -> None:
    status, body = answer
    content = msgspec.json.encode(body)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
    ]
    if status == 405:
        headers.append((b"allow", b"POST"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": False})


def public_app(receiver: Receiver, healthy: Callable[[], bool]) -> Litestar:
    """The public listener's application."""

    @asgi("/webhook", is_mount=True, copy_scope=False)
    async def webhook(scope: Scope, receive: Receive, send: Send) -> None:
        answer = await receiver.answer(_webhook_name(scope), scope, receive)
        # Where the body was not read to its end, the server reads the rest away, in its time.
        await _send(send, answer)

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
        return Response({"error": texts.get(status, "error")}, status_code=status)

    return Litestar(
        [webhook, healthz],
        openapi_config=None,
        logging_config=None,
        exception_handlers={Exception: refuse},
        pdb_on_exception=False,
    )
