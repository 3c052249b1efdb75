"""`doctor` as a person runs it: with an agent, behind proxies that spoil things, and without one."""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from agent.doctor import github
from tests.agents import PATIENCE, Agent
from tests.remotes import Upstream, delivery, free_port, push_payload

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="no nginx here; Debian's package is nginx")
URL = "https://github.com/acme/shop.git"


@pytest.fixture
def live(agent: Agent, upstream: Upstream) -> Agent:
    agent.hook("announce", "test ! -e bad")
    agent.configure('[[targets.shop.hooks]]\nrun = ["announce"]\n')
    first = upstream.commit({"a": "1"})
    agent.start()
    agent.finished(first)
    return agent


def doctor(agent: Agent, *words: str, **environ: str) -> tuple[int, dict[str, dict[str, str]]]:
    """The command's exit status, and its findings as `by_about` gives them."""
    done = agent.command("doctor", "--json", *words, env={"PATH": "/usr/bin:/bin", **environ})
    answer = json.loads(done.stdout)
    assert answer["ok"] is (done.returncode == 0), done.stderr
    return done.returncode, by_about(answer["findings"])


def asked(agent: Agent, url: str | None = None) -> dict[str, dict[str, str]]:
    """What the agent itself finds, which is all that the command says while one runs."""
    with agent.client() as client:
        return by_about(client.doctor(url))


def by_about(findings: list[dict[str, str]]) -> dict[str, dict[str, str]]:
    """Findings by what they are about; the worst where there are more."""
    order = ("ok", "note", "wrong")
    return {
        one["about"]: one for one in sorted(findings, key=lambda one: order.index(one["verdict"]))
    }


def wrong(found: dict[str, dict[str, str]]) -> list[str]:
    return [about for about, one in found.items() if one["verdict"] == "wrong"]


# ---- the agent and its host ---------------------------------------------------------------------


def test_where_all_is_well_it_says_so_and_exits_0(live: Agent) -> None:
    done = live.command("doctor", "--url", live.url)
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("ok     agent, configuration, git, ")
    assert done.stdout.endswith("nothing is wrong\n")
    every = live.command("doctor", "--url", live.url, "--all").stdout
    for about in (f"listener 127.0.0.1:{live.port}", "hook shop/announce", "remote shop", "space"):
        assert re.search(rf"^ok +{about}:\s", every, re.M), about
    # A ping of its own is nobody's push.
    found = asked(live, live.url)
    assert (wrong(found), found["webhooks"]["says"]) == ([], "no push has come yet")


def test_what_changed_after_the_agent_read_it(live: Agent) -> None:
    text = live.config.read_text()
    (live.root / "secret").write_text("another secret, also long enough")
    assert asked(live)["configuration"]["says"] == "webhooks changed after the agent read it"
    live.config.write_text(text + "\nparalel = 3\n")
    assert "the file has faults now" in asked(live)["configuration"]["says"]


def test_a_held_revision_and_a_hook_that_is_gone(live: Agent, upstream: Upstream) -> None:
    bad = upstream.commit({"bad": "x"})
    live.push(bad)
    live.finished(bad)
    (live.hooks_dir / "announce").unlink()
    done = live.command("doctor")
    assert done.returncode == 1
    assert "`gitops-agent sync shop --force`" in done.stdout
    assert re.search(r"^wrong +hook shop/announce:\s", done.stdout, re.M)
    assert done.stdout.endswith(" things to mend\n")


def test_without_an_agent_it_looks_for_itself(agent: Agent, upstream: Upstream) -> None:
    upstream.commit({"a": "1"})
    agent.configure()
    status, found = doctor(agent)
    assert status == 1
    assert found["agent"]["todo"].startswith("`systemctl status gitops-agent`")
    assert found["remote shop"]["verdict"] == "ok"
    agent.config.write_text("targets = 3\n")
    status, found = doctor(agent)
    assert status == 1
    assert found["configuration"]["verdict"] == "wrong"


# ---- webhooks that do not fire ------------------------------------------------------------------


def test_signatures_that_failed_have_a_likely_reason(live: Agent, upstream: Upstream) -> None:
    a = upstream.commit({"a": "2"})
    headers, body = delivery("push", push_payload(live.repo, a), "another secret than ours")
    live.post(headers, body)
    assert "1 delivery signed with another secret" in asked(live)["webhook github"]["says"]
    headers.pop("X-Hub-Signature-256")
    headers.pop("X-Hub-Signature")
    for _ in range(3):
        live.post(headers, body)
    found = asked(live)
    assert wrong(found) == ["webhook github"]
    assert found["webhook github"]["says"].startswith(
        "3 deliveries without a signature: no secret is"
    )
    live.push(a)
    live.finished(a)
    found = asked(live)
    assert (wrong(found), found["webhook github"]["verdict"]) == ([], "note")
    assert "pushes have come since then" in found["webhook github"]["says"]


def test_ignored_deliveries_and_a_name_that_there_is_not(live: Agent, upstream: Upstream) -> None:
    a = upstream.commit({"a": "2"})
    live.push(a, url="https://github.com/acme/another")
    live.post({"Content-Type": "application/json"}, b"{}", name="githbu")
    found = asked(live)
    assert found["webhook github"]["says"] == "1 delivery ignored: no target tracks this repository"
    assert "/webhook/github" in found["other webhooks"]["todo"]


# ---- the public address -------------------------------------------------------------------------


@contextmanager
def nginx(folder: Path, agent: Agent, server: str) -> Iterator[str]:
    folder.mkdir()
    port = free_port()
    (folder / "nginx.conf").write_text(
        f"daemon off; user root; pid {folder}/pid; error_log stderr notice; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/p;\n"
        f" fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n"
        f" server {{ listen 127.0.0.1:{port}; {server.replace('AGENT', agent.url)} }} }}\n"
    )
    assert NGINX
    with subprocess.Popen([NGINX, "-c", folder / "nginx.conf"], stderr=subprocess.PIPE) as process:
        assert process.stderr
        for line in process.stderr:
            if b"start worker process " in line:
                break
        drain = threading.Thread(target=process.stderr.read)
        drain.start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(PATIENCE)
            drain.join()


@needs_nginx
def test_proxies_that_spoil_deliveries(live: Agent, tmp_path: Path) -> None:
    cases = {
        "well": ("client_max_body_size 26m; location /webhook/ { proxy_pass AGENT; }", None),
        "small": ("location /webhook/ { proxy_pass AGENT; }", "client_max_body_size 26m;"),
        "unsigned": (
            'location / { proxy_set_header X-Hub-Signature-256 ""; proxy_pass AGENT; }',
            "X-Hub-Signature-256 did not arrive",
        ),
        "encoded": (
            "location / { proxy_set_header Content-Encoding gzip; proxy_pass AGENT;"
            ' proxy_set_header X-Hub-Signature-256 "sha256=' + "0" * 64 + '"; }',
            "the body was compressed",
        ),
        "elsewhere": ("location / { return 404; }", "does not pass /webhook/ on"),
        "moved": ("location / { return 308 https://new.example.org/; }", "follows no redirect"),
        "down": ("location / { proxy_pass http://127.0.0.1:9; }", "does not reach the agent"),
        "other": ("location / { return 200; }", "something else answers there"),
        "login": ("location / { return 403; }", "wants a login"),
    }
    for name, (server, todo) in cases.items():
        with nginx(tmp_path / name, live, server) as url:
            found = asked(live, url)
            todos = [found[about]["todo"] for about in wrong(found)]
            assert len(todos) == (todo is not None), (name, found)
            assert todo is None or todo in todos[0], (name, todos)


class Meddler(BaseHTTPRequestHandler):
    """A proxy that writes JSON anew, as well-meaning ones do."""

    agent: Agent

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        kept = {
            name: value for name, value in self.headers.items() if name.lower().startswith("x-")
        }
        sent = {"Content-Type": "application/json", **kept}
        answer = self.agent.post(sent, json.dumps(body).encode())
        self.send_response_only(answer.status_code)
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], **more: Any) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Here", (handler,), more)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_proxy_that_changes_the_body(live: Agent) -> None:
    with serving(Meddler, agent=live) as url:
        found = asked(live, url)
    about = f"public {url}/webhook/github"
    assert wrong(found) == [about]
    assert found[about]["todo"] == "the body was changed: have the proxy pass it on byte for byte"


def test_an_address_that_nobody_answers(live: Agent) -> None:
    live.config.write_text(
        live.config.read_text().replace("[server]\n", '[server]\nurl = "http://127.0.0.1:9/"\n')
    )
    live.signal(1)
    live.wait_for_log("agent.reloaded")
    status, found = doctor(live)
    assert (status, found["public http://127.0.0.1:9/webhook/github"]["verdict"]) == (1, "wrong")
    found = asked(live, "https://nope.invalid")
    assert "look at DNS" in found["public https://nope.invalid/webhook/github"]["todo"]


# ---- GitHub's own delivery log ------------------------------------------------------------------


class GitHub(BaseHTTPRequestHandler):
    """What GitHub answers about webhooks, in the shape of its documentation."""

    hooks: list[dict[str, Any]]
    deliveries: list[dict[str, Any]]

    def do_GET(self) -> None:
        if self.headers["authorization"] != "Bearer the-token":
            return self._send(404, {"message": "Not Found"})
        assert self.headers["x-github-api-version"] == "2022-11-28"
        path = urlsplit(self.path).path
        if path == "/repos/acme/shop/hooks":
            return self._send(200, self.hooks)
        assert path == "/repos/acme/shop/hooks/12345678/deliveries"
        return self._send(200, self.deliveries)

    def _send(self, status: int, body: Any) -> None:
        self.send_response_only(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: Any) -> None:
        pass


HOOK = {
    "type": "Repository", "id": 12345678, "name": "web", "active": True, "events": ["push"],
    "config": {"content_type": "json", "insecure_ssl": "0", "url": "https://deploy.example.org/webhook/github"},
}  # fmt: skip


def delivered(status_code: int) -> dict[str, Any]:
    return {
        "id": 1, "guid": "0b989ba4-242f-11e5-81e1-c7b6966d2516", "delivered_at": "2026-01-01T00:00:00Z",
        "redelivery": False, "duration": 0.27, "status": "x", "status_code": status_code, "event": "push",
        "action": None, "installation_id": None, "repository_id": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("hooks", "deliveries", "verdict", "says"),
    [
        ([HOOK], [delivered(202)], "ok", "1 of the last 1 deliveries"),
        ([HOOK], [delivered(401), delivered(202)], "wrong", "the secret there is not the one here"),
        ([HOOK], [delivered(202), delivered(401)], "note", "the secret there is not the one here"),
        ([HOOK], [delivered(0)], "wrong", "answered not at all"),
        ([HOOK], [], "note", "nothing was ever delivered"),
        ([{**HOOK, "active": False}], [delivered(202)], "wrong", "is switched off"),
        ([{**HOOK, "events": ["release"]}], [delivered(202)], "wrong", "Just the push event"),
        ([], [], "wrong", "has no webhook for this agent"),
    ],
)
def test_github_s_own_log(hooks, deliveries, verdict, says) -> None:
    with serving(GitHub, hooks=hooks, deliveries=deliveries) as api:
        found = list(
            github.log([URL, "git@github.com:acme/shop.git"], ["github"], "the-token", api)
        )
    worst = max(found, key=lambda one: ("ok", "note", "wrong").index(one.verdict))
    assert {one.about for one in found} == {"github acme/shop"}
    assert worst.verdict == verdict
    assert says in f"{worst.says} {worst.todo}"


def test_a_token_from_a_file_or_the_environment(agent: Agent, tmp_path: Path) -> None:
    agent.repo = URL
    agent.configure()
    token = tmp_path / "token"
    token.write_text("another\n")
    with serving(GitHub, hooks=[HOOK], deliveries=[delivered(202)]) as api:
        environ = {"GITHUB_API_URL": api, "GITHUB_TOKEN": "the-token"}
        _, found = doctor(agent, **environ)
        assert found["github acme/shop"]["verdict"] == "ok"
        _, found = doctor(agent, "--github-token-file", str(token), **environ)
        assert "`Webhooks: read`" in found["github acme/shop"]["todo"]
    _, found = doctor(agent)
    assert "there is no token" in found["github"]["says"]
