"""What is counted, how it adds up, and that a scrape answers whatever the journal does."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent import config, figures
from agent.attempt import Synced
from agent.config import Settings
from agent.figures import Finished, Missed
from agent.journal import Journal
from agent.metrics import Metrics
from agent.metrics.totals import BOUNDS, Histogram, Totals
from agent.model import (
    Condition,
    Deployment,
    Letter,
    Outcome,
    Reason,
    Step,
    SyncRequest,
    Target,
    Webhook,
)
from agent.plan import Ending
from agent.tally import Tally
from agent.worker import Worker

A, B, C = "a" * 40, "b" * 40, "c" * 40
DEPLOYED = Ending(Outcome.DEPLOYED, Condition.SETTLED, B, "")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    one = Journal(tmp_path)
    yield one
    one.close()


def deployment(number: str, reason: Reason = Reason.POLL, at: float = 100.0) -> Deployment:
    return Deployment(number, "shop", B, A, reason, "why", 1, at)


def deploy(
    journal: Journal, one: Deployment, request: int | None = None, took: float = 3.0
) -> None:
    """What the reconciler has the journal record of a deployment that went well."""
    wish = SyncRequest(one.target, one.reason, request)
    journal.begin(one, wish, clears_holds=True)
    for n, stage in enumerate(("tree", "activate", "success"), 1):
        journal.step_begins(one.id, n, stage, "x", one.started_at + n - 1)
        journal.step_ends(one.id, n, "ok", one.started_at + n)
    journal.conclude(one, DEPLOYED, one.started_at + 2)
    journal.end(one.id, one.started_at + took)


def push(journal: Journal, number: str, revision: str, at: float) -> int:
    letter = Letter(1, number, revision, ("shop",), at)
    (request,), recorded = journal.take("inbox", [letter])
    recorded.result()
    assert request.id
    return request.id


# ---- sums ---------------------------------------------------------------------------------------


def test_a_histogram_counts_up_to_each_bound() -> None:
    one = Histogram()
    for seconds in (0.05, 0.2, 2.0, 5000.0):
        one.observe(seconds)
    buckets = dict(one.buckets())
    assert (buckets["0.05"], buckets["0.1"], buckets["2.5"], buckets["+Inf"]) == (1, 1, 3, 4)
    assert one.sum == pytest.approx(5002.25)
    assert list(buckets) == [*map(str, BOUNDS), "+Inf"]


def test_what_a_deployment_adds() -> None:
    steps = (
        Step(1, "tree", "check out", 100.0, 101.0, "ok"),
        Step(2, "activate", "restart", 101.0, 104.0, "ok"),
        Step(3, "verify", "check", 104.0, 104.5, "timed out after 0.5 s"),
        Step(4, "success", "mail", 104.5, 200.0, "exit 1"),
    )
    one = replace(deployment("d1"), ended_at=200.0, outcome=Outcome.DEPLOYED, steps=steps)
    totals = Totals()
    totals.add(Finished(one, (99.0, 90.0)))
    assert totals.deployments["shop", "deployed"].sum == 100.0
    assert totals.push_to_live[("shop",)].sum == (104.5 - 99.0) + (104.5 - 90.0)
    assert {key[1]: one.sum for key, one in totals.hooks.items()} == {
        "activate": 3.0, "verify": 0.5, "success": 95.5,
    }  # fmt: skip
    assert totals.timeouts == {"shop": 1}


def test_one_that_did_not_come_live_is_no_push_to_live() -> None:
    totals = Totals()
    for outcome in (Outcome.ROLLED_BACK, Outcome.FAILED, None):
        totals.add(Finished(replace(deployment("d"), ended_at=101.0, outcome=outcome), (99.0,)))
    assert dict(totals.push_to_live) == {}
    assert set(totals.deployments) == {("shop", "rolled-back"), ("shop", "failed")}


# ---- what the journal tells ---------------------------------------------------------------------


def test_finished_deployments_come_with_steps_and_pushes(journal: Journal) -> None:
    push(journal, "1", A, 90.0)
    request = push(journal, "2", B, 99.0)
    deploy(journal, deployment("d1", Reason.PUSH), request)
    wish = SyncRequest("shop", Reason.POLL)
    journal.begin(deployment("d2", at=200.0), wish, clears_holds=True)
    found = journal.submit(lambda db: figures.finished(db, ["d1", "d2", "d3"])).result()
    (one,) = found
    assert (one.deployment.id, len(one.deployment.steps)) == ("d1", 3)
    assert one.pushes == (90.0, 99.0)
    assert one.live_at == 102.0


def missed(journal: Journal, since: float = 0.0, until: float = 1000.0) -> list[Missed]:
    return journal.submit(lambda db: figures.missed(db, since, until)).result()


def test_a_push_that_only_the_poll_saw_was_missed(journal: Journal) -> None:
    push(journal, "1", C, 50.0)
    deploy(journal, deployment("d1"))
    assert missed(journal) == [Missed("shop", B, "d1", 100.0)]
    assert missed(journal, until=100.0) == missed(journal, since=100.1) == []


def test_one_announced_just_after_the_poll_was_not(journal: Journal) -> None:
    deploy(journal, deployment("d1"))
    push(journal, "1", B, 103.0)
    assert missed(journal) == []


@pytest.mark.parametrize(
    "one",
    [
        replace(deployment("d1"), reason=Reason.START),
        replace(deployment("d1"), attempt=2),
        replace(deployment("d1"), previous=B),
    ],
    ids=["at start", "again", "tree moved"],
)
def test_what_no_webhook_could_have_told_was_not(journal: Journal, one: Deployment) -> None:
    deploy(journal, one)
    assert missed(journal) == []


# ---- scraping -----------------------------------------------------------------------------------


class Syncs:
    async def sync(self, request: SyncRequest, superseded: Callable[[], bool]) -> Synced:
        return Synced("error", "down") if request.force else Synced("up-to-date", "live")


@dataclass
class House:
    """What the service is to the metrics."""

    settings: Settings
    journal: Journal
    now: float = 1000.0
    started_at: float = 90.0
    tally: Tally = field(default_factory=Tally)
    listening: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.worker = Worker(Syncs(), self.journal, lambda: self.now)
        self.metrics = Metrics(self, lambda: self.now)

    def healthy(self) -> bool:
        return self.journal.healthy()

    def reread(self) -> Settings:
        return self.settings

    def next_polls(self) -> dict[str, float]:
        return {"shop": 5.0}

    async def scrape(self, accept: str) -> tuple[bytes, str]:
        return await self.metrics.scrape(accept)

    async def values(self) -> dict[tuple[str, ...], float]:
        """Samples by name and label values, without the prefix."""
        text, _ = await self.scrape("")
        return {
            (one.name.removeprefix("gitops_agent_"), *one.labels.values()): one.value
            for family in text_string_to_metric_families(text.decode())
            for one in family.samples
        }


@pytest.fixture
def house(tmp_path: Path, journal: Journal) -> House:
    target = Target("shop", "https://x.example/shop", "main", tmp_path, 60.0, 60.0)
    webhook = Webhook("github", "github", (b"x" * 16,))
    file = tmp_path / "agent.toml"
    file.write_text(f'state_dir = "{tmp_path}/state"\n[targets.x]\nrepo = "/x"\npath = "x"\n')
    read = config.load(file, {})
    settings = replace(read, webhooks={"github": webhook}, targets={"shop": target})
    return House(settings, journal)


def running(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(main())


def test_counters_start_at_nought_and_each_deployment_counts_once(house: House) -> None:
    async def test() -> None:
        house.now = 130.0
        before = await house.values()
        house.now = 1000.0
        for name in (
            ("deliveries_total", "queued", "github"),
            ("signature_failures_total", "unsigned", "github"),
            ("unknown_webhook_requests_total",),
            ("hook_timeouts_total", "shop"),
            ("webhooks_missed_total", "shop"),
        ):
            assert before[name] == 0, name
        await asyncio.to_thread(deploy, house.journal, deployment("d1"))
        house.metrics.deployed("d1")
        for _ in range(2):
            after = await house.values()
            assert after["deployment_duration_seconds_count", "deployed", "shop"] == 1
            assert after["webhooks_missed_total", "shop"] == 1
            assert after["revision_info", "main", B, "shop"] == 1
            assert after["target_state", "up-to-date", "shop"] == 1
            assert after["target_state", "held", "shop"] == 0

    running(test)


def test_a_poll_is_judged_only_when_its_push_had_time_to_come(house: House) -> None:
    async def test() -> None:
        await asyncio.to_thread(deploy, house.journal, deployment("d1", at=990.0))
        assert (await house.values())["webhooks_missed_total", "shop"] == 0
        house.now = 1060.0
        assert (await house.values())["webhooks_missed_total", "shop"] == 1

    running(test)


def test_without_a_webhook_none_is_missed(house: House) -> None:
    async def test() -> None:
        house.settings = replace(house.settings, webhooks={})
        await asyncio.to_thread(deploy, house.journal, deployment("d1"))
        assert (await house.values())["webhooks_missed_total", "shop"] == 0

    running(test)


def test_syncs_and_the_last_success(house: House) -> None:
    async def test() -> None:
        finished = house.worker.mailbox("shop").finished
        house.worker.wish(SyncRequest("shop", Reason.POLL))
        await finished.wait()
        house.now = 1200.0
        finished = house.worker.mailbox("shop").finished
        house.worker.wish(SyncRequest("shop", Reason.MANUAL, force=True))
        await finished.wait()
        house.now = 1300.0
        found = await house.values()
        assert found["syncs_total", "up-to-date", "poll", "shop"] == 1
        assert found["syncs_total", "error", "manual", "shop"] == 1
        assert found["last_success_timestamp_seconds", "shop"] == 1000.0
        assert found["target_state", "error", "shop"] == 1
        # Looked at 100 s ago, though a poll every 60 s and up to 10 s more was due.
        assert found["poll_lag_seconds", "shop"] == 30.0
        await house.worker.drain()

    running(test)


def test_a_scrape_is_answered_although_the_journal_is_not_to_be_had(house: House) -> None:
    async def test() -> None:
        await asyncio.to_thread(deploy, house.journal, deployment("d1"))
        assert (await house.values())["healthy",] == 1
        house.metrics.deployed("d1")
        house.journal.close()
        house.tally.answered("github", 503, {})
        found = await house.values()
        assert found["healthy",] == 0
        assert found["deliveries_total", "not-recorded", "github"] == 1
        assert found["revision_info", "main", B, "shop"] == 1

    running(test)


def test_openmetrics_is_spoken_too(house: House) -> None:
    async def test() -> None:
        text, kind = await house.scrape("application/openmetrics-text;version=1.0.0")
        assert kind.startswith("application/openmetrics-text")
        assert text.endswith(b"# EOF\n")

    running(test)
