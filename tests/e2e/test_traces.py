"""A real agent tells a real OTLP/HTTP receiver of its deployments, and leaves it be elsewhere."""

import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.agents import PATIENCE, Agent
from tests.remotes import Upstream, free_port

trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")

ERROR = 2


class Told(BaseHTTPRequestHandler):
    """Answers as a collector does: https://opentelemetry.io/docs/specs/otlp/#otlphttp."""

    requests: "queue.Queue[tuple[str, dict[str, str], Any]]"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        request = trace_service.ExportTraceServiceRequest.FromString(body)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.requests.put((self.path, headers, request))
        answer = trace_service.ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        pass


class Collector:
    def __init__(self) -> None:
        self.requests: queue.Queue[tuple[str, dict[str, str], Any]] = queue.Queue()
        here = type("Here", (Told,), {"requests": self.requests})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), here)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def next(self) -> tuple[dict[str, str], list[Any]]:
        """The resource's attributes and the spans of one export."""
        path, headers, request = self.requests.get(timeout=PATIENCE)
        assert (path, headers["content-type"]) == ("/v1/traces", "application/x-protobuf")
        assert headers["api-key"] == "for the collector only"
        (resource,) = request.resource_spans
        (scope,) = resource.scope_spans
        return attributes(resource.resource), list(scope.spans)


@pytest.fixture
def collector() -> Iterator[Collector]:
    one = Collector()
    with one.server:
        thread = threading.Thread(target=one.server.serve_forever)
        thread.start()
        yield one
        one.server.shutdown()
        thread.join()


def attributes(one: Any) -> dict[str, Any]:
    return {pair.key: pair.value.string_value or pair.value.int_value for pair in one.attributes}


def test_a_deployment_is_a_span_with_its_steps_beneath_it(
    agent: Agent, upstream: Upstream, collector: Collector
) -> None:
    agent.hook("announce", "env; test ! -e bad")
    agent.configure('[[targets.shop.hooks]]\nrun = ["announce"]\n')
    first = upstream.commit({"a": "1"})
    agent.start(
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_EXPORTER_OTLP_HEADERS="api-key=for%20the%20collector%20only",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=tests",
        OTEL_BSP_SCHEDULE_DELAY="100",
    )
    agent.finished(first)
    about, spans = collector.next()
    assert (about["service.name"], about["deployment.environment.name"]) == (
        "gitops-agent",
        "tests",
    )
    (root,) = (one for one in spans if not one.parent_span_id)
    told = attributes(root)
    assert root.name == "deploy shop"
    assert (told["vcs.ref.head.revision"], told["cicd.pipeline.result"]) == (first, "success")
    assert (told["gitops_agent.reason"], told["vcs.ref.head.name"]) == ("start", "main")
    beneath = [one for one in spans if one.parent_span_id == root.span_id]
    assert [one.name for one in beneath] == ["tree", "activate: announce"]
    assert len(spans) == 3
    for one in beneath:
        assert one.trace_id == root.trace_id
        assert root.start_time_unix_nano <= one.start_time_unix_nano <= one.end_time_unix_nano
        assert one.end_time_unix_nano <= root.end_time_unix_nano

    bad = upstream.commit({"bad": "x"})
    number = agent.push(bad).json()["delivery"]
    agent.finished(bad)
    _, spans = collector.next()
    (root,) = (one for one in spans if not one.parent_span_id)
    assert attributes(root)["gitops_agent.outcome"] == "rolled-back"
    assert attributes(root)["gitops_agent.delivery"] == number
    failed = [(one.name, one.status.message) for one in spans if one.status.code == ERROR]
    assert failed == [
        ("activate: announce", "exit 1"),
        ("deploy shop", "activate hook announce: exit 1"),
    ]

    # The collector's key is the agent's own business.
    with agent.client() as client:
        printed = "".join(one["text"] or "" for one in client.log("shop", follow=False))
    assert "DEPLOY_TARGET=shop" in printed
    assert "OTEL" not in printed


def test_what_was_not_sent_yet_is_sent_at_the_end(
    agent: Agent, upstream: Upstream, collector: Collector
) -> None:
    agent.configure()
    first = upstream.commit({"a": "1"})
    agent.start(
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_EXPORTER_OTLP_HEADERS="api-key=for%20the%20collector%20only",
        OTEL_BSP_SCHEDULE_DELAY="600000",
    )
    agent.finished(first)
    assert agent.stop() == 0
    assert [one.name for one in collector.next()[1]] == ["tree", "deploy shop"]


def test_a_collector_that_is_down_delays_neither_a_deployment_nor_the_end(
    agent: Agent, upstream: Upstream
) -> None:
    agent.configure()
    first = upstream.commit({"a": "1"})
    agent.start(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    agent.finished(first)
    second = upstream.commit({"a": "2"})
    agent.push(second)
    assert agent.finished(second)["outcome"] == "deployed"
    assert agent.stop() == 0


def test_without_the_libraries_it_says_what_to_install(
    agent: Agent, upstream: Upstream, tmp_path: Path
) -> None:
    absent = tmp_path / "absent"
    absent.mkdir()
    (absent / "opentelemetry.py").write_text("raise ImportError(name='opentelemetry')\n")
    agent.configure()
    first = upstream.commit({"a": "1"})
    agent.start(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", PYTHONPATH=str(absent))
    assert "gitops-agent[otel]" in agent.wait_for_log("traces.off")["todo"]
    assert agent.finished(first)["outcome"] == "deployed"


def test_nothing_of_it_is_imported_where_no_collector_is_named() -> None:
    program = (
        "import sys, agent.service, agent.traces\n"
        "assert agent.traces.begin({}) is None\n"
        "assert agent.traces.begin({'OTEL_SDK_DISABLED': 'true',"
        " 'OTEL_EXPORTER_OTLP_ENDPOINT': 'http://x'}) is None\n"
        "print([one for one in sys.modules if one.startswith(('opentelemetry', 'prometheus'))])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
