"""One file a forge: verify a delivery, then parse it. Pure: no I/O, no clock, no log.

A new forge is a file here and a line in `FORGES`.
"""

from typing import Protocol

from agent.forges import github
from agent.forges.signature import Hmac
from agent.model import Event


class Forge(Protocol):
    """What the receiver asks of a forge's module."""

    ID_HEADER: bytes
    EVENT_HEADER: bytes
    SIGNATURE_HEADER: bytes
    SHA1_HEADER: bytes

    def signer(self, secrets: tuple[bytes, ...]) -> Hmac: ...

    def parse(self, event: str, content_type: str, body: bytes | memoryview) -> Event: ...


FORGES: dict[str, Forge] = {"github": github}
