"""What a running agent takes of a configuration that was read again."""

from dataclasses import replace
from pathlib import Path

import pytest

from agent import config, reload
from agent.config import Settings
from agent.model import Entrance

BEFORE, AFTER = Entrance("127.0.0.1:1", "a"), Entrance("127.0.0.1:1", "b")
ELSEWHERE = Entrance("127.0.0.1:2", "b")


@pytest.fixture
def started(tmp_path: Path) -> Settings:
    file = tmp_path / "agent.toml"
    file.write_text('[targets.x]\nrepo = "/x"\npath = "x"\n')
    return config.load(file, {"XDG_STATE_HOME": str(tmp_path / "state")})


def test_all_else_is_taken(started: Settings) -> None:
    new = replace(started, history=1.0, drain=2.0, poll_jitter=3.0, targets={}, url="https://x.y")
    assert reload.in_force(started, new) == new
    assert list(reload.needs_restart(started, new)) == []


def test_what_is_opened_once_stays(started: Settings, tmp_path: Path) -> None:
    new = replace(started, bind="127.0.0.1:9", metrics_bind="127.0.0.1:8", parallel=1)
    assert list(reload.needs_restart(started, new)) == [
        "[server] bind", "[metrics] bind", "parallel",
    ]  # fmt: skip
    assert reload.in_force(started, new) == started


def test_sockets_that_move_with_state_dir_are_not_told_twice(
    started: Settings, tmp_path: Path
) -> None:
    (tmp_path / "agent.toml").write_text(
        'state_dir = "elsewhere"\n[targets.x]\nrepo = "/x"\npath = "x"\n'
    )
    new = config.load(tmp_path / "agent.toml", {})
    assert list(reload.needs_restart(started, new)) == ["state_dir"]
    assert reload.in_force(started, new) == started


@pytest.mark.parametrize(
    ("before", "after", "in_force", "told"),
    [
        (BEFORE, AFTER, AFTER, []),
        (BEFORE, ELSEWHERE, AFTER, ["[control] bind"]),
        (None, AFTER, None, ["[control] bind"]),
        # Its door is shut at once; only its address is left at a restart.
        (BEFORE, None, None, ["[control] bind"]),
    ],
)
def test_the_control_api_on_tcp(
    started: Settings, before: Entrance, after: Entrance, in_force: Entrance, told: list[str]
) -> None:
    started, new = replace(started, entrance=before), replace(started, entrance=after)
    assert reload.in_force(started, new).entrance == in_force
    assert list(reload.needs_restart(started, new)) == told
