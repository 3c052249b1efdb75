"""A token exchanged for a session at the page's own addresses, by requests as a browser sends them."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from agent import tokens
from agent.doors import COOKIE, TokenDoor
from agent.page.routes import page_app

TOKEN = tokens.make()
HASH = tokens.hashed(TOKEN)


@pytest.fixture
def door(tmp_path: Path) -> TokenDoor:
    sources = SimpleNamespace(
        settings=SimpleNamespace(state_dir=tmp_path),
        journal=None,
        reload=None,
        trouble=lambda: None,
    )
    return TokenDoor(page_app(sources, 1), lambda: HASH)  # type: ignore[arg-type]


def visit(door: TokenDoor, ask: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    async def main() -> None:
        transport = httpx.ASGITransport(door, client=("10.0.0.9", 5))
        async with httpx.AsyncClient(transport=transport, base_url="https://here.example") as one:
            await ask(one)

    asyncio.run(main())


@pytest.mark.parametrize("goal", ["//evil.example", "https://evil.example/", "/\\evil.example"])
def test_the_login_leads_to_no_other_site(door: TokenDoor, goal: str) -> None:
    async def ask(http: httpx.AsyncClient) -> None:
        done = await http.post("/login", data={"token": TOKEN, "next": goal})
        assert (done.status_code, done.headers["location"]) == (303, "/")
        again = await http.get("/login", params={"next": goal})
        assert (again.status_code, again.headers["location"]) == (303, "/")

    visit(door, ask)


@pytest.mark.parametrize(("outside", "secure"), [("https", True), ("http", False)])
def test_no_script_and_no_other_site_has_the_cookie(
    door: TokenDoor, outside: str, secure: bool
) -> None:
    async def ask(http: httpx.AsyncClient) -> None:
        done = await http.post(
            "/login", data={"token": TOKEN}, headers={"x-forwarded-proto": outside}
        )
        cookie = done.headers["set-cookie"].lower()
        assert cookie.startswith(f"{COOKIE}=")
        assert "; httponly" in cookie
        assert "; samesite=strict" in cookie
        assert ("; secure" in cookie) == secure
        assert "domain" not in cookie
        assert TOKEN.lower() not in cookie

    visit(door, ask)


def test_another_token_opens_nothing(door: TokenDoor) -> None:
    async def ask(http: httpx.AsyncClient) -> None:
        for token in ("", "guess", f"{TOKEN}x"):
            wrong = await http.post("/login", data={"token": token})
            assert wrong.status_code == 401
            assert "set-cookie" not in wrong.headers
            assert "That is not the token." in wrong.text

    visit(door, ask)


def test_a_visitor_s_name_is_short_and_has_nothing_that_steers_a_terminal(
    door: TokenDoor, capsys: pytest.CaptureFixture[str]
) -> None:
    async def ask(http: httpx.AsyncClient) -> None:
        odd = "\x1b[31mAda\n" + "x" * 100
        await http.post("/login", data={"token": TOKEN, "name": odd})
        shown = await http.get("/nowhere")
        assert "[31mAda" in shown.text
        assert "\x1b" not in shown.text
        assert "x" * 40 not in shown.text

    visit(door, ask)
    assert "session.opened" in capsys.readouterr().out


def test_who_logs_out_is_asked_for_the_token_again(door: TokenDoor) -> None:
    async def ask(http: httpx.AsyncClient) -> None:
        await http.post("/login", data={"token": TOKEN})
        session = http.cookies[COOKIE]
        assert (await http.get("/nowhere")).status_code == 404
        assert (await http.post("/logout")).headers["location"] == "/login"
        old = await http.get("/nowhere", headers={"cookie": f"{COOKIE}={session}"})
        assert old.status_code == 401

    visit(door, ask)
