"""GitHub's deliveries.

Signature: https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
Payloads: https://docs.github.com/en/webhooks/webhook-events-and-payloads
"""

import codecs
from typing import Annotated
from urllib.parse import parse_qs

import msgspec

from agent.errors import Malformed
from agent.forges.signature import Hmac
from agent.model import REVISION, Event, Other, Ping, Push

ID_HEADER = b"x-github-delivery"
EVENT_HEADER = b"x-github-event"
SIGNATURE_HEADER = b"x-hub-signature-256"
SHA1_HEADER = b"x-hub-signature"

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"

signer = Hmac

_PIECE = 65536

_Revision = Annotated[str, msgspec.Meta(pattern=rf"\A(?:{REVISION.pattern})\Z")]
_Ref = Annotated[str, msgspec.Meta(pattern=r"\Arefs/.", max_length=4096)]


class _Repository(msgspec.Struct):
    clone_url: str | None = None
    ssh_url: str | None = None
    git_url: str | None = None
    html_url: str | None = None


class _Push(msgspec.Struct):
    ref: _Ref
    after: _Revision
    repository: _Repository
    deleted: bool = False


_push = msgspec.json.Decoder(_Push)
_any = msgspec.json.Decoder(dict[str, msgspec.Raw])


def parse(event: str, content_type: str, body: bytes | memoryview) -> Event:
    """The event in a verified body of `content_type` (JSON or FORM); Malformed if it has none."""
    document = _payload(body) if content_type == FORM else body
    try:
        _check_utf8(document)
        if event == "push":
            return _to_push(_push.decode(document))
        _any.decode(document)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"not a {event} event: {error}") from error
    return Ping() if event == "ping" else Other(event)


def _to_push(push: _Push) -> Push:
    named = push.repository
    urls = frozenset(filter(None, (named.clone_url, named.ssh_url, named.git_url, named.html_url)))
    if not urls:
        raise Malformed("not a push event: its repository has no URL")
    return Push(push.ref, None if push.deleted else push.after, urls)


def _payload(body: bytes | memoryview) -> bytes:
    """The JSON inside a form-encoded delivery."""
    try:
        fields = parse_qs(bytes(body), strict_parsing=True, max_num_fields=8)
    except ValueError as error:
        raise Malformed("not a form") from error
    values = fields.get(b"payload", [])
    if len(values) != 1:
        raise Malformed("the form has not exactly one payload")
    return values[0]


def _check_utf8(document: bytes | memoryview) -> None:
    """Refuse bytes that are not UTF-8 (RFC 8259, 8.1), also where the decoder would skip them.

    In pieces, so that a 25 MB body is not copied whole.
    """
    view, start = memoryview(document), 0
    while start < len(view):
        piece = view[start : start + _PIECE]
        final = start + len(piece) == len(view)
        # A letter that the piece's end cuts in two is left for the next.
        start += codecs.utf_8_decode(piece, "strict", final)[1]
