"""The poll's clock and time table. The wall clock here is ours, and jumps."""

import asyncio
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent import poller
from agent.model import Reason, SyncRequest, Target
from agent.poller import Every, Monotonic, Poller


def target(name: str, repo: str = "/r", poll: float | None = 0.05) -> Target:
    return Target(name, repo, "main", Path("/srv") / name, poll, 60.0)


class JumpingClock(datetime):
    """datetime whose now() is set back an hour once `jumped`; as `date -s` would do it."""

    jumped = False

    @classmethod
    def now(cls, tz=None):  # type: ignore[no-untyped-def, override]
        back = timedelta(hours=1) if cls.jumped else timedelta(0)
        real = datetime.fromtimestamp(time.time(), UTC) - back
        return tz.fromutc(real.replace(tzinfo=tz)) if tz else real.replace(tzinfo=None)


def test_an_hour_set_back_delays_no_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apscheduler.schedulers.base.datetime", JumpingClock)
    monkeypatch.setattr(poller, "datetime", JumpingClock)
    monkeypatch.setattr(JumpingClock, "jumped", False)
    ticks: list[SyncRequest] = []

    async def main() -> None:
        ticked = asyncio.Event()

        def tick(request: SyncRequest) -> None:
            ticks.append(request)
            ticked.set()

        one = Poller(tick)
        one.start()
        one.track({"shop": target("shop")}, 0.0)
        for _ in range(3):
            await asyncio.wait_for(ticked.wait(), 10)
            ticked.clear()
        JumpingClock.jumped = True
        for _ in range(3):
            await asyncio.wait_for(ticked.wait(), 10)
            ticked.clear()
        one.stop()

    asyncio.run(main())
    assert set(ticks) == {SyncRequest("shop", Reason.POLL)}


def test_the_zone_moves_with_the_monotonic_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(poller, "monotonic", lambda: now)
    zone = Monotonic()
    before = datetime.now(zone)
    now = 160.0
    assert datetime.now(zone) - before == timedelta(seconds=60)
    assert before.utcoffset() == timedelta(0)
    assert before.dst() == timedelta(0)
    assert zone.tzname(None) == "monotonic"
    assert abs((before.astimezone(UTC) - datetime.now(UTC)).total_seconds()) < 60


def test_jitter_does_not_add_up_and_a_missed_tick_is_not_made_up_for() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    every = Every(60, 10, 5)
    first = every.get_next_fire_time(None, start)
    assert timedelta(seconds=5) <= first - start <= timedelta(seconds=15)
    for minute in range(1, 50):
        due = every.get_next_fire_time(first, start + timedelta(seconds=60 * minute))
        late = due - start - timedelta(seconds=60 * minute + 5)
        assert timedelta(0) <= late <= timedelta(seconds=10)
    long_after = start + timedelta(hours=5, seconds=10)
    assert every.get_next_fire_time(first, long_after) - long_after <= timedelta(seconds=65)


def test_targets_come_and_go() -> None:
    async def main() -> None:
        one = Poller(lambda _: None)
        assert not one.next_polls()
        one.stop()
        one.start()
        targets = [target("a", poll=100.0), target("b", "/other", 50.0), target("off", poll=None)]
        one.track({each.name: each for each in targets}, 5.0)
        polls = one.next_polls()
        assert set(polls) == {"a", "b"}
        assert 0 <= polls["a"] <= 105
        assert one.healthy()
        one.track({}, 5.0)
        assert one.next_polls() == {}
        one.stop()

    asyncio.run(main())


def test_a_scheduler_that_does_not_tick_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        one = Poller(lambda _: None)
        assert one.healthy()
        monkeypatch.setattr(poller, "monotonic", lambda: time.monotonic() + 3600)
        assert not one.healthy()

    asyncio.run(main())


# In Berlin the clocks went back at 1:00 UTC on 25 October 2026.
_BACK = datetime(2026, 10, 25, 1, tzinfo=UTC).timestamp()
_POLL_THROUGH_JUMPS = """
import asyncio, sys, time
from pathlib import Path
import uvloop
from agent.model import Target
from agent.poller import Poller

jumps = [float(word) for word in sys.argv[2:]]
async def main():
    ticks = asyncio.Queue()
    poller = Poller(lambda request: ticks.put_nowait(time.time()))
    poller.start()
    poller.track({"shop": Target("shop", "/x", "main", Path("/y"), 1.0, 60.0)}, 0.0)
    for jump in jumps:
        # What has ticked by now is of the clock before.
        await ticks.get()
        Path(sys.argv[1]).write_text(f"{jump:+.1f}")
        await ticks.get()
        print(await ticks.get())
    assert poller.healthy()
    poller.stop()
uvloop.run(main())
"""


def test_daylight_saving_and_jumps_of_the_wall_clock_delay_no_tick(tmp_path: Path) -> None:
    found = list(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        pytest.skip("no libfaketime here; Debian's package is faketime")
    offset = tmp_path / "offset"
    wanted = [_BACK - 1.0, _BACK - 3600.0, _BACK + 7200.0]
    jumps = [f"{at - time.time():.1f}" for at in wanted]
    offset.write_text("+0")
    environ = {
        **os.environ, "TZ": "Europe/Berlin", "LD_PRELOAD": str(found[0]),
        "FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", _POLL_THROUGH_JUMPS, str(offset), *jumps],
        env=environ, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ticks = [float(line) for line in done.stdout.split()]
    assert [at <= tick < at + 60 for at, tick in zip(wanted, ticks, strict=True)] == [True] * 3
