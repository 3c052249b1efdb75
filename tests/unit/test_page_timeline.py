"""Deployments over time, as numbers."""

import time

import pytest

from agent.model import Outcome
from agent.page.timeline import Window, grid, heights, marks, strokes, times
from agent.records import Ran

NOW = 1_800_000_000.0
HOUR = Window(NOW - 3600, NOW, width=360.0, height=30.0)


def one(
    number: str, ago: float, took: float | None, outcome: Outcome | None,
    waited: float | None = None,
) -> Ran:  # fmt: skip
    at = NOW - ago
    ended = None if took is None else at + took
    asked = None if waited is None else at - waited
    return Ran(number, "shop", "a" * 40, outcome, at, ended, asked)


def test_good_ones_stand_on_the_line_and_the_others_hang_below() -> None:
    good = one("good", 1800, 60, Outcome.DEPLOYED)
    bad = one("bad", 600, 60, Outcome.BROKEN)
    up, down = marks([bad, good], HOUR)
    assert (up.ran.id, up.tone, up.x) == ("good", "ok", 180.0)
    assert up.y + up.height == HOUR.line
    assert (down.ran.id, down.tone, down.y) == ("bad", "bad", HOUR.line)
    assert down.y + down.height <= HOUR.height


def test_longer_is_taller_and_wider() -> None:
    short, long = marks(
        [one("s", 3000, 2, Outcome.DEPLOYED), one("l", 2000, 900, Outcome.DEPLOYED)], HOUR
    )
    assert short.height < long.height <= HOUR.line
    assert (short.width, long.width) == (3.0, 90.0)


def test_the_lead_is_the_time_from_the_first_wish_to_the_start() -> None:
    (mark,) = marks([one("w", 600, 60, Outcome.DEPLOYED, waited=600)], HOUR)
    assert (mark.wait_x, mark.x) == (240.0, 300.0)
    assert mark.d(20.0).endswith("M240.0 19.0H300.0v2H240.0z")
    assert "waited 10 min" in mark.label
    (unasked,) = marks([one("w", 600, 60, Outcome.DEPLOYED)], HOUR)
    assert unasked.d(20.0).count("M") == 1


def test_what_runs_goes_on_to_now() -> None:
    (mark,) = marks([one("r", 360, None, None)], HOUR)
    assert (mark.tone, mark.x + mark.width) == ("busy", 360.0)
    (just_begun,) = marks([one("r", 0.1, None, None)], HOUR)
    assert just_begun.x + just_begun.width <= 360.0


def test_of_many_on_one_spot_the_worst_is_seen() -> None:
    crowd = [one(f"{n}", 1800 + n / 10, 1, Outcome.DEPLOYED) for n in range(20)]
    crowd.insert(7, one("bad", 1800.5, 1, Outcome.FAILED))
    drawn = marks(crowd, HOUR)
    assert len(drawn) <= 2
    assert "bad" in {mark.ran.id for mark in drawn}


def test_a_hundred_thousand_are_no_more_than_there_is_room_for() -> None:
    many = [one(f"{n}", n * 0.036, 1, Outcome.DEPLOYED) for n in range(10_000)]
    assert len(marks(many, HOUR)) <= 121


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kathmandu"])
@pytest.mark.parametrize("length", [3600, 86400, 7 * 86400, 30 * 86400])
def test_times_are_round_and_few(zone: str, length: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        found = times(Window(NOW - length, NOW, 960.0), 8)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert 1 <= len(found) <= 9
    assert [guide.at for guide in found] == sorted(guide.at for guide in found)
    assert all(0 <= guide.at <= 960 for guide in found)


def test_many_marks_are_one_path_a_tone() -> None:
    crowd = [one(f"{n}", n * 45, 1, Outcome.DEPLOYED) for n in range(70)]
    crowd.append(one("bad", 3300, 1, Outcome.FAILED))
    ok, bad = sorted(strokes(marks(crowd, HOUR), HOUR), key=lambda stroke: -len(stroke.d))
    assert (ok.tone, bad.tone) == ("ok", "bad")
    assert ok.d.count("M") == 70
    assert bad.d.startswith("M30.0 20.0h3.0v")


def test_an_hour_is_as_tall_as_it_gets() -> None:
    said = heights(HOUR)
    assert [guide.label for guide in said] == ["10 s", "1 min", "10 min", "1 h"]
    assert said[-1].at == 0.0
    assert grid(said[-1:], times(HOUR, 1)[:1], HOUR).startswith("M0 0.0H360M")
