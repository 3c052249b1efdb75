"""A real Prometheus scrapes a real agent; its alert reaches a real Alertmanager and is taken back.

Also: what monitoring/ ships is sound, and asks for nothing that the agent does not tell.
"""

import json
import queue
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.agents import PATIENCE, Agent
from tests.remotes import Upstream, free_port

MONITORING = Path(__file__).parents[2] / "monitoring"
ALERTS = MONITORING / "alerts.yml"


def needs(program: str, package: str) -> Any:
    return pytest.mark.skipif(
        shutil.which(program) is None, reason=f"no {program} here; Debian's package is {package}"
    )


needs_promtool = needs("promtool", "prometheus")
needs_prometheus = needs("prometheus", "prometheus")
needs_alertmanager = needs("prometheus-alertmanager", "prometheus-alertmanager")


# ---- what is shipped ----------------------------------------------------------------------------


@needs_promtool
@pytest.mark.parametrize(
    "words", [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]]
)
def test_promtool_finds_the_rules_sound(words: list[str]) -> None:
    done = subprocess.run(["promtool", *words], cwd=MONITORING, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


@needs_promtool
def test_promtool_finds_the_metrics_well_named(scraped: "Scraped") -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=scraped.text, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def asked_for() -> dict[str, str]:
    """Each query of the dashboard, its variables filled in, and where it stands."""
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    found = {
        target["expr"]: f"dashboard: {panel['title']}"
        for panel in dashboard["panels"]
        for target in panel["targets"]
    }
    return {_filled_in(query): place for query, place in found.items()}


def _filled_in(query: str) -> str:
    values = {"$__rate_interval": "1m", "$__range": "1h", "$instance": ".*", "$target": ".*"}
    for variable, value in values.items():
        query = query.replace(variable, value)
    return query


def test_the_dashboard_and_the_rules_ask_only_for_what_is_told(scraped: "Scraped") -> None:
    told = set(re.findall(r"^# TYPE (\S+)", scraped.text, re.M))
    texts = [*asked_for(), ALERTS.read_text()]
    asked = {name for text in texts for name in re.findall(r"\b(?:gitops_agent|process)_\w+", text)}
    assert len(asked) > 15
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in asked} <= told


# ---- the real ones ------------------------------------------------------------------------------


class Scraped:
    """A running agent with a metrics listener, and what that said after one deployment."""

    def __init__(self, agent: Agent, upstream: Upstream) -> None:
        self.agent, self.upstream = agent, upstream
        self.port = free_port()
        agent.hook("announce", "test ! -e bad")
        hooks = '[[targets.shop.hooks]]\nrun = ["announce"]\n'
        agent.configure(f'{hooks}[metrics]\nbind = "127.0.0.1:{self.port}"\n')
        first = upstream.commit({"a": "1"})
        agent.start()
        agent.finished(first)
        second = upstream.commit({"a": "2"})
        agent.push(second)
        agent.finished(second)
        answer = httpx.get(f"http://127.0.0.1:{self.port}/metrics")
        assert answer.status_code == 200
        self.text = answer.text


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    root = tmp_path_factory.mktemp("scraped")
    upstream = Upstream(root / "upstream")
    one = Scraped(Agent(root / "agent", upstream.url), upstream)
    yield one
    one.agent.stop()


def test_metrics_are_on_the_control_socket_and_their_own_listener_only(scraped: Scraped) -> None:
    agent = scraped.agent
    socket = httpx.HTTPTransport(uds=str(agent.state_dir / "control.sock"))
    with httpx.Client(transport=socket, base_url="http://agent") as http:
        assert (
            'gitops_agent_push_to_live_seconds_count{target="shop"} 1.0'
            in http.get("/metrics").text
        )
    assert httpx.get(f"{agent.url}/metrics").status_code == 404
    for path in ("/v1/status", "/", "/schema"):
        assert httpx.get(f"http://127.0.0.1:{scraped.port}{path}").status_code == 404
    assert httpx.post(f"http://127.0.0.1:{scraped.port}/metrics").status_code == 405


class Told(BaseHTTPRequestHandler):
    """Where Alertmanager sends its notifications."""

    notes: "queue.Queue[dict[str, Any]]"

    def do_POST(self) -> None:
        self.notes.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def receiver() -> Iterator[tuple[str, "queue.Queue[dict[str, Any]]"]]:
    notes: queue.Queue[dict[str, Any]] = queue.Queue()
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Here", (Told,), {"notes": notes})) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", notes
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def program(url: str, *words: str, cwd: Path) -> Iterator[str]:
    """A program that is ready when `url` says so."""
    with (cwd / "log").open("wb") as log:
        process = subprocess.Popen(words, cwd=cwd, stdout=log, stderr=log)
    try:
        http = httpx.Client(transport=httpx.HTTPTransport(retries=8))
        with http:
            until(lambda: http.get(f"{url}/-/ready").status_code == 200)
        yield url
    finally:
        process.terminate()
        process.wait(PATIENCE)


def until(true: Any) -> None:
    """Wait for a program that has no way of telling us."""
    for _ in range(300):
        try:
            if true():
                return
        except httpx.TransportError:
            pass
        threading.Event().wait(0.1)
    raise AssertionError("waited for in vain")


@contextmanager
def alertmanager(folder: Path, told: str) -> Iterator[str]:
    folder.mkdir()
    port = free_port()
    (folder / "alertmanager.yml").write_text(
        "route: { receiver: us, group_by: [alertname, target], group_wait: 0s,"
        " group_interval: 1s, repeat_interval: 1h }\n"
        f"receivers: [{{ name: us, webhook_configs: [{{ url: '{told}' }}] }}]\n"
    )
    with program(
        f"http://127.0.0.1:{port}", "prometheus-alertmanager", "--config.file=alertmanager.yml",
        f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=", "--storage.path=data",
        cwd=folder,
    ) as url:  # fmt: skip
        yield url


@contextmanager
def prometheus(folder: Path, agent_port: int, alerts_to: str) -> Iterator[str]:
    folder.mkdir()
    port = free_port()
    (folder / "prometheus.yml").write_text(
        "global: { scrape_interval: 1s, evaluation_interval: 1s }\n"
        f"rule_files: ['{ALERTS}']\n"
        "alerting: { alertmanagers: [{ static_configs: [{ targets:"
        f" ['{alerts_to.removeprefix('http://')}'] }}] }}] }}\n"
        "scrape_configs: [{ job_name: gitops-agent, static_configs: [{ targets:"
        f" ['127.0.0.1:{agent_port}'] }}] }}]\n"
    )
    with program(
        f"http://127.0.0.1:{port}", "prometheus", "--config.file=prometheus.yml",
        f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.path=data", cwd=folder,
    ) as url:  # fmt: skip
        yield url


@needs_prometheus
@needs_alertmanager
def test_a_held_revision_raises_an_alert_that_a_good_one_ends(
    scraped: Scraped, tmp_path: Path
) -> None:
    agent, upstream = scraped.agent, scraped.upstream
    with (
        receiver() as (told, notes),
        alertmanager(tmp_path / "alertmanager", told) as alerts_to,
        prometheus(tmp_path / "prometheus", scraped.port, alerts_to) as url,
    ):
        bad = upstream.commit({"bad": "x"})
        agent.push(bad)
        agent.finished(bad)
        fired = notes.get(timeout=PATIENCE)
        (alert,) = fired["alerts"]
        assert (fired["status"], alert["labels"]["alertname"]) == ("firing", "GitopsAgentHeld")
        assert alert["labels"]["target"] == "shop"
        assert alert["annotations"]["summary"].startswith("shop on 127.0.0.1:")
        assert "gitops-agent sync shop --force" in alert["annotations"]["description"]

        every_query_is_answered(url)

        good = upstream.commit({"bad": None})
        agent.push(good)
        agent.finished(good)
        ended = notes.get(timeout=PATIENCE)
        assert (ended["status"], ended["alerts"][0]["labels"]["target"]) == ("resolved", "shop")


def every_query_is_answered(url: str) -> None:
    """Each of the dashboard's is understood, and those of a target's state have an answer."""
    answered = {}
    for query, place in asked_for().items():
        answer = httpx.get(f"{url}/api/v1/query", params={"query": query}).json()
        assert answer["status"] == "success", (place, answer)
        answered[place] = answer["data"]["result"]
    assert answered["dashboard: Agents that answer"][0]["value"][1] == "1"
    assert answered["dashboard: Targets that need somebody"][0]["value"][1] == "1"
    assert answered["dashboard: States"][0]["value"][1] == "5"
