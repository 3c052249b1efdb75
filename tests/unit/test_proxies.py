"""Where a request comes from, as far as that can be believed."""

import pytest

from agent.proxies import client

TRUSTED = ("127.0.0.1", "10.0.0.0/8", "unix")


@pytest.mark.parametrize(
    ("peer", "told", "found"),
    [
        ("127.0.0.1", b"140.82.115.1", "140.82.115.1"),
        ("unix", b"140.82.115.1", "140.82.115.1"),
        ("127.0.0.1", b"2606:50c0::1", "2606:50c0::1"),
        ("127.0.0.1", b"6.6.6.6, 140.82.115.1, 10.1.2.3", "140.82.115.1"),
        ("127.0.0.1", b"10.9.9.9", "127.0.0.1"),
        ("127.0.0.1", b"", "127.0.0.1"),
        ("127.0.0.1", b"6.6.6.6, <script>", "127.0.0.1"),
        ("127.0.0.1", b"6.6.6.6:80", "127.0.0.1"),
        ("192.0.2.7", b"140.82.115.1", "192.0.2.7"),
        ("?", b"140.82.115.1", "?"),
    ],
)
def test_it_is_the_last_that_a_trusted_proxy_vouches_for(
    peer: str, told: bytes, found: str
) -> None:
    assert client(peer, {b"x-forwarded-for": told}, TRUSTED) == found


def test_nobody_is_trusted_by_default() -> None:
    for peer in ("127.0.0.1", "unix"):
        assert client(peer, {b"x-forwarded-for": b"6.6.6.6"}, ()) == peer


def test_without_the_header_it_is_the_peer() -> None:
    assert client("127.0.0.1", {}, TRUSTED) == "127.0.0.1"
