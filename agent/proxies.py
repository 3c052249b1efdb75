"""Whom a proxy speaks for. What a request says of its origin is believed from trusted ones only."""

import ipaddress
from collections.abc import Mapping

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
UNIX = "unix"
"""The peer on a Unix socket, which has no address."""


def is_trusted(address: str, trusted: tuple[str, ...]) -> bool:
    """Whether `address` is in one of the `trusted` addresses and networks."""
    if address == UNIX:
        return UNIX in trusted
    try:
        one = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(one in ipaddress.ip_network(each) for each in trusted if each != UNIX)


def client(peer: str, headers: Mapping[bytes, bytes], trusted: tuple[str, ...]) -> str:
    """Where a request comes from, as far as that can be believed.

    Each proxy adds whom it heard from at the end of X-Forwarded-For; so the last one that is not
    trusted is as far as trust goes, and what stands before it is hearsay.
    """
    if not is_trusted(peer, trusted):
        return peer
    told = headers.get(b"x-forwarded-for", b"").decode("latin-1").split(",")
    for address in reversed([one.strip() for one in told if one.strip()]):
        try:
            ipaddress.ip_address(address)
        except ValueError:
            return peer
        if not is_trusted(address, trusted):
            return address
    return peer
