"""Who may ask: where a request comes from, sessions, tries, tokens."""

import pytest

from agent import access, tokens
from agent.access import Sessions, Tries, by_name, is_foreign, is_local, own_path


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost:8080", True),
        ("localhost", True),
        ("127.0.0.1:1", True),
        ("[::1]:8080", True),
        ("[::1]", True),
        ("agent", True),
        ("", False),
        ("evil.example", False),
        ("evil.example:8080", False),
        ("localhost.evil.example:8080", False),
        ("localhost:8080, evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("evil.example:8080:localhost", False),
    ],
)
def test_through_a_tunnel_only_the_machine_s_own_names_are_answered(host: str, local: bool) -> None:
    assert is_local(host) is local


@pytest.mark.parametrize(
    ("method", "headers", "foreign"),
    [
        ("GET", {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}, False),
        ("POST", {"sec-fetch-site": "same-origin", "origin": "http://localhost:8080"}, False),
        ("POST", {"sec-fetch-site": "none"}, False),
        ("POST", {}, False),
        ("POST", {"sec-fetch-site": "cross-site"}, True),
        ("POST", {"sec-fetch-site": "same-site"}, True),
        ("POST", {"origin": "https://evil.example"}, True),
        ("POST", {"origin": "null"}, True),
        ("POST", {"origin": ""}, True),
        ("POST", {"origin": "http://localhost:3000"}, True),
        ("POST", {"sec-fetch-site": "same-origin", "origin": "http://localhost:3000"}, True),
        ("DELETE", {"sec-fetch-site": "cross-site"}, True),
        ("BREW", {"sec-fetch-site": "cross-site"}, True),
    ],
)
def test_no_other_site_s_page_changes_anything(
    method: str, headers: dict[str, str], foreign: bool
) -> None:
    assert is_foreign(method, {"host": "localhost:8080", **headers}) is foreign


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/", "/"),
        ("/targets/shop?span=1h", "/targets/shop?span=1h"),
        ("", "/"),
        ("targets/shop", "/"),
        ("//evil.example", "/"),
        ("///evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/\t/evil.example", "/"),
        ("/x\r\nSet-Cookie: a=b", "/"),
        ("https://evil.example", "/"),
        ("javascript:alert(1)", "/"),
    ],
)
def test_after_the_login_one_stays_here(text: str, path: str) -> None:
    assert own_path(text) == path


def test_a_header_that_came_twice_fits_nothing() -> None:
    twice = [(b"Host", b"localhost"), (b"host", b"evil.example"), (b"accept", b"x")]
    assert by_name(twice) == {"host": "localhost, evil.example", "accept": "x"}


def test_a_session_is_found_until_it_ends() -> None:
    clock = Clock()
    sessions = Sessions(clock)
    ada, other = sessions.open("ada"), sessions.open("other")
    assert ada != other
    assert len(ada) >= 43
    assert sessions.find(ada) == access.Session("ada", 100.0 + access.SESSION)
    assert sessions.find("") is None
    assert sessions.find("guess") is None
    sessions.close(ada)
    assert sessions.find(ada) is None
    clock.now += access.SESSION + 1
    assert sessions.find(other) is None


def test_sessions_cannot_fill_the_memory() -> None:
    sessions = Sessions(Clock())
    numbers = [sessions.open("x") for _ in range(1001)]
    assert sessions.find(numbers[0]) is None
    assert sessions.find(numbers[1])


def test_an_address_has_five_tries_a_minute_of_its_own() -> None:
    clock = Clock()
    tries = Tries(clock)
    assert [tries.wait("10.0.0.1") for _ in range(5)] == [0.0] * 5
    clock.now += 10
    assert tries.wait("10.0.0.1") == 50.0
    assert tries.wait("10.0.0.2") == 0.0
    clock.now += 50.1
    assert tries.wait("10.0.0.1") == 0.0


def test_addresses_cannot_fill_the_memory() -> None:
    tries = Tries(Clock())
    assert [tries.wait("10.0.0.1") for _ in range(6)][-1] > 0
    for n in range(1000):
        tries.wait(f"10.1.{n // 256}.{n % 256}")
    assert tries.wait("10.0.0.1") == 0.0


def test_a_token_fits_its_hash_and_no_other() -> None:
    token = tokens.make()
    assert len(token) == 43
    hashed = tokens.hashed(token)
    assert tokens.is_hash(hashed)
    assert token not in hashed
    assert tokens.fits(token, hashed)
    assert not tokens.fits(token + "x", hashed)
    assert tokens.hashed(token) != hashed


def test_a_hash_is_as_slow_as_it_was() -> None:
    """By scrypt itself, at N = 2**14, r = 8, p = 5, of `right` and a salt that counts up."""
    digest = "5e4e6207b548faeee5e6a877e1ba620ad49b866ec1df35809111ed0e8d6a17e0"
    assert tokens.fits("right", f"scrypt:000102030405060708090a0b0c0d0e0f:{digest}")


def test_what_is_compared_tells_nothing_by_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    monkeypatch.setattr("hmac.compare_digest", lambda *two: compared.extend(two) or False)
    assert not tokens.fits("right", "scrypt:" + "0" * 32 + ":" + "0" * 64)
    assert [len(one) for one in compared] == [32, 32]


@pytest.mark.parametrize("text", ["", "hunter2", "scrypt:00:00", "scrypt:" + "0" * 32 + ":"])
def test_what_is_no_hash_fits_nothing(text: str) -> None:
    assert not tokens.is_hash(text)
    assert not tokens.fits("", text)


def test_an_enormous_or_odd_token_is_just_wrong() -> None:
    hashed = tokens.hashed("right")
    assert not tokens.fits("x" * 10**6, hashed)
    assert not tokens.fits("\ud800", hashed)
