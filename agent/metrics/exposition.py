"""What the agent knows, under Prometheus's names. The only room that knows prometheus_client.

Names and units: https://prometheus.io/docs/practices/naming/. A counter that can be nought is
told as nought, so that its first increase is seen.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from agent import __version__
from agent.forges.signature import Refusal
from agent.metrics.totals import Histograms, Totals
from agent.reports import Sources, State, TargetReport
from agent.tally import ANSWERS

Values = Iterable[tuple[Sequence[str], float]]
_PREFIX = "gitops_agent_"
_process = ProcessCollector(registry=None)


def expose(
    sources: Sources, totals: Totals, targets: Sequence[TargetReport], accept: str, now: float
) -> tuple[bytes, str]:
    """All of it as text, and the name of the text's format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_process)
    registry.register(_Found((
        *_agent(sources), *_deliveries(sources), *_syncs(sources), *_sums(totals, targets),
        *_targets(sources, targets, now),
    )))  # fmt: skip
    encode, format_name = choose_encoder(accept)
    return encode(registry), format_name


class _Found(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _agent(sources: Sources) -> Iterator[Metric]:
    yield _gauge("build_info", "Always 1.", ["version"], [([__version__], 1)])
    yield _gauge("healthy", "0 while the poll or the journal has stalled.", [],
                 [([], sources.healthy())])  # fmt: skip


def _deliveries(sources: Sources) -> Iterator[Metric]:
    # Copies: this is not the thread in which these grow.
    tally, webhooks = sources.tally, tuple(sources.settings.webhooks)
    yield _counter(
        "deliveries", "Requests for /webhook/NAME, by what was answered.",
        ["webhook", "answer"],
        [((name, word), tally.answers[name, word]) for name in webhooks for word in ANSWERS],
    )  # fmt: skip
    yield _counter("unknown_webhook_requests", "Requests for a webhook that there is not.", [],
                   [((), tally.unknown)])  # fmt: skip
    refused = {(name, why): 0 for name in webhooks for why in Refusal}
    refused |= {
        (name, why): one.count
        for name in webhooks
        for why, one in dict(tally.refused.get(name, {})).items()
    }
    yield _counter(
        "signature_failures", "Deliveries without a right signature, by the likely reason.",
        ["webhook", "reason"], refused.items(),
    )  # fmt: skip


def _syncs(sources: Sources) -> Iterator[Metric]:
    boxes = [sources.worker.mailbox(name) for name in sources.settings.targets]
    yield _counter(
        "syncs", "Looks at a target, by why there was one and what it led to.",
        ["target", "reason", "outcome"], dict(sources.worker.syncs).items(),
    )  # fmt: skip
    yield _gauge("syncs_running", "Targets that are being looked at or deployed now.", [],
                 [((), sum(box.running is not None for box in boxes))])  # fmt: skip
    yield _gauge("syncs_waiting", "Targets whose next look waits for the one that runs.", [],
                 [((), sum(box.waiting is not None for box in boxes))])  # fmt: skip


def _sums(totals: Totals, targets: Iterable[TargetReport]) -> Iterator[Metric]:
    yield _histogram(
        "deployment_duration_seconds", "From a deployment's first step to its last hook.",
        ["target", "outcome"], totals.deployments,
    )  # fmt: skip
    yield _histogram(
        "hook_duration_seconds", "How long hooks ran.", ["target", "stage"], totals.hooks
    )
    yield _histogram(
        "push_to_live_seconds", "From a push's receipt until its revision is live and verified.",
        ["target"], totals.push_to_live,
    )  # fmt: skip
    names = [one.name for one in targets]
    yield _counter("hook_timeouts", "Hooks that were ended at their timeout.", ["target"],
                   [((name,), totals.timeouts[name]) for name in names])  # fmt: skip
    yield _counter(
        "webhooks_missed", "Revisions that only a poll found though a webhook should have told.",
        ["target"], [((name,), totals.missed[name]) for name in names],
    )  # fmt: skip


def _targets(sources: Sources, targets: Sequence[TargetReport], now: float) -> Iterator[Metric]:
    yield _gauge(
        "target_state", "1 for the state in which the target is, 0 for the others.",
        ["target", "state"],
        [
            ((one.name, word), one.standing is word)
            for one in targets for word in State if word is not State.SYNCING
        ],
    )  # fmt: skip
    yield _gauge(
        "revision_info", "Always 1; the revision that is live.", ["target", "branch", "revision"],
        [((one.name, one.branch, one.live), 1) for one in targets if one.live],
    )  # fmt: skip
    yield _times("live_since_timestamp_seconds", "When the live revision became live.",
                 {one.name: one.live_since for one in targets})  # fmt: skip
    yield _times("last_push_timestamp_seconds", "When a webhook last announced a push.",
                 {one.name: one.last_webhook for one in targets})  # fmt: skip
    yield _times("last_success_timestamp_seconds",
                 "When a look last ended with the branch's end live.",
                 {one.name: one.good_at for one in targets})  # fmt: skip
    polls = {name: one for name, one in sources.settings.targets.items() if one.poll}
    yield _times("poll_interval_seconds", "How often the target is polled.",
                 {name: one.poll for name, one in polls.items()})  # fmt: skip
    yield _times(
        "poll_lag_seconds", "How much longer than its poll allows a target was not looked at.",
        {one.name: _lag(one, sources, now) for one in targets if one.name in polls},
    )  # fmt: skip


def _lag(one: TargetReport, sources: Sources, now: float) -> float:
    """Seconds; none while it is looked at, however long its hooks take."""
    allowed = (sources.settings.targets[one.name].poll or 0.0) + sources.settings.poll_jitter
    looked_at = one.look.at if one.look else sources.started_at
    return 0.0 if one.syncing else max(0.0, now - looked_at - allowed)


# ---- families -----------------------------------------------------------------------------------


def _counter(name: str, says: str, labels: Sequence[str], values: Values) -> Metric:
    family = CounterMetricFamily(_PREFIX + name, says, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family


def _gauge(name: str, says: str, labels: Sequence[str], values: Values) -> Metric:
    family = GaugeMetricFamily(_PREFIX + name, says, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family


def _times(name: str, says: str, values: Mapping[str, float | None]) -> Metric:
    """Seconds by target, for the targets that have any."""
    known = [((target,), value) for target, value in values.items() if value is not None]
    return _gauge(name, says, ["target"], known)


def _histogram(name: str, says: str, labels: Sequence[str], values: Histograms) -> Metric:
    family = HistogramMetricFamily(_PREFIX + name, says, labels=labels)
    for key, one in values.items():
        family.add_metric(key, one.buckets(), one.sum)
    return family
