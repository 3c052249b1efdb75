"""The soak programs at a small count; at length they are run by hand (docs/operations.md)."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model import Strategy
from tests.soak import (
    burst,
    damage,
    fuzz,
    git_kills,
    kill_loop,
    loud_hook,
    machine,
    power_cut,
    power_cut_deploy,
    silent,
)


@pytest.mark.parametrize("apart", [False, True])
def test_kill_9_loses_nothing_and_starts_no_hook_twice(root: Path, apart: bool) -> None:
    figures = kill_loop.run(root, 4, apart=apart)
    assert figures.acknowledged
    assert (figures.lost, figures.started_twice, figures.tip_live) == (0, 0, True)


def test_killed_gits_leave_nothing_stuck(root: Path) -> None:
    figures = git_kills.run(root, 12)
    assert len(figures.killed) >= 12, figures
    assert figures.stuck == 0


def test_damaged_repositories_mend_themselves(root: Path) -> None:
    figures = damage.run(root, 20)
    assert figures.damaged == 20
    assert (figures.stuck, figures.lost) == (0, 0)


def test_a_burst_is_answered_and_ends_at_the_tip(root: Path) -> None:
    figures = burst.run(root, 500)
    assert figures.answers == {202: 450, 200: 50}
    assert figures.deployments <= 2
    assert 0 < figures.asked < 100
    assert figures.tip_live


def test_silent_connections_keep_nobody_out(root: Path) -> None:
    figures = silent.run(root, 500, 2)
    assert figures.answered


def test_a_loud_hook_does_not_grow_the_agent(root: Path) -> None:
    figures = loud_hook.run(root, 200)
    assert figures.grown_mb < 16
    assert figures.kept < 2_000_000


def test_power_cuts_lose_nothing_acknowledged(root: Path) -> None:
    try:
        figures = power_cut.run(root, 4)
    except power_cut.NoMount as error:
        pytest.skip(f"no power cuts here: {error}")
    assert figures.acknowledged
    assert (figures.lost, figures.damaged) == (0, 0)


@pytest.mark.parametrize("strategy", Strategy)
def test_power_cuts_in_deployments_leave_no_tree_half(root: Path, strategy: Strategy) -> None:
    try:
        figures = power_cut_deploy.run(root, 4, strategy)
    except power_cut.NoMount as error:
        pytest.skip(f"no power cuts here: {error}")
    assert figures.cuts.total() == 4
    assert figures.not_whole == 0


def test_the_journal_keeps_its_promises_through_crashes() -> None:
    counted = machine.run(1000)
    assert counted.crashes


@given(st.one_of(st.binary(), st.sampled_from(fuzz.SEEDS).map(lambda seed: b"\0\0" + seed)))
def test_whatever_is_delivered_is_no_crash_and_no_forgery(data: bytes) -> None:
    fuzz.one_input(data)
