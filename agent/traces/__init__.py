"""OpenTelemetry traces, where the environment names a collector; nothing is imported elsewhere.

A deployment is told of when it has ended, from what the journal has of it: nothing on its way
waits for a collector, and one that is down costs a line in the log.
"""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import structlog

from agent import figures, surroundings
from agent.figures import Finished
from agent.reports import Sources

if TYPE_CHECKING:
    from agent.traces.spans import Spans

log = structlog.get_logger()

_NAMING = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def begin(environ: Mapping[str, str]) -> "Traces | None":
    """Traces as OpenTelemetry's own variables want them; None where they name no collector."""
    naming = next((name for name in _NAMING if environ.get(name)), None)
    if naming is None or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from agent.traces.spans import Spans
    except ImportError as error:
        log.warning(
            "traces.off", why=f"{naming} is set, but {error.name} is not installed",
            todo="pip install 'gitops-agent[otel]', or unset it",
        )  # fmt: skip
        return None
    log.info("traces.on", collector=environ[naming])
    with surroundings.showing(environ, "OTEL_"):
        return Traces(Spans())


class Traces:
    """Tells a collector of every deployment that ends."""

    def __init__(self, spans: "Spans") -> None:
        self._spans = spans

    def follow(self, sources: Sources) -> None:
        """Tell of this agent's deployments from now on."""
        sources.worker.on_deployment.append(partial(self._ended, sources))

    def _ended(self, sources: Sources, deployment: str) -> None:
        read = sources.journal.submit(lambda db: figures.finished(db, [deployment]))
        asyncio.wrap_future(read).add_done_callback(partial(self._tell, sources))

    def _tell(self, sources: Sources, read: "asyncio.Future[list[Finished]]") -> None:
        # A journal that cannot be read is told of by whoever needs it.
        for one in () if read.cancelled() or read.exception() else read.result():
            target = sources.settings.targets.get(one.deployment.target)
            self._spans.record(one.deployment, target)

    async def end(self) -> None:
        """Send what is left, if the collector takes it soon."""
        await asyncio.to_thread(self._spans.close)
