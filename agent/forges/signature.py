"""HMAC signatures over bodies that arrive in pieces."""

import hmac
import re
from collections.abc import Mapping
from enum import StrEnum

_HEX_SHA256 = re.compile(rb"sha256=([0-9a-f]{64})")
_NO_DIGEST = bytes(32)


class Hmac:
    """HMAC-SHA256 of a body under each of several secrets, fed as the body arrives.

    Without a secret there is no such object, so nothing can be verified by accident.
    """

    def __init__(self, secrets: tuple[bytes, ...]) -> None:
        if not secrets:
            raise ValueError("a signature needs a secret")
        self._macs = [hmac.new(secret, digestmod="sha256") for secret in secrets]

    def update(self, chunk: bytes) -> None:
        for mac in self._macs:
            mac.update(chunk)

    @staticmethod
    def can_match(claimed: bytes | None) -> bool:
        """Whether `claimed` has the form of a signature at all; if not, no body makes it right."""
        return _HEX_SHA256.fullmatch(claimed or b"") is not None

    def matched(self, claimed: bytes | None) -> int | None:
        """The position of the secret under which `claimed` (`sha256=<hex>`) is right, or None.

        One constant-time comparison per secret, whatever came: neither how a signature is wrong
        nor which secret it nearly matched can be told from the time this takes.
        """
        form = _HEX_SHA256.fullmatch(claimed or b"")
        digest = bytes.fromhex(form[1].decode()) if form else _NO_DIGEST
        verdicts = [hmac.compare_digest(mac.digest(), digest) for mac in self._macs]
        return verdicts.index(True) if form and any(verdicts) else None


class Refusal(StrEnum):
    """Why a signature was not right, as far as a delivery's head tells. For the operator only."""

    UNSIGNED = "unsigned"
    SHA1_ONLY = "sha1-only"
    MALFORMED = "malformed"
    """A signature header, but no SHA-256 in hex."""
    ENCODED = "encoded"
    """The body was compressed on its way: a signature is of the bytes as they were sent."""
    MISMATCH = "mismatch"
    """Another secret, or another body than the one that was signed."""


def why_refused(headers: Mapping[bytes, bytes], name: bytes, sha1_name: bytes) -> Refusal:
    """Why no secret matched the signature that header `name` claims."""
    claimed = headers.get(name)
    if claimed is None:
        return Refusal.SHA1_ONLY if sha1_name in headers else Refusal.UNSIGNED
    if not _HEX_SHA256.fullmatch(claimed):
        return Refusal.MALFORMED
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    return Refusal.MISMATCH if encoding == b"identity" else Refusal.ENCODED
