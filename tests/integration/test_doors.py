"""The doors in front of the control application, by real requests to an application behind them."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from agent import tokens
from agent.doors import COOKIE, SocketDoor, TokenDoor

TOKEN = tokens.make()
HASH = tokens.hashed(TOKEN)
BROWSER = {"accept": "text/html,*/*"}


class Behind:
    """An application that says who it let in."""

    def __init__(self) -> None:
        self.visitors: list[str | None] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.visitors.append(scope["state"]["visitor"])
        headers = [(b"content-type", b"text/plain"), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"in"})


def through(door: Any, ask: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    async def main() -> None:
        transport = httpx.ASGITransport(door, client=("10.0.0.9", 5))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8080") as one:
            await ask(one)

    asyncio.run(main())


@pytest.fixture
def behind() -> Behind:
    return Behind()


@pytest.fixture
def door(behind: Behind) -> TokenDoor:
    return TokenDoor(behind, lambda: HASH)


def test_a_socket_knows_its_visitor_and_its_own_name(behind: Behind) -> None:
    async def ask(http: httpx.AsyncClient) -> None:
        assert (await http.get("/")).text == "in"
        rebound = await http.get("/", headers={"host": "rebound.evil.example:8080"})
        assert (rebound.status_code, behind.visitors) == (421, ["10.0.0.9"])
        forged = await http.post(
            "/v1/targets/shop/sync", headers={"origin": "https://evil.example"}
        )
        assert (forged.status_code, len(behind.visitors)) == (403, 1)
        own = await http.post("/x", headers={"origin": "http://localhost:8080"})
        assert own.status_code == 200

    through(SocketDoor(behind), ask)


def test_every_answer_is_hardened(behind: Behind, door: TokenDoor) -> None:
    async def ask(http: httpx.AsyncClient) -> None:
        for path in ("/", "/login"):
            answer = await http.get(path)
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers.get_list("cache-control") == ["no-store"]
        assert (await http.get("/static/x")).headers["cache-control"] == "max-age=3600"

    through(door, ask)
    through(SocketDoor(behind), ask)


def test_without_a_token_nothing_but_the_login_is_open(behind: Behind, door: TokenDoor) -> None:
    async def ask(http: httpx.AsyncClient) -> None:
        person = await http.get("/targets/shop?span=1h", headers=BROWSER)
        assert person.status_code == 303
        assert person.headers["location"] == "/login?next=/targets/shop%3Fspan%3D1h"
        program = await http.get("/v1/status")
        assert program.status_code == 401
        assert program.headers["www-authenticate"] == "Bearer"
        assert "TOKEN" in program.json()["detail"]
        morph = await http.get("/", headers={**BROWSER, "hx-request": "true"})
        assert (morph.status_code, morph.headers["hx-refresh"]) == (401, "true")
        pressed = await http.post("/targets/shop/sync", headers=BROWSER)
        assert pressed.status_code == 401
        assert behind.visitors == []
        assert (await http.get("/login")).status_code == 200
        assert behind.visitors == [None]

    through(door, ask)


def test_with_the_token_too_another_site_s_page_changes_nothing(
    behind: Behind, door: TokenDoor
) -> None:
    async def ask(http: httpx.AsyncClient) -> None:
        bearer = {"authorization": f"Bearer {TOKEN}"}
        for foreign in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
            assert (await http.post("/x", headers={**bearer, **foreign})).status_code == 403
        assert behind.visitors == []
        assert (await http.post("/x", headers=bearer)).status_code == 200

    through(door, ask)


def test_a_link_from_elsewhere_is_asked_again_with_the_cookie(door: TokenDoor) -> None:
    async def ask(http: httpx.AsyncClient) -> None:
        linked = await http.get("/", headers={**BROWSER, "sec-fetch-site": "cross-site"})
        assert linked.status_code == 200
        assert 'http-equiv="refresh"' in linked.text

    through(door, ask)


def test_a_bearer_is_let_in_and_known_again_without_the_slow_hash(
    behind: Behind, door: TokenDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    fits = tokens.fits
    monkeypatch.setattr(tokens, "fits", lambda *words: hashed.append(words[0]) or fits(*words))

    async def ask(http: httpx.AsyncClient) -> None:
        bearer = {"authorization": f"Bearer {TOKEN}"}
        for _ in range(20):
            assert (await http.get("/v1/status", headers=bearer)).status_code == 200
        assert hashed == [TOKEN]

    through(door, ask)
    assert set(behind.visitors) == {"the token's holder"}


def test_guessing_is_slowed_down_and_does_not_lock_out_who_knows(
    behind: Behind, door: TokenDoor
) -> None:
    async def ask(http: httpx.AsyncClient) -> None:
        right = {"authorization": f"Bearer {TOKEN}"}
        assert (await http.get("/", headers=right)).status_code == 200
        wrong = {"authorization": "Bearer guess"}
        answers = [(await http.get("/", headers=wrong)).status_code for _ in range(6)]
        assert answers == [401, 401, 401, 401, 429, 429]
        late = await http.get("/", headers=wrong)
        assert 0 < int(late.headers["retry-after"]) <= 60
        assert (await http.get("/", headers=right)).status_code == 200

    through(door, ask)


def test_a_session_opens_and_another_token_closes_it(behind: Behind) -> None:
    known = [HASH]
    door = TokenDoor(behind, lambda: known[0])

    async def ask(http: httpx.AsyncClient) -> None:
        assert await door.log_in("guess", "eve", "10.0.0.9") is None
        session = await door.log_in(TOKEN, "ada", "10.0.0.9")
        cookie = {"cookie": f"other=1; {COOKIE}={session}"}
        assert (await http.get("/", headers=cookie)).text == "in"
        assert behind.visitors == ["ada"]
        for odd in ("", f"{COOKIE}=", f"{COOKIE}=guess", "=;;\x00", f"{COOKIE}={session}x"):
            assert (await http.get("/", headers={"cookie": odd})).status_code == 401, odd
        known[0] = tokens.hashed("another")
        assert (await http.get("/", headers=cookie)).status_code == 401
        bearer = {"authorization": f"Bearer {TOKEN}"}
        assert (await http.get("/", headers=bearer)).status_code == 401
        known[0] = ""
        assert (await http.get("/", headers={"authorization": "Bearer "})).status_code == 401

    through(door, ask)


def test_a_token_that_is_replaced_while_it_is_hashed_is_not_known_again(
    behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, hashing, go = [HASH], threading.Event(), threading.Event()
    door = TokenDoor(behind, lambda: known[0])
    fits = tokens.fits

    def slowly(token: str, against: str) -> bool:
        hashing.set()
        assert go.wait(20)
        return fits(token, against)

    monkeypatch.setattr(tokens, "fits", slowly)

    async def ask(http: httpx.AsyncClient) -> None:
        bearer = {"authorization": f"Bearer {TOKEN}"}
        first = asyncio.create_task(http.get("/", headers=bearer))
        await asyncio.to_thread(hashing.wait, 20)
        known[0] = tokens.hashed("another")
        assert (await http.get("/")).status_code == 401
        go.set()
        await first
        assert (await http.get("/", headers=bearer)).status_code == 401

    through(door, ask)


def test_a_session_ends(behind: Behind, door: TokenDoor) -> None:
    async def ask(http: httpx.AsyncClient) -> None:
        cookie = {"cookie": f"{COOKIE}={await door.log_in(TOKEN, 'ada', '10.0.0.9')}"}
        assert (await http.get("/", headers=cookie)).status_code == 200
        door.log_out(cookie)
        assert (await http.get("/", headers=cookie)).status_code == 401

    through(door, ask)
