"""The token that opens the control application on TCP: made, hashed, compared. Pure but for chance.

The token itself is shown once and kept nowhere; agent.toml has what scrypt makes of it.
"""

import hashlib
import hmac
import re
import secrets

_COST, _BLOCK, _PARALLEL = 14, 8, 5  # OWASP's for 16 MiB: N = 2**14, r = 8, p = 5
_MEMORY = 64 * 2**20
_HASH = re.compile(r"scrypt:([0-9a-f]{32}):([0-9a-f]{64})")
LONGEST = 200
"""Bytes of a token that are looked at; a longer one is wrong."""


def make() -> str:
    """A new token, of 256 random bits."""
    return secrets.token_urlsafe(32)


def hashed(token: str) -> str:
    """What to write into agent.toml for `token`: `scrypt:SALT:HASH`, in hex."""
    salt = secrets.token_bytes(16)
    return f"scrypt:{salt.hex()}:{_scrypt(token, salt).hex()}"


def is_hash(text: str) -> bool:
    """Whether `text` is what `hashed` gives."""
    return _HASH.fullmatch(text) is not None


def fits(token: str, hashed: str) -> bool:
    """Whether `hashed` was made of `token`. Takes a third of a second and 16 MiB, on purpose."""
    parts = _HASH.fullmatch(hashed)
    if parts is None or len(token.encode(errors="replace")) > LONGEST:
        return False
    return hmac.compare_digest(_scrypt(token, bytes.fromhex(parts[1])), bytes.fromhex(parts[2]))


def _scrypt(token: str, salt: bytes) -> bytes:
    return hashlib.scrypt(
        token.encode(errors="replace"), salt=salt, n=2**_COST, r=_BLOCK, p=_PARALLEL,
        maxmem=_MEMORY, dklen=32,
    )  # fmt: skip
