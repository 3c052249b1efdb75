"""The page in a real browser, as a person uses it, on a desk and on a phone."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.agents import Agent
from tests.remotes import Upstream, free_port
from tests.tunnel import tunnel

pytest.importorskip("playwright", reason="the browser tests need Playwright")
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser import CHROMIUM, browser, serious

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here (Debian: chromium)")

SIZES = {"desk": (1280, 800), "phone": (390, 844)}
at_every_size = pytest.mark.parametrize("size", SIZES, indirect=True)
HOSTILE = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>"
HOOK = """\
#!/bin/sh
printf '\\033[1;31mred\\033[0m <b>%s</b> \\033]0;title\\007\\n' "$(cat say 2>/dev/null)"
if [ -e slow ]; then echo > {started}; read answer < {go}; echo "told: $answer"; fi
test ! -e bad
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as one:
        yield one


@pytest.fixture
def size(request: pytest.FixtureRequest) -> str:
    return getattr(request, "param", "desk")


@pytest.fixture
def context(chromium: Browser, size: str) -> Iterator[BrowserContext]:
    width, height = SIZES[size]
    one = chromium.new_context(viewport={"width": width, "height": height})
    one.set_default_timeout(20_000)
    expect.set_options(timeout=20_000)
    yield one
    one.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A tab in which nothing may go wrong: no script error, nothing that the policy forbids."""
    one = context.new_page()
    wrong: list[str] = []
    one.on("pageerror", lambda error: wrong.append(str(error)))
    one.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    yield one
    assert wrong == []


class House:
    """An agent with one target, and the way to its page."""

    def __init__(self, agent: Agent, upstream: Upstream, url: str) -> None:
        self.agent = agent
        self.upstream = upstream
        self.url = url
        self.go, self.started = agent.root / "go", agent.root / "started"

    def push(self, files: dict[str, str | None], subject: str = "change") -> str:
        tip = self.upstream.commit(files, subject)
        assert self.agent.push(tip).status_code == 202
        return tip


@pytest.fixture
def house(agent: Agent, upstream: Upstream) -> Iterator[House]:
    one = House(agent, upstream, "")
    os.mkfifo(one.go)
    os.mkfifo(one.started)
    agent.hook("speak", HOOK.format(go=one.go, started=one.started))
    agent.configure('[[targets.shop.hooks]]\nrun = ["speak"]\n')
    first = upstream.commit({"say": "hello"}, "The first of all")
    agent.start()
    agent.finished(first)
    with tunnel(agent.state_dir / "control.sock") as url:
        one.url = url
        yield one


def press(page: Page, words: str) -> None:
    """Open what is behind these words, and press the button of the same words."""
    page.locator("summary", has_text=words).click()
    page.get_by_role("button", name=words).click()


@contextmanager
def other_site(content: bytes) -> Iterator[str]:
    """The address of a site that is not ours and serves this."""

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.2", 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.2:{server.server_port}/"
        server.shutdown()
        thread.join()


def check(page: Page) -> None:
    """Nothing serious for those who do not see, nothing to scroll sideways, nothing injected."""
    assert serious(page) == []
    page.emulate_media(color_scheme="dark")
    assert serious(page, "color-contrast") == []
    page.emulate_media(color_scheme="light")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("window.hacked") is None


@at_every_size
def test_a_push_is_seen_without_reloading(house: House, page: Page) -> None:
    page.goto(house.url)
    row = page.locator("#target-shop")
    expect(row).to_contain_text("up-to-date")
    expect(row).to_contain_text("The first of all")
    check(page)
    tip = house.push({"say": "again"}, HOSTILE)
    expect(row).to_contain_text(tip[:10])
    expect(row).to_contain_text("<script>window.hacked=1</script>")
    check(page)
    page.goto(f"{house.url}/timeline")
    expect(page.locator(".runs")).to_contain_text(tip[:10])
    expect(page.locator(".lanes")).to_contain_text("2 deployments")
    check(page)


@at_every_size
def test_a_log_is_read_as_it_comes(house: House, page: Page) -> None:
    page.goto(f"{house.url}/targets/shop")
    tip = house.push({"slow": "", "say": HOSTILE})
    house.started.read_text()
    page.get_by_role("link", name=re.compile("watch it")).click()
    log = page.locator("#log-2")
    expect(log).to_contain_text(f"red <b>{HOSTILE}</b> \n")
    expect(log.locator(".fg1.bold")).to_have_text("red")
    expect(page.locator("#head-2")).to_contain_text("running")
    check(page)
    house.go.write_text("go on <i>\n")
    expect(log).to_contain_text("told: go on <i>")
    expect(page.locator("#head")).to_contain_text("deployed")
    expect(page.locator("#head-2")).to_contain_text("ok")
    expect(page.get_by_role("status")).to_contain_text("deployed")
    expect(page.locator("#live")).to_be_empty()
    expect(page.locator("h1")).to_contain_text(tip[:10])
    check(page)


def test_steps_that_begin_while_one_looks_come_too(house: House, page: Page) -> None:
    house.push({"slow": "", "bad": ""})
    house.started.read_text()
    page.goto(f"{house.url}/deployments/{house.agent.history()[0]['id']}")
    expect(page.locator(".following")).to_be_visible()
    assert page.locator(".step").count() == 2
    house.go.write_text("on\n")
    expect(page.locator("#head")).to_contain_text("rolled-back")
    expect(page.locator("#head-2")).to_contain_text("exit 1")
    expect(page.locator("#head-3")).to_contain_text("the way back")
    expect(page.locator("#log-4")).to_contain_text("red")
    live = page.locator("#steps").inner_text()
    page.reload()
    assert page.locator("#steps").inner_text().split() == live.split()


@at_every_size
def test_a_failing_deployment_says_what_to_do(house: House, page: Page) -> None:
    tip = house.push({"bad": ""}, "Break it")
    house.agent.finished(tip)
    page.goto(house.url)
    expect(page.locator("#target-shop")).to_contain_text("held")
    expect(page.locator("#trouble-shop")).to_contain_text(f"{tip[:10]} is held")
    check(page)
    page.locator("#last-shop").click()
    expect(page.locator("#head")).to_contain_text("activate hook speak: exit 1")
    check(page)


def test_sync_from_the_page_is_in_the_visitor_s_name(house: House, page: Page) -> None:
    page.goto(f"{house.url}/targets/shop")
    press(page, "Sync with force")
    expect(page.locator(".runs li")).to_have_count(2)
    expect(page.locator(".runs")).to_contain_text("asked for by root: forced")
    check(page)


@at_every_size
def test_rolling_back_from_the_page(house: House, page: Page) -> None:
    tip = house.push({"say": "worse"}, "Make it worse")
    house.agent.finished(tip)
    page.goto(f"{house.url}/targets/shop")
    page.locator("summary", has_text="Roll back").click()
    page.get_by_label("To", exact=True).select_option(index=1)
    check(page)
    page.get_by_role("button", name="Roll back").click()
    expect(page.locator("#now")).to_contain_text("held")
    expect(page.locator("#now .facts")).to_contain_text("The first of all")
    expect(page.locator("#runs")).to_contain_text("asked for by root")
    check(page)
    assert (house.agent.tree / "say").read_text() == "hello"


@at_every_size
def test_a_pause_and_what_waits_for_its_end(house: House, page: Page) -> None:
    page.goto(f"{house.url}/targets/shop")
    page.locator("summary", has_text="Pause").click()
    page.get_by_label("Why").fill(f"the fair {HOSTILE}")
    page.get_by_label("For", exact=True).select_option("8 hours")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#now")).to_contain_text("Paused by root")
    expect(page.locator("#now")).to_contain_text(f"the fair {HOSTILE}")
    check(page)
    tip = house.push({"say": "later"})
    assert len(house.agent.history()) == 1
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#now .facts")).to_contain_text(tip[:10])
    expect(page.locator("#now")).not_to_contain_text("Paused")
    answer = page.request.post(f"{house.url}/targets/shop/resume", max_redirects=0)
    assert answer.status == 409
    assert "shop is not paused" in answer.text()


def test_canceling_a_running_deployment(house: House, page: Page) -> None:
    tip = house.push({"slow": ""})
    house.started.read_text()
    page.goto(f"{house.url}/targets/shop")
    page.get_by_role("button", name="Cancel").click()
    assert house.agent.finished(tip)["outcome"] == "canceled"
    expect(page.locator("#runs")).to_contain_text("canceled")
    expect(page.locator("#now .facts")).to_contain_text("The first of all")
    check(page)


def test_a_huge_log_is_shown_from_its_end_and_page_by_page(
    house: House, context: BrowserContext
) -> None:
    page = context.new_page()
    lines = "".join(f"line {n} <i>\n" for n in range(12_000))
    tip = house.push({"say": lines})
    house.agent.finished(tip)
    page.goto(f"{house.url}/deployments/{house.agent.history()[0]['id']}")
    output = page.locator("#step-2 .printed")
    shown = output.inner_text()
    assert "line 11999 <i>" in shown
    assert len(shown) < 70_000
    earlier = page.get_by_role("button", name=re.compile("before this"))
    while earlier.count():
        left = earlier.inner_text()
        earlier.click()
        expect(page.get_by_role("button", name=left)).to_have_count(0)
    assert output.inner_text().count("<i>") == 12_000
    assert output.locator("i").count() == 0
    with page.expect_response("**/all") as answer:
        page.get_by_role("link", name="As plain text").click()
    assert answer.value.headers["content-type"].startswith("text/plain")
    assert "line 0 <i>" in page.locator("pre").inner_text()


def test_by_keyboard_and_focus_outlives_a_refresh(house: House, page: Page) -> None:
    page.goto(house.url)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.locator("#to-shop").focus()
    tip = house.push({"say": "again"})
    expect(page.locator("#target-shop")).to_contain_text(tip[:10])
    expect(page.locator("#to-shop")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("shop")


def test_targets_are_found_by_name_and_by_state(house: House, page: Page) -> None:
    page.goto(house.url)
    page.get_by_role("searchbox").fill("nothing of the kind")
    expect(page.locator("#now")).to_contain_text("No target has “nothing of the kind”")
    check(page)
    page.get_by_role("searchbox").fill("SHO")
    expect(page.locator("#target-shop")).to_be_visible()
    page.get_by_role("link", name=re.compile("up-to-date")).click()
    expect(page.locator("#target-shop")).to_be_visible()
    # Where the path is long it is cut, and the branch is not.
    right = "one => one.getBoundingClientRect().right"
    branch = page.locator("#target-shop .branch").evaluate(right)
    assert branch <= page.locator("#target-shop th").evaluate(right)
    page.goto(f"{house.url}/?state=broken")
    expect(page.locator("#now")).to_contain_text("No target is broken")


def test_what_is_not_there_is_said_in_words(house: House, context: BrowserContext) -> None:
    page = context.new_page()
    for path in ("/targets/nobody", "/deployments/19990101", "/nowhere/<script>"):
        answer = page.goto(house.url + path)
        assert answer
        assert answer.status == 404
        expect(page.get_by_role("heading", level=1)).to_have_text("Not found")
        check(page)


def test_an_agent_that_is_gone_is_said_to_be(house: House, context: BrowserContext) -> None:
    page = context.new_page()
    page.goto(house.url)
    expect(page.locator("#lost")).to_be_hidden()
    house.agent.stop()
    expect(page.locator("#lost")).to_be_visible()
    house.agent.start()
    expect(page.locator("#lost")).to_be_hidden()


def test_a_log_goes_on_where_it_was_after_the_agent_died(
    house: House, context: BrowserContext
) -> None:
    page = context.new_page()
    house.push({"slow": "", "say": "only once"})
    house.started.read_text()
    page.goto(f"{house.url}/deployments/{house.agent.history()[0]['id']}")
    expect(page.locator("#log-2")).to_contain_text("only once")
    expect(page.locator(".following")).to_be_visible()
    house.agent.kill()
    house.agent.start()
    house.go.write_text("on\n")
    expect(page.locator("#log-2")).to_contain_text("told: on")
    expect(page.locator("#head")).to_contain_text("deployed")
    assert page.locator("#log-2").inner_text().count("only once") == 1


def test_another_site_s_page_presses_no_button(house: House, context: BrowserContext) -> None:
    form = (
        f"<form method=post action='{house.url}/targets/shop/sync'>"
        "<input name=force value=yes><button>A kitten</button></form>"
    ).encode()
    page = context.new_page()
    with other_site(form) as elsewhere:
        page.goto(elsewhere)
        page.get_by_role("button").click()
        expect(page.locator("body")).to_contain_text("sent by a page of another site")
    assert len(house.agent.history()) == 1


# ---- on TCP, with a token -----------------------------------------------------------------------


def test_on_tcp_one_logs_in_and_out(
    agent: Agent, upstream: Upstream, context: BrowserContext
) -> None:
    made = json.loads(subprocess.check_output([sys.executable, "-m", "agent", "token", "--json"]))
    port = free_port()
    agent.configure()
    with agent.config.open("a") as file:
        file.write(f'[control]\nbind = "127.0.0.1:{port}"\ntoken_hash = "{made["token_hash"]}"\n')
    first = upstream.commit({"a": "1"})
    agent.start()
    agent.finished(first)
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{port}/targets/shop?span=1h")
    check(page)
    page.get_by_label("Token").fill("not this one")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_have_text("That is not the token.")
    check(page)
    page.get_by_label("Token").fill(made["token"])
    page.get_by_label("Your name").fill("Ada <b>")
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(re.compile(r"/targets/shop\?span=1h$"))
    (cookie,) = context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    press(page, "Sync with force")
    expect(page.locator("#runs")).to_contain_text("asked for by Ada <b>: forced")
    expect(page.get_by_role("button", name="Log out")).to_have_text("Log out Ada <b>")
    check(page)
    with other_site(f"<a href='http://127.0.0.1:{port}/timeline'>see</a>".encode()) as elsewhere:
        page.goto(elsewhere)
        page.get_by_role("link").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Timeline")
    page.get_by_role("button", name=re.compile("Log out")).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
    page.goto(f"http://127.0.0.1:{port}/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
    assert made["token"] not in agent.log()
