"""A deployment as OpenTelemetry spans. The only room that knows OpenTelemetry.

Names: https://opentelemetry.io/docs/specs/semconv/cicd/cicd-spans/ and .../registry/attributes/vcs/
"""

import socket
import threading

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Status, StatusCode, set_span_in_context
from opentelemetry.util.types import AttributeValue

from agent import __version__
from agent.model import Deployment, Outcome, Stage, Step, Target

_LAST_WORDS = 3.0
"""Seconds that the agent's end waits for a collector."""
_HOOKS = frozenset(Stage)
_RESULTS = {
    Outcome.DEPLOYED: "success",
    Outcome.CANCELED: "cancellation",
    Outcome.INTERRUPTED: "error",
    Outcome.BROKEN: "error",
}


class Spans:
    """Where spans go: OTLP over HTTP, in batches, in a thread of the SDK's own."""

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        host = {"service.name": "gitops-agent", "service.version": __version__,
                "host.name": socket.gethostname()}  # fmt: skip
        # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say wins.
        resource = Resource.create(host).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("gitops-agent", __version__)

    def record(self, one: Deployment, target: Target | None) -> None:
        """One span for the deployment, and one for each step beneath it."""
        span = self._tracer.start_span(
            f"deploy {one.target}", start_time=_ns(one.started_at), attributes=_of(one, target)
        )
        if one.outcome is not Outcome.DEPLOYED:
            span.set_status(Status(StatusCode.ERROR, one.detail))
        beneath = set_span_in_context(span)
        for step in one.steps:
            child = self._tracer.start_span(
                _name(step), beneath, start_time=_ns(step.started_at),
                attributes=_of_step(step),
            )  # fmt: skip
            if not _went_well(step):
                child.set_status(Status(StatusCode.ERROR, step.result or "not ended"))
            child.end(_ns(step.ended_at or one.ended_at or step.started_at))
        span.end(_ns(one.ended_at or one.started_at))

    def close(self) -> None:
        """Send what is left; not for long, and not for ever in a thread that nobody can end."""
        last = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        last.start()
        last.join(_LAST_WORDS)


def _of(one: Deployment, target: Target | None) -> dict[str, AttributeValue]:
    found: dict[str, AttributeValue | None] = {
        "cicd.pipeline.name": one.target,
        "cicd.pipeline.run.id": one.id,
        "cicd.pipeline.result": _RESULTS.get(one.outcome or Outcome.INTERRUPTED, "failure"),
        "vcs.ref.head.revision": one.revision,
        "vcs.ref.head.name": target.branch if target else None,
        "vcs.repository.url.full": target.repo if target else None,
        "gitops_agent.outcome": one.outcome,
        "gitops_agent.reason": one.reason.value,
        "gitops_agent.why": one.why,
        "gitops_agent.attempt": one.attempt,
        "gitops_agent.revision.previous": one.previous,
        "gitops_agent.delivery": one.delivery,
    }
    return {name: value for name, value in found.items() if value is not None}


def _name(step: Step) -> str:
    """The same for every deployment, as a span's name has to be; other steps name revisions."""
    return f"{step.stage}: {step.name}" if step.stage in _HOOKS else step.stage


def _of_step(step: Step) -> dict[str, AttributeValue]:
    return {
        "cicd.pipeline.task.name": step.name,
        "cicd.pipeline.task.run.result": "success" if _went_well(step) else "failure",
        "gitops_agent.stage": step.stage,
        "gitops_agent.result": step.result or "not ended",
    }


def _went_well(step: Step) -> bool:
    return (step.result or "").startswith("ok")


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
