"""What is shown of targets in many states, in little room."""

import io
import random
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from agent.reports import State
from agent.terminal.overview import clipped, summary, table, troubles
from agent.terminal.screen import STYLES, folded
from agent.terminal.watch import View

NOW = 1_000_000.0
LONG = "customer-portal-production-eu-west-1"


def target(name: str, state: State = State.UP_TO_DATE, **more: Any) -> dict[str, Any]:
    last = {"outcome": "interrupted", "started_at": NOW - 9e6, "ended_at": NOW - 9e6, "id": "d",
            "detail": "activate hook x: exit 1"}  # fmt: skip
    return {
        "name": name, "state": state.value, "live": "ab" * 20, "last": last, "next_poll": NOW + 1e5,
        "last_webhook": NOW - 9e6, "condition": "settled", "held": None, "held_because": None,
        "paused": None, "retry": None, "retry_at": None, "retry_because": None, "look": None, **more,
    }  # fmt: skip


def status(*targets: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": "1", "pid": 1, "started_at": NOW, "healthy": True, "targets": list(targets),
        "webhooks": [], "sinks": [], "reload": None,
    }  # fmt: skip


def lines(*renderables: Any, width: int = 80) -> list[str]:
    file = io.StringIO()
    out = Console(width=width, file=file)
    for one in renderables:
        out.print(one)
    return file.getvalue().splitlines()


def test_the_widest_rows_fit_80_columns() -> None:
    targets = [target(f"{LONG}-{n}", state) for n, state in enumerate(State)]
    shown = lines(*table(targets, NOW, 80))
    assert len(shown) == 1 + len(State)
    assert all(len(line.rstrip()) <= 80 for line in shown)
    for line, state in zip(shown[1:], State, strict=True):
        assert state.value in line
        assert "ababababab  interrupted   104 d" in line


def test_names_that_differ_at_their_end_can_be_told_apart() -> None:
    names = {clipped(f"{LONG[:-1]}{n}", 15) for n in range(10)}
    assert len(names) == 10
    assert {len(name) for name in names} == {15}
    assert clipped("shop", 15) == "shop"


def test_a_line_goes_on_set_in_and_loses_nothing() -> None:
    said = "shop: abababab is held: verify hook check-http: exit 1, and more is said of it"
    first, *others = [line.plain for line in folded(Text(said), 40)]
    assert first == "shop: abababab is held: verify hook"
    assert others
    for line in others:
        assert line.startswith("    ")
        assert line[4] != " "
    assert " ".join([first, *(line.strip() for line in others)]) == said
    path = "/srv/" + "x" * 100
    whole = "".join(line.plain.strip() for line in folded(Text(f"  {path}"), 40))
    assert whole == path
    (red, more) = folded(Text.assemble("a " * 18, ("bbbbbb", "red")), 40, hang=7)
    assert (red.plain, more.plain) == ("a " * 17 + "a", " " * 7 + "bbbbbb")
    assert [span.style for span in more.spans] == ["red"]


def test_a_command_is_not_torn_apart() -> None:
    said = Text("  push a newer revision, or `gitops-agent sync shop --force` to try it again")
    assert [line.plain for line in folded(said, 50)] == [
        "  push a newer revision, or",
        "      `gitops-agent sync shop --force` to try it",
        "      again",
    ]


@pytest.mark.parametrize("width", [12, 40, 80])
def test_no_line_is_longer_than_the_screen(width: int) -> None:
    said = Text("customer-portal: 0123456789 is held: " + "because of this " * 20)
    assert all(len(line) <= width for line in folded(said, width))


def test_every_state_has_its_place_and_colour() -> None:
    everything = status(*(target(state.value, state) for state in reversed(State)))
    shown = lines(View(status=everything).shown(80, 40, NOW))
    order = [line.split()[0] for line in shown[4 : 4 + len(State)]]
    assert order == [
        "broken", "error", "held", "retrying", "paused", "syncing", "waiting", "up-to-date",
    ]  # fmt: skip
    assert {state.value for state in State} - set(STYLES) == {"waiting"}


def test_how_many_are_in_which_state() -> None:
    found = summary([target("a"), target("b", State.HELD), target("c")])
    assert found.plain == "2 up-to-date, 1 held"


def test_nothing_from_a_repository_steers_the_terminal() -> None:
    held = target("a", held="cd" * 20, held_because="x\x1b[31m\n\x07y")
    (says, todo) = troubles(status(held), [held], NOW)
    assert "\x1b" not in says.plain
    assert "\n" not in says.plain
    assert "`gitops-agent sync a --force`" in todo.plain


@pytest.mark.parametrize("height", [10, 24, 60])
def test_the_screen_is_never_overfull(height: int) -> None:
    trouble = target(LONG, State.HELD, held="cd" * 20, held_because="because of this " * 30)
    view = View(status=status(*[trouble] * 5, *(target(f"site-{n}") for n in range(40))))
    keys = ["down", "page down", "end", "up", "page up", "home"]
    for key in random.Random(1).choices(keys, k=50):
        assert view.heed(key)
        shown = lines(view.shown(80, height, NOW))
        assert len(shown) <= height
        assert all(len(line.rstrip()) <= 80 for line in shown)
        assert "q ends" in shown[-1]
    view.heed("end")
    assert "site-39" in "\n".join(lines(view.shown(80, height, NOW)))
    assert not view.heed("quit")


def test_while_the_agent_does_not_answer_what_was_known_stays() -> None:
    view = View(status=status(target("shop")), lost="no agent answers on /run/x")
    shown = "\n".join(lines(view.shown(80, 24, NOW)))
    assert "no agent answers" in shown
    assert "shop" in shown
    assert lines(View(lost="no agent").shown(80, 24, NOW)) == ["no agent"]
