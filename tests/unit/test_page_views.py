"""What the page shows, from reports; and how much of a log it shows."""

from dataclasses import replace

import pytest

from agent.model import Condition, Deployment, Outcome, Pause, Reason, Step, Strategy
from agent.page import live, outputs, views
from agent.page.timeline import Window
from agent.records import Ran
from agent.reports import LookReport, State, Status, TargetReport
from agent.transcript import Place
from agent.words import stamp

NOW = 1_800_000_000.0
A, B = "a" * 40, "b" * 40
WINDOW = Window(NOW - 86400, NOW)

REPORT = TargetReport(
    name="shop", state=State.UP_TO_DATE, standing=State.UP_TO_DATE,
    repo="https://github.com/acme/shop.git", branch="main", strategy=Strategy.IN_PLACE, path="/srv/shop", live=A,
    live_subject="first", live_since=NOW - 3600, condition=Condition.SETTLED, held=None,
    held_because=None, paused=None, retry=None, retry_at=None, retry_because=None, syncing=False, waiting=False, last=None, look=None,
    good_at=NOW, next_poll=NOW + 90, last_webhook=None,
)  # fmt: skip


def deployment(number: str = "d1", at: float = NOW - 600, target: str = "shop") -> Deployment:
    return Deployment(
        number, target, B, A, Reason.PUSH, "push, delivery 1: the branch is at b", 1, at,
        ended_at=at + 30, outcome=Outcome.ROLLED_BACK, detail="build hook x: exit 1",
        subject="second\x1b[31m", author="Ada",
    )  # fmt: skip


def ran(number: str, at: float = NOW - 600, target: str = "shop") -> Ran:
    return Ran(number, target, B, Outcome.ROLLED_BACK, at, at + 30, None)


def status(*targets: TargetReport) -> Status:
    return Status(
        version="0", pid=1, healthy=True, trouble=None, started_at=NOW, config="/etc/agent.toml", control="/run/x",
        targets=list(targets), webhooks=[], sinks=[], reload=None,
    )  # fmt: skip


def test_a_target_at_a_glance() -> None:
    card = views.card(REPORT, (), WINDOW)
    assert (card.state, card.tone, card.repo) == ("up-to-date", "ok", "github.com/acme/shop")
    assert (card.live, card.subject, card.next_poll) == (A[:10], "first", "in 90 s")
    assert card.since
    assert card.since.said == "60 min ago"
    assert card.troubles == ()
    assert card.picture.words == "no deployments"


@pytest.mark.parametrize(
    ("repo", "shown"),
    [
        ("git@github.com:acme/shop.git", "github.com:acme/shop"),
        ("ssh://git@host:2222/shop.git", "host:2222/shop"),
        ("/srv/git/shop.git", "/srv/git/shop.git"),
    ],
)
def test_a_repository_without_what_everybody_knows(repo: str, shown: str) -> None:
    assert views.card(replace(REPORT, repo=repo), (), WINDOW).repo == shown


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"state": State.HELD, "held": B, "held_because": "build hook x: exit 1"},
         ["bbbbbbbbbb is held: build hook x: exit 1"]),
        ({"state": State.BROKEN, "last": replace(deployment(), detail="no way back")},
         ["Broken: no way back"]),
        ({"state": State.RETRYING, "retry": B, "retry_at": NOW + 40, "retry_because": "no room\n"},
         ["bbbbbbbbbb is tried again in 40 s: no room�"]),
        ({"state": State.ERROR, "look": LookReport("error", "remote\x1bdown", NOW)},
         ["remote�down"]),
        ({"state": State.PAUSED, "paused": Pause(NOW - 60, "ada", NOW + 60, "the fair")},
         [f"Paused by ada 60 s ago until {stamp(NOW + 60)}: the fair."]),
    ],
)  # fmt: skip
def test_what_stands_in_a_target_s_way(change: dict[str, object], said: list[str]) -> None:
    report = replace(REPORT, **change)  # type: ignore[arg-type]
    assert [one.what for one in views.card(report, (), WINDOW).troubles] == said


def test_what_needs_a_person_stands_first_and_can_be_picked_out() -> None:
    targets = [
        REPORT,
        replace(REPORT, name="api", state=State.SYNCING),
        replace(REPORT, name="docs", state=State.BROKEN),
        replace(REPORT, name="blog", state=State.HELD, repo="/srv/git/words"),
    ]
    past = [ran("d2"), ran("d1")]
    everything = views.overview(status(*targets), past, NOW, state="", text="")
    assert [card.name for card in everything.cards] == ["docs", "blog", "api", "shop"]
    assert [(one.value, one.count) for one in everything.choices] == [
        ("", 4), ("broken", 1), ("held", 1), ("syncing", 1), ("up-to-date", 1),
    ]  # fmt: skip
    assert everything.cards[-1].picture.words == "2 deployments, 2 of which did not go well"
    held = views.overview(status(*targets), past, NOW, state="held", text="")
    assert [card.name for card in held.cards] == ["blog"]
    by_repository = views.overview(status(*targets), past, NOW, state="", text="WORDS")
    assert [card.name for card in by_repository.cards] == ["blog"]
    nothing = views.overview(status(*targets), past, NOW, state="error", text="")
    assert nothing.cards == ()
    assert [one.value for one in nothing.choices if one.chosen] == ["error"]


def test_a_deployment_in_a_line() -> None:
    run = views.run(deployment(), NOW - 700, NOW)
    assert (run.outcome, run.tone, run.took, run.waited) == ("rolled-back", "warn", "30 s", "100 s")
    assert run.subject == "second�[31m"
    running = views.run(replace(deployment(), ended_at=None, outcome=None), NOW - 600.4, NOW)
    assert (running.outcome, running.took, running.waited) == ("running", "10 min", "")


def test_a_list_says_where_the_older_ones_begin() -> None:
    past = [deployment(f"d{n}", NOW - n) for n in range(4)]
    newest = views.listed(past, {"d1": NOW - 61}, 3, NOW)
    assert newest.before == NOW - 2
    assert [one.waited for one in newest.runs] == ["", "60 s", ""]
    assert views.listed(past, {}, 4, NOW).before is None


def test_a_rollback_can_go_to_what_was_good_before() -> None:
    good = replace(deployment("g1"), outcome=Outcome.DEPLOYED, revision="c" * 40, subject="fine")
    again = replace(good, id="g0", started_at=NOW - 9000)
    live = replace(good, id="l", revision=A)
    back = replace(good, id="r", revision="d" * 40, reason=Reason.ROLLBACK)
    past = [live, back, deployment("bad"), good, again]
    (goal,) = views.goals(past, A, NOW)
    assert (goal.revision, goal.words) == ("c" * 40, "cccccccccc, 10 min ago: fine")


def test_lanes_are_for_targets_that_are_known_and_were_deployed() -> None:
    past = [ran("s"), ran("g", target="gone"), ran("a", target="api")]
    lanes = views.lanes(("api", "quiet", "shop"), past, "7d", NOW, 36.0)
    assert [picture.target for picture in lanes.pictures] == ["api", "shop"]
    assert [one.value for one in lanes.spans if one.chosen] == ["7d"]
    assert lanes.each
    very_many = [ran(f"{n}", at=NOW - n * 1800, target=f"t{n % 7}") for n in range(2000)]
    crowd = views.lanes([f"t{n}" for n in range(7)], very_many, "30d", NOW, 36.0)
    assert not crowd.each


# ---- what steps printed -------------------------------------------------------------------------


def test_a_step_and_where_it_lies_in_the_whole() -> None:
    one = replace(
        deployment(),
        steps=(
            Step(1, "tree", "check out b", NOW - 600, NOW - 597, "ok"),
            Step(2, "build", "x", NOW - 597, NOW - 585, "exit 1"),
            Step(3, "tree", "check out a", NOW - 585, NOW - 580, "ok; saved"),
            Step(4, "build", "x", NOW - 580),
        ),
    )
    lines = outputs.step_lines(one, NOW)
    assert [line.hook for line in lines] == [False, True, False, True]
    assert [line.tone for line in lines] == ["ok", "bad", "ok", "busy"]
    assert [line.back for line in lines] == [False, False, True, False]
    assert [(line.x, line.width) for line in lines[:2]] == [(0.0, 10.0), (10.0, 40.0)]


def test_a_huge_log_comes_in_pages_that_make_up_the_whole() -> None:
    lines = [b"line %d \x1b[3%dm<&>\n" % (n, n % 8) for n in range(20_000)]
    printed = b"".join(lines)
    page = outputs.page(printed)
    pages = [page]
    while page.start:
        assert printed[page.start - 1 : page.start] == b"\n"
        page = outputs.page(printed, page.start)
        pages.append(page)
    assert len(pages) > 5
    assert all(len(one.html) < 8 * outputs.PAGE for one in pages)
    shown = "".join(one.html for one in reversed(pages))
    assert shown.count("\n") == 20_000
    assert shown.startswith("line 0 ")


def test_a_page_begins_in_the_colour_that_goes_on() -> None:
    printed = b"\x1b[31m" + b"red\n" * 40_000
    assert outputs.page(printed).html.startswith('<span class="fg1">red\n')


def test_one_enormous_line_is_paged_too() -> None:
    page = outputs.page(b"x" * 300_000)
    assert (len(page.html), page.start) == (outputs.PAGE, 300_000 - outputs.PAGE)
    assert outputs.page(b"") == outputs.NOTHING


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("3:4096", Place(3, 4096)),
        ("", Place()),
        ("3", Place()),
        ("-1:2", Place()),
        ("²:1", Place()),
        ("1:" + "9" * 40, Place()),
    ],
)
def test_where_to_go_on_from_is_read_with_care(text: str, place: Place) -> None:
    assert live.place(text) == place
